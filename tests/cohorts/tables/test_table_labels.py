"""Labels as people write them: any script, one column or many, lists, numbers, several rows of an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from medphantom.cohorts.tables.join import FileKey
from medphantom.core.errors import InputError, UnreadableImage
from tests.cohorts.files import structure, take_in, uid, write_dicom, write_png
from tests.cohorts.tables.written import contents, joined, present, read


def labelled(path: Path, cells: list[str], header: str = "label", **options: object) -> list[dict[str, bool | None]]:
    rows = "".join(f'{number}.png,"{cell}"\n' for number, cell in enumerate(cells))
    table = read(path / "t.csv", f"image,{header}\n{rows}", **options)
    return [table.content(row).labels for row in range(len(cells))]


def test_labels_of_any_script_are_labels(tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
    (tmp_path / "s" / "t.csv").write_text("image,label\n0.png,肺炎\n1.png,结节\n2.png,正常\n", encoding="utf-8")
    schema = take_in(tmp_path / "s", tmp_path / "c").cohort.schema
    assert (schema.labels, schema.exclusive) == (("正常", "结节", "肺炎"), True)


def test_normal_is_a_class_among_classes_and_no_finding_among_lists(tmp_path: Path) -> None:
    assert labelled(tmp_path, ["normal", "mass"]) == [{"mass": False, "normal": True}, {"mass": True, "normal": False}]
    for word in ("Normal", "正常", "норма", "No Finding", "no_findings"):
        assert labelled(tmp_path, [word, "a|b", "a", ""]) == [
            {"a": False, "b": False},
            {"a": True, "b": True},
            {"a": True, "b": False},
            {"a": None, "b": None},
        ]
    assert labelled(tmp_path, ["normal", "mass"], no_finding=("normal",)) == [{"mass": False}, {"mass": True}]
    for word in ("none", "benign", "negative", "healthy lung"):  # may be missing, or findings of their own
        assert labelled(tmp_path, [word, "a|b", "a"])[0].get("a") is not True
        assert labelled(tmp_path, [word, "a|b"])[0] != {"a": False, "b": False}


@pytest.mark.parametrize(
    "cells", [["1", "0", "", "-1"], ["1.0", "0.0", "", "-1.0"], ["True", "False", "NA", "-1"], ["yes", "no", "", "-1"]]
)
def test_a_column_of_zero_and_one_is_one_label(tmp_path: Path, cells: list[str]) -> None:
    for named in ({}, {"label_columns": ("label",)}):
        assert [row["label"] for row in labelled(tmp_path, cells, **named)] == [True, False, None, None]
    assert labelled(tmp_path, cells, uncertain="present")[3] == {"label": True}
    assert labelled(tmp_path, cells, uncertain="absent")[3] == {"label": False}


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        (["ja", "nein", "", "ja", "nein"], False),
        (["Ja", "NEIN", "k.A.", "ja", "nein"], True),
        (["oui", "non", "", "oui", "non"], False),
        (["да", "нет", "", "да", "нет"], False),
        (["是", "否", "", "是", "否"], True),
        (["yes", "no", "maybe", "yes", "no"], False),
        (["sí", "no", "quizás", "1", "0"], True),
        (["positive", "negative", "inconclusive", "positive", "negative"], True),
    ],
)
def test_words_for_yes_and_no_are_one_label_of_their_columns_name(
    tmp_path: Path, cells: list[str], *, named: bool
) -> None:
    header = "pneumonia" if named else "label"
    rows = labelled(tmp_path, cells, header, **({"label_columns": (header,)} if named else {}))
    assert rows == [{header: value} for value in (True, False, None, True, False)]
    table = read(tmp_path / "t.csv", (tmp_path / "t.csv").read_bytes(), label_columns=(header,))
    strange = cells[2] in {"maybe", "quizás", "inconclusive"}
    remark = f"column {header!r}: 1 cells hold neither 1, 0, -1 nor nothing and are not stated"
    assert table.remarks() == ([remark] if strange else [])


def test_several_columns_of_words_are_labels(tmp_path: Path) -> None:
    table = read(
        tmp_path / "t.csv",
        "image,pneumonia,edema\na.png,ja,nein\nb.png,nein,ja\n",
        label_columns=("pneumonia", "edema"),
    )
    assert [present(table, row) for row in range(2)] == [{"pneumonia"}, {"edema"}]


def test_classes_that_hold_a_word_for_yes_or_no_stay_classes(tmp_path: Path) -> None:
    for cells in (["no", "mild", "severe"], ["positive", "negative"], ["yes", "no", "mass", "cyst", "edema"]):
        rows = labelled(tmp_path, cells)
        assert [[name for name, value in row.items() if value] for row in rows] == [[cell] for cell in cells]
    named = labelled(tmp_path, ["0", "1", "2", "1"], label_columns=("label",))
    assert set(named[0]) == {"label 0", "label 1", "label 2"}
    text = "image,smoker,dead\na.png,ja,nein\nb.png,nein,ja\n"
    assert read(tmp_path / "t.csv", text).labels == ()  # nobody named them


def test_numbers_of_classes_carry_the_name_of_their_column(tmp_path: Path) -> None:
    rows = labelled(tmp_path, ["0", "1", "2", "2.0", ""])
    assert [[name for name, value in row.items() if value] for row in rows] == [
        ["label 0"], ["label 1"], ["label 2"], ["label 2"], [],
    ]  # fmt: skip
    assert labelled(tmp_path, ["10234", "10235", "10236"]) == [{}, {}, {}]  # identifiers
    remarks = read(tmp_path / "t.csv", (tmp_path / "t.csv").read_bytes()).remarks()
    assert remarks[0].startswith("column 'label' holds numbers that are not those of a few classes: it is not used")
    named = labelled(tmp_path, ["2", "5", "5"], header="grade", label_columns=("grade",))
    assert named[1] == {"grade 2": False, "grade 5": True}
    with pytest.raises(InputError, match="measurements"):
        labelled(tmp_path, ["2.5", "5.1", "0.25"], label_columns=("label",))


@pytest.mark.parametrize(
    ("both", "one"),
    [
        ("['A', 'B']", "['A']"),
        ('[""A"",""B""]', '[""A""]'),
        ("A, B", "A"),
        ("A;B", "A"),
        ("A | B", "A"),
        ("[A, B]", "[B]"),
    ],
)
def test_lists_are_read_as_people_write_them(tmp_path: Path, both: str, one: str) -> None:
    rows = labelled(tmp_path, [both, one, "B" if one[0] != "[" else "['B']".replace("'", '""')])
    assert set(rows[0]) == {"A", "B"}
    assert rows[0] == {"A": True, "B": True}
    assert sum(rows[1].values()) == sum(rows[2].values()) == 1


def test_a_comma_in_a_name_separates_nothing(tmp_path: Path) -> None:
    assert set(labelled(tmp_path, ["Fracture, healed", "Mass", "Normal"])[0]) == {"Fracture, healed", "Mass", "Normal"}
    assert set(labelled(tmp_path, ["Fracture, healed|Mass", "Mass"])[0]) == {"Fracture, healed", "Mass"}
    assert set(labelled(tmp_path, ["a/b", "b"], label_separator="/")[0]) == {"a", "b"}


def test_a_list_that_cannot_be_read_states_nothing_and_is_counted(tmp_path: Path) -> None:
    assert labelled(tmp_path, ["['Crohn's', 'A']", "['A']"]) == [{"A": None}, {"A": True}]
    remarks = read(tmp_path / "t.csv", (tmp_path / "t.csv").read_bytes()).remarks()
    assert remarks == ["column 'label': 1 cells hold a list that cannot be read and are not stated"]


@pytest.mark.parametrize("cell", [
    "['A', 'B'", "['A', 'B", "[A, B", "array(['A'], dtype=object)", "np.array(['A', 'B'])",
    "Index(['A'], dtype='object')", "{'A': 1}", "('A', 'B'", "'A', 'B']", "['A' 'B' ... 'Z']", "[A, B, ...]",
])  # fmt: skip
def test_a_cell_that_begins_like_a_list_and_cannot_be_read_is_no_label(tmp_path: Path, cell: str) -> None:
    rows = labelled(tmp_path, [cell.replace('"', '""'), "['A', 'B']", "['B']"])
    assert rows == [{"A": None, "B": None}, {"A": True, "B": True}, {"A": False, "B": True}]
    remarks = read(tmp_path / "t.csv", (tmp_path / "t.csv").read_bytes()).remarks()
    assert remarks == ["column 'label': 1 cells hold a list that cannot be read and are not stated"]


def test_brackets_in_a_name_begin_no_list(tmp_path: Path) -> None:
    names = {"[left] mass", "(left) mass", "mass (a 'node')", "array of nodules", "set"}
    assert set(labelled(tmp_path, sorted(names))[0]) == names


def test_a_finding_beside_no_finding_in_one_cell_states_nothing_and_is_counted(tmp_path: Path) -> None:
    cells = ["No Finding|Pneumonia", "Pneumonia", "No Finding", "No Finding|Support Devices", "No Finding|normal"]
    assert labelled(tmp_path, cells) == [
        {"Pneumonia": None, "Support Devices": None},
        {"Pneumonia": True, "Support Devices": False},
        {"Pneumonia": False, "Support Devices": False},
        {"Pneumonia": False, "Support Devices": True},  # in CheXpert devices are no finding
        {"Pneumonia": False, "Support Devices": False},
    ]
    remarks = read(tmp_path / "t.csv", (tmp_path / "t.csv").read_bytes()).remarks()
    assert remarks == ["column 'label': 1 cells name a finding beside 'no finding' and are not stated"]


def test_a_finding_beside_no_finding_in_one_row_states_nothing_and_is_counted(tmp_path: Path) -> None:
    header = "image,No Finding,Pneumonia,Edema,Support Devices\n"
    table = read(tmp_path / "t.csv", f"{header}a.png,1,1,0,0\nb.png,1,,0,1\nc.png,0,1,,\nd.png,1,-1,,\n")
    assert [table.content(row).labels for row in range(4)] == [
        {"Pneumonia": None, "Edema": None, "Support Devices": None},
        {"Pneumonia": False, "Edema": False, "Support Devices": True},
        {"Pneumonia": True, "Edema": None, "Support Devices": None},
        {"Pneumonia": None, "Edema": False, "Support Devices": False},
    ]
    assert table.remarks() == ["1 rows state a finding beside 'No Finding': none of their labels is stated"]


def test_a_name_in_labels_that_the_table_does_not_have_is_counted(tmp_path: Path) -> None:
    rows = "image,label\na.png,edema\nb.png,mass\n"
    table = read(tmp_path / "t.csv", rows, labels=("edema", "Masss", "Effusoin"))
    assert table.remarks() == ["labels names 2 labels that the table does not have"]
    assert read(tmp_path / "t.csv", rows, labels=("edema", "mass")).remarks() == []
    assert read(tmp_path / "t.csv", "image,age\na.png,5\n", labels=("edema",)).remarks() == []  # folders may have it


def test_spellings_of_a_label_are_one_label_and_signs_tell_labels_apart(tmp_path: Path) -> None:
    cells = ["Edema", "edema ", "Edema", "E\u0301panchement", "épanchement", "Épanchement"]
    assert set(labelled(tmp_path, cells)[0]) == {"Edema", "Épanchement"}
    assert set(labelled(tmp_path, ["HER2+", "HER2-"])[0]) == {"HER2+", "HER2-"}


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["Known " * 20, "x"], "longer than 80 characters"),
        (["Finding: effusion", "x"], "line breaks, control characters or ':'"),
        (["two\nlines", "x"], "line breaks, control characters or ':'"),
        (["1234567", "x", "y"], "of digits alone"),
    ],
)
def test_cells_that_are_no_names_are_no_labels(tmp_path: Path, cells: list[str], why: str) -> None:
    assert labelled(tmp_path, cells, header="diagnosis")[0] == {}
    remark = read(tmp_path / "t.csv", (tmp_path / "t.csv").read_bytes()).remarks()[0]
    assert why in remark
    assert "'diagnosis'" in remark
    assert cells[0] not in remark
    with pytest.raises(InputError, match="column 'diagnosis'") as raised:
        labelled(tmp_path, cells, header="diagnosis", label_columns=("diagnosis",))
    assert why in str(raised.value)
    assert cells[0] not in str(raised.value)


def test_columns_of_one_zero_and_nothing_are_labels_without_being_named(tmp_path: Path) -> None:
    table = read(
        tmp_path / "t.csv",
        "image,index,patient,Edema,Mass,Sex,fold,height,smoker\n"
        "a.png,0,1,1.0,,M,0,170,yes\nb.png,1,1,-1.0,0,F,1,1,no\nc.png,2,2,,1,F,1,0,no\n",
    )
    assert table.labels == ("Edema", "Mass")
    assert [table.content(row).labels for row in range(3)] == [
        {"Edema": True, "Mass": None},
        {"Edema": None, "Mass": False},
        {"Edema": None, "Mass": True},
    ]
    assert not table.exclusive
    assert "labels: 2, one column per label ('Edema', 'Mass')" in table.understood()
    assert "columns not used: 'index', 'fold', 'height', 'smoker'" in table.understood()
    alone = read(tmp_path / "t.csv", "image,contrast\na.png,1\nb.png,0\n")
    assert alone.labels == ()
    assert "labels: none, no column holds any" in alone.understood()


def test_a_cell_of_a_label_column_that_says_neither_costs_the_cell(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "image,A,B\na.png,1,0\nb.png,maybe,1\n", label_columns=("A", "B"))
    assert table.content(1).labels == {"A": None, "B": True}
    assert table.remarks() == ["column 'A': 1 cells hold neither 1, 0, -1 nor nothing and are not stated"]
    with pytest.raises(InputError, match=r"column 'A' .* in any cell"):
        read(tmp_path / "t.csv", "image,A,B\na.png,big,0\nb.png,small,1\n", label_columns=("A", "B"))


def test_rows_of_one_image_are_united(tmp_path: Path) -> None:
    table = joined(
        tmp_path / "t.csv",
        "image,patient,age,label\n"
        "a.png,1,50,mass\na.png,1,50,mass\na.png,1,,edema\nb.png,2,,No Finding\nb.png,2,,mass\n"
        "c.png,3,40,edema\nc.png,3,41,edema\nd.png,4,,x\nd.png,5,,x\n",
        ["a.png", "b.png", "c.png", "d.png"],
    )
    a, b, c = contents(table, 3)
    assert a.labels == {"edema": True, "mass": True, "x": False}
    assert (a.patient, a.attributes) == ("1", {"age": 50.0})
    assert b.labels == {"edema": False, "mass": True, "x": False}
    assert c.attributes == {"age": None}
    assert table.remarks() == ["column 'age': rows of 1 images contradict each other and are not stated"]
    with pytest.raises(UnreadableImage, match="bad_table_row: its rows name different patients"):
        table.row_of(3)
    assert table.total_unmatched() == 0
    assert not table.exclusive


def test_rows_of_one_patient_are_not_united_unless_they_are_the_same_or_boxes(tmp_path: Path) -> None:
    files = [FileKey(("1.dcm",), (uid(1),), "P1"), FileKey(("2.dcm",), (uid(2),), "P2")]
    visits = "patient,label\nP1,mass\nP1,edema\nP2,mass\nP2,mass\n"
    table = joined(tmp_path / "t.csv", visits, files)
    with pytest.raises(UnreadableImage, match="ambiguous_table_row"):
        table.row_of(0)
    assert present(table, table.row_of(1)) == {"mass"}
    boxes = "patient,x,y,width,height,label\nP1,1,2,3,4,mass\nP1,5,6,7,8,edema\nP2,1,2,3,4,mass\n"
    table = joined(tmp_path / "t.csv", boxes, files)
    assert present(table, table.row_of(0)) == {"mass", "edema"}


def test_visits_of_one_patient_are_united_where_they_agree_in_labels(tmp_path: Path) -> None:
    files = [FileKey((f"{n}.dcm",), (uid(n),), f"P{n}") for n in range(3)]
    rows = "patient_id,age,study,label\nP0,50,1,mass\nP0,51,2,mass\nP1,40,3,edema\nP2,60,4,mass\nP2,61,5,edema\n"
    table = read(tmp_path / "t.csv", rows)
    assert table.bind(files) == 1.0  # every file has rows
    assert table.total_unmatched() == 0
    two, one = contents(table, 2)
    assert (two.labels, two.attributes, two.study) == ({"edema": False, "mass": True}, {"age": None}, "")
    assert (one.attributes, one.study) == ({"age": 40.0}, "3")
    with pytest.raises(UnreadableImage, match="ambiguous_table_row: its rows contradict each other in column 'label'"):
        table.row_of(2)
    assert table.contradicted() == (
        "rows of 1 patients contradict each other in column 'label': their images are refused"
    )
    assert set(table.remarks()) == {
        "column 'age': rows of 1 images contradict each other and are not stated",
        "column 'study': rows of 1 images contradict each other and are not stated",
        table.contradicted(),
    }
    assert joined(tmp_path / "t.csv", "patient_id,label\nP0,mass\n", files).contradicted() == ""


def test_patients_who_all_contradict_themselves_are_reported_so_and_not_as_unmatched(tmp_path: Path) -> None:
    for number in range(2):
        write_dicom(
            tmp_path / "s" / f"{number}.dcm", structure(number), PatientID=f"P{number}", SOPInstanceUID=uid(number)
        )
    rows = "".join(f"P{n},A,{label}\nP{n},B,{label}\n" for n, label in enumerate("xy"))
    (tmp_path / "s" / "t.csv").write_text(f"patient_id,grade,label\n{rows}")
    result = take_in(tmp_path / "s", tmp_path / "c", attributes=("grade",))
    assert (result.accepted, result.cohort.attribute("grade")) == (2, [None, None])
    (tmp_path / "s" / "t.csv").write_text("patient_id,label\nP0,x\nP0,y\nP1,x\nP1,y\n")
    for table in ("auto", "t.csv"):
        with pytest.raises(InputError, match="could be taken: 2 ambiguous_table_row"):
            take_in(tmp_path / "s", tmp_path / "d", table=table)


def test_rows_of_a_series_are_united_for_its_volume_and_not_for_its_slices(tmp_path: Path) -> None:
    rows = f"series_instance_uid,label\n{uid('s')},mass\n{uid('s')},edema\n"
    volume = joined(tmp_path / "t.csv", rows, [FileKey(("s",), (uid("s"), uid(1)))])
    assert present(volume, volume.row_of(0)) == {"mass", "edema"}
    slices = joined(tmp_path / "t.csv", rows, [FileKey(("s/1.dcm",), (uid(1), uid("s")))])
    with pytest.raises(UnreadableImage, match="ambiguous_table_row"):
        slices.row_of(0)


def test_a_column_of_splits_is_one_only_when_half_of_its_cells_are(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "image,set\na.png,Training\nb.png,valid\nc.png,TEST\nd.png,\ne.png,holdout\n")
    assert [table.content(row).split for row in range(5)] == ["train", "val", "test", "", "holdout"]
    assert table.has_splits
    other = read(tmp_path / "t.csv", "image,set\na.png,train\nb.png,B\nc.png,A\n")
    assert not other.has_splits
    assert other.content(0).split == ""
    with pytest.raises(InputError, match=r"column 'set' .* 1 cells that name no split"):
        read(tmp_path / "t.csv", "image,set\na.png,train\nb.png,B\n", split_column="set")


def test_free_text_is_no_category(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "image,view\na.png,AP\nb.png,seen by: somebody\n")
    assert table.attributes == ()
    assert "column 'view' has 1 different values with line breaks, control characters or ':': it is not used" in (
        table.remarks()
    )
    with pytest.raises(InputError, match="column 'view'"):
        read(tmp_path / "t.csv", "image,view\na.png,AP\nb.png,seen by: somebody\n", attributes=("view",))
    codes = read(tmp_path / "t.csv", "image,sex\na.png,0\nb.png,1\nc.png,unknown\n")
    assert [codes.content(row).attributes["sex"] for row in range(3)] == ["0", "1", None]


@pytest.mark.parametrize("separators", ["; ", "|"])
def test_one_stray_separator_does_not_read_the_other_cells_anew(tmp_path: Path, separators: str) -> None:
    cells = ["Edema, Mass", "Edema", "Mass, Cyst", "Edema, Cyst", "Cyst", "No Finding"]
    clean = labelled(tmp_path, [*cells, "Edema, Mass"])
    assert labelled(tmp_path, [*cells, f"Edema{separators}Mass"]) == clean
    assert set(clean[0]) == {"Edema", "Mass", "Cyst"}


@pytest.mark.parametrize(
    ("yes", "no", "other"),
    [
        ("yes", "no", "NE"),  # not evaluable
        ("ja", "nein", "NE"),
        ("Yes", "No", "ne"),
        ("oui", "non", "NE"),
        ("ja", "nein", "no"),
        ("да", "нет", "ei"),
        ("present", "absent", "NE"),
    ],
)
def test_words_of_another_language_state_nothing(tmp_path: Path, yes: str, no: str, other: str) -> None:
    cells = [yes] * 10 + [no] * 8 + [other] * 3
    rows = "".join(f"{number}.png,{cell}\n" for number, cell in enumerate(cells))
    table = read(tmp_path / "t.csv", f"image,effusion\n{rows}", label_columns=("effusion",))
    stated = [table.content(row).labels["effusion"] for row in range(21)]
    assert stated == [True] * 10 + [False] * 8 + [None] * 3
    assert table.remarks() == ["column 'effusion': 3 cells hold neither 1, 0, -1 nor nothing and are not stated"]


def test_points_of_the_compass_are_no_yes_and_no(tmp_path: Path) -> None:
    rows = "".join(f"{number}.png,{('SI', 'NE', 'SW', 'NW', 'NE')[number % 5]}\n" for number in range(20))
    assert read(tmp_path / "t.csv", f"image,finding\n{rows}").labels == ("NE", "NW", "SI", "SW")
    pair = "".join(f"{number}.png,{('SI', 'NE')[number % 2]}\n" for number in range(20))
    assert read(tmp_path / "t.csv", f"image,finding\n{pair}").labels == ("NE", "SI")


def test_a_column_without_both_words_has_the_language_of_the_others(tmp_path: Path) -> None:
    text = "image,mass,edema,cyst,tear\na.png,ja,nein,ja,NE\nb.png,nein,,NE,ja\nc.png,ja,nein,,1\n"
    table = read(tmp_path / "t.csv", text, label_columns=("mass", "edema", "cyst", "tear"))
    assert [table.content(0).labels[name] for name in ("mass", "edema", "cyst", "tear")] == [True, False, True, None]
    assert [table.content(1).labels[name] for name in ("mass", "edema", "cyst", "tear")] == [False, None, None, True]


def test_a_column_of_yes_alone_states_what_is_there(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "image,mass,cyst\na.png,ja,1\nb.png,,0\n", label_columns=("mass", "cyst"))
    assert [table.content(row).labels["mass"] for row in range(2)] == [True, None]
    with pytest.raises(InputError, match=r"column 'mass' .* in any cell"):
        read(tmp_path / "t.csv", "image,mass,cyst\na.png,NE,1\nb.png,NE,0\n", label_columns=("mass", "cyst"))


def test_an_uncertain_finding_beside_no_finding_is_not_stated(tmp_path: Path) -> None:
    text = "image,No Finding,Edema,Mass\na.png,1,-1,\nb.png,1,,0\nc.png,,1,-1\n"
    table = read(tmp_path / "t.csv", text)
    assert [table.content(row).labels for row in range(3)] == [
        {"Edema": None, "Mass": False},
        {"Edema": False, "Mass": False},
        {"Edema": True, "Mass": None},
    ]
