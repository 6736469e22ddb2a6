"""Small real tables for the tests: written as people write them, read and joined by the real classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.tables.join import FileKey
from medphantom.cohorts.tables.table import RowContent, Table


def read(path: Path, content: str | bytes, **options: Any) -> Table:
    """Write a table, byte for byte, and read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Table.read(path, IngestOptions(**options))


def joined(path: Path, content: str | bytes, files: Sequence[str | FileKey], **options: Any) -> Table:
    """The same, joined to files."""
    table = read(path, content, **options)
    table.bind([file if isinstance(file, FileKey) else FileKey((file,)) for file in files])
    return table


def contents(table: Table, total: int) -> list[RowContent]:
    """What a joined table says of its first files."""
    return [table.content(table.row_of(number)) for number in range(total)]


def present(table: Table, row: int) -> set[str]:
    """Labels that a row states as present."""
    return {name for name, value in table.content(row).labels.items() if value}
