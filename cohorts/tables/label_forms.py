"""How tables write labels: names in a cell, or a column per label; and what each row states about all labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from medphantom.cohorts.records import LABEL_PREFIX
from medphantom.cohorts.tables.cells import is_uncertain

Form = Literal["none", "names", "lists", "numbers", "flag", "columns"]
Observed = dict[str, bool | None]
Meaning = Callable[[str, str], bool | None]


class Labels(Protocol):
    """The labels of a table.

    Attributes:
        names: Vocabulary in a fixed order.
        form: Form in which the table writes labels.
        columns: Columns in which it writes them.
    """

    names: tuple[str, ...]
    form: Form
    columns: tuple[str, ...]

    def of(self, row: int) -> Observed:
        """Return what a row states about each label."""

    def cells(self) -> Mapping[str, Sequence[str]]:
        """Return the text of each row by column."""

    def kinds(self) -> Iterable[Observed]:
        """Yield the different statements of rows, each at least once."""


class NoLabels:
    """A table without labels."""

    names: tuple[str, ...] = ()
    form: Form = "none"
    columns: tuple[str, ...] = ()

    def of(self, row: int) -> Observed:
        """Return no statement."""
        del row
        return {}

    def cells(self) -> Mapping[str, Sequence[str]]:
        """Return no cells."""
        return {}

    def kinds(self) -> Iterable[Observed]:
        """Return no statements."""
        return ()


class CellLabels:
    """One column whose cells name the present labels; every other label is absent then.

    Args:
        column: Name of the column.
        cells: Text of each row.
        present: Labels named by each text; a text that is not listed means missing.
        names: Vocabulary of the labels.
        form: Form of the cells: names, lists or numbers.
    """

    def __init__(
        self, column: str, cells: list[str], present: Mapping[str, set[str]], names: Sequence[str], form: Form
    ) -> None:
        self.columns: tuple[str, ...] = (column,)
        self.names = tuple(names)
        self.form = form
        self._cells = cells
        self._present = present

    def of(self, row: int) -> Observed:
        """Return what a row states about each label."""
        return self._observed(self._cells[row])

    def cells(self) -> Mapping[str, Sequence[str]]:
        """Return the text of each row of its column."""
        return {self.columns[0]: self._cells}

    def kinds(self) -> Iterable[Observed]:
        """Yield the statements of the different cells."""
        return (self._observed(cell) for cell in self._present)

    def _observed(self, cell: str) -> Observed:
        present = self._present.get(cell)
        return {name: None if present is None else name in present for name in self.names}


class ColumnLabels:
    """A column per label, with 1, 0, -1 and empty cells.

    Args:
        cells: Text of each row by column.
        nothing: Columns that state, if they are 1, that labels without a value, and not uncertain, are absent.
        meaning: Meaning of each text of a column.
        form: Form of the labels: one column (``flag``) or several (``columns``).
        beside: Columns that may be 1 together with those of ``nothing``. A row with any other contradicts itself, and
            is missing.
    """

    def __init__(
        self,
        cells: Mapping[str, list[str]],
        nothing: Collection[str],
        meaning: Meaning,
        form: Form,
        beside: Collection[str] = (),
    ) -> None:
        self.columns = tuple(cells)
        self._findings = tuple(name for name in cells if name not in {*nothing, *beside})
        self.form = form
        self._column_of = {name.removeprefix(LABEL_PREFIX): name for name in cells if name not in nothing}
        self.names = tuple(self._column_of)
        self._nothing = tuple(nothing)
        self._cells = cells
        self._meaning = {name: {cell: meaning(name, cell) for cell in set(column)} for name, column in cells.items()}

    def of(self, row: int) -> Observed:
        """Return what a row states about each label."""
        return self._observed([column[row] for column in self._cells.values()])

    def cells(self) -> Mapping[str, Sequence[str]]:
        """Return the text of each row by column."""
        return self._cells

    def kinds(self) -> Iterable[Observed]:
        """Yield the different statements of rows."""
        return (self._observed(cells) for cells in set(zip(*self._cells.values(), strict=True)))

    def total_contradicting(self) -> int:
        """Return the number of rows that state a finding together with *no finding*."""
        if not self._nothing:
            return 0
        rows = Counter(zip(*self._cells.values(), strict=True))
        return sum(total for cells, total in rows.items() if self._contradict(self._values(cells)))

    def _values(self, cells: Sequence[str]) -> Observed:
        return {name: self._meaning[name][cell] for name, cell in zip(self._cells, cells, strict=True)}

    def _contradict(self, values: Observed) -> bool:
        return any(values[name] for name in self._nothing) and any(values[name] for name in self._findings)

    def _observed(self, cells: Sequence[str]) -> Observed:
        values = self._values(cells)
        if self._contradict(values):
            return dict.fromkeys(self.names)
        stated = {name: values[self._column_of[name]] for name in self.names}
        if any(values[column] is True for column in self._nothing):
            doubtful = {name for name, cell in zip(self._cells, cells, strict=True) if is_uncertain(cell)}
            return {
                name: False if value is None and self._column_of[name] not in doubtful else value
                for name, value in stated.items()
            }
        return stated
