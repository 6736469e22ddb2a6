"""Properties in a JPEG or JPEG 2000 codestream, which take precedence over the header (PS3.5 8.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

END_MARKER = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_START_OF_SCAN = 0xDA
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # ISO/IEC 10918-1 table B.1; 0xF7: JPEG-LS
_RGB_IDS = ((82, 71, 66), (114, 103, 98))
_SOT, _SIZ, _COD = 0x90, 0x51, 0x52


@dataclass(frozen=True, slots=True)
class CodestreamFacts:
    """Content of a codestream's markers.

    Attributes:
        precision: Number of bits per sample; 0 if no frame header was found.
        size: Number of rows and columns; 0 rows if they are declared after the first scan.
        ybr: Whether three components are luminance and chrominance; ``None`` if no marker declares it.
    """

    precision: int
    size: tuple[int, int]
    ybr: bool | None = None


def ends_whole(encoded: bytes) -> bool:
    """Return whether a JPEG-family codestream has its end marker, possibly followed by padding to even length."""
    return encoded.rstrip(b"\0").endswith(END_MARKER) or encoded.rstrip(b"\xff").endswith(END_MARKER)


def jpeg_facts(encoded: bytes) -> CodestreamFacts:
    """Return precision, size and colour of a JPEG or JPEG-LS codestream (ISO/IEC 10918-1 B.2.2, 14495-1 C.2.2).

    Component identifiers ``RGB``, an Adobe segment, a JFIF segment and subsampled chrominance are checked in that order
    (ITU-T T.871, T.872; libjpeg decides in the same way).
    """
    adobe: bool | None = None
    jfif = False
    for marker, segment in _segments(encoded):
        if marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11] != 0  # 0: no transform, 1: YCbCr
        elif marker == 0xE0 and segment.startswith(b"JFIF"):
            jfif = True
        elif marker in _START_OF_FRAME and len(segment) >= 6:
            size = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
            return CodestreamFacts(segment[0], size, _is_ybr(segment, adobe, jfif=jfif))
    return CodestreamFacts(0, (0, 0))


def jpeg_2000_facts(encoded: bytes) -> CodestreamFacts:
    """Return largest component precision and size of a JPEG 2000 codestream (SIZ, ISO/IEC 15444-1 A.5.1)."""
    for marker, segment in _segments(encoded[_codestream_start(encoded) :]):
        if marker == _SIZ and len(segment) >= 39:
            right, lower, left, upper = (int.from_bytes(segment[at : at + 4], "big") for at in (2, 6, 10, 14))
            components = int.from_bytes(segment[34:36], "big")
            depths = segment[36 : 36 + 3 * components : 3]
            return CodestreamFacts(max((depth & 0x7F) + 1 for depth in depths), (lower - upper, right - left))
        if marker == _SOT:
            break
    return CodestreamFacts(0, (0, 0))


def _codestream_start(encoded: bytes) -> int:
    """Return the start of a JPEG 2000 codestream, after the boxes of a file format if there are any."""
    return max(encoded.find(b"\xff\x4f\xff\x51"), 0)


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
    """Yield the marker segments up to the first scan."""
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
    """Return whether a JPEG 2000 codestream has transformed colour, undone by decoders (COD, ISO/IEC 15444-1 A.6.1).

    The result is ``None`` if there is no such segment.
    """
    for marker, segment in _segments(encoded[_codestream_start(encoded) :]):
        if marker == _COD and len(segment) >= 5:
            return segment[4] != 0
        if marker == _SOT:
            break
    return None
