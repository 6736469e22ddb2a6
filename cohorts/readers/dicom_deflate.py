"""Size limit of deflated DICOM files (PS3.5 A.5), which are unpacked in parts: pydicom would unpack them whole."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import IO

from pydicom.uid import DeflatedExplicitVRLittleEndian

from medphantom.core.errors import Reason, UnreadableImage

META_STARTS = 132  # after the preamble and its four letters (PS3.10 7.1)
GROUP_LENGTH = b"\x02\0\0\0UL\4\0"
HEAD_BYTES = 2048  # within which file meta information names the transfer syntax
NEVER_A_BOMB = 32 * 2**20
MOST_EXPANSION = 200
BYTES_AT_ONCE = 2**20


def require_modest_deflate(path: Path) -> None:
    """Refuse a deflated file that unpacks to far more than its size; any other file is accepted.

    Raises:
        UnreadableImage: If it unpacks to more than 32 MiB and more than 200 times its bytes on disk.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        if DeflatedExplicitVRLittleEndian.encode("ascii") not in head or head[128:META_STARTS] != b"DICM":
            return
        known = head[META_STARTS : META_STARTS + 8] == GROUP_LENGTH
        if not known:
            raise UnreadableImage(Reason.BROKEN, "a deflated file without the length of its meta information")
        stream.seek(META_STARTS + 12 + int.from_bytes(head[META_STARTS + 8 : META_STARTS + 12], "little"))
        most = max(NEVER_A_BOMB, MOST_EXPANSION * path.stat().st_size)
        if _unpacks_beyond(stream, most):
            raise UnreadableImage(
                Reason.TOO_LARGE, f"unpacks to more than {MOST_EXPANSION} times its bytes: a decompression bomb"
            )


def _unpacks_beyond(stream: IO[bytes], most: int) -> bool:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    found = 0
    try:
        while packed := stream.read(BYTES_AT_ONCE):
            while packed and not inflate.eof:
                found += len(inflate.decompress(packed, BYTES_AT_ONCE))
                if found > most:
                    return True
                packed = inflate.unconsumed_tail
    except zlib.error:  # its reader will say so
        return False
    return False
