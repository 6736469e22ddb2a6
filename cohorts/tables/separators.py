"""Which signs part the labels of a cell: one of them, several where every piece is a known label, else nobody knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from medphantom.cohorts.tables.cells import folded

_ALIKE = {"|": "|｜", ";": ";；", ",": ",，、､"}
"""Sign → itself and what stands for it in other scripts."""
_PLAIN = str.maketrans({each: sign for sign, alike in _ALIKE.items() for each in alike})
_SURE = ("|", ";")  # no name holds them, but names hold commas (*fracture, healed*)


class Separators(NamedTuple):
    """How lists are written in the cells of a column.

    Attributes:
        signs: What parts their entries, the most frequent first; none where cells hold one name each.
        doubtful: These and one that may part entries too, or belong to names: nobody can tell. Empty without doubt.
        mixed: Cells that another sign than the first one parts.
    """

    signs: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    mixed: int = 0

    def split(self, cell: str) -> list[str]:
        """The entries of a cell, as they are written."""
        return _split(cell, self.signs)


def list_separators(counts: Mapping[str, int], known: Iterable[str] = ()) -> Separators:
    """The separators of lists in a column: ``|`` or ``;``, else a comma whose parts recur; in any script.

    Where no cell holds ``|`` or ``;``, a comma separates where at least half of the parts that it makes are in other
    cells too. Where cells hold several of the three, a further one separates as well when every piece that it makes is
    an entry elsewhere (``edema; mass`` among ``edema|mass``, ``edema`` and ``mass``), and a comma does not where its
    pieces are none and would not recur either. Anything between is in doubt: each reading would change the labels of
    other cells.

    Args:
        counts: Text of a cell → how often it is there.
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
    """Cells that one separator, which was named, leaves with known labels that another sign parts."""
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
    """Whether at least half of the pieces that a sign makes are in other cells too."""
    cut = {cell: _pieces(cell, sign) for cell in set(cells)}
    often = Counter(piece for pieces in cut.values() for piece in pieces)
    pieces = {piece for cell, pieces in cut.items() if sign in cell for piece in pieces}
    return bool(pieces) and 2 * sum(often[piece] > 1 for piece in pieces) >= len(pieces)
