"""Whom a table names: columns that identify people are published nowhere, and words for *unknown* are nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from medphantom.core.errors import InputError
from medphantom.core.naming import MISSING_CELLS, UNNAMED, is_nobody, plain_id, plain_name
from tests.cohorts.files import structure, take_in, write_dicom, write_png
from tests.cohorts.tables.written import contents, joined, read

PEOPLE = "image,patient_id,study,uid,mask,label\na.png,7,70,1.2.3,m.png,x\nb.png,8,80,1.2.4,n.png,y\n"


@pytest.mark.parametrize("column", ["image", "patient_id", "study", "uid", "mask"])
@pytest.mark.parametrize("kind", ["", ":categorical", ":continuous"])
def test_a_column_that_says_whose_a_row_is_is_no_attribute(tmp_path: Path, column: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"column '{column}' of .* which is never published") as raised:
        read(tmp_path / "t.csv", PEOPLE, attributes=(column + kind,))
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=f"column '{column}' of .* which is never published"):
        read(tmp_path / "t.csv", PEOPLE, label_columns=(column,))
    assert read(tmp_path / "t.csv", PEOPLE).labels == ("x", "y")


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("mrn", [str(84_000 + 7 * n) for n in range(24)]),
        ("accession", [f"ACC{n:07}" for n in range(24)]),
        ("phone", [f"+49 30 {1200 + n}" for n in range(24)]),
        ("zip", [f"{10115 + 11 * min(n, 22):05}" for n in range(24)]),  # two live in one place
    ],
)
@pytest.mark.parametrize("kind", [":categorical", ""])
def test_a_number_of_its_own_in_every_row_may_identify(
    tmp_path: Path, column: str, cells: list[str], kind: str
) -> None:
    rows = "".join(f"{n}.png,{cell}\n" for n, cell in enumerate(cells))
    remarks = read(tmp_path / "t.csv", f"image,{column}\n{rows}", attributes=(column + kind,)).remarks()
    assert any(f"column '{column}'" in line and "may identify patients" in line for line in remarks)
    assert not any(cell in line for line in remarks for cell in cells)


def test_measurements_and_codes_that_many_share_identify_nobody(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,{20 + n / 7:.2f},{n % 4},{30 + n}\n" for n in range(40))
    attributes = ("bmi", "grade:categorical", "age")
    assert read(tmp_path / "t.csv", f"image,bmi,grade,age\n{rows}", attributes=attributes).remarks() == []


@pytest.mark.parametrize(
    "word",
    [
        "unknown",
        "Unbekannt",
        "k.A.",
        "N.A.",
        "n/a",
        "-",
        "?",
        "#WERT!",
        "#REF!",
        "#VALUE!",
        "#NAME?",
        " ANONYMOUS ",
        "未知",
    ],
)
def test_words_for_unknown_name_nobody(tmp_path: Path, word: str) -> None:
    assert is_nobody(word)
    table = read(tmp_path / "t.csv", f'image,patient_id,study\na.png,"{word}","{word}"\nb.png,7,70\n')
    assert [(table.content(row).patient, table.content(row).study) for row in range(2)] == [("", ""), ("7", "70")]


def test_words_for_unknown_are_counted(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "image,patient_id\na.png,unknown\nb.png,Unbekannt\nc.png,7\n")
    assert table.remarks() == ["column 'patient_id': 2 cells say unknown or the like and name nobody"]
    assert all(word == word.casefold() for word in MISSING_CELLS | UNNAMED)
    assert not any(map(is_nobody, ("0", "007", "Nobody", "A-1")))


def test_ids_and_names_are_one_in_width_and_composition_and_nothing_else() -> None:
    assert plain_id("Ａ１") == "A1" == plain_id("A\u200b1")
    assert plain_id("ｶﾞ") == plain_id("ガ")
    assert plain_name("Ｅdema") == plain_name("edema")
    assert plain_name("Cafe\u0301") == plain_name("café")
    pairs = [("A²", "A2"), ("10² Zellen", "102 Zellen"), ("½", "1⁄2"), ("①", "1"), ("x₁", "x1"), ("Ⅳ", "IV")]
    for one, other in pairs:
        assert plain_id(one) != plain_id(other)
        assert plain_name(one) != plain_name(other)


def test_labels_that_only_compatibility_forms_make_equal_stay_two(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", "image,label\na.png,10² Zellen\nb.png,102 Zellen\n").labels == (
        "102 Zellen",
        "10² Zellen",
    )
    assert read(tmp_path / "t.csv", "image,label\na.png,Mass\nb.png,Ｍａｓｓ\nc.png,Mass\n").labels == ("Mass",)


@pytest.mark.parametrize("empty", ["", "unknown", "n/a"])
def test_an_empty_column_hides_no_filled_one_of_its_role(tmp_path: Path, empty: str) -> None:
    rows = "".join(f"{number}.png,,{empty},S{number // 2},,{40 + number}\n" for number in range(4))
    header = "image,label,patient_id,subject_id,age,patient_age"
    table = joined(tmp_path / "t.csv", f"{header}\n{rows}", [f"{number}.png" for number in range(4)])
    assert [content.patient for content in contents(table, 4)] == ["S0", "S0", "S1", "S1"]
    assert [content.attributes["age"] for content in contents(table, 4)] == [40, 41, 42, 43]
    assert "patient: column 'subject_id'" in table.understood()


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("patient", ("yes", "no")),
        ("patient", ("ja", "nein")),
        ("patient", ("0", "1")),
        ("patient_id", ("0.0", "1.0")),
        ("Patient", ("true", "false")),
        ("subject", ("patient", "control")),
        ("participant", ("Case", "Healthy volunteer")),
        ("subject", ("brain",)),
        ("study", ("TRIAL",)),
        ("study", ("case", "control")),
    ],
)
def test_a_flag_a_role_or_one_word_for_all_names_nobody(tmp_path: Path, column: str, cells: tuple[str, ...]) -> None:
    for number in range(8):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
    rows = "".join(f"{number}.png,{cells[number % len(cells)]},{'ab'[number % 2]}\n" for number in range(8))
    (tmp_path / "s" / "t.csv").write_text(f"file,{column},label\n{rows}")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.cohort.manifest["patient"].n_unique() == 8
    option = "study_column" if column == "study" else "patient_column"
    (reported,) = [line for line in result.understood if option in line]
    assert reported.startswith(f"column '{column}': its cells say ")
    believed = take_in(tmp_path / "s", tmp_path / "d", **{option: column})
    assert believed.cohort.manifest["patient"].n_unique() == len(cells)


def test_a_role_hides_neither_the_column_of_ids_nor_the_header(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,{'yes' if n % 2 else 'no'},S{n // 2}\n" for n in range(6))
    table = read(tmp_path / "t.csv", f"image,patient,subject\n{rows}")
    assert [table.content(row).patient for row in range(6)] == ["S0", "S0", "S1", "S1", "S2", "S2"]
    for number in range(6):
        write_dicom(
            tmp_path / "s" / f"{number}.dcm", structure(number, (32, 32), "uint16"), PatientID=f"H{number // 2}"
        )
    lines = "".join(f"{n}.dcm,brain,{40 + n}\n" for n in range(6))
    (tmp_path / "s" / "t.csv").write_text(f"image,subject,age\n{lines}")
    assert take_in(tmp_path / "s", tmp_path / "c").cohort.manifest["patient"].n_unique() == 3


@pytest.mark.parametrize("ids", [("P1",), ("7",), ("0", "1", "2"), ("yes-1", "no-1"), ("DA", "NE", "XK")])
def test_ids_that_look_a_little_like_flags_are_ids(tmp_path: Path, ids: tuple[str, ...]) -> None:
    rows = "".join(f"{n}.png,{ids[n % len(ids)]}\n" for n in range(9))
    table = read(tmp_path / "t.csv", f"image,patient\n{rows}")
    assert {table.content(row).patient for row in range(9)} == set(ids)
    assert table.remarks() == []


def test_two_people_who_are_called_0_and_1_are_two(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "image,patient\na.png,0\nb.png,1\nc.png,1\n")
    assert [table.content(row).patient for row in range(3)] == ["0", "1", "1"]
