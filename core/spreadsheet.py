"""CSV text that a spreadsheet displays and never executes, and the way back to the original text.

A cell that begins like a formula is executed by Excel, LibreOffice and Google Sheets when the file is opened (OWASP,
*CSV Injection*). Such a text is written after an apostrophe, which marks it as text for spreadsheets. A text that
begins with an apostrophe gets one more, so that every text can be read back unchanged.
"""

from __future__ import annotations

import polars as pl

GUARD = "'"
GUARD_FACT = "formula_guard"
GUARD_NOTE = (
    "a text that begins with = + - @ ' a tab or a carriage return, and is no number, stands after one more apostrophe"
)

_BEGINS = (
    r"^[\s\u00a0\ufeff]*['=+\-@\t\r\uff07\uff1d\uff0b\uff0d\uff20]|^[\t\r]"  # full-width forms: Excel reads them too
)
_MARKED = r"""^(?:="([^"]*)"|'([0-9]+))$"""  # ="007" and '007: how spreadsheets are told to leave 007 as it is
_NUMBER = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"


def guarded(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose texts no spreadsheet executes; numbers, also those written as text, stay unchanged."""
    return table.with_columns(
        pl.when(text.str.contains(_BEGINS) & ~text.str.contains(_NUMBER))
        .then(pl.concat_str(pl.lit(GUARD), text))
        .otherwise(text)
        .alias(text.name)
        for text in table.iter_columns()
        if text.dtype == pl.String
    )


def unguarded(table: pl.DataFrame) -> pl.DataFrame:
    """The inverse of :func:`guarded`."""
    return table.with_columns(pl.col(pl.String).str.strip_prefix(GUARD))


def unmarked(table: pl.DataFrame) -> pl.DataFrame:
    """Return an external table without the marks that keep a spreadsheet from reading text as a number.

    Example:
        >>> unmarked(pl.DataFrame({"site": ["A", "'B'"], "patient": ['="007"', "'008"]})).rows()
        [('A', '007'), ("'B'", '008')]
    """
    return table.with_columns(
        pl.coalesce(text.str.extract(_MARKED, 1), text.str.extract(_MARKED, 2), text).alias(text.name)
        for text in table.iter_columns()
        if text.dtype == pl.String
    )
