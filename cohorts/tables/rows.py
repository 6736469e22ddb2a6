"""Several rows of one image, as tables of boxes and of several readers have them: what they say together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

Groups = dict[int, tuple[int, ...]]
"""First row of an image → all of its rows, where there are several."""


class United(NamedTuple):
    """Rows by what they are of.

    Attributes:
        names: The names, empty for all but the first row of each.
        groups: The rows of each name that has several, which are united.
        torn: The same of rows that may not be united, and contradict each other.
    """

    names: list[str]
    groups: Groups
    torn: Groups


def unite_rows(names: Sequence[str], may_unite: Callable[[str], bool], row: Callable[[int], Hashable]) -> United:
    """Rows that have one name become one, where they may or where they say the same.

    Args:
        names: What identifies the image, or the patient, of each row; empty: nothing.
        may_unite: Whether rows of this name are of one image for certain.
        row: What a row says that cannot be left out where another row of its name says something else.

    Example:
        >>> unite_rows(["a", "b", "a"], lambda name: True, lambda row: row)
        United(names=['a', 'b', ''], groups={0: (0, 2)}, torn={})
    """
    rows_of: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if name:
            rows_of.setdefault(name, []).append(number)
    left = list(names)
    groups: Groups = {}
    torn: Groups = {}
    for name, rows in rows_of.items():
        if len(rows) == 1:
            continue
        may = may_unite(name) or len({row(number) for number in rows}) == 1
        (groups if may else torn)[rows[0]] = tuple(rows)
        for number in rows[1:]:
            left[number] = ""
    return United(left, groups, torn)


def united(rows: Sequence[dict[str, bool | None]]) -> dict[str, bool | None]:
    """Labels of an image: present in any row is present; else absent where any row says so.

    Example:
        >>> united([{"mass": None, "edema": False}, {"mass": True, "edema": None}])
        {'mass': True, 'edema': False}
    """
    stated = {name: {row[name] for row in rows} for name in rows[0]}
    return {name: True if True in values else False if False in values else None for name, values in stated.items()}


def agreed(values: Iterable[Any]) -> tuple[Any, bool]:
    """The one value that rows state (``None`` or empty is no statement), and whether they contradict each other.

    Example:
        >>> agreed([None, "F", "F"]), agreed(["F", "M"])
        (('F', False), (None, True))
    """
    stated = {value for value in values if value is not None and value != ""}
    return (stated.pop(), False) if len(stated) == 1 else (None, bool(stated))
