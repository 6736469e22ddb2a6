"""Size limits of tables: the file, its lines and columns as text, and the content of a Parquet column."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from medphantom.core.errors import InputError
from medphantom.core.limits import MANY_COLUMNS

LARGEST_TEXT_FILE = 256 * 2**20  # bytes
LONGEST_LINE = 4 * 2**20  # characters
LARGEST_COLUMN = 2**30  # bytes of text
REMEDY = "keep the columns and rows that speak of the images, or split the table"


def require_modest_file(path: Path) -> None:
    """Refuse a text table that is too large to be read whole.

    Raises:
        InputError: If it is too large.
        OSError: If it cannot be accessed.
    """
    if path.stat().st_size > LARGEST_TEXT_FILE:
        raise InputError(f"{path} is larger than {LARGEST_TEXT_FILE // 2**20} MiB", REMEDY)


def modest_lines(text: str, separator: str) -> Iterator[str]:
    """Yield the lines of a table, for a CSV reader.

    Raises:
        InputError: If a line is longer than 4 MiB or has more than 4096 cells.
    """
    stream = io.StringIO(text, newline="")
    while line := stream.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE or line.count(separator) >= MANY_COLUMNS:
            raise InputError(
                f"a table has a line of more than {MANY_COLUMNS} cells or {LONGEST_LINE // 2**20} MiB", REMEDY
            )
        yield line


def require_modest_column(path: Path, column: pl.Series) -> None:
    """Refuse a column with too much text: a text that is stored once may be repeated in every row."""
    if column.dtype == pl.String and int(column.str.len_bytes().sum() or 0) > LARGEST_COLUMN:
        raise InputError(f"{path} has a column of more than {LARGEST_COLUMN // 2**30} GiB of text", REMEDY)
