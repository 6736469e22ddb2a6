"""From the bytes of a table to columns of text: encoding, separator, header and rows, unambiguous or refused."""

from __future__ import annotations

import codecs
import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import polars as pl

from medphantom.cohorts.exported import original_texts
from medphantom.cohorts.tables.limits import REMEDY, modest_lines, require_modest_column, require_modest_file
from medphantom.core.errors import InputError
from medphantom.core.guard import reading, user_path
from medphantom.core.limits import why_parquet_is_refused
from medphantom.core.naming import plain_name

SEPARATORS = (",", ";", "\t", "|")
SAMPLE_ROWS = 50
SPLIT_COLUMN = "split"
ROWS_AT_ONCE = 50_000
LARGEST_EXACT_FLOAT = 2.0**53
BYTE_ORDER_MARKS = (  # the longer ones first, since UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ZIP, _OLE, _PARQUET = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"PAR1"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_HINT = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # a first line with which Excel names the separator
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")
_FILE_NAME = re.compile(r"\.(dcm|png|jpe?g|tiff?|nii|nii\.gz)$", re.IGNORECASE)
BROKEN_QUOTES = "has quotes that do not close, text after a closing quote, or a cell of more than 128 KiB"
OTHER_ENCODINGS = (
    "save it as CSV UTF-8, or name its encoding with table_encoding, such as cp1252 (western Europe), cp1251 "
    "(Cyrillic), gb18030 (Chinese), cp932 (Japanese) or euc-kr (Korean)"
)


@dataclass(frozen=True, slots=True)
class TableFile:
    """Content of a file.

    Attributes:
        frame: Columns of text, under their names without outer spaces.
        form: Format, encoding and separator, for display.
        repeated: Names of several columns with different content; only the first of them keeps it.
        short_rows: Number of rows that end before the header does; their last cells are empty.
        headers: Number of repeated header lines, which are not rows.
        unreadable: Type of each column that has no text form, such as durations and structures; their cells are empty.
    """

    frame: pl.DataFrame
    form: str
    repeated: frozenset[str] = frozenset()
    short_rows: int = 0
    headers: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)


def read_table(path: Path, encoding: str = "auto", known: Collection[str] = ()) -> TableFile:
    """Read a CSV, TSV or Parquet file, detected by content.

    A byte order mark determines the encoding, else ``encoding`` does; ``auto`` reads UTF-8 only, since the bytes of
    other encodings cannot be distinguished reliably. Texts of an export of this project are restored (see
    :mod:`medphantom.core.spreadsheet`).

    Args:
        path: Path of the file.
        encoding: Python codec, or ``auto``.
        known: Expected column names, which help to detect the separator and the header.

    Raises:
        InputError: If it does not exist, is not a table, has no rows or no header, or has rows of different length.
    """
    plain = {plain_name(name) for name in known}
    if not user_path(path).exists():
        raise InputError(f"{path} does not exist", "check the path of the table")
    with reading(path, InputError, "cannot be read as a table", "give a CSV, TSV or Parquet file"):
        if not path.is_file():
            raise InputError(f"{path} cannot be read as a table: it is not a file", "give a CSV, TSV or Parquet file")
        with path.open("rb") as stream:
            parquet = stream.read(len(_PARQUET)) == _PARQUET
        if not parquet:
            require_modest_file(path)
        data = _PARQUET if parquet else path.read_bytes()
        if parquet:
            table = _from_parquet(path)
        elif data.startswith((_ZIP, _OLE)) or path.suffix.lower() in {".xlsx", ".xls", ".ods"}:
            raise InputError(f"{path} is a spreadsheet or an archive, not a table", "save the sheet as CSV UTF-8")
        else:
            text, name = _decoded(path, data, encoding)
            table = _from_text(path, text, name, plain)
    if table.frame.height == 0:
        raise InputError(f"{path} has no rows", "give a table with one row per image")
    _check_header(path, table.frame.columns, plain)
    return table if parquet else replace(table, frame=original_texts(path, table.frame))


def read_parts(paths: Sequence[Path], encoding: str = "auto", known: Collection[str] = ()) -> TableFile:
    """Read a table that is stored in one file per split (``train.csv``, ``valid.csv``), whose names become a column.

    Args:
        paths: Files that are named after splits.
        encoding: Encoding as in :func:`read_table`.
        known: Expected column names as in :func:`read_table`.

    Raises:
        InputError: As for :func:`read_table`, or if the files have different columns.
    """
    files = [read_table(path, encoding, known) for path in paths]
    columns = files[0].frame.columns
    for path, file in zip(paths, files, strict=True):
        if file.frame.columns != columns:
            raise InputError(f"{path} has other columns than {paths[0].name}", "name one table with table")
    own = SPLIT_COLUMN in columns
    frames = [
        file.frame if own else file.frame.with_columns(pl.lit(path.stem).alias(SPLIT_COLUMN))
        for path, file in zip(paths, files, strict=True)
    ]
    repeated = frozenset(name for file in files for name in file.repeated)
    unreadable = {name: kind for file in files for name, kind in file.unreadable.items()}
    short, headers = sum(file.short_rows for file in files), sum(file.headers for file in files)
    return TableFile(pl.concat(frames), files[0].form, repeated, short, headers, unreadable)


def clean_name(name: str) -> str:
    r"""Return a column name in Unicode's composed form, without outer spaces and with single inner ones.

    Example:
        >>> clean_name("  Patient \n Age ")
        'Patient Age'
    """
    return " ".join(unicodedata.normalize("NFC", name).replace("\ufeff", "").split())


def _decoded(path: Path, data: bytes, encoding: str) -> tuple[str, str]:
    name = next((codec for mark, codec in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if name is None and encoding == "auto":
        if b"\0" in data:
            raise InputError(f"{path} cannot be read as a table: it is not text, or lacks its byte order mark",
                             "give a CSV, TSV or Parquet file, or name its encoding with table_encoding")  # fmt: skip
        name = "utf-8"
    name = name or encoding
    try:
        text = data.decode(name).rstrip("\x1a")
    except UnicodeError:
        raise InputError(f"{path} is not written in {name.removesuffix('-sig').upper()}", OTHER_ENCODINGS) from None
    if _CONTROL.search(text):
        raise InputError(f"{path} cannot be read as a table: it contains control characters", OTHER_ENCODINGS)
    return text, name.removesuffix("-sig").upper()


def _from_text(path: Path, text: str, encoding: str, known: Collection[str]) -> TableFile:
    hint = _HINT.match(text)
    text = text[hint.end() :] if hint else text
    _check_title(path, text, hint[1] if hint else "", known)
    separator = hint[1] if hint else _separator(path, text, known)
    rows = _filled_rows(text, separator)
    try:
        header = next(rows, [])
        body = _body(rows, header)
    except csv.Error:
        raise InputError(f"{path} {BROKEN_QUOTES}", "save it as CSV again") from None
    if body.torn:
        raise InputError(
            f"{path} has a line that repeats the column names in another order: two tables in one file",
            "give each its own file, or bring them into one order of columns",
        )
    if body.long:
        raise InputError(
            f"{path} has {body.long} rows with more cells than its header, so that cells may stand in the wrong column",
            "quote the cells that hold the separator, and name every column",
        )
    _check_header(path, [clean_name(name) for name in header], known)
    named, repeated = _named(body.frame, header)
    shown = {"\t": "tabs"}.get(separator, separator)
    return TableFile(named, f"{encoding}, separated by {shown}", repeated, body.short, body.headers)


def _check_title(path: Path, text: str, separator: str, known: Collection[str]) -> None:
    """Refuse a title above the column names, which may name a person, without repeating it."""
    for each in separator or SEPARATORS:
        try:
            rows = list(islice(_filled_rows(text, each), SAMPLE_ROWS))
        except csv.Error:
            continue
        filled = [[cell for cell in row if cell.strip()] for row in rows]
        names = [sum(plain_name(cell) in known for cell in row) for row in filled]
        if not rows:
            continue
        more = max(1, names[0])
        header = any(total > more and len(filled[0]) < len(row) for row, total in zip(filled, names, strict=True))
        alone = not names[0] and len(filled[0]) == 1 < len(rows[0]) and any(len(row) > 1 for row in filled)
        if header or alone:
            raise InputError(
                f"{path} begins with a line that is no line of column names", "delete the lines above these"
            )


def _filled_rows(text: str, separator: str) -> Iterator[list[str]]:
    reader = csv.reader(modest_lines(text, separator), delimiter=separator, strict=True)
    return (row for row in reader if any(cell.strip() for cell in row))


class _Body(NamedTuple):
    """The rows below a header.

    Attributes:
        frame: Cells of the rows, as many as the header has.
        long: Number of rows with additional non-empty cells.
        short: Number of rows with fewer cells.
        headers: Number of lines that repeat the header, which are left out.
        torn: Number of lines that repeat its names in another order, below which cells are in the wrong columns.
    """

    frame: pl.DataFrame
    long: int
    short: int
    headers: int
    torn: int


def _body(rows: Iterator[list[str]], header: Sequence[str]) -> _Body:
    """Return the rows below a header, read in parts."""
    width = len(header)
    schema = dict.fromkeys(map(str, range(width)), pl.String)
    parts = [pl.DataFrame(schema=schema)]
    names = [plain_name(name) for name in header]
    first_cells = {name.strip().casefold() for name in header}
    long = short = headers = torn = 0
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        repeats = [row for row in batch if row[0].strip().casefold() in first_cells and _is_header(row, names)]
        if repeats:
            same = [
                row
                for row in repeats
                if all(plain_name(cell) in {"", name} for cell, name in zip(row, names, strict=False))
            ]
            headers, torn = headers + len(same), torn + len(repeats) - len(same)
            batch = [row for row in batch if row not in repeats]
        long += sum(any(cell.strip() for cell in row[width:]) for row in batch)
        short += sum(len(row) < width for row in batch)
        padded = [[*row[:width], *[None] * (width - len(row))] for row in batch]
        parts.append(pl.DataFrame(padded, schema=schema, orient="row"))
    return _Body(pl.concat(parts), long, short, headers, torn)


def _is_header(row: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether a row consists of column names only, like the header of another table."""
    cells = [plain_name(cell) for cell in row if cell.strip()]
    return len(cells) >= min(2, len(names)) and len(set(cells)) == len(cells) and set(cells) <= set(names)


def _separator(path: Path, text: str, known: Collection[str]) -> str:
    """Return the separator with which rows are as long as the header, and known columns appear."""
    best, chosen = (0, 0.0, 1), ","
    broken = False
    for separator in SEPARATORS:
        try:
            rows = list(islice(_filled_rows(text, separator), SAMPLE_ROWS))
        except csv.Error:
            broken = True
            continue
        if not rows or len(rows[0]) == 1:
            continue
        width = len(rows[0])
        alike = sum(len(row) == width for row in rows) / len(rows)
        named = sum(plain_name(name) in known for name in rows[0])
        if (named, alike, width) > best:
            best, chosen = (named, alike, width), separator
    if broken and best[2] == 1:
        raise InputError(f"{path} {BROKEN_QUOTES}", "save it as CSV again")
    return chosen


def _from_parquet(path: Path) -> TableFile:
    columns: list[pl.Series | None] = []
    with reading(path, InputError, "cannot be read as Parquet", "write the file again"):
        if problem := why_parquet_is_refused(path):
            raise InputError(f"{path} declares {problem}", REMEDY)
        with path.open("rb") as stream:  # polars takes a name with brackets for a pattern
            schema = pl.read_parquet_schema(stream)
        for name in schema:  # one by one, since a type that cannot be read would cost the whole table
            try:
                column = pl.read_parquet(path, columns=[name], glob=False)[name]
                require_modest_column(path, column)
                columns.append(_as_text(column))
            except pl.exceptions.InvalidOperationError:
                columns.append(None)
    height = next((len(column) for column in columns if column is not None), 0)
    texts = [
        pl.Series(name, [None] * height, dtype=pl.String) if column is None else column
        for name, column in zip(schema, columns, strict=True)
    ]
    types = zip(schema.items(), columns, strict=True)
    unreadable = {clean_name(name): str(kind) for (name, kind), column in types if column is None}
    named, repeated = _named(pl.DataFrame(texts), list(schema))
    return TableFile(named, "Parquet", repeated, unreadable=unreadable)


def _named(frame: pl.DataFrame, header: Sequence[str]) -> tuple[pl.DataFrame, frozenset[str]]:
    """Return columns under clean names, without empty unnamed columns and repetitions of a column."""
    kept: dict[str, pl.Series] = {}
    repeated = set()
    seen: Counter[str] = Counter()
    for number, (column, given) in enumerate(zip(frame.iter_columns(), header, strict=True), 1):
        name = clean_name(given)
        if not name:
            if column.null_count() == len(column) or (column.fill_null("").str.strip_chars() == "").all():
                continue
            name = f"(unnamed {number})"
        seen[name] += 1
        if name in kept:
            if column.equals(kept[name], check_names=False):
                continue
            repeated.add(name)
            name = f"{name} ({seen[name]})"
        kept[name] = column
    return pl.DataFrame([column.alias(name) for name, column in kept.items()]), frozenset(repeated)


def _check_header(path: Path, names: Sequence[str], known: Collection[str]) -> None:
    """Refuse a header that is a row of data, since every other line would be misread."""
    of_data = any(_FILE_NAME.search(name) for name in names)
    numbers = any(_NUMBER.fullmatch(name) for name in names)
    if of_data or (numbers and not any(plain_name(name) in known for name in names)):
        raise InputError(f"{path} has no line of column names", "write the names of its columns into the first line")


def _as_text(column: pl.Series) -> pl.Series | None:
    """Return a column as text; ``None`` if its type has no text form."""
    if isinstance(column.dtype, pl.List) and column.dtype.inner in {pl.String, pl.Categorical, pl.Enum}:
        lists = [None if cell is None else json.dumps(list(cell), default=str) for cell in column.to_list()]
        return pl.Series(column.name, lists, dtype=pl.String)
    if column.dtype.is_float():
        return pl.Series(column.name, list(_whole(column)), dtype=pl.String)
    if column.dtype.is_nested() or column.dtype in {pl.Binary, pl.Object, pl.Duration}:
        return None
    return column.cast(pl.String)


def _whole(column: pl.Series) -> Iterator[str | None]:
    """Yield integers without ``.0``, since a column with gaps is a float column; beyond 2^53 they are rounded."""
    for value in column.to_list():
        if value is None or value != value:  # noqa: PLR0124 - NaN
            yield None
        elif abs(value) < LARGEST_EXACT_FLOAT and value == int(value):
            yield str(int(value))
        else:
            yield f"{value:e}" if abs(value) >= LARGEST_EXACT_FLOAT else repr(value)
