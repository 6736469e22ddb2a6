"""The split that a folder, a file or a cell of a table names."""

from __future__ import annotations

import re

from medphantom.cohorts.records import LEFT_OUT_SPLIT, Split
from medphantom.core.naming import plain_text

SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train", "tr": "train", "imagestr": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val", "dev": "val",
    "holdout": "holdout", "gate": "holdout",
    "test": "test", "testing": "test", "ts": "test", "imagests": "test",
}  # fmt: skip
"""Names of folders, files and cells, case folded, that denote the split of an image; ``imagesTr`` is nnU-Net's.

``gate`` is the holdout's name in cohorts of version 1 and their exports.
"""

_BESIDE_SPLITS = frozenset(
    {"set", "sets", "image", "images", "img", "imgs", "data", "dataset", "split", "subset", "part"}
)
_IN_BRACKETS = re.compile(r"[(\[][^()\[\]]*[)\]]")
_ONE_WORD = re.compile(f"({'|'.join((*SPLIT_WORDS, 'trainval'))})(?:set|data|images)?")


def split_word(text: str) -> Split | None:
    """Return the split that a name or a cell denotes, also with *set* or *images*, a number, or a remark in brackets.

    Example:
        >>> [split_word(text) for text in ("Train set", "Test (internal)", "train2017", "trainval", "val_images")]
        ['train', 'test', 'train', 'train', 'val']
        >>> [split_word(text) for text in ("train;val", "attest", "set", "trainee")]
        [None, None, None, None]
    """
    folded = plain_text(text).casefold()
    if folded in SPLIT_WORDS:
        return SPLIT_WORDS[folded]
    words = [
        word for word in re.split(r"[\W\d_]+", _IN_BRACKETS.sub(" ", folded)) if word and word not in _BESIDE_SPLITS
    ]
    match = _ONE_WORD.fullmatch(words[0]) if len(words) == 1 else None
    return None if match is None else SPLIT_WORDS.get(match[1], "train")


def cell_split(cell: str) -> str:
    """Return the split that a cell denotes, or our exports' value for images in none; empty if it denotes none."""
    return LEFT_OUT_SPLIT if cell.casefold() == LEFT_OUT_SPLIT else split_word(cell) or ""
