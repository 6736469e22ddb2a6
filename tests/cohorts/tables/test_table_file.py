"""A table's bytes are read right or refused truly: encodings, separators, quotes, headers, rows."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.tables.file import read_table
from medphantom.cohorts.tables.join import FileKey
from medphantom.cohorts.tables.table import Table
from medphantom.core.errors import InputError
from tests.cohorts.files import structure, take_in, write_png
from tests.cohorts.tables.written import present, read

SCRIPTS = "image,label\na.png,肺炎\nb.png,结节\nc.png,Затемнение\nd.png,Πνευμονία\ne.png,Épanchement\n"
LABELS = {"肺炎", "结节", "Затемнение", "Πνευμονία", "Épanchement"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_form_of_unicode_that_a_spreadsheet_writes_is_read(tmp_path: Path, encoding: str) -> None:
    table = read(tmp_path / "t.csv", SCRIPTS.encode(encoding))
    assert set(table.labels) == LABELS
    assert table.content(0).labels["肺炎"] is True


def test_both_orders_of_bytes_of_utf16_are_read(tmp_path: Path) -> None:
    for mark, codec in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        assert set(read(tmp_path / "t.csv", mark + SCRIPTS.encode(codec)).labels) == LABELS


@pytest.mark.parametrize(
    ("encoding", "label"),
    [
        ("cp1252", "Lungenentzündung – links"),
        ("latin-1", "Épanchement"),
        ("cp1251", "Пневмония"),
        ("cp1253", "Πνευμονία"),
        ("gb18030", "肺炎"),
        ("cp932", "肺炎ソ"),
        ("euc-kr", "폐렴"),
    ],
)
def test_other_encodings_are_refused_in_a_line_that_names_the_option_and_read_when_named(
    tmp_path: Path, encoding: str, label: str
) -> None:
    text = f"image,label\na.png,{label}\nb.png,x\n".encode(encoding)
    with pytest.raises(InputError, match=r"is not written in UTF-8; .*table_encoding") as raised:
        read(tmp_path / "t.csv", text)
    assert "\n" not in str(raised.value)
    assert present(read(tmp_path / "t.csv", text, table_encoding=encoding), 0) == {label}


def test_escape_codes_of_seven_bits_and_a_wrong_encoding_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"control characters; .*table_encoding"):
        read(tmp_path / "t.csv", "image,label\na.png,肺炎\n".encode("iso-2022-jp"))
    with pytest.raises(InputError, match=r"lacks its byte order mark; .*table_encoding"):
        read(tmp_path / "t.csv", "image,label\na.png,x\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"is not written in CP932"):
        read(tmp_path / "t.csv", "image,label\na.png,é\n".encode("latin-1"), table_encoding="cp932")
    with pytest.raises(ValidationError, match="text encoding of Python"):
        IngestOptions(table_encoding="morse")


def test_an_unreadable_table_of_the_source_stops_with_its_own_reason(tmp_path: Path) -> None:
    write_png(tmp_path / "s" / "a.png", structure(0))
    (tmp_path / "s" / "t.csv").write_bytes("image,label\na.png,Épanchement\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"t\.csv is not written in UTF-8; .*table: none"):
        take_in(tmp_path / "s", tmp_path / "c")
    assert take_in(tmp_path / "s", tmp_path / "c", table="none").accepted == 1


def test_a_table_that_cannot_be_joined_says_so(tmp_path: Path) -> None:
    write_png(tmp_path / "s" / "a.png", structure(0))
    (tmp_path / "s" / "t.csv").write_text("height,weight\n1,2\n")
    warnings = take_in(tmp_path / "s", tmp_path / "c").warnings
    assert any("was not used" in line and "no column of path, uid or patient" in line for line in warnings)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_recognised_outside_quotes(tmp_path: Path, separator: str) -> None:
    rows = [["image", "label", "note"], ["a.png", '"x, y; z"', '"1;2,3|4\t5"'], ["b.png", "w", '"one\ntwo ""three"""']]
    table = read(tmp_path / "t.csv", "\r\n".join(separator.join(row) for row in rows), text_column="note")
    assert table.content(1).text == 'one\ntwo "three"'
    assert len(table) == 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(tmp_path: Path, end: str) -> None:
    table = read(tmp_path / "t.csv", end.join(["image,label", "a.png,x", 'b.png,"y', 'z"']), label_columns=())
    assert len(table) == 2
    assert table.content(0).labels == {}  # a name with a line break makes the column no labels


def test_excel_names_its_separator_in_a_first_line(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", "\ufeffsep=;\r\nimage;label\r\na.png;x\r\n").labels == ("x",)


def test_a_separator_that_only_the_header_holds_is_none(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "image;age (years, approx);label\na.png;45,5;x\nb.png;50;y\n")
    assert table.labels == ("x", "y")


def test_spreadsheets_are_refused_with_what_to_do(tmp_path: Path) -> None:
    for content in (b"PK\x03\x04rest", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest"):
        with pytest.raises(InputError, match="save the sheet as CSV UTF-8"):
            read(tmp_path / "t.xlsx", content)
        with pytest.raises(InputError, match="save the sheet as CSV UTF-8"):
            read(tmp_path / "renamed.csv", content)


def test_padded_and_empty_names_and_repeated_columns(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", ' image , "Label ",,label2,label2\na.png,x,,1,1\nb.png,y,,2,2\n')
    assert table.labels == ("x", "y")
    assert any("'label2'" in line for line in table.understood())
    with pytest.raises(InputError, match="several columns 'label' with different cells"):
        read(tmp_path / "t.csv", "image,label,label\na.png,x,y\n")
    with pytest.raises(InputError, match="the columns 'Age' and 'age', which are one name"):
        read(tmp_path / "t.csv", "image,Age,age\na.png,1,2\n")
    assert read(tmp_path / "t.csv", "image,Age,age\na.png,1,1\n").content(0).attributes == {"age": 1.0}
    assert read(tmp_path / "t.csv", "image,note,note,label\na.png,1,2,x\n").labels == ("x",)  # notes are not requested


@pytest.mark.parametrize("content", ["a.png,1,0\nb.png,0,1\n", "1,x\n2,y\n", "p1/scan.nii.gz;45\n"])
def test_a_row_of_data_is_no_header(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="no line of column names"):
        read(tmp_path / "t.csv", content)


def test_rows_that_are_too_long_are_refused_and_short_ones_end_in_empty_cells(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 rows with more cells than its header"):
        read(tmp_path / "t.csv", "image,label,age\na.png,x,1\nb.png,left, upper lobe,2\n")
    table = read(tmp_path / "t.csv", "image,label,age\na.png,x\nb.png,y,50,,\n,,\n\n")
    assert [table.content(row).attributes for row in range(len(table))] == [{"age": None}, {"age": 50.0}]
    assert "1 rows end before the header does: their last cells are empty" in table.remarks()


def test_quotes_that_do_not_close_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quotes that do not close"):
        read(tmp_path / "t.csv", 'image,label\na.png,"x\nb.png,y\n')


def test_parquet_is_recognised_by_content_and_its_floats_are_the_ids_they_were(tmp_path: Path) -> None:
    frame = pl.DataFrame({"image": ["a", "b", "c"], "patient": [7.0, None, 8.0], "label": [["x"], [], None]})
    frame.write_parquet(tmp_path / "t.csv")
    table = Table.read(tmp_path / "t.csv", IngestOptions())
    assert [table.content(row).patient for row in range(3)] == ["7", "", "8"]
    assert [table.content(row).labels for row in range(3)] == [{"x": True}, {"x": None}, {"x": None}]


STRANGE = {
    "duration": pl.Series([timedelta(seconds=3), timedelta(seconds=5)]),
    "struct": pl.Series([{"bytes": 1, "path": "a"}, {"bytes": 2, "path": "b"}]),
    "list": pl.Series([[1, 2], [3]]),
    "binary": pl.Series([b"a", b"b"]),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_parquet_column_of_a_type_that_has_no_text_costs_itself_alone(tmp_path: Path, kind: str) -> None:
    columns = {"image": ["a", "b"], "label": ["x", "y"]}
    pl.DataFrame({**columns, "extra": STRANGE[kind]}).write_parquet(tmp_path / "t.parquet")
    table = Table.read(tmp_path / "t.parquet", IngestOptions())
    assert (table.labels, present(table, 1)) == (("x", "y"), {"y"})
    [remark] = table.remarks()
    assert remark.startswith("column 'extra': cells of the type ")
    for options in ({"attributes": ("extra",)}, {"label_columns": ("extra",)}, {"patient_column": "extra"}):
        with pytest.raises(InputError, match=r"column 'extra' of .* has the type .*, which cannot be read") as raised:
            Table.read(tmp_path / "t.parquet", IngestOptions(**options))
        assert str(STRANGE[kind].dtype) in str(raised.value)
    pl.DataFrame({**columns, "patient": STRANGE[kind]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="column 'patient'"):  # else nobody would be known
        Table.read(tmp_path / "t.parquet", IngestOptions())


def test_a_parquet_type_that_the_reader_does_not_know_costs_its_column_alone(tmp_path: Path) -> None:
    amounts = pa.array([1, 2], pa.decimal256(50, 2))
    pq.write_table(pa.table({"amount": amounts, "image": ["a", "b"], "label": ["x", "y"]}), tmp_path / "t.parquet")
    assert Table.read(tmp_path / "t.parquet", IngestOptions()).labels == ("x", "y")


def test_a_corrupt_parquet_file_is_refused_as_such(tmp_path: Path) -> None:
    pl.DataFrame({"image": ["a"] * 999, "label": ["x"] * 999}).write_parquet(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    for content in (whole[:-20], whole[:4] + b"\xff" * 60 + whole[64:]):
        with pytest.raises(InputError, match="cannot be read as Parquet"):
            read(tmp_path / "t.parquet", content)


@pytest.mark.parametrize(
    "content",
    [
        "Klinik Geheimname;;\nimage;patient;label\na.png;1;x\n",
        "Klinik Geheimname\nimage;patient;label\na.png;1;x\n",
        "Klinik Geheimname;;\n;;\nStand: Mai;;\nimage;patient;label\na.png;1;x\n",
        "Geheimname;Abteilung;\nimage;patient;label\na.png;1;x\n",
        "Klinik Geheimname,,\nBild,Nummer,Befund\na.png,1,x\n",
        "sep=;\nKlinik Geheimname;;\nimage;patient;label\na.png;1;x\n",
        '"Klinik\nGeheimname"\timage\t\nimage\tpatient\tlabel\na.png\t1\tx\n',
    ],
)
def test_a_title_above_the_column_names_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError) as raised:
        read(tmp_path / "t.csv", content).bind([FileKey(("a.png",))])
    assert "Geheimname" not in str(raised.value)


def test_a_header_with_unnamed_columns_is_no_title(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", ",label\n0,x\n1,y\n").labels == ("x", "y")
    assert read(tmp_path / "t.csv", "image,label,,\na.png,x,1,2\nb.png,y,1,2\n").labels == ("x", "y")
    assert len(read(tmp_path / "t.csv", "Bild,Befund\nimage,label\n", path_column="Bild")) == 1


def test_messages_repeat_no_cell(tmp_path: Path) -> None:
    name = "Mustermann"
    tables = (
        f"image,label\na.png,{name}é\n".encode("cp1252"),
        f'image,label\na.png,"{name}\n'.encode(),
        f"image,label\na.png,x,{name}\n".encode(),
        f"image,label,label\na.png,x,{name}\n".encode(),
    )
    for content in tables:
        with pytest.raises(InputError) as raised:
            read(tmp_path / "t.csv", content)
        assert name not in str(raised.value)


CELLS = st.sampled_from(
    ["1", "0", "-1", "", "x", "['a', 'b']", "[", "['", "a|b", "a, b", "45,5", ">89", "1E+11", "肺炎"]
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(CELLS | st.text(max_size=12), min_size=4, max_size=4), max_size=6), st.binary(max_size=30))
def test_any_bytes_are_a_table_or_refused_in_one_line(tmp_path: Path, rows: list[list[str]], noise: bytes) -> None:
    written = io.StringIO()
    csv.writer(written).writerows([["image", "label", "age", "flag"], *rows])
    for content in (written.getvalue().encode(errors="replace"), written.getvalue().encode(errors="replace") + noise):
        remarks: list[str] = []
        try:
            table = read(tmp_path / "t.csv", content)
        except InputError as error:
            remarks = [str(error)]
        else:
            remarks = [*table.remarks(), *table.understood()]
            assert all(set(table.content(row).labels) == set(table.labels) for row in range(len(table)))
            assert table.exclusive in {True, False}
        assert remarks
        assert "\n" not in "".join(remarks)


@pytest.mark.parametrize("name", ["t[1].parquet", "t[1].csv", "t*.parquet"])
def test_the_name_of_a_table_is_no_pattern(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "lists [final]"
    folder.mkdir()
    frame = pl.DataFrame({"image": ["a.png", "b.png"], "label": ["x", "y"]})
    frame.write_parquet(folder / name) if name.endswith("parquet") else frame.write_csv(folder / name)
    pl.DataFrame({"image": ["c.png"], "label": ["z"]}).write_parquet(folder / "t1.parquet")
    assert read_table(folder / name).frame.equals(frame)


def test_a_second_header_in_the_same_order_is_no_row(tmp_path: Path) -> None:
    text = (
        "file,patient_id,label\n0.png,p0,a\nfile,patient_id,label\n1.png,p1,b\nFile, Patient ID,Label\n2.png,p2,file\n"
    )
    table = read(tmp_path / "t.csv", text)
    assert len(table) == 3
    assert table.labels == ("a", "b", "file")
    assert table.remarks() == ["2 lines repeat the column names and are no rows: files that were put together"]


@pytest.mark.parametrize(
    "second", ["file,label,sex,patient_id", "patient_id,file,sex,label", "file,label", "Label,File,,"]
)
def test_a_second_header_in_another_order_stops_in_one_line(tmp_path: Path, second: str) -> None:
    rows = "".join(f"{n}.png,p{n},{'ab'[n % 2]},F\n" for n in range(60))
    with pytest.raises(
        InputError, match=r"repeats the column names in another order: two tables in one file"
    ) as raised:
        read(tmp_path / "t.csv", f"file,patient_id,label,sex\n{rows}{second}\n60.png,a,M,p60\n")
    assert "\n" not in str(raised.value)


def test_rows_that_hold_a_column_name_are_rows(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", "file,label,view\nfile,mass,AP\nlabel,cyst,view\n2.png,label,view\n")
    assert len(table) == 3
    assert table.remarks() == []
