"""When two names, or two identifiers, mean the same: said once, for headers, tables, folders and look-ups.

Names of findings and columns are compared without case, spaces and punctuation, in any script. Identifiers of
patients are compared as they are written, but for what a spreadsheet or an export changes about them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable

from cohorts.records import LEFT_OUT_SPLIT, Split

SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train", "tr": "train", "imagestr": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val", "dev": "val",
    "gate": "gate",
    "test": "test", "testing": "test", "ts": "test", "holdout": "test", "imagests": "test",
}  # fmt: skip
"""Names of folders, files and cells, case folded, that say which split an image is in; ``imagesTr`` is nnU-Net's."""

CELL_SPLITS: dict[str, str] = {**SPLIT_WORDS, LEFT_OUT_SPLIT: LEFT_OUT_SPLIT}
"""The same for cells, with what our own exports write of images in no split."""

_WHOLE_NUMBER = re.compile(r"([0-9]+)\.0+")  # what a float column makes of an identifier
_KEPT = {
    "L",
    "M",
    "N",
}  # letters, the marks that complete them in many scripts, and numbers (Unicode categories)


def plain_name(name: str) -> str:
    """Letters, marks and digits of any script, case folded, in Unicode's compatibility composition.

    Example:
        >>> plain_name("Pleural_Effusion") == plain_name("pleural effusion")
        True
        >>> plain_name("肺炎")
        '肺炎'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(sign for sign in folded if unicodedata.category(sign)[0] in _KEPT)


def plain_id(text: str) -> str:
    """An identifier without what tools change about it: Unicode form, invisible signs, spaces around, ``.0``.

    Case and leading zeros stay, since they may tell people apart.

    Example:
        >>> plain_id(" 17.0 "), plain_id("007"), plain_id("A  12")
        ('17', '007', 'A 12')
    """
    visible = text
    if not (text.isascii() and text.isprintable()):  # most are, and are asked for often
        composed = unicodedata.normalize("NFKC", text)
        kept = (sign for sign in composed if unicodedata.category(sign) not in {"Cf", "Cc"} or sign in "\t\n\r")
        visible = "".join(kept)
    spaced = " ".join(visible.split())
    number = _WHOLE_NUMBER.fullmatch(spaced)
    return number[1] if number else spaced


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
