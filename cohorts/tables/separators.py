"""Separators of the labels in a cell: one, several if every part is a known label, else the column is ambiguous."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from medphantom.cohorts.tables.cells import folded

_ALIKE = {"|": "|｜", ";": ";；", ",": ",，、､"}
"""Each separator with its counterparts in other scripts."""
_PLAIN = str.maketrans({each: sign for sign, alike in _ALIKE.items() for each in alike})
_SURE = ("|", ";")  # no name holds them, but names hold commas (*fracture, healed*)


class Separators(NamedTuple):
    """How lists are written in the cells of a column.

    Attributes:
        signs: Separators of entries, the most frequent first; none if cells contain one name each.
        doubtful: These and one that may be a separator or part of names; empty without doubt.
        mixed: Number of cells with another separator than the first one.
    """

    signs: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    mixed: int = 0

    def split(self, cell: str) -> list[str]:
        """Return the entries of a cell, as written."""
        return _split(cell, self.signs)


def list_separators(counts: Mapping[str, int], known: Iterable[str] = ()) -> Separators:
    """Return the separators of lists in a column: ``|`` or ``;``, else a comma whose parts recur; in any script.

    If no cell contains ``|`` or ``;``, a comma separates if at least half of its parts occur in other cells too. If
    cells contain several of the three, a further one separates too if every part that it makes is an entry elsewhere
    (``edema; mass`` among ``edema|mass``, ``edema`` and ``mass``), and a comma does not if its parts are no entries and
    would not recur either. Anything between is ambiguous: each interpretation would change the labels of other cells.

    Args:
        counts: Number of cells by text.
        known: Labels that other cells name without a separator, such as lists in brackets.

    Example:
        >>> list_separators({"a|b": 1, "a": 1}).signs, list_separators({"fracture, healed": 1, "mass": 1}).signs
        (('|',), ())
        >>> list_separators({"a, b": 9, "a": 2, "b": 2, "a; b": 1}).signs
        (';', ',')
        >>> list_separators({"肺炎、胸水": 1, "肺炎": 1, "胸水": 1}).signs
        ('、',)
    """
    plain: Counter[str] = Counter()
    for cell, total in counts.items():
        plain[cell.translate(_PLAIN)] += total
    found = _of_plain(plain, [name.translate(_PLAIN) for name in known])
    written = {sign for cell in counts for sign in cell}

    def as_written(signs: Iterable[str]) -> tuple[str, ...]:
        return tuple(each for sign in signs for each in _ALIKE[sign] if each in written)

    return Separators(as_written(found.signs), as_written(found.doubtful), found.mixed)


def _of_plain(counts: Mapping[str, int], known: Iterable[str]) -> Separators:
    often = {sign: sum(total for cell, total in counts.items() if sign in cell) for sign in _SURE}
    sure = sorted((sign for sign in _SURE if often[sign]), key=lambda sign: -often[sign])
    signs, labels = sure[:1], set(map(folded, known))
    if not sure and _recurs(",", counts):
        return Separators((",",))
    for sign in (*sure[1:], ","):
        parts = {folded(part) for cell in counts for part in _split(cell, signs)}
        cut = {part for part in parts if sign in part}
        listed = sum(_pieces(part, sign) <= (parts - cut) | labels for part in cut)
        if cut and listed == len(cut):
            signs.append(sign)
        elif cut and (listed or sign in _SURE or _recurs(sign, parts)):
            return Separators(tuple(signs), (*signs, sign))
    mixed = sum(total for cell, total in counts.items() if any(sign in cell for sign in signs[1:]))
    return Separators(tuple(signs), (), mixed)


def total_unparted(counts: Mapping[str, int], separator: str) -> int:
    """Return the number of cells that a named separator leaves with known labels joined by another separator."""
    parts = {_folded(part) for cell in counts for part in _split(cell, (separator,))}
    others = [sign for sign in (*_SURE, ",") if sign not in separator]

    def is_list(part: str) -> bool:
        return any(sign in part and _pieces(part, sign) <= parts - {part} for sign in others)

    lists = {part for part in parts if is_list(part)}
    return sum(total for cell, total in counts.items() if lists.intersection(map(_folded, _split(cell, (separator,)))))


def _folded(part: str) -> str:
    return folded(part.translate(_PLAIN))


def _split(cell: str, signs: Iterable[str]) -> list[str]:
    pattern = "|".join(map(re.escape, signs))
    return re.split(pattern, cell) if pattern else [cell]


def _pieces(part: str, sign: str) -> set[str]:
    return {piece for piece in map(folded, part.split(sign)) if piece}


def _recurs(sign: str, cells: Iterable[str]) -> bool:
    """Return whether at least half of the parts that a separator makes are in other cells too."""
    cut = {cell: _pieces(cell, sign) for cell in set(cells)}
    often = Counter(piece for pieces in cut.values() for piece in pieces)
    pieces = {piece for cell, pieces in cut.items() if sign in cell for piece in pieces}
    return bool(pieces) and 2 * sum(often[piece] > 1 for piece in pieces) >= len(pieces)
