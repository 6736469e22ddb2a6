"""How tables write labels: names in a cell, or a column per label; and what each row states of the whole vocabulary."""

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
        names: The vocabulary, in a fixed order.
        form: How the table writes them.
        columns: Where it writes them.
    """

    names: tuple[str, ...]
    form: Form
    columns: tuple[str, ...]

    def of(self, row: int) -> Observed:
        """What a row states about each label."""

    def cells(self) -> Mapping[str, Sequence[str]]:
        """Column → text of each row."""

    def kinds(self) -> Iterable[Observed]:
        """What different rows state, each at least once."""


class NoLabels:
    """A table without labels."""

    names: tuple[str, ...] = ()
    form: Form = "none"
    columns: tuple[str, ...] = ()

    def of(self, row: int) -> Observed:
        """Nothing."""
        del row
        return {}

    def cells(self) -> Mapping[str, Sequence[str]]:
        """Nothing."""
        return {}

    def kinds(self) -> Iterable[Observed]:
        """Nothing."""
        return ()


class CellLabels:
    """One column whose cells name what is present; every other label is absent then.

    Args:
        column: Its name.
        cells: Text of each row.
        present: Text of a cell → labels that it names; a text that is missing here states nothing.
        names: The vocabulary.
        form: Of names, lists or numbers.
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
        """What a row states about each label."""
        return self._observed(self._cells[row])

    def cells(self) -> Mapping[str, Sequence[str]]:
        """Its column → text of each row."""
        return {self.columns[0]: self._cells}

    def kinds(self) -> Iterable[Observed]:
        """What different cells state."""
        return (self._observed(cell) for cell in self._present)

    def _observed(self, cell: str) -> Observed:
        present = self._present.get(cell)
        return {name: None if present is None else name in present for name in self.names}


class ColumnLabels:
    """A column per label, of 1, 0, -1 and nothing.

    Args:
        cells: Column → text of each row.
        nothing: Columns that state, where they are 1, that what is not stated, nor uncertain, is absent.
        meaning: Column and text of a cell → what it states.
        form: One column (``flag``) or several (``columns``).
        beside: Columns that may be 1 beside those of nothing. A row in which any other is contradicts itself, and
            states nothing.
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
        """What a row states about each label."""
        return self._observed([column[row] for column in self._cells.values()])

    def cells(self) -> Mapping[str, Sequence[str]]:
        """Column → text of each row."""
        return self._cells

    def kinds(self) -> Iterable[Observed]:
        """What different rows state."""
        return (self._observed(cells) for cells in set(zip(*self._cells.values(), strict=True)))

    def total_contradicting(self) -> int:
        """Rows that state a finding beside nothing."""
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
