"""Features that may be larger than memory: rows are read in blocks, possibly from a memory map."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medphantom.core.records import Array

ROWS_PER_BLOCK = 2048
ROWS_PER_GATHERING = 512


class Table(Protocol):
    """Rows of features: an array, a memory map, or a :class:`Rows` of either."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, d)``."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, rows: Any) -> Any:
        """The rows of a slice."""


@dataclass(frozen=True)
class Rows:
    """A view of rows of a table in any order, gathered on access.

    Attributes:
        table: table from which rows are taken.
        rows: numbers of the rows.
    """

    table: Table
    rows: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, d)``."""
        return len(self.rows), self.table.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> Array:
        chosen = self.rows[rows]
        if not isinstance(self.table, np.memmap):
            return np.asarray(self.table[chosen])
        found = np.empty((len(chosen), self.shape[1]), self.table.dtype)
        for start in range(0, len(chosen), ROWS_PER_GATHERING):  # the system also maps a dozen rows around each
            part = slice(start, start + ROWS_PER_GATHERING)
            found[part] = self.table[chosen[part]]
            release(self.table)
        return found


def blocks(table: Table, size: int = ROWS_PER_BLOCK) -> Iterator[tuple[slice, Array]]:
    """Blocks of rows in float64 with their positions; mapped pages are released between blocks."""
    for start in range(0, len(table), size):
        place = slice(start, min(start + size, len(table)))
        block = np.asarray(table[place], dtype=np.float64)
        release(table)
        yield place, block


def release(table: Table) -> None:
    """Release the pages of a memory-mapped file, so that they do not count as memory of this process."""
    inner = table.table if isinstance(table, Rows) else table
    while isinstance(inner, Rows):
        inner = inner.table
    pages = getattr(inner, "_mmap", None)
    if isinstance(inner, np.memmap) and isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def mean_of(table: Table) -> Array:
    """Mean of all rows, ``(d,)``."""
    found: Array = sum((block.sum(axis=0) for _, block in blocks(table)), np.zeros(table.shape[1])) / len(table)
    return found
