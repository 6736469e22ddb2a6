"""JPEG files (ITU-T T.81, T.871): markers are checked before Pillow decodes, which fills missing data with grey."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medphantom.cohorts.readers.common import ReadOptions, require_size
from medphantom.cohorts.readers.picture_values import ORIENTATION_TAG, Page, known_orientation, turned
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

SOI, EOI, SOS, APP14 = 0xD8, 0xD9, 0xDA, 0xEE
FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG and DAC
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length: TEM, RST0 to RST7
_MARKER_IN_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
PADDING = bytes(range(1, 255)) * 4
"""Entropy-coded data that a decoder reads only when it has not yet seen all of its blocks."""
MANY_SCANS = 100  # a progressive picture has about ten, and each one goes over all of its blocks
MP_ENTRIES, THUMBNAIL = 0xB002, "Large Thumbnail"


@dataclass(frozen=True, slots=True)
class JpegFacts:
    """Content of the markers of a complete JPEG.

    Attributes:
        bits: Number of bits per sample.
        size: Height and width in pixels.
        components: Number of components: 1 grey, 3 colour, 4 inks.
        adobe: Whether an Adobe marker defines the coding of inks and colours.
        scan_ends: End of the entropy-coded data of each scan; a progressive picture has several.
    """

    bits: int
    size: tuple[int, int]
    components: int
    adobe: bool
    scan_ends: tuple[int, ...]


def read(data: bytes, options: ReadOptions) -> Page:
    """Return the picture of a JPEG, ``(H, W)`` or ``(H, W, 3)``; CMYK and YCCK become RGB.

    Raises:
        UnreadableImage: If it is truncated, has several pictures, or samples that the decoder would not return exactly.
    """
    facts = scanned(data)
    if facts.bits != 8:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"a JPEG of {facts.bits} bits a sample: convert it to PNG")
    if facts.components not in {1, 3, 4} or (facts.components == 4 and not facts.adobe):
        # with an Adobe marker, inks are stored inverted; without, nothing says so
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"a JPEG of {facts.components} components of unknown meaning")
    if not all(facts.size):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a JPEG whose frame header tells no rows or columns")
    require_size(facts.size[0] * facts.size[1] * facts.components * 2, options)
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        _require_one(image)
        orientation = known_orientation(image.getexif().get(ORIENTATION_TAG))
        values = _values(image)
    with Image.open(io.BytesIO(_padded(data, facts.scan_ends)), formats=("JPEG",)) as image:
        if not np.array_equal(values, _values(image)):
            raise UnreadableImage(Reason.TRUNCATED, "a JPEG whose blocks end before the picture does")
    return Page(turned(values, orientation), orientation=orientation)


def scanned(data: bytes) -> JpegFacts:
    """Read the markers from SOI to EOI.

    Raises:
        UnreadableImage: If the file ends before EOI, or has no frame.
    """
    frame, adobe, place = b"", False, 2
    scan_ends: list[int] = []
    while True:
        place = data.find(b"\xff", place)
        while 0 <= place < len(data) - 1 and data[place + 1] == 0xFF:  # fill bytes
            place += 1
        if place < 0 or place + 1 >= len(data):
            raise UnreadableImage(Reason.TRUNCATED, "a JPEG without its end")
        marker = data[place + 1]
        if marker == EOI:
            break
        if marker in ALONE or marker in {0, SOI}:
            place += 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if place + 2 + length > len(data) or length < 2:
            raise UnreadableImage(Reason.TRUNCATED, "a JPEG that ends within a segment")
        frame = frame or (body if marker in FRAME_HEADERS else b"")
        adobe = adobe or (marker == APP14 and body.startswith(b"Adobe"))
        place += 2 + length
        if marker == SOS:
            following = _MARKER_IN_DATA.search(data, place)
            place = following.start() if following else len(data)
            scan_ends.append(place)
            if len(scan_ends) > MANY_SCANS:
                raise UnreadableImage(Reason.TOO_LARGE, f"a JPEG of more than {MANY_SCANS} scans")
    if len(frame) < 6:
        raise UnreadableImage(Reason.UNDECODABLE, "a JPEG without a frame")
    size = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    return JpegFacts(frame[0], size, frame[5], adobe, tuple(scan_ends))


def declared_bytes(path: Path) -> int:
    """Return the size that the frame header of a JPEG file declares, at 8 bits per sample; 0 if there is none."""
    with path.open("rb") as stream:
        place = 2
        while place:
            stream.seek(place)
            head = stream.read(10)
            if len(head) < 10 or head[0] != 0xFF or head[1] == SOS:
                return 0
            if head[1] in FRAME_HEADERS:
                return int.from_bytes(head[5:7], "big") * int.from_bytes(head[7:9], "big") * head[9]
            alone = head[1] in ALONE or head[1] in {0xFF, SOI}
            place += (1 if head[1] == 0xFF else 2) if alone else 2 + int.from_bytes(head[2:4], "big")
    return 0


def _padded(data: bytes, scan_ends: tuple[int, ...]) -> bytes:
    """Return the file with further data after each scan, ignored by a decoder that has decoded every block of it."""
    starts = (0, *scan_ends)
    return PADDING.join(data[start:end] for start, end in zip(starts, (*scan_ends, len(data)), strict=True))


def _require_one(image: Image.Image) -> None:
    """Refuse a Multi-Picture Format file (CIPA DC-007), unless all pictures but the first are its thumbnails."""
    if getattr(image, "n_frames", 1) == 1:
        return
    entries = getattr(image, "mpinfo", {}).get(MP_ENTRIES, [])
    kinds = [str(entry["Attribute"]["MPType"]) for entry in entries[1:]]
    if not kinds or not all(kind.startswith(THUMBNAIL) for kind in kinds):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a JPEG that holds several pictures")


def _values(image: Image.Image) -> Array:
    return np.asarray(image.convert("RGB") if image.mode == "CMYK" else image)
