"""What cells say: numbers, ages, identifiers, lists; a bad cell costs the cell and is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.tables.ages import settled_age
from medphantom.cohorts.tables.cells import comma_is_decimal, listed, number_of
from medphantom.cohorts.tables.join import FileKey
from medphantom.core.errors import InputError
from tests.cohorts.files import structure, take_in, uid, write_dicom
from tests.cohorts.tables.written import contents, joined, read


def ages(path: Path, cells: list[str], **options: object) -> list[object]:
    rows = "".join(f'{number}.png,"{cell}"\n' for number, cell in enumerate(cells))
    table = read(path / "t.csv", f"image,age\n{rows}", **options)
    assert table.attributes[0].kind == "continuous"
    return [table.content(row).attributes["age"] for row in range(len(cells))]


def test_one_bad_age_costs_the_cell_and_is_counted_by_kind(tmp_path: Path) -> None:
    cells = ["61", "411", "abc", "-3", "90+", "041Y", "6M", "", "120", ">89", "1,234"]
    assert ages(tmp_path, cells) == [61.0, None, None, None, None, 41.0, 0.5, None, 120.0, None, None]
    remarks = read(tmp_path / "t.csv", (tmp_path / "t.csv").read_bytes()).remarks()
    assert "column 'age': 2 cells lie outside 0 to 120 years and are not stated" in remarks
    assert "column 'age': 1 cells hold no number and are not stated" in remarks
    assert "column 'age': 1 cells hold a number that may have a thousands separator and are not stated" in remarks
    assert any("2 cells hold an open age such as 90+, which max_age decides about" in remark for remark in remarks)
    assert not any("411" in remark or "abc" in remark for remark in remarks)


def test_max_age_makes_all_above_equal_and_infants_whole_years_old(tmp_path: Path) -> None:
    cells = ["89", "90", "97", "90+", ">89", "≥ 90", "89+", "6M", "1.9", "2.5", "119"]
    expected = [89.0, 90.0, 90.0, 90.0, 90.0, 90.0, None, 0.0, 1.0, 2.5, 90.0]
    assert ages(tmp_path, cells, max_age=89) == expected


@given(st.floats(), st.integers(2, 119))
def test_settled_ages_never_tell_the_oldest_apart(value: float, cap: int) -> None:
    settled = settled_age(value, IngestOptions(max_age=cap))
    assert settled is None or 0 <= settled <= cap + 1
    assert settled_age(settled, IngestOptions(max_age=cap)) == settled
    if settled is not None and value >= cap + 1:
        assert settled == cap + 1


def test_an_image_with_a_spoilt_age_is_taken(tmp_path: Path) -> None:
    for number in range(3):
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number), PatientID=f"P{number}")
    (tmp_path / "s" / "t.csv").write_text("image,age,label\n0.dcm,61,x\n1.dcm,90+,y\n2.dcm,411,x\n")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.accepted == 3
    assert sorted(result.cohort.attribute("age"), key=str) == [61.0, None, None]


def test_a_decimal_comma_is_a_number_and_a_thousands_separator_is_not(tmp_path: Path) -> None:
    rows = "a.png;45,5;1,25\nb.png;50;1,375\nc.png;7,25;0,5\n"
    table = read(tmp_path / "t.csv", f"image;age;dose\n{rows}", attributes=("age", "dose"))
    assert [table.content(row).attributes["age"] for row in range(3)] == [45.5, 50.0, 7.25]
    assert [table.content(row).attributes["dose"] for row in range(3)] == [1.25, 1.375, 0.5]  # the column shows it
    quoted = read(tmp_path / "t.csv", 'image,age\na.png,"45,5"\nb.png,50\n')
    assert quoted.content(0).attributes == {"age": 45.5}
    grouped = read(tmp_path / "t.csv", 'image,n\na.png,"1,234"\nb.png,50\n', attributes=("n:continuous",))
    assert grouped.content(0).attributes == {"n": None}
    assert any("thousands separator" in remark for remark in grouped.remarks())


@pytest.mark.parametrize("text", ["1 234", "1'234", "1.234.567", "1,234.5", "1_000", "inf", "nan", "", "0x10", "1e999"])
def test_what_python_would_take_for_a_number_and_people_would_not(text: str) -> None:
    with pytest.raises(ValueError, match="hold"):
        number_of(text)


@given(st.floats(-1e6, 1e6).map(lambda value: round(value, 2)))
def test_a_comma_and_a_point_are_the_same_number(value: float) -> None:
    written = f"{value:.2f}".replace(".", ",")
    assert number_of(written, comma_is_decimal([written])) == float(f"{value:.2f}")


def test_ids_are_compared_without_what_tools_change_about_them(tmp_path: Path) -> None:
    keys = [FileKey((f"{n}.dcm",), (uid(n),), patient) for n, patient in enumerate(["1", "A 12", "Zoë", "007"])]
    cells = ["1.0", " A  12\u200b", "Zoe\u0308", "7"]
    rows = "".join(f"{cell},{n},L{n}\n" for n, cell in enumerate(cells))
    table = joined(tmp_path / "t.csv", f"patient_id,study,label\n{rows}", keys, join="patient")
    assert [content.patient for content in contents(table, 3)] == ["1", "A 12", "Zoë"]
    with pytest.raises(Exception, match="no_table_row"):
        table.row_of(3)  # leading zeros tell people apart
    by_path = joined(tmp_path / "t.csv", "image,study,patient\n17.0,3.0,5.0\n", ["17.png"])
    assert (by_path.content(by_path.row_of(0)).study, by_path.content(0).patient) == ("3", "5")


def test_an_id_that_a_spreadsheet_has_rounded_makes_nobody_the_same_patient(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "image,patient\na.png,1.23457E+11\nb.png,1E+11\nc.png,8\nd.png,2E5\n")
    assert [table.content(row).patient for row in range(4)] == ["", "", "8", "2E5"]
    assert any("column 'patient': 2 identifiers are rounded numbers" in remark for remark in table.remarks())


@pytest.mark.parametrize(
    ("cell", "entries"),
    [
        ("['a', 'b']", ["a", "b"]),
        ('["a","b"]', ["a", "b"]),
        ("['a' 'b']", ["a", "b"]),  # NumPy; Python would read one string 'ab'
        ("('a',)", ["a"]),
        ("[a, b c]", ["a", "b c"]),
        ("['a', nan, None, '']", ["a"]),
        ('["\\u80ba\\u708e"]', ["肺炎"]),
        ("[]", []),
        ("a, b", None),
        ("[__import__('os')]", None),
        ("['Crohn's']", None),
        ("mass (left)", None),
    ],
)
def test_lists_as_json_python_and_numpy_write_them(cell: str, entries: list[str] | None) -> None:
    assert listed(cell) == entries


@given(st.lists(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1)))
def test_the_list_that_python_writes_is_the_list_that_is_read(names: list[str]) -> None:
    from medphantom.cohorts.tables.cells import observed_text

    assert listed(repr(names)) == [name for name in map(observed_text, names) if name]


def test_a_column_that_is_named_and_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'nope'"):
        read(tmp_path / "t.csv", "image,label\na.png,x\n", label_columns=("nope",))
