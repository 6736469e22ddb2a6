"""The stored samples of a TIFF page, exactly: strips and tiles unpacked as bytes without interpretation.

tifffile alone has no LZW, and Pillow decodes it but returns 16-bit colour in 8 bits. Here libtiff (through Pillow) only
unpacks bytes, and the tags define their meaning: TIFF 6.0, and Adobe's technical note 3 for floating predictors.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

_FORMATS = tifffile.SAMPLEFORMAT
SAMPLE_DTYPES = {
    **{(_FORMATS.UINT, bits): "u1" for bits in (1, 2, 4)},
    **{(_FORMATS.UINT, bits): f"u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{(_FORMATS.INT, bits): f"i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{(_FORMATS.IEEEFP, bits): f"f{bits // 8}" for bits in (16, 32, 64)},
}
STORED = {tifffile.COMPRESSION.NONE}
DEFLATED = {tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE}
UNPACKED_BY_LIBTIFF = {
    tifffile.COMPRESSION.LZW,
    tifffile.COMPRESSION.PACKBITS,
    tifffile.COMPRESSION.LZMA,
    tifffile.COMPRESSION.ZSTD,
}
EXACT = STORED | DEFLATED | UNPACKED_BY_LIBTIFF
MANY_SEGMENTS = 2**18
SHORT, LONG = 3, 4  # TIFF types
REVERSED_BITS = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1)[:, ::-1], axis=1)[:, 0]


def stored_samples(page: Any) -> Array:
    """Return samples ``(H, W, S)`` of a page as stored, in native byte order; fewer than 8 bits as uint8.

    Raises:
        UnreadableImage: If strips are missing, truncated or damaged, or samples cannot be read exactly.
    """
    dtype = sample_dtype(page)
    if page.compression not in EXACT:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a TIFF compression that is not decoded exactly")
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    separate = samples > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    planes, together = (samples, 1) if separate else (1, samples)
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
    down, across = -(-height // rows), -(-width // columns)
    require_segments(page, planes * down * across)
    found = np.empty((planes, height, width, together), dtype.newbyteorder("="))
    places = [(plane, y, x) for plane in range(planes) for y in range(down) for x in range(across)]
    for (plane, y, x), place, size in zip(places, page.dataoffsets, page.databytecounts, strict=True):
        top, left = y * rows, x * columns
        here = rows if page.is_tiled else min(rows, height - top)
        data = _segment(page, place, size, here * -(-columns * together * page.bitspersample // 8))
        block = _samples(data, (here, columns, together), page, dtype)
        found[plane, top : top + rows, left : left + columns] = block[: height - top, : width - left]
    return np.moveaxis(found[..., 0], 0, -1) if separate else found[0]


def sample_dtype(page: Any) -> np.dtype[Any]:
    """Return the type of a page's samples, in the byte order of the file.

    Raises:
        UnreadableImage: If samples differ in kind, are complex, or have an unsupported number of bits.
    """
    kind = (page.sampleformat, page.bitspersample)
    if not all(isinstance(part, int) for part in kind) or kind not in SAMPLE_DTYPES:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "TIFF samples of a kind or number of bits that is not read")
    return np.dtype(page.parent.byteorder + SAMPLE_DTYPES[kind])


def require_segments(page: Any, expected: int) -> None:
    """Refuse a page whose strips or tiles are not all in the file.

    Raises:
        UnreadableImage: If the file is truncated, or leaves out some of them.
    """
    if expected > MANY_SEGMENTS:
        raise UnreadableImage(Reason.TOO_LARGE, f"a TIFF page of more than {MANY_SEGMENTS} strips or tiles")
    if len(page.dataoffsets) != expected or len(page.databytecounts) != expected:
        raise UnreadableImage(Reason.UNDECODABLE, "a TIFF page with too few or too many strips")
    if any(not place or not size for place, size in zip(page.dataoffsets, page.databytecounts, strict=True)):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a TIFF that leaves out strips")
    total = page.parent.filehandle.size
    if any(place + size > total for place, size in zip(page.dataoffsets, page.databytecounts, strict=True)):
        raise UnreadableImage(Reason.TRUNCATED, "a TIFF whose strips lie beyond its end")


def _segment(page: Any, place: int, size: int, needed: int) -> bytes:
    page.parent.filehandle.seek(place)
    data: bytes = page.parent.filehandle.read(size)
    if page.fillorder == tifffile.FILLORDER.LSB2MSB:
        data = REVERSED_BITS[np.frombuffer(data, np.uint8)].tobytes()
    if page.compression in DEFLATED:
        try:
            data = zlib.decompressobj().decompress(data, max(1, needed))  # 0 would mean no limit
        except zlib.error:
            raise UnreadableImage(Reason.UNDECODABLE, "compressed strips that are damaged") from None
    elif page.compression in UNPACKED_BY_LIBTIFF:
        data = _unpacked(data, int(page.compression), needed)
    if len(data) < needed:
        raise UnreadableImage(Reason.UNDECODABLE, "a strip that holds fewer pixels than it should")
    return data[:needed]


def _unpacked(data: bytes, compression: int, needed: int) -> bytes:
    """Return the bytes that libtiff unpacks, declared as one row of grey bytes."""
    tags = [(256, LONG, needed), (257, LONG, 1), (258, SHORT, 8), (259, SHORT, compression), (262, SHORT, 1)]
    tags += [(273, LONG, 8), (277, SHORT, 1), (278, LONG, 1), (279, LONG, len(data))]
    body = data + b"\0" * (len(data) % 2)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(body))
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in tags)
    with Image.open(io.BytesIO(head + body + directory + bytes(4)), formats=("TIFF",)) as image:
        return image.tobytes()


def _samples(data: bytes, shape: tuple[int, int, int], page: Any, dtype: np.dtype[Any]) -> Array:
    """Return one strip or tile ``(rows, columns, samples)`` with its predictor undone."""
    rows, columns, samples = shape
    if page.bitspersample < 8:
        if page.predictor != tifffile.PREDICTOR.NONE:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a predictor of samples below 8 bits")
        bits = np.unpackbits(np.frombuffer(data, np.uint8).reshape(rows, -1), axis=1)
        bits = bits[:, : columns * samples * page.bitspersample].reshape(*shape, page.bitspersample)
        found: Array = np.zeros(shape, np.uint8)
        for bit in range(page.bitspersample):
            found = (found << 1) | bits[..., bit]
        return found
    if page.predictor == tifffile.PREDICTOR.FLOATINGPOINT and dtype.kind == "f":
        return _floats(data, shape, dtype)
    values = np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    if page.predictor == tifffile.PREDICTOR.HORIZONTAL:
        whole = values.view(f"u{dtype.itemsize}")
        return np.cumsum(whole, axis=1, dtype=whole.dtype).view(values.dtype)
    if page.predictor != tifffile.PREDICTOR.NONE:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a TIFF predictor that is not read")
    return values


def _floats(data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
    """Undo Adobe's floating-point predictor: per row, byte differences, most significant bytes of all samples first."""
    rows, columns, samples = shape
    steps = np.frombuffer(data, np.uint8).reshape(rows, -1, samples)
    planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, columns * samples)
    values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{dtype.itemsize}")
    return values.reshape(shape).astype(dtype.newbyteorder("="))
