"""Several rows of one image, as in tables of boxes and of several readers, and their joint content."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

Groups = dict[int, tuple[int, ...]]
"""All rows of an image by its first row, if there are several."""


class United(NamedTuple):
    """Rows grouped by image or patient.

    Attributes:
        names: Names, empty for all but the first row of each.
        groups: Rows of each name that has several, which are united.
        torn: Rows of each name that may not be united, and contradict each other.
    """

    names: list[str]
    groups: Groups
    torn: Groups


def unite_rows(names: Sequence[str], may_unite: Callable[[str], bool], row: Callable[[int], Hashable]) -> United:
    """Unite rows with the same name, if this is allowed or if they agree.

    Args:
        names: Identifier of the image or patient of each row; empty for none.
        may_unite: Function that tells whether rows of a name certainly belong to one image.
        row: Function that returns the content in which rows of one name must agree.

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
    """Return the labels of an image: present if any row says so, else absent if any row says so.

    Example:
        >>> united([{"mass": None, "edema": False}, {"mass": True, "edema": None}])
        {'mass': True, 'edema': False}
    """
    stated = {name: {row[name] for row in rows} for name in rows[0]}
    return {name: True if True in values else False if False in values else None for name, values in stated.items()}


def agreed(values: Iterable[Any]) -> tuple[Any, bool]:
    """Return the one value of rows (``None`` or empty is missing), and whether they contradict each other.

    Example:
        >>> agreed([None, "F", "F"]), agreed(["F", "M"])
        (('F', False), (None, True))
    """
    stated = {value for value in values if value is not None and value != ""}
    return (stated.pop(), False) if len(stated) == 1 else (None, bool(stated))
