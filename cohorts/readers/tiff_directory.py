"""The directories of a TIFF file (TIFF 6.0 section 2, BigTIFF) walked to their end, so that no page is lost in silence.

tifffile ends quietly at the first directory or value that lies beyond the end of a file.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from cohorts.errors import Reason, UnreadableImage

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
MANY_PAGES = 1_000_000


def count_directories(path: Path) -> int:
    """How many pages a TIFF file has.

    Raises:
        UnreadableImage: a directory or one of its values lies beyond the end of the file, or the chain has no end.
    """
    total_bytes = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = len(head) == 16 and struct.unpack(f"{order}H", head[2:4])[0] == BIG_TIFF
        if len(head) < 8:
            raise UnreadableImage(Reason.TRUNCATED, "a TIFF that ends within its header")
        place = struct.unpack(f"{order}Q", head[8:16])[0] if big else struct.unpack(f"{order}I", head[4:8])[0]
        seen: set[int] = set()
        while place:
            if place in seen or len(seen) > MANY_PAGES:
                raise UnreadableImage(Reason.UNDECODABLE, "TIFF directories in a circle")
            seen.add(place)
            place = _next(stream, place, order, total_bytes, big=big)
    return len(seen)


def _next(stream: IO[bytes], place: int, order: str, total_bytes: int, *, big: bool) -> int:
    """Where the next directory lies; 0 after the last one."""
    count_format, entry_format, inline, offset_format = ("Q", "HHQ8s", 8, "Q") if big else ("H", "HHI4s", 4, "I")
    count_bytes, entry_bytes = struct.calcsize(order + count_format), struct.calcsize(order + entry_format)
    stream.seek(place)
    raw = stream.read(count_bytes)
    entries = struct.unpack(order + count_format, raw)[0] if len(raw) == count_bytes else total_bytes
    length = entries * entry_bytes + inline
    body = stream.read(length) if place + count_bytes + length <= total_bytes else b""
    if len(body) < length or not body:
        raise UnreadableImage(Reason.TRUNCATED, "a TIFF directory beyond the end of the file")
    for _, kind, count, value in struct.iter_unpack(order + entry_format, body[:-inline]):
        size = BYTES_PER_VALUE.get(kind, 0) * count
        if size > inline and struct.unpack(order + offset_format, value)[0] + size > total_bytes:
            raise UnreadableImage(Reason.TRUNCATED, "values of a TIFF directory beyond the end of the file")
    return int(struct.unpack(order + offset_format, body[-inline:])[0])
