"""When two names mean the same: case, spaces and punctuation do not tell findings or columns apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable


def plain_name(name: str) -> str:
    """Letters and digits, lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def counterparts(mine: Collection[str], theirs: Iterable[str]) -> dict[str, str]:
    """Who of ``theirs`` each of ``mine`` is, if anybody: by equal names, else by unambiguous plain ones."""
    known = tuple(theirs)
    plain = {plain_name(name): name for name in known}
    often = [Counter(plain_name(name) for name in names) for names in (mine, known)]
    found = {}
    for name in mine:
        key = plain_name(name)
        if name in known:
            found[name] = name
        elif key and all(count[key] == 1 for count in often):
            found[name] = plain[key]
    return found
