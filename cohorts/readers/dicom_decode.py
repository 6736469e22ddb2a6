"""Stored values of DICOM pixels: exact, of a declared format, by decoders in a fixed order (PS3.3 C.7.6.3, PS3.5 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import convert_color_space, get_decoder

from medphantom.cohorts.readers.common import NOT_A_FILES_FAULT
from medphantom.cohorts.readers.dicom_codestream import (
    ends_whole,
    has_component_transform,
    jpeg_2000_facts,
    jpeg_facts,
)
from medphantom.cohorts.readers.dicom_file import PIXEL_KEYWORDS, bytes_of, code_of, has, integer_of
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

LOSSY_JPEG = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit}
LOSSLESS_JPEG = {uid.JPEGLossless, uid.JPEGLosslessSV1}
JPEG_LS = {uid.JPEGLSLossless, uid.JPEGLSNearLossless}
JPEG_2000 = {uid.JPEG2000Lossless, uid.JPEG2000}
HTJ2K = {uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K}
JPEG_FAMILY = LOSSY_JPEG | LOSSLESS_JPEG | JPEG_LS | JPEG_2000 | HTJ2K
MAY_OVERSHOOT = {uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K}  # lossy: a value beyond the valid bits is no rubbish

DECODERS: tuple[tuple[set[uid.UID], tuple[str, ...]], ...] = (
    (LOSSLESS_JPEG, ("gdcm",)),
    (JPEG_LS, ("pyjpegls", "gdcm")),
    (JPEG_2000, ("pylibjpeg", "gdcm")),
    (HTJ2K, ("pylibjpeg",)),
    ({uid.RLELossless}, ("pylibjpeg",)),
)
"""Pydicom's plugins for each family of transfer syntaxes, in the order in which they are tried.

Pillow is not among them: it scales what has neither 8 nor 16 bits, and transforms colours by itself. Nor is pydicom's
RLE decoder, which drops what a broken segment holds too much. Lossy JPEG goes to GDCM directly
(:func:`_lossy_jpeg_frame`), since pydicom's plugins refuse 12 bits.
"""


def stored_frames(ds: pydicom.Dataset, frames: int) -> Array:
    """Decode the cells of all frames, including bits beyond the valid ones; colour as RGB, channel last.

    Args:
        ds: Data set with pixel data whose description was checked.
        frames: Number of frames that the header declares.

    Returns:
        Array ``(F, H, W)`` or ``(F, H, W, 3)``.

    Raises:
        UnreadableImage: If data are truncated, exceed the declared pixels, or cannot be decoded.
    """
    syntax = ds.file_meta.TransferSyntaxUID
    encoded: list[bytes] = []
    try:
        if get_decoder(syntax).is_encapsulated:
            encoded = _encoded_frames(ds, frames, syntax)
        else:
            _require_whole(ds, frames)
        cells = _decoded(ds, encoded, syntax)
        color = _color_space(ds, encoded, syntax)
        grid = (frames, integer_of(ds, "Rows"), integer_of(ds, "Columns"))
        cells = cells.reshape((*grid, 3) if color else grid)
    except (UnreadableImage, *NOT_A_FILES_FAULT):
        raise
    except BaseException as error:  # decoders may raise anything
        name = "a private transfer syntax" if syntax.is_private else syntax.name
        detail = f"pixel data cannot be decoded ({name}; {type(error).__name__})"
        raise UnreadableImage(Reason.UNDECODABLE, detail) from None
    if color != "YBR":
        return cells
    if cells.dtype != np.uint8:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "luminance and chrominance of more than 8 bits")
    return np.asarray(convert_color_space(cells, "YBR_FULL", "RGB"))


def valid_bits(cells: Array, ds: pydicom.Dataset) -> Array:
    """Return the value of each cell: BitsStored bits from HighBit down, by PixelRepresentation (PS3.5 8.1.1).

    Bits beyond them are padding, overlays that PS3.5 retired, or undefined.

    Raises:
        UnreadableImage: If the valid bits of a compressed image do not start at bit 0, or its codestream has values of
            more bits than the header declares, so that one of the two is wrong.
    """
    allocated, stored = integer_of(ds, "BitsAllocated"), integer_of(ds, "BitsStored")
    high = integer_of(ds, "HighBit")
    if not has(ds, "PixelData") or allocated == 1 or (stored == allocated and high == stored - 1):
        return cells
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax in JPEG_FAMILY:
        if high != stored - 1:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "compressed samples whose high bit is not their last bit")
        if syntax in MAY_OVERSHOOT:
            return cells
    native = cells.astype(cells.dtype.newbyteorder("="), copy=True)
    width = 8 * native.dtype.itemsize
    np.left_shift(native, width - 1 - high, out=native)
    np.right_shift(native, width - stored, out=native)  # keeps the sign of signed values
    if syntax in JPEG_FAMILY:
        coded = cells.astype(cells.dtype.newbyteorder("="), copy=False)
        unsigned = coded.view(f"u{coded.dtype.itemsize}") < 2**stored  # a negative value may lack its sign bits
        if not (unsigned | (coded == native)).all():
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a codestream of more bits than the header declares")
    return native


def _require_whole(ds: pydicom.Dataset, frames: int) -> None:
    """Refuse uncompressed pixels that are fewer than declared, or more unless the excess is zeros."""
    keyword = next(keyword for keyword in PIXEL_KEYWORDS if has(ds, keyword))
    samples = max(1, integer_of(ds, "SamplesPerPixel"))
    bits = integer_of(ds, "Rows") * integer_of(ds, "Columns") * frames * samples * integer_of(ds, "BitsAllocated")
    expected = math.ceil(bits / 8)
    if code_of(ds, "PhotometricInterpretation") == "YBR_FULL_422":
        expected = expected // 3 * 2  # two pixels share their chrominance, PS3.3 C.7.6.3.1.2
    data = bytes_of(ds, keyword)
    if len(data) < expected:
        raise UnreadableImage(Reason.TRUNCATED, "fewer pixels than the header declares")
    if len(data) > expected + expected % 2 and any(data[expected:]):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "more pixels than the header declares")


def _encoded_frames(ds: pydicom.Dataset, frames: int, syntax: uid.UID) -> list[bytes]:
    offsets = None
    if bytes_of(ds, "ExtendedOffsetTable") and bytes_of(ds, "ExtendedOffsetTableLengths"):
        offsets = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths)
    try:
        encoded = list(generate_frames(bytes_of(ds, "PixelData"), number_of_frames=frames, extended_offsets=offsets))
    except (AttributeError, KeyError, TypeError, ValueError, EOFError, IndexError) as error:
        detail = f"fragments of pixel data do not make up the declared frames ({type(error).__name__})"
        raise UnreadableImage(Reason.TRUNCATED, detail) from None
    if len(encoded) < frames:
        raise UnreadableImage(Reason.TRUNCATED, "fewer frames than the header declares")
    if len(encoded) > frames:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "more frames than the header declares")
    if syntax in JPEG_FAMILY:
        if not all(map(ends_whole, encoded)):
            raise UnreadableImage(Reason.TRUNCATED, "compressed pixels without their end marker")
        _require_agreement(ds, encoded, syntax)
    return encoded


def _require_agreement(ds: pydicom.Dataset, encoded: Sequence[bytes], syntax: uid.UID) -> None:
    """Refuse codestreams whose size differs from the header's: decoders would return pixels in other rows.

    Bits are compared by values (:func:`valid_bits`): many encoders write 16 for any image of two bytes.
    """
    declared = (integer_of(ds, "Rows"), integer_of(ds, "Columns"))
    for frame in encoded:
        facts = jpeg_2000_facts(frame) if syntax in JPEG_2000 | HTJ2K else jpeg_facts(frame)
        if facts.precision and facts.size != declared and facts.size[0]:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a codestream of another size than the header declares")


def _decoded(ds: pydicom.Dataset, encoded: Sequence[bytes], syntax: uid.UID) -> Array:
    """Return cells from the first decoder that can read them; signs as declared, no other conversion."""
    if syntax in LOSSY_JPEG:
        return np.stack([_lossy_jpeg_frame(frame, ds) for frame in encoded])
    as_array = get_decoder(syntax).as_array
    how: dict[str, Any] = {"raw": True, "allow_excess_frames": False}
    if syntax not in JPEG_2000 | JPEG_LS | HTJ2K:
        how["correct_unused_bits"] = False  # done by valid_bits, which looks at HighBit too
    if not encoded:
        plain = syntax.is_little_endian and integer_of(ds, "SamplesPerPixel") <= 1 and has(ds, "PixelData")
        return (
            _native_cells(ds) if plain and integer_of(ds, "BitsAllocated") > 1 else np.asarray(as_array(ds, **how)[0])
        )
    plugins = next((plugins for family, plugins in DECODERS if syntax in family), ())
    problem: BaseException = NotImplementedError()
    for plugin in plugins:
        try:
            return np.asarray(as_array(ds, decoding_plugin=plugin, **how)[0])
        except NOT_A_FILES_FAULT:
            raise
        except BaseException as error:  # codecs in Rust raise panics that are no Exception
            problem = error
    raise problem


def _native_cells(ds: pydicom.Dataset) -> Array:
    """Return uncompressed grey cells in little endian as stored, which is much faster than with pydicom."""
    dtype = f"<{'ui'[integer_of(ds, 'PixelRepresentation')]}{integer_of(ds, 'BitsAllocated') // 8}"
    total = integer_of(ds, "Rows") * integer_of(ds, "Columns") * max(1, integer_of(ds, "NumberOfFrames"))
    return np.frombuffer(bytes_of(ds, "PixelData"), dtype, count=total)


def _lossy_jpeg_frame(encoded: bytes, ds: pydicom.Dataset) -> Array:
    """Decode one frame of JPEG baseline or extended by GDCM: components as coded, with 8 or 12 bits of the codestream.

    The cells have the allocated size, ``(H, W)`` or ``(H, W, 3)``.
    """
    import gdcm

    precision = jpeg_facts(encoded).precision
    sign = "ui"[integer_of(ds, "PixelRepresentation") & 1]
    samples, allocated = integer_of(ds, "SamplesPerPixel"), integer_of(ds, "BitsAllocated")
    if precision not in {8, 12} or precision > allocated or precision > integer_of(ds, "BitsStored"):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a codestream of other bits than the header declares")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((integer_of(ds, "Columns"), integer_of(ds, "Rows"), 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation
    image.SetPhotometricInterpretation(kind(kind.RGB if samples == 3 else kind.MONOCHROME2))  # RGB: left as coded
    if samples == 3:
        image.SetPlanarConfiguration(0)
    syntax = gdcm.TransferSyntax
    image.SetTransferSyntax(syntax(syntax.JPEGBaselineProcess1 if precision == 8 else syntax.JPEGExtendedProcess2_4))
    width = 8 if precision == 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(samples, width, precision, precision - 1, 0))
    decoded = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM hands bytes out as text
    cells = np.frombuffer(decoded, dtype=f"<u{width // 8}")
    shape = (integer_of(ds, "Rows"), integer_of(ds, "Columns"))
    return cells.reshape((*shape, samples) if samples == 3 else shape).astype(f"{sign}{allocated // 8}")


def _color_space(ds: pydicom.Dataset, encoded: Sequence[bytes], syntax: uid.UID) -> str:
    """Return the colour space of the cells, ``RGB`` or ``YBR``, preferring the codestream; empty for one sample."""
    if integer_of(ds, "SamplesPerPixel") <= 1:
        return ""
    declared = code_of(ds, "PhotometricInterpretation")
    ybr = declared.startswith("YBR_FULL")
    if syntax in LOSSY_JPEG:
        found = {jpeg_facts(frame).ybr for frame in encoded}
        if len(found) > 1:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "frames of several colour spaces")
        (coded,) = found
        return "YBR" if coded or (coded is None and ybr) else "RGB"
    transformed = declared in {"YBR_ICT", "YBR_RCT"}
    if syntax in JPEG_2000 | HTJ2K:
        undone = all(has_component_transform(frame) for frame in encoded)
        if (transformed and not undone) or (ybr and undone):
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a colour space that the codestream contradicts")
    elif transformed:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a colour space that its transfer syntax does not have")
    return "YBR" if ybr else "RGB"
