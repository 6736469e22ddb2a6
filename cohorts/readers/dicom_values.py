"""From stored values to those of a cohort: modality LUT, palette, padding, and the VOI window as metadata.

PS3.3 C.7.6.3 (image pixel), C.7.5.1.1.2 (padding), C.11.1 (modality LUT) and C.11.2 (VOI LUT). What is applied, refused
or ignored is listed in ``docs/formats/sources.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut

from medphantom.cohorts.readers.common import INTEGER_DTYPES, narrowest
from medphantom.cohorts.readers.dicom_file import (
    RESCALE,
    WINDOW,
    code_of,
    has,
    integer_of,
    items_of,
    numbers_of,
    stating,
    text_of,
    values_of,
)
from medphantom.cohorts.records import Voi
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

PADDING = {
    "PixelData": ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    "FloatPixelData": ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    "DoubleFloatPixelData": ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
}

DOSE_CLASS = "1.2.840.10008.5.1.4.1.1.481.2"


def is_inverted(ds: pydicom.Dataset) -> bool:
    """Return whether small values are bright (PS3.3 C.7.6.3.1.2)."""
    return code_of(ds, "PhotometricInterpretation") == "MONOCHROME1"


def modality_values(stored: Array, ds: pydicom.Dataset, frame: int) -> Array:
    """Return the exact output of the modality LUT in the smallest lossless dtype (PS3.3 C.11.1).

    Enhanced objects have the rescale of each frame in their functional groups (PS3.3 C.7.6.16.2.9); the values of a
    dose grid are multiplied by DoseGridScaling instead (PS3.3 C.8.8.3).

    Args:
        stored: One plane of stored values.
        ds: Data set of the plane.
        frame: Index of the plane within its file.

    Raises:
        UnreadableImage: If the LUT is incomplete or contradicts itself.
    """
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    table = items_of(ds, "ModalityLUTSequence")
    linear = rescale_of(ds, frame)
    dose = dose_scaling(ds)
    if dose is not None:
        if table or linear not in {None, (1.0, 0.0)}:
            raise UnreadableImage(
                Reason.UNSUPPORTED_PIXELS, "a dose grid scaling and a modality LUT or rescale beside it"
            )
        return native if dose == 1 else _rescaled(native, dose, 0.0)
    if table:
        if linear not in {None, (1.0, 0.0)}:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a modality LUT and a rescale beside it")
        first, entries = lut_of(table[0], signed=bool(integer_of(ds, "PixelRepresentation")), ds=ds)
        values = entries[np.clip(native.astype(np.int64) - first, 0, len(entries) - 1)]
        return native if np.array_equal(values, native) else values
    if linear in {None, (1.0, 0.0)}:
        return native
    return _rescaled(native, *linear)


def rescale_of(ds: pydicom.Dataset, frame: int) -> tuple[float, float] | None:
    """Return RescaleSlope and RescaleIntercept; ``None`` if there are none.

    The functional groups of an enhanced object come first, since its standard allows no other rescale (PS3.3 A.36.2.3,
    C.7.6.16.2.9).

    Raises:
        UnreadableImage: If only one is there, one is empty or not a number, or the slope is zero; or if data set and
            functional groups transform the values differently, so that their meaning is unknown.
    """
    source = rescale_source(ds, frame)
    if source is None:
        return None
    found = _rescale_in(source)
    if source is not ds and (has(ds, "RescaleSlope") or has(ds, "RescaleIntercept")):
        whole = _rescale_in(ds)
        if whole not in {(1.0, 0.0), found}:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a rescale of the frame and another one of the data set")
    return found


def _rescale_in(source: pydicom.Dataset) -> tuple[float, float]:
    slope, intercept = (numbers_of(source, keyword, 1) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None:
        stated = all(values_of(source, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
        problem = "no single finite number" if stated else "missing or empty"
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"a rescale whose slope or intercept is {problem}")
    if slope[0] == 0:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a rescale whose slope is zero")
    return slope[0], intercept[0]


def rescale_source(ds: pydicom.Dataset, frame: int) -> pydicom.Dataset | None:
    """Return the data set with the rescale of a frame: a functional group, else the whole one; ``None`` without any."""
    return stating(ds, frame, RESCALE)


def dose_scaling(ds: pydicom.Dataset) -> float | None:
    """Return DoseGridScaling, the factor from stored values to doses; ``None`` if there is no dose.

    Raises:
        UnreadableImage: If it is missing from a dose, empty, zero or not a number, so that the values have no meaning.
    """
    dose = code_of(ds, "Modality") == "RTDOSE" or text_of(ds, "SOPClassUID") == DOSE_CLASS
    if not dose and not has(ds, "DoseGridScaling"):
        return None
    scaling = numbers_of(ds, "DoseGridScaling", 1)
    if scaling is None or scaling[0] == 0:
        problem = "is zero or not a finite number" if values_of(ds, "DoseGridScaling") else "is missing or empty"
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"a dose grid whose scaling {problem}")
    return scaling[0]


def _rescaled(native: Array, slope: float, intercept: float) -> Array:
    """Return ``native * slope + intercept``; integers stay in integer arithmetic, which is exact and fast."""
    if native.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        ends = [int(end) * int(slope) + int(intercept) for end in (native.min(), native.max())]
        for dtype in map(np.dtype, INTEGER_DTYPES):
            limits = np.iinfo(dtype)
            if limits.min <= min(ends) and max(ends) <= limits.max:
                return (native.astype(np.int64) * int(slope) + int(intercept)).astype(dtype)
    values = native.astype(np.float64) * slope
    values += intercept
    return narrowest(values)


def lut_of(item: pydicom.Dataset, *, signed: bool, ds: pydicom.Dataset) -> tuple[int, Array]:
    """Return first mapped value and entries of a LUT (PS3.3 C.11.1.1, C.11.2.1.1).

    Args:
        item: Item with LUTDescriptor and LUTData.
        signed: Whether the mapped values, and therefore the first mapped value, are signed.
        ds: Data set to which it belongs, which gives the byte order of the data.

    Returns:
        Entries as ``uint8`` if 8 bits are declared, else ``uint16``.

    Raises:
        UnreadableImage: If descriptor and data contradict each other.
    """
    descriptor, data = values_of(item, "LUTDescriptor"), item.get("LUTData")
    if len(descriptor) != 3 or data is None:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a LUT without descriptor or data")
    total, first, bits = (int(value) for value in descriptor)
    total = total & 0xFFFF or 2**16
    first = (first & 0xFFFF) - (2**16 if signed and first & 0x8000 else 0)
    if isinstance(data, bytes):
        order = "<" if ds.file_meta.TransferSyntaxUID.is_little_endian else ">"
        packed = bits == 8 and len(data) in {total, total + total % 2}
        entries = np.frombuffer(data, np.uint8)[:total] if packed else np.frombuffer(data, f"{order}u2")
    else:
        entries = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    if len(entries) != total or not 8 <= bits <= 16 or int(entries.max()) >= 2**bits:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a LUT whose descriptor and data contradict each other")
    return first, entries.astype(np.uint8 if bits == 8 else np.uint16)


def palette_colors(indices: Array, ds: pydicom.Dataset) -> Array:
    """Return colours of palette indices, by plain or segmented tables (PS3.3 C.7.6.3.1.5, C.7.9.2): ``(…, 3)``.

    Raises:
        UnreadableImage: If pydicom would index the tables incorrectly.
    """
    descriptor = [int(value) for value in values_of(ds, "RedPaletteColorLookupTableDescriptor")]
    if len(descriptor) != 3:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a palette without descriptor")
    total, first = descriptor[0] & 0xFFFF or 2**16, descriptor[1]
    plain = ds.get("RedPaletteColorLookupTableData")
    if total > 256 and ((plain is not None and len(plain) < 2 * total) or descriptor[2] == 8):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a palette of more than 256 colours of 8 bits")
    # values beyond the table take its ends (C.7.6.3.1.5); pydicom would let them wrap around in a table of 8 bits
    within = np.clip(indices.astype(np.int64), first, first + total - 1).astype(np.int32)
    return np.asarray(apply_color_lut(within, ds)[..., :3])


def padding_of(cells: Array, stored: Array, ds: pydicom.Dataset) -> Array | None:
    """Return which pixels the header declares as padding (PS3.3 C.7.5.1.1.2); ``None`` if it declares none.

    Args:
        cells: Decoded cells with all their bits, since some devices pad with a value beyond the valid ones.
        stored: Values of the valid bits.
        ds: Data set of the cells.
    """
    keywords = next((names for keyword, names in PADDING.items() if has(ds, keyword)), PADDING["PixelData"])
    if not code_of(ds, "PhotometricInterpretation").startswith("MONOCHROME"):
        return None
    value, limit = (numbers_of(ds, keyword, 1) for keyword in keywords)
    if value is None:
        return None
    ends = sorted(_as_stored(end[0], stored) for end in (value, limit or value))
    mask: Array = (stored >= ends[0]) & (stored <= ends[1])
    beyond = stored.dtype.kind in "iu" and not _fits_valid_bits(ends, ds, signed=stored.dtype.kind == "i")
    if beyond and cells is not stored:
        raw = cells.astype(cells.dtype.newbyteorder("="), copy=False)
        mask = (raw >= ends[0]) & (raw <= ends[1])
    return mask


def _as_stored(value: float, stored: Array) -> float:
    """Return a padding value in the type of the pixels: VR US and SS are often confused, with the same bits."""
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        return value
    bits = 8 * stored.dtype.itemsize
    plain = int(value) & (2**bits - 1)
    return plain - 2**bits if stored.dtype.kind == "i" and plain >= 2 ** (bits - 1) else plain


def _fits_valid_bits(ends: Sequence[float], ds: pydicom.Dataset, *, signed: bool) -> bool:
    bits = integer_of(ds, "BitsStored") - signed
    return -(2**bits if signed else 0) <= ends[0] and ends[1] < 2**bits


def without_padding(planes: Sequence[Array], padding: Sequence[Array | None], *, inverted: bool) -> list[Array]:
    """Replace the padding of one image or volume by the darkest displayed value of all other pixels.

    Padding is not tissue: otherwise it would stretch every range, and a network would learn it.

    Args:
        planes: Values after the modality LUT.
        padding: Mask of the padding pixels of each plane.
        inverted: Whether large values are dark.

    Returns:
        The planes; constant ones if every pixel is padding, which no cohort accepts.
    """
    if not any(mask is not None and mask.any() for mask in padding):
        return list(planes)
    kept = [plane if mask is None else plane[~mask] for plane, mask in zip(planes, padding, strict=True)]
    ends = [(values.max() if inverted else values.min()) for values in kept if values.size]
    if not ends:
        return [np.full_like(plane, planes[0].flat[0]) for plane in planes]
    darkest = max(ends) if inverted else min(ends)
    filled = []
    for plane, mask in zip(planes, padding, strict=True):
        if mask is None or not mask.any():
            filled.append(plane)
            continue
        holds_it = darkest.astype(plane.dtype) == darkest
        common = plane.dtype if holds_it else np.result_type(plane.dtype, darkest.dtype)
        filled.append(np.where(mask, darkest.astype(common), plane.astype(common)))
    return filled


def voi_of(ds: pydicom.Dataset, frame: int) -> Voi | None:
    """Return the first VOI window of the frame or file, as a linear one; else the range over which a VOI LUT rises.

    LINEAR covers ``c - 0.5 ± (w - 1) / 2`` and LINEAR_EXACT ``c ± w / 2`` (PS3.3 C.11.2.1.2, C.11.2.1.3.2), so one
    becomes the other by half a unit; a SIGMOID is replaced by its tangent in the centre, which also covers ``c ± w /
    2``. A window that the standard forbids is ignored.
    """
    group = stating(ds, frame, WINDOW)
    if group is None:
        return None
    center, width = numbers_of(group, "WindowCenter"), numbers_of(group, "WindowWidth")
    function = code_of(group, "VOILUTFunction") or "LINEAR"
    if center and width:
        if function == "LINEAR":
            return Voi(center[0], width[0]) if width[0] >= 1 else None
        if function in {"LINEAR_EXACT", "SIGMOID"} and width[0] > 0:
            return Voi(center[0] + 0.5, width[0] + 1)
        return None
    return _range_of_lut(group, ds, frame) if items_of(group, "VOILUTSequence") else None


def _range_of_lut(group: pydicom.Dataset, ds: pydicom.Dataset, frame: int) -> Voi | None:
    """Return the window over which a VOI LUT rises from its first to its last output; none if it does not rise."""
    try:
        linear = rescale_of(ds, frame)
        signed = bool(integer_of(ds, "PixelRepresentation")) or (linear is not None and linear[1] < 0)
        signed = signed and not items_of(ds, "ModalityLUTSequence")  # whose output is unsigned
        first, entries = lut_of(group["VOILUTSequence"][0], signed=signed, ds=ds)
    except UnreadableImage:
        return None
    if entries[-1] <= entries[0]:
        return None
    low = int(np.flatnonzero(entries != entries[0])[0]) - 1
    high = int(np.flatnonzero(entries != entries[-1])[-1]) + 1
    return Voi(first + (low + high) / 2 + 0.5, float(high - low) + 1)
