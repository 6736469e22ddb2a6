"""Lists of labels: what parts them, and one odd cell that must not change what all others say."""

from __future__ import annotations

from pathlib import Path

import pytest

from medphantom.cohorts.tables.separators import list_separators
from medphantom.cohorts.tables.table import Table
from medphantom.core.errors import InputError
from tests.cohorts.tables.written import present, read

COMMAS = ["Edema, Mass", "Edema", "Mass, Cyst", "Edema, Cyst", "Cyst", "No Finding"]


def findings(path: Path, cells: list[str], **options: object) -> Table:
    rows = "".join(f'{number}.png,"{cell}"\n' for number, cell in enumerate(cells))
    return read(path / "t.csv", f"image,findings\n{rows}", **options)


def test_separators_of_lists_are_looked_for() -> None:
    for cells, signs in (
        (["A|B", "C, D"], ("|",)),
        (["A;B", "A"], (";",)),
        (["A, B", "A", "B"], (",",)),
        (["fracture, healed", "normal"], ()),
        (["fracture, healed|mass", "fracture, old|mass", "fracture"], ("|",)),
    ):
        assert list_separators(dict.fromkeys(cells, 1))[:2] == (signs, ())


@pytest.mark.parametrize("odd", ["Edema; Mass", "Edema|Mass", "Mass ;Edema;"])
def test_one_odd_cell_changes_no_other(tmp_path: Path, odd: str) -> None:
    cells = [COMMAS[number % 6] for number in range(41)]
    clean, stray = findings(tmp_path, [*cells, "Edema, Mass"]), findings(tmp_path, [*cells, odd])
    assert stray.labels == clean.labels == ("Cyst", "Edema", "Mass")
    assert [stray.content(row).labels for row in range(42)] == [clean.content(row).labels for row in range(42)]
    assert clean.remarks() == []
    sign = "|" if "|" in odd else ";"
    commas = sum("," in cell for cell in cells)
    remark = f"column 'findings': lists are split at {sign!r} and ',', the latter in {commas} cells"
    assert remark in stray.remarks()


@pytest.mark.parametrize("other", ["Edema; Mass", "Edema, Mass"])
def test_mixed_separators_of_known_labels_are_all_honoured(tmp_path: Path, other: str) -> None:
    table = findings(tmp_path, ["Edema|Mass", other, "Edema", "Mass", "No Finding"])
    assert [present(table, row) for row in range(5)] == [
        {"Edema", "Mass"},
        {"Edema", "Mass"},
        {"Edema"},
        {"Mass"},
        set(),
    ]


@pytest.mark.parametrize(
    "cells",
    [
        ["Edema, Mass", "Edema,Cyst", "Mass, left; Cyst", "Edema"],
        ["Edema, Mass", "Mass, Cyst", "Edema, Cyst", "Mass; Cyst"],  # edema never stands alone
        ["Edema|Mass", "Nodule; Effusion", "Edema"],  # no name holds a semicolon
        ["Edema|Mass", "Edema, Mass", "Edema", "Mass", "fracture, healed"],
        ["Edema, Mass", "Edema", "Mass", "fracture, healed", "cyst, old", "nodule, left"],  # one of them is a list
    ],
)
def test_ambiguous_separators_stop_the_run(tmp_path: Path, cells: list[str]) -> None:
    with pytest.raises(InputError, match=r"column 'findings' of .* lists or single names: .*label_separator"):
        findings(tmp_path, cells)
    named = findings(tmp_path, cells, label_separator="|")
    assert {name for row in range(len(cells)) for name in present(named, row)} == {
        part for cell in cells for part in cell.split("|")
    }


def test_lists_in_brackets_tell_what_is_a_label(tmp_path: Path) -> None:
    table = findings(tmp_path, ["['Edema', 'Mass']", "Edema, Mass", "['Cyst']", "[]"])
    assert [present(table, row) for row in range(3)] == [{"Edema", "Mass"}, {"Edema", "Mass"}, {"Cyst"}]


def test_a_separator_that_was_named_is_obeyed_and_what_it_leaves_is_remarked(tmp_path: Path) -> None:
    table = findings(tmp_path, [*COMMAS, "Edema; Mass", "fracture; healed"], label_separator=",")
    assert present(table, 6) == {"Edema; Mass"}
    remark = "1 cells hold known labels by another separator than label_separator, and are taken as names"
    assert f"column 'findings': {remark}" in table.remarks()
    assert not any("another separator" in line for line in findings(tmp_path, COMMAS, label_separator=",").remarks())


def test_sentences_are_no_labels_whatever_parts_them(tmp_path: Path) -> None:
    cells = [
        f"lungs clear, bones intact, the heart and the large vessels are of normal size and shape in film no {n}; old"
        for n in range(9)
    ]
    table = findings(tmp_path, [*cells, "lungs clear", "bones intact, lungs clear; old"])  # commas are in doubt
    assert table.labels == ()
    assert "longer than 80 characters" in table.remarks()[0]


@pytest.mark.parametrize("sign", ["、", "；", "，", "､", "｜"])
def test_separators_of_other_scripts_part_lists(tmp_path: Path, sign: str) -> None:
    table = findings(tmp_path, [f"肺炎{sign}胸水", f"胸水 {sign} 結節", "肺炎", "胸水", "結節"])
    assert [present(table, row) for row in range(3)] == [{"肺炎", "胸水"}, {"胸水", "結節"}, {"肺炎"}]
    assert table.remarks() == []


def test_separators_of_two_scripts_are_one_sign(tmp_path: Path) -> None:
    table = findings(tmp_path, ["肺炎、胸水", "肺炎, 胸水", "肺炎，結節", "結節", "胸水"])
    assert [len(present(table, row)) for row in range(5)] == [2, 2, 2, 1, 1]
    assert table.remarks() == []


def test_commas_of_other_scripts_are_doubted_like_commas(tmp_path: Path) -> None:
    named = findings(tmp_path, ["骨折、治癒", "腫瘤、右", "胸水"])
    assert named.labels == ("胸水", "腫瘤、右", "骨折、治癒")
    with pytest.raises(InputError, match=r"lists or single names: 3 with '；' and 2 with '、'.*label_separator"):
        findings(tmp_path, ["肺炎；胸水", "肺炎；胸水、結節", "骨折、治癒；胸水", "結節", "胸水"])
    left = findings(tmp_path, ["骨折、治癒", "肺炎;結節", "胸水"], label_separator=";")
    assert not any("another separator" in line for line in left.remarks())
    left = findings(tmp_path, ["肺炎、胸水", "肺炎;胸水", "胸水"], label_separator=";")
    assert any(line.endswith("are taken as names") for line in left.remarks())
