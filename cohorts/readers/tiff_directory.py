"""The directories of a TIFF file (TIFF 6.0 section 2, BigTIFF), read to their end, so that no page is lost silently.

tifffile stops silently at the first directory or value beyond the end of a file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medphantom.core.errors import Reason, UnreadableImage

BIG_TIFF = 43
BYTES_PER_VALUE = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
MANY_PAGES = 2**14
MANY_TAGS = 2**12  # of one page
SHARED_VALUES = 4
"""Largest size of a file's tag values relative to its own size: writers share some values, bombs share all."""
FEW_VALUES = 2**20  # bytes
REDUCED_TAG, WIDTH_TAG, LENGTH_TAG, BITS_TAG, SAMPLES_TAG = 254, 256, 257, 258, 277
SHORT, LONG = 3, 4


@dataclass(slots=True)
class Directories:
    """Summary of a file's directories.

    Attributes:
        total: Number of directories in the file.
        declared_bytes: Decoded size of their pages, in whole bytes per sample, without reduced copies.
        value_bytes: Size of the values of their tags.
    """

    total: int = 0
    declared_bytes: int = 0
    value_bytes: int = 0


def directories(path: Path) -> Directories:
    """Return the number of pages of a TIFF file, and the sizes that they declare.

    Raises:
        UnreadableImage: If a directory or one of its values is beyond the end of the file, the chain has no end, or the
            directories are larger than any writer needs.
    """
    total_bytes = path.stat().st_size
    found = Directories()
    with path.open("rb") as stream:
        head = stream.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = len(head) == 16 and struct.unpack(f"{order}H", head[2:4])[0] == BIG_TIFF
        if len(head) < 8:
            raise UnreadableImage(Reason.TRUNCATED, "a TIFF that ends within its header")
        place = struct.unpack(f"{order}Q", head[8:16])[0] if big else struct.unpack(f"{order}I", head[4:8])[0]
        seen: set[int] = set()
        while place:
            if place in seen:
                raise UnreadableImage(Reason.UNDECODABLE, "TIFF directories in a circle")
            if found.total >= MANY_PAGES:
                raise UnreadableImage(Reason.TOO_LARGE, f"a TIFF of more than {MANY_PAGES} pages")
            seen.add(place)
            place = _next(stream, place, order, total_bytes, found, big=big)
            found.total += 1
            if found.value_bytes > SHARED_VALUES * total_bytes + FEW_VALUES:
                raise UnreadableImage(Reason.TOO_LARGE, "a TIFF whose pages share more values than its file holds")
    return found


def _next(stream: IO[bytes], place: int, order: str, total_bytes: int, found: Directories, *, big: bool) -> int:
    """Return the position of the next directory, 0 after the last one; add what this one declares to ``found``."""
    count_format, entry_format, inline, offset_format = ("Q", "HHQ8s", 8, "Q") if big else ("H", "HHI4s", 4, "I")
    count_bytes, entry_bytes = struct.calcsize(order + count_format), struct.calcsize(order + entry_format)
    stream.seek(place)
    raw = stream.read(count_bytes)
    entries = struct.unpack(order + count_format, raw)[0] if len(raw) == count_bytes else total_bytes
    length = entries * entry_bytes + inline
    body = stream.read(length) if place + count_bytes + length <= total_bytes else b""
    if len(body) < length or not body:
        raise UnreadableImage(Reason.TRUNCATED, "a TIFF directory beyond the end of the file")
    if entries > MANY_TAGS:
        raise UnreadableImage(Reason.TOO_LARGE, f"a TIFF page of more than {MANY_TAGS} tags")
    numbers: dict[int, int] = {}
    for tag, kind, count, value in struct.iter_unpack(order + entry_format, body[:-inline]):
        size = BYTES_PER_VALUE.get(kind, 0) * count
        if size > inline:
            there = struct.unpack(order + offset_format, value)[0]
            if there + size > total_bytes:
                raise UnreadableImage(Reason.TRUNCATED, "values of a TIFF directory beyond the end of the file")
            found.value_bytes += size
            if tag == BITS_TAG and kind == SHORT:
                stream.seek(there)
                numbers[tag] = struct.unpack(f"{order}H", stream.read(2))[0]
        elif count and kind in {SHORT, LONG}:
            form = "H" if kind == SHORT else "I"
            numbers[tag] = struct.unpack_from(order + form, value)[0]
    if not numbers.get(REDUCED_TAG, 0) & 1:
        samples = numbers.get(WIDTH_TAG, 0) * numbers.get(LENGTH_TAG, 0) * numbers.get(SAMPLES_TAG, 1)
        found.declared_bytes += samples * max(8, numbers.get(BITS_TAG, 8)) // 8
    return int(struct.unpack(order + offset_format, body[-inline:])[0])
