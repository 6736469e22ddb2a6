"""Tables: rows find their files by path, UID or patient, never by assumption; missing is not absent."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from medphantom.cohorts.tables.join import FileKey, Join, RowIndex
from medphantom.core.errors import InputError
from tests.cohorts.files import reasons, rejections, structure, take_in, uid, write_dicom, write_png


def pictures(source: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        write_png(source / name, structure(seed))


def csv(path: Path, text: str) -> Path:
    path.write_text(text.replace(" ", ""), encoding="utf-8")
    return path


def labels_by_path(result: object) -> dict[str, dict[str, bool | None]]:
    links = pl.read_parquet(result.private_folder / "links.parquet").filter(pl.col("role") == "image")  # type: ignore[attr-defined]
    path_of = dict(links.select("image_id", "path").iter_rows())
    return {path_of[record.image_id]: record.labels for record in result.cohort.records()}  # type: ignore[attr-defined]


def test_a_cell_of_findings_states_every_label_and_an_empty_cell_states_none(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "images/a.png", "images/b.png", "images/c.png", "images/d.png")
    csv(
        tmp_path / "s" / "metadata.csv",
        "image,patient_id,findings,age,sex,view\n"
        "images/a.png,007,Edema|Effusion,61,M,AP\nimages/b.png,007,NoFinding,62,M,\n"
        "images/c.png,8,,,F,PA\nimages/d.png,9,Effusion,040Y,F,PA\n",
    )
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert labels_by_path(result) == {
        "images/a.png": {"Edema": True, "Effusion": True},
        "images/b.png": {"Edema": False, "Effusion": False},
        "images/c.png": {"Edema": None, "Effusion": None},
        "images/d.png": {"Edema": False, "Effusion": True},
    }
    assert [(spec.name, spec.kind, spec.unit) for spec in result.cohort.schema.attributes] == [
        ("age", "continuous", "years"),
        ("sex", "categorical", ""),
        ("view", "categorical", ""),
    ]
    assert sorted(result.cohort.attribute("age"), key=str) == [40.0, 61.0, 62.0, None]
    assert result.cohort.schema.patients == "known"
    assert result.cohort.manifest["patient"].n_unique() == 3
    assert result.used_files == 1
    links = pl.read_parquet(result.private_folder / "links.parquet")
    assert set(links["patient_id"].drop_nulls()) == {"007", "8", "9"}  # ids are text, never numbers


def test_label_columns_of_one_zero_and_uncertain(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "a.png", "b.png", "c.png")
    csv(
        tmp_path / "s" / "train.csv",
        "Path,NoFinding,Edema,Mass\nCheX/train/a.png,,1.0,-1.0\nCheX/train/b.png,1.0,,\nCheX/train/c.png,,0.0,1.0\n",
    )
    columns = ("NoFinding", "Edema", "Mass")
    options = {"label_columns": columns, "no_finding": ("No Finding",)}
    result = take_in(tmp_path / "s", tmp_path / "c", **options)
    assert labels_by_path(result) == {
        "a.png": {"Edema": True, "Mass": None},
        "b.png": {"Edema": False, "Mass": False},  # no finding: what is not stated is absent
        "c.png": {"Edema": False, "Mass": True},
    }
    ones = take_in(tmp_path / "s", tmp_path / "d", uncertain="present", **options)
    assert labels_by_path(ones)["a.png"] == {"Edema": True, "Mass": True}


def test_a_single_label_in_every_row_is_a_class(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "a.png", "b.png", "c.png")
    csv(tmp_path / "s" / "t.csv", "file;class\na.png;benign\nb.png;malign\nc.png;benign\n")
    schema = take_in(tmp_path / "s", tmp_path / "c").cohort.schema
    assert (schema.labels, schema.exclusive) == (("benign", "malign"), True)
    assert not take_in(tmp_path / "s", tmp_path / "d", exclusive=False).cohort.schema.exclusive


def test_separator_and_attribute_kinds_may_be_chosen(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "a.png", "b.png")
    table = csv(tmp_path / "labels.tsv", "name\tdx\tgrade\tsite\na.png\tx;y\t1\t3\nb.png\ty\t2\t4\n")
    result = take_in(
        tmp_path / "s",
        tmp_path / "c",
        table=table,
        path_column="name",
        label_columns=("dx",),
        label_separator=";",
        attributes=("grade", "site:categorical"),
    )
    assert result.cohort.schema.labels == ("x", "y")
    assert [spec.kind for spec in result.cohort.schema.attributes] == ["continuous", "categorical"]
    assert result.used_files == 0  # the table lies outside the source


def test_parquet_with_numbers_as_ids_and_lists_as_labels(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "a.png", "b.png")
    frame = pl.DataFrame({"image": ["a", "b"], "patient": [7.0, None], "labels": [["x", "y"], []], "age": [3, 4]})
    frame.write_parquet(tmp_path / "s" / "t.parquet")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert labels_by_path(result)["a.png"] == {"x": True, "y": True}
    assert result.cohort.schema.patients == "per_image"  # one row names no patient
    links = pl.read_parquet(result.private_folder / "links.parquet")
    assert set(links["patient_id"].drop_nulls()) == {"7"}


def test_text_is_taken_only_when_named(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "a.png", "b.png")
    csv(tmp_path / "s" / "t.csv", "image,report\na.png,Clear.\nb.png,\n")
    assert not take_in(tmp_path / "s", tmp_path / "c").cohort.schema.has_text
    cohort = take_in(tmp_path / "s", tmp_path / "d", text_column="report").cohort
    assert cohort.schema.has_text
    assert sorted(cohort.manifest["text"].to_list(), key=str) == ["Clear.", None]


def test_a_bad_cell_costs_the_cell_files_without_row_are_refused_and_spare_rows_counted(tmp_path: Path) -> None:
    pictures(tmp_path / "s", *[f"{n}.png" for n in range(12)])
    rows = "".join(f"{n}.png,{40 + n},1\n" for n in range(9))
    csv(tmp_path / "s" / "t.csv", f"image,age,sick\n{rows}9.png,old,0\n10.png,50,perhaps\n99.png,50,1\n")
    result = take_in(tmp_path / "s", tmp_path / "c", label_columns=("sick",))
    assert rejections(result) == {"11.png": "no_table_row"}
    assert labels_by_path(result)["10.png"] == {"sick": None}
    assert labels_by_path(result)["9.png"] == {"sick": False}
    assert result.cohort.attribute("age").count(None) == 1
    assert "1 of 12 table rows belong to no image that was found" in result.warnings


def test_dicom_is_joined_by_patient_by_instance_and_by_series(tmp_path: Path) -> None:
    for number in range(3):
        write_dicom(
            tmp_path / "s" / f"{number}.dcm",
            structure(number),
            PatientID=f"P{number}",
            SOPInstanceUID=uid("sop", number),
            SeriesInstanceUID=uid("series", number),
        )
    by_patient = csv(tmp_path / "p.csv", "patient_id,label\nP0,x\nP1,y\n")
    result = take_in(tmp_path / "s", tmp_path / "a", table=by_patient)
    assert rejections(result) == {"2.dcm": "no_table_row"}
    assert labels_by_path(result)["1.dcm"] == {"x": False, "y": True}
    for kind in ("sop", "series"):
        rows = "".join(f"{uid(kind, number)},L{number}\n" for number in range(3))
        by_uid = csv(tmp_path / f"{kind}.csv", f"{kind}_instance_uid,label\n{rows}")
        found = labels_by_path(take_in(tmp_path / "s", tmp_path / kind, table=by_uid, join="uid"))
        assert [name for name, value in found["2.dcm"].items() if value] == ["L2"]


def test_an_empty_cell_leaves_what_the_header_says(tmp_path: Path) -> None:
    for number in range(2):
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number), PatientAge="041Y", PatientSex="F")
    table = csv(tmp_path / "t.csv", "image,age,label\n0.dcm,,x\n1.dcm,50,y\n")
    cohort = take_in(tmp_path / "s", tmp_path / "c", table=table).cohort
    assert sorted(cohort.attribute("age")) == [41.0, 50.0]
    assert cohort.attribute("sex") == ["F", "F"]


def test_relative_paths_are_looked_for_in_the_source_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "s", "a.png")
    csv(tmp_path / "here.csv", "image,label\na.png,here\n")
    monkeypatch.chdir(tmp_path)
    assert take_in(Path("s"), tmp_path / "c", table="here.csv").cohort.schema.labels == ("here",)
    csv(tmp_path / "s" / "here.csv", "image,label\na.png,source\n")
    assert take_in(Path("s"), tmp_path / "d", table="here.csv").cohort.schema.labels == ("source",)


def test_masks_by_column(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "a.png", "b.png", "c.png", "d.png")
    mask = (structure(9) > 128).astype("uint8")
    write_png(tmp_path / "s" / "m1.png", mask)
    write_png(tmp_path / "s" / "spare.png", mask)
    write_png(tmp_path / "outside.png", mask)
    csv(
        tmp_path / "s" / "t.csv",
        "image,mask\na.png,m1.png\nb.png,gone.png\nc.png,../outside.png\nd.png,\nx.png,spare.png\n",
    )
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert rejections(result) == {
        "b.png": "no_mask",
        "c.png": "outside_source",
        "d.png": "no_mask",
        "spare.png": "orphan_mask",
    }
    assert result.used_files == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "gone.csv"}, "gone.csv does not exist"),
        ({"label_columns": ("nope",)}, "has no column 'nope', it has image, label"),
        ({"attributes": ("height",)}, "there is no attribute 'height'"),
        ({"table": "t.csv", "join": "uid"}, "has no column of uid to join by"),
        ({"table": "none", "label_columns": ("label",)}, "column 'label' was named, but there is no table"),
        ({"table": "other.csv"}, "no row of .* fits a file of the source"),
        ({"table": "empty.csv"}, "has no rows"),
        ({"table": "a.png"}, "cannot be read as a table|has no"),
    ],
)
def test_tables_that_cannot_be_used_stop_in_one_line(tmp_path: Path, options: dict[str, object], message: str) -> None:
    pictures(tmp_path / "s", "a.png", "b.png")
    csv(tmp_path / "s" / "t.csv", "image,label\na.png,x\nb.png,y\n")
    csv(tmp_path / "s" / "other.csv", "image,label\nq.png,x\nr.png,y\n")
    csv(tmp_path / "s" / "empty.csv", "image,label\n")
    with pytest.raises(InputError, match=message) as raised:
        take_in(tmp_path / "s", tmp_path / "c", **options)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


def test_a_column_of_sentences_is_no_label_column(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "a.png")
    rows = "".join(f"{n}.png,finding{n}\n" for n in range(600))
    csv(tmp_path / "s" / "t.csv", f"image,label\na.png,x\n{rows}")
    with pytest.raises(InputError, match=r"column 'label' .* 601 different labels, at most 512"):
        take_in(tmp_path / "s", tmp_path / "c", table="t.csv", label_columns=("label",))
    assert take_in(tmp_path / "s", tmp_path / "c", table="t.csv").cohort.schema.labels == ()


def rows_of(cells: list[str], paths: list[str]) -> list[int | str]:
    keys = [FileKey((path,)) for path in paths]
    join = Join(RowIndex("path", cells, keys), keys)
    found: list[int | str] = []
    for number in range(len(paths)):
        try:
            found.append(join.row_of(number))
        except Exception as error:
            found.append(str(error).split(":")[0])
    return found


@pytest.mark.parametrize(
    ("cells", "paths", "expected"),
    [
        (["x/a.png", "x/b.png"], ["x/a.png", "x/b.png"], [0, 1]),
        (["./x\\a.png"], ["x/a.png"], [0]),  # another system's separators
        (["root/x/a.png"], ["x/a.png"], [0]),  # the table starts above the source
        (["a.png"], ["x/y/a.png"], [0]),  # and below it
        (["old/a.png", "old/b.png"], ["new/b.png", "new/a.png"], [1, 0]),  # names alone, where they identify
        (["a", "b"], ["x/a.nii.gz", "x/b.dcm"], [0, 1]),  # stems
        (["a.png"], ["x/a.png", "y/a.png"], ["ambiguous_table_row"] * 2),  # two files of that name
        (["a.png", "a.png"], ["a.png"], ["ambiguous_table_row"]),  # two rows of that name
        (["p1/s/v.png", "p2/s/v.png"], ["p1/s/v.png", "p9/s/v.png"], [0, "no_table_row"]),  # names do not identify
        (["a.png"], ["b.png"], ["no_table_row"]),
        (["1.png"], ["11.png"], ["no_table_row"]),  # not by the end of a name
        (["old/a", "", ""], ["new/a.png"], [0]),  # rows without a path are nobody's
        (["c/e\u0301.png"], ["x/é.png"], [0]),  # two forms of one letter
        (["17.0"], ["17.dcm"], [0]),  # a number that a column of numbers made longer
        (["1.0"], ["1.0.png"], [0]),  # and a file that is called so
        (["1", "1.0"], ["x/1.png", "x/1.0.png"], [0, 1]),
        (["1.0"], ["1.png", "1.0.png"], ["ambiguous_table_row", 0]),  # as it is written; the other one may be it too
        (["1"], ["x/1.0.png"], [0]),
        (["1.0", "1"], ["1.00.png"], ["ambiguous_table_row"]),
        (["p1/2.0"], ["p1/2.0.nii.gz"], [0]),
        (["a.png"], ["a.png", "a.jpg"], [0, "no_table_row"]),  # another file of the same stem
        (["a.png"], ["x/a.png", "a.jpg"], [0, "no_table_row"]),
        (["a.png", "a.jpg"], ["a.png", "a.jpg"], [0, 1]),
        (["a"], ["a.png", "a.tif"], ["ambiguous_table_row"] * 2),  # both have it without suffix only
        (["a.dcm"], ["a.png", "a.tif"], ["ambiguous_table_row"] * 2),
        (["a"], ["a", "a.tif"], [0, "no_table_row"]),
        (["a.dcm", "b.dcm"], ["x/a.png", "x/b.png"], [0, 1]),  # files that were converted
        (["1.0"], ["1.png", "1.jpg"], ["ambiguous_table_row"] * 2),  # by number
        (["root/x/a.png"], ["x/a.png", "a.png"], [0, "ambiguous_table_row"]),  # the longer end is surer
        (["x  1.png"], ["x 1.png", "x  1.png"], ["ambiguous_table_row"] * 2),  # two files that are read as one
    ],
)
def test_which_row_belongs_to_which_path(cells: list[str], paths: list[str], expected: list[int | str]) -> None:
    assert rows_of(cells, paths) == expected


def test_a_table_of_other_images_is_not_used_without_a_request(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "a.png", "b.png", "c.png")
    csv(tmp_path / "s" / "t.csv", "image,label\na.png,x\nq.png,y\n")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.accepted == 3
    assert result.cohort.schema.labels == ()
    assert any("fits too few images and was not used" in warning for warning in result.warnings)
    assert reasons(take_in(tmp_path / "s", tmp_path / "d", table="t.csv")) == {"no_table_row": 2}


def test_a_header_does_not_speak_where_the_table_hid_something(tmp_path: Path) -> None:
    lines = ["image,patient_id,age"]
    for number in range(8):
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID=f"p{number}", PatientAge="095Y")
        lines.append(f"{number}.dcm,p{number},{'>89' if number < 4 else '' if number < 6 else 60}")
    csv(tmp_path / "s" / "t.csv", "\n".join(lines) + "\n")
    ages = take_in(tmp_path / "s", tmp_path / "c").cohort.attribute("age")
    assert sorted(ages, key=str) == [60.0, 60.0, 95.0, 95.0, None, None, None, None]


def test_a_picture_beside_a_file_that_has_a_row_gets_neither_its_patient_nor_its_label(tmp_path: Path) -> None:
    pictures(tmp_path / "s", *[f"{n}.{suffix}" for n in range(6) for suffix in ("png", "tif")])
    rows = "".join(f"{n}.png,p{n},{'xy'[n % 2]}\n" for n in range(6))
    csv(tmp_path / "s" / "t.csv", f"file,patient_id,label\n{rows}0.tif,q,x\n")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert rejections(result) == {f"{n}.tif": "no_table_row" for n in range(1, 6)}
    assert result.cohort.manifest["patient"].n_unique() == 7
    assert "joined by column 'file': 7 of 12 images (7 by whole path)" in result.understood


def test_a_join_without_suffixes_is_called_so(tmp_path: Path) -> None:
    pictures(tmp_path / "s", "a.png", "b.png")
    csv(tmp_path / "s" / "t.csv", "file,label\na.dcm,x\nb.dcm,y\n")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert "joined by column 'file': 2 of 2 images (2 by whole path without suffix)" in result.understood
