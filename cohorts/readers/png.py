"""PNG files (W3C PNG, third edition): every chunk is checked before Pillow decodes, which ignores missing rows."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medphantom.cohorts.readers.common import ReadOptions, require_size
from medphantom.cohorts.readers.picture_values import (
    ORIENTATION_TAG,
    Page,
    known_orientation,
    on_black,
    opaque_numbers,
    require_opaque,
    turned,
)
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FIRST_CHUNK = b"\0\0\0\x0dIHDR"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
BYTES_AT_ONCE = 2**20
BELIEVED_CHUNKS = (b"tRNS", b"acTL")  # ancillary ones that decide what the picture is


@dataclass(frozen=True, slots=True)
class PngFacts:
    """Content of the chunks of a complete PNG.

    Attributes:
        bits: Number of bits per sample.
        color_type: Colour type as in IHDR.
        transparent: Fully transparent sample values of a grey or RGB picture (tRNS).
        colors: Number of palette entries; 0 without a palette.
    """

    bits: int
    color_type: int
    transparent: tuple[int, ...] | None
    colors: int


def read(data: bytes, options: ReadOptions) -> Page:
    """Return the picture of a PNG, ``(H, W)`` or ``(H, W, 3)``; alpha is applied on black.

    Raises:
        UnreadableImage: If it is truncated, damaged, animated, or has 16 bits per sample and more than one channel.
    """
    facts = checked(data, options)
    with _opened(data) as image:
        orientation = known_orientation(image.getexif().get(ORIENTATION_TAG))
        return Page(turned(_values(image, facts), orientation), orientation=orientation)


def read_numbers(data: bytes, options: ReadOptions) -> Page:
    """Return the numbers of a mask as stored: palette indices, and samples of few bits without spreading them.

    Raises:
        UnreadableImage: As for :func:`read`, and if a class is transparent.
    """
    facts = checked(data, options)
    with _opened(data) as image:
        orientation = known_orientation(image.getexif().get(ORIENTATION_TAG))
        values = _numbers(image, facts)
    return Page(turned(values, orientation), orientation=orientation)


def declared_bytes(head: bytes) -> int:
    """Return the size that the header of a PNG declares, with samples in whole bytes; 0 if there is none."""
    if len(head) < 26 or not head.startswith(SIGNATURE + FIRST_CHUNK):
        return 0
    width, height, bits, color_type = struct.unpack(">IIBB", head[16:26])
    return int(width) * int(height) * CHANNELS.get(color_type, 1) * (2 if bits == 16 else 1)


def checked(data: bytes, options: ReadOptions) -> PngFacts:
    """Return facts of a PNG after verifying that all chunks and rows are complete.

    Raises:
        UnreadableImage: If they are not, or decoding would lose values.
    """
    packed: list[memoryview] = []
    head, transparency, colors, ended = b"", b"", 0, False
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            head = bytes(body)
        elif kind == b"IDAT":
            packed.append(body)
        elif kind == b"PLTE":
            colors = len(body) // 3
        elif kind == b"tRNS":
            transparency = bytes(body)
        elif kind == b"acTL" and bytes(body[:4]) != b"\0\0\0\x01":
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "an animated PNG: save its frames as pictures")
        ended = ended or kind == b"IEND"
    if not head:
        raise UnreadableImage(Reason.TRUNCATED, "a PNG that ends behind its signature")
    width, height, bits, color_type, _, _, interlace = struct.unpack(">IIBBBBB", head)
    if color_type not in CHANNELS:
        raise UnreadableImage(Reason.UNDECODABLE, "a PNG colour type that the standard does not define")
    if not width or not height:
        raise UnreadableImage(Reason.UNDECODABLE, "a PNG without rows or columns")
    if bits == 16 and color_type != GREY:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a 16-bit PNG with colour or alpha would lose 8 bits")
    require_size(width * height * CHANNELS[color_type] * 2, options)
    if not ended:
        raise UnreadableImage(Reason.TRUNCATED, "a PNG without its end")
    _require_rows(packed, _raw_bytes(width, height, bits * CHANNELS[color_type], interlace))
    entries = struct.unpack(f">{len(transparency) // 2}H", transparency[: len(transparency) // 2 * 2])
    named = color_type in {GREY, RGB} and len(entries) == CHANNELS[color_type]
    return PngFacts(bits, color_type, tuple(entry % 2**bits for entry in entries) if named else None, colors)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    whole = memoryview(data)
    place = len(SIGNATURE)
    if not FIRST_CHUNK.startswith(data[place : place + len(FIRST_CHUNK)]):
        raise UnreadableImage(Reason.UNDECODABLE, "a PNG that does not begin with its header")
    while place < len(data):
        if place + 12 > len(data):
            raise UnreadableImage(Reason.TRUNCATED, "a PNG that ends within a chunk")
        length, kind = struct.unpack_from(">I4s", data, place)
        if not kind.isalpha():
            raise UnreadableImage(Reason.UNDECODABLE, "a PNG chunk without a name")
        if place + 12 + length > len(data):
            raise UnreadableImage(Reason.TRUNCATED, "a PNG that ends within a chunk")
        body = whole[place + 8 : place + 8 + length]
        believed = kind[:1].isupper() or kind in BELIEVED_CHUNKS  # a capital: critical
        if believed and zlib.crc32(whole[place + 4 : place + 8 + length]) != int.from_bytes(
            data[place + 8 + length : place + 12 + length], "big"
        ):
            raise UnreadableImage(Reason.UNDECODABLE, "a PNG chunk whose checksum is wrong")
        yield kind, body
        if kind == b"IEND":  # what follows is no part of the picture
            return
        place += 12 + length


def _raw_bytes(width: int, height: int, pixel_bits: int, interlace: int) -> int:
    """Return the bytes of all rows with their filter bytes, before compression."""
    passes = [(width, height)]
    if interlace:
        passes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in ADAM7]
    return sum(rows * (1 + -(-columns * pixel_bits // 8)) for columns, rows in passes if columns > 0 and rows > 0)


def _require_rows(packed: Sequence[memoryview], needed: int) -> None:
    """Unpack the rows in parts, no further than the picture needs; nothing is kept of them."""
    inflate = zlib.decompressobj()
    found = 0
    try:
        for body in packed:
            rest: bytes | memoryview = body
            while rest and found <= needed and not inflate.eof:  # one byte further: on to the checksum
                found += len(inflate.decompress(rest, min(BYTES_AT_ONCE, needed + 1 - found)))
                rest = inflate.unconsumed_tail
                if found > needed:
                    break
    except zlib.error:
        raise UnreadableImage(Reason.UNDECODABLE, "compressed rows that are damaged") from None
    if found < needed:
        raise UnreadableImage(Reason.TRUNCATED, "a PNG whose rows end before the picture does")


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=("PNG",))


def _values(image: Image.Image, facts: PngFacts) -> Array:
    if facts.color_type == PALETTE:
        _indices(image, facts)
        return _colors(image)
    if facts.color_type in {GREY_ALPHA, RGB_ALPHA}:
        return on_black(np.asarray(image))
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    hidden = _hidden(values, facts)
    return values if hidden is None else np.where(hidden, 0, values).astype(values.dtype)


def _numbers(image: Image.Image, facts: PngFacts) -> Array:
    """Return samples or palette indices as stored; the opacity of palette colours is ignored, as it is for display."""
    if facts.color_type == PALETTE:
        return _indices(image, facts)
    if facts.color_type in {GREY_ALPHA, RGB_ALPHA}:
        return opaque_numbers(np.asarray(image))
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    hidden = _hidden(values, facts)
    if hidden is not None:
        require_opaque(values, ~hidden)
    return values // _spread(facts)


def _indices(image: Image.Image, facts: PngFacts) -> Array:
    """Return palette indices, each of which must have a colour (W3C PNG 11.2.2); Pillow would invent the others."""
    indices = np.asarray(image)
    if indices.max() >= facts.colors:
        raise UnreadableImage(Reason.UNDECODABLE, "a PNG with palette indices beyond its palette")
    return indices


def _hidden(values: Array, facts: PngFacts) -> Array | None:
    """Return which pixels tRNS makes transparent, ``(H, W)`` or ``(H, W, 1)``; ``None`` without it."""
    if facts.transparent is None:
        return None
    if facts.color_type == RGB:
        return np.asarray((values == np.array(facts.transparent)).all(axis=-1, keepdims=True))
    return np.asarray(values == facts.transparent[0] * _spread(facts))


def _spread(facts: PngFacts) -> int:
    """Return the factor by which Pillow multiplies grey samples of few bits, so that white is 255."""
    return 255 // (2**facts.bits - 1) if facts.color_type == GREY and facts.bits < 8 else 1


def _colors(image: Image.Image) -> Array:
    if "transparency" in image.info:
        return on_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))
