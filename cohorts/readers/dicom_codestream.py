"""What a JPEG or JPEG 2000 codestream says of itself, which wins where a header says something else (PS3.5 8.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

END_MARKER = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_START_OF_SCAN = 0xDA
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # ISO/IEC 10918-1 table B.1
_RGB_IDS = ((82, 71, 66), (114, 103, 98))
_SOT, _COD = 0x90, 0x52


@dataclass(frozen=True, slots=True)
class JpegFacts:
    """What the markers of a JPEG codestream say.

    Attributes:
        precision: bits per sample; 0 when no frame header was found.
        ybr: whether three components are luminance and chrominance; ``None`` when no marker says so.
    """

    precision: int
    ybr: bool | None


def ends_whole(encoded: bytes) -> bool:
    """Whether a codestream of the JPEG family has its end marker; padding to even length may follow it."""
    return encoded.rstrip(b"\0").endswith(END_MARKER) or encoded.rstrip(b"\xff").endswith(END_MARKER)


def jpeg_facts(encoded: bytes) -> JpegFacts:
    """Precision and colour of a JPEG codestream.

    Component identifiers ``RGB``, an Adobe segment, a JFIF segment and subsampled chrominance are looked at, in that
    order (ITU-T T.871, T.872; libjpeg decides likewise).
    """
    adobe: bool | None = None
    jfif = False
    for marker, segment in _segments(encoded):
        if marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11] != 0  # 0: no transform, 1: YCbCr
        elif marker == 0xE0 and segment.startswith(b"JFIF"):
            jfif = True
        elif marker in _START_OF_FRAME and len(segment) >= 6:
            return JpegFacts(segment[0], _is_ybr(segment, adobe, jfif=jfif))
    return JpegFacts(0, None)


def _is_ybr(frame_header: bytes, adobe: bool | None, *, jfif: bool) -> bool | None:
    components = [frame_header[6 + 3 * number : 9 + 3 * number] for number in range(frame_header[5])]
    if len(components) != 3 or any(len(component) != 3 for component in components):
        return None
    if tuple(component[0] for component in components) in _RGB_IDS:
        return False
    if adobe is not None:
        return adobe
    subsampled = len({component[1] for component in components}) > 1
    return True if jfif or subsampled else None


def _segments(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker segments up to the first scan."""
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        yield marker, encoded[at + 4 : at + 2 + length]
        if marker == _START_OF_SCAN or length < 2:
            return
        at += 2 + length


def has_component_transform(encoded: bytes) -> bool | None:
    """Whether a JPEG 2000 codestream holds transformed colour, which decoders undo (COD, ISO/IEC 15444-1 A.6.1).

    ``None`` when there is no such segment.
    """
    start = max(encoded.find(b"\xff\x4f\xff\x51"), 0)  # behind the boxes of a file format, where there are any
    for marker, segment in _segments(encoded[start:]):
        if marker == _COD and len(segment) >= 5:
            return segment[4] != 0
        if marker == _SOT:
            break
    return None
