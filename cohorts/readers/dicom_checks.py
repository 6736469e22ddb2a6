"""Checks that the description of pixels in a header is complete and consistent; otherwise the image is rejected.

Every check names the problem and never a value. The list of attributes is in ``docs/formats/sources.md``.
"""

from __future__ import annotations

import pydicom

from medphantom.cohorts.readers.dicom_decode import JPEG_FAMILY
from medphantom.cohorts.readers.dicom_file import (
    MEASURES,
    ORIENTATION,
    RESCALE,
    code_of,
    has,
    integer_of,
    items_of,
    numbers_of,
    stating,
    values_of,
)
from medphantom.cohorts.readers.dicom_header import spacing_of
from medphantom.core.errors import Reason, UnreadableImage

GREY = {"MONOCHROME1", "MONOCHROME2"}
COLORS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}  # PS3.3 C.8.11.3.1.2
ALLOCATED = {1, 8, 16, 32, 64}


def require_described(ds: pydicom.Dataset) -> None:
    """Check the attributes that define the meaning of pixels (PS3.3 C.7.6.3, C.7.6.19, C.11.6; PS3.5 8.1.1).

    Raises:
        UnreadableImage: If something is missing, contradicts another attribute, or is not supported.
    """
    problem = _samples(ds) or _bits(ds) or _presentation(ds) or _shape(ds) or _frames(ds) or _people(ds)
    if problem:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, problem)


def _samples(ds: pydicom.Dataset) -> str:
    samples, meaning = integer_of(ds, "SamplesPerPixel"), code_of(ds, "PhotometricInterpretation")
    if meaning in GREY or meaning == "PALETTE COLOR":
        return "" if samples == 1 else "samples per pixel that contradict the photometric interpretation"
    if meaning not in COLORS:
        return "a photometric interpretation that is missing or retired"
    if samples != 3:
        return "samples per pixel that contradict the photometric interpretation"
    if integer_of(ds, "PixelRepresentation"):
        return "signed colour"
    compressed = ds.file_meta.TransferSyntaxUID in JPEG_FAMILY
    if not compressed and values_of(ds, "PlanarConfiguration") not in ([0], [1]):
        return "colour without planar configuration"
    return ""


def _bits(ds: pydicom.Dataset) -> str:
    allocated = integer_of(ds, "BitsAllocated")
    if allocated not in ALLOCATED:
        return "bits allocated that are missing or packed"
    if not has(ds, "PixelData"):
        return ""
    stored, high = integer_of(ds, "BitsStored"), values_of(ds, "HighBit")
    if not 1 <= stored <= allocated or len(high) != 1 or not stored - 1 <= integer_of(ds, "HighBit") < allocated:
        return "bits stored or a high bit that do not fit the bits allocated"
    if integer_of(ds, "PixelRepresentation") not in {0, 1}:
        return "a pixel representation that does not exist"
    return ""


def _presentation(ds: pydicom.Dataset) -> str:
    """Return a problem of presentation: grey values shown in colour, or a brightness direction inverted twice."""
    meaning = code_of(ds, "PhotometricInterpretation")
    colored = code_of(ds, "PixelPresentation") not in {"", "MONOCHROME"} and meaning in GREY | {"PALETTE COLOR"}
    if colored or has(ds, "LargestMonochromePixelValue") or items_of(ds, "EnhancedPaletteColorLookupTableSequence"):
        return "grey values of which some stand for colours"
    if meaning == "PALETTE COLOR" and any(
        has(ds, keyword)
        for keyword in ("AlphaPaletteColorLookupTableData", "SegmentedAlphaPaletteColorLookupTableData")
    ):
        return "a palette with opacity"
    shape = code_of(ds, "PresentationLUTShape")
    if meaning in GREY and shape and shape != SHAPES[meaning]:
        return "a presentation LUT shape that contradicts the photometric interpretation"
    return ""


def _shape(ds: pydicom.Dataset) -> str:
    aspect = numbers_of(ds, "PixelAspectRatio", 2)
    if aspect is None or aspect[0] == aspect[1]:
        return ""
    return "" if spacing_of(stating(ds, 0, MEASURES) or ds) else "pixels that are not square, and no spacing"


def _frames(ds: pydicom.Dataset) -> str:
    """Return a problem of elements declared for all frames and in functional groups of some of them only."""
    if not items_of(ds, "PerFrameFunctionalGroupsSequence"):
        return ""
    for place, called in ((RESCALE, "a rescale"), (MEASURES, "a pixel spacing"), (ORIENTATION, "an orientation")):
        if any(has(ds, keyword) for keyword in place[1]):
            frames = range(max(1, integer_of(ds, "NumberOfFrames")))
            if len({stating(ds, frame, place) is ds for frame in frames}) > 1:
                return f"{called} in the functional groups of some frames, and another for the whole file"
    return ""


def _people(ds: pydicom.Dataset) -> str:
    if code_of(ds, "BurnedInAnnotation") == "YES":
        return "text is burned into the pixels according to the header: cover it and declare NO, or leave out the image"
    return ""
