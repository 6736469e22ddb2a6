"""One DICOM file: opening, detection of truncation, and typed access to its elements that keeps no free text."""

from __future__ import annotations

import logging
import math
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian
from pydicom.uid import ImplicitVRLittleEndian as Implicit

from medphantom.cohorts.readers.dicom_deflate import require_modest_deflate
from medphantom.cohorts.readers.dicom_elements import read_plain
from medphantom.core.errors import Reason, UnreadableImage

DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
FramePlace = tuple[str, tuple[str, ...]]
"""A functional group macro, and the elements that may be in it or in the surrounding header."""
RESCALE: FramePlace = ("PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept"))
WINDOW: FramePlace = ("FrameVOILUTSequence", ("WindowCenter", "WindowWidth", "VOILUTSequence"))
MEASURES: FramePlace = (
    "PixelMeasuresSequence",
    ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
)
ORIENTATION: FramePlace = ("PlaneOrientationSequence", ("ImageOrientationPatient",))
POSITION: FramePlace = ("PlanePositionSequence", ("ImagePositionPatient",))
_ASCII_VRS = {"AS", "CS", "DA", "DS", "IS", "TM", "UI"}  # their values are plain text (PS3.5 6.2)
_META_STARTS = 132  # after the preamble and its four letters (PS3.10 7.1)
_LARGEST_PROBED = 2**30  # larger files are not read whole only to say why they hold no image
UNDECODED, ASCII_END = "\ufffd", 128
_UNDECODABLE = re.compile("[\u0080-\u009f\ufffd]")  # C1 controls: no text of DICOM has them (PS3.5 6.1.3)
_CUT_OFF = "the file ends before its data set does"


@contextmanager
def quietly() -> Iterator[None]:
    """Keep pydicom from logging or warning, since its messages repeat header values, and from validating values."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def open_dicom(path: Path, *, only: Sequence[str] = ()) -> pydicom.Dataset:
    """Read a file; one without preamble or file meta information is accepted if it names a SOP class.

    Args:
        path: Path of the file.
        only: Keywords of the required elements, all of them before the pixels; by default all elements.

    Raises:
        UnreadableImage: If it is not a DICOM file, a directory of others, or truncated.
    """
    require_modest_deflate(path)
    ds: pydicom.Dataset | None
    try:
        ds = read_plain(path, stop_before_pixels=bool(only))
        if ds is None:
            wanted: list[int | str | tuple[int, int]] | None = list(only) or None
            ds = pydicom.dcmread(path, force=True, stop_before_pixels=bool(only), specific_tags=wanted)
        sop_class = text_of(ds, "SOPClassUID") or text_of(ds.file_meta, "MediaStorageSOPClassUID")
        if not has(ds.file_meta, "TransferSyntaxUID"):
            implicit, little = ds.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            ds.file_meta.TransferSyntaxUID = Implicit if implicit else explicit
    except MemoryError:
        raise
    except Exception as error:  # a broken file may raise anything
        if isinstance(error, EOFError) or _deflated_part_ends(error) or is_cut_off(path):
            raise UnreadableImage(Reason.TRUNCATED, _CUT_OFF) from None
        raise UnreadableImage(Reason.BROKEN, f"cannot be parsed as DICOM ({type(error).__name__})") from None
    if not sop_class and not has_pixels(ds) and not has(ds, "Rows"):
        raise no_pixels(path, "a DICOM data set without SOP class and image")
    if sop_class == DIRECTORY_CLASS:
        raise UnreadableImage(Reason.NOT_AN_IMAGE, "a DICOMDIR")
    return ds


def no_pixels(path: Path, detail: str) -> UnreadableImage:
    """Return the error of a file without pixels: it was truncated before them, or never had any."""
    if is_cut_off(path):
        return UnreadableImage(Reason.TRUNCATED, _CUT_OFF)
    return UnreadableImage(Reason.NO_PIXELS, detail)


def is_cut_off(path: Path) -> bool:
    """Return whether a file ends inside an element of its data set.

    A small element is appended to the file: it is found if the last element is complete; otherwise the last element, an
    open sequence or open pixel data contains it. A file cut exactly between two elements cannot be distinguished from a
    shorter one. Deflated files are checked by their compressed stream instead.
    """
    if path.stat().st_size > _LARGEST_PROBED:
        return False
    data = path.read_bytes()
    try:
        if _meta_information_ends(data):
            return True
        ds = pydicom.dcmread(BytesIO(data), force=True, stop_before_pixels=True)
        syntax = ds.file_meta.get("TransferSyntaxUID")
        if syntax == DeflatedExplicitVRLittleEndian:
            return False
        implicit, little = ds.original_encoding
        length = (4).to_bytes(4, "little" if little else "big")
        tag = b"\xfc\xff\xfc\xff" if little else b"\xff\xfc\xff\xfc"  # data set trailing padding, PS3.10 7.2
        probe = tag + (length if implicit else b"OB\0\0" + length) + b"end\0"
        ds = pydicom.dcmread(BytesIO(data + probe), force=True)
        return ds.get("DataSetTrailingPadding") != b"end\0"
    except MemoryError:
        raise
    except EOFError:
        return True
    except Exception as error:  # what does not parse is broken, not cut off
        return _deflated_part_ends(error)


def _meta_information_ends(data: bytes) -> bool:
    """Return whether a file is shorter than its file meta information declares (group length, PS3.10 7.1)."""
    head = data[_META_STARTS : _META_STARTS + 12]
    if data[128:_META_STARTS] != b"DICM":
        return False
    if len(head) < 12:
        return True
    if head[:8] != b"\x02\0\0\0UL\4\0":
        return False
    return len(data) <= _META_STARTS + 12 + int.from_bytes(head[8:12], "little")


def _deflated_part_ends(error: BaseException) -> bool:
    return isinstance(error, zlib.error) and "incomplete" in str(error)


def has_pixels(ds: pydicom.Dataset) -> bool:
    """Return whether the data set contains pixels of any kind."""
    return any(has(ds, keyword) for keyword in PIXEL_KEYWORDS)


def functional_group(ds: pydicom.Dataset, frame: int, keyword: str) -> pydicom.Dataset | None:
    """Return the first item of a functional group macro of one frame: its own, else the shared one."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = items_of(ds, groups)
        inner = items_of(items[index], keyword) if index < len(items) else ()
        if inner:
            return inner[0]
    return None


def stating(ds: pydicom.Dataset, frame: int, place: FramePlace) -> pydicom.Dataset | None:
    """Return the data set that declares elements of a frame; ``None`` if no functional group or header does.

    The frame's own functional group comes first, then the shared one, then the surrounding header, in which the
    standard does not allow these elements beside functional groups (PS3.3 C.7.6.16.2), although converters write
    them.
    """
    macro, keywords = place
    empty = None
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = items_of(ds, groups)
        inner = items_of(items[index], macro) if index < len(items) else ()
        if inner and any(has(inner[0], keyword) for keyword in keywords):
            return inner[0]
        empty = inner[0] if inner and empty is None else empty
    return ds if any(has(ds, keyword) for keyword in keywords) else empty


def has(ds: pydicom.Dataset, keyword: str) -> bool:
    """Return whether the data set has an element, empty or not."""
    return _tag(keyword) in ds


def items_of(ds: pydicom.Dataset, keyword: str) -> Sequence[pydicom.Dataset]:
    """Return the items of a sequence; none if it is absent.

    Raises:
        Exception: If it cannot be parsed; pydicom raises any type.
    """
    return (ds.get(keyword) or ()) if has(ds, keyword) else ()


def bytes_of(ds: pydicom.Dataset, keyword: str) -> bytes:
    """Return the value of an element as stored in the file; empty if it is absent."""
    element = ds.get_item(_tag(keyword))
    return (element.value or b"") if element is not None else b""


def values_of(ds: pydicom.Dataset, keyword: str) -> list[Any]:
    """Return the values of an element; none if it is absent, empty or cannot be parsed."""
    try:
        raw = ds.get_item(_tag(keyword))
        if raw is None:
            return []
        if isinstance(raw, RawDataElement) and raw.VR in _ASCII_VRS:  # spares pydicom's conversion, for speed
            text = (raw.value or b"").decode("ascii")
            return [part.strip(" \0") for part in text.split("\\")] if text.strip(" \0") else []
        if isinstance(raw, RawDataElement) and raw.VR == "US":
            order = "<" if raw.is_little_endian else ">"
            return [int(value) for value in np.frombuffer(raw.value or b"", dtype=f"{order}u2")]
        value = ds.get(keyword)
    except Exception:  # a broken element may raise anything when it is converted
        return []
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def text_of(ds: pydicom.Dataset, keyword: str) -> str:
    """Return the first value of an element as stripped text; empty if there is none."""
    values = values_of(ds, keyword)
    return str(values[0]).strip() if values else ""


def whole_text_of(ds: pydicom.Dataset, keyword: str) -> str:
    r"""Return an identifier with everything that was written, also after a backslash; empty if there is none.

    The standard separates values by a backslash and allows one value (PS3.5 6.2, 6.4); tools that write ``HOSP\1`` mean
    the whole text, and its first part alone would merge all patients of a hospital.
    """
    return "\\".join(str(value).strip() for value in values_of(ds, keyword)).strip()


def identifier_of(ds: pydicom.Dataset, keyword: str) -> str:
    """Return an injective form of :func:`whole_text_of`: bytes outside the declared character set are escaped.

    pydicom replaces each of them by U+FFFD, or an invisible control character, which would merge Müller and Möller into
    one person. Here they become U+FFFD and two hexadecimal digits.
    """
    element = ds.get_item(_tag(keyword))
    raw = element.value if isinstance(element, RawDataElement) else None
    text = whole_text_of(ds, keyword)
    if not _UNDECODABLE.search(text) or not isinstance(raw, bytes):
        return text
    stripped = raw.strip(b" \0")
    return "".join(chr(byte) if byte < ASCII_END else f"{UNDECODED}{byte:02x}" for byte in stripped)


def code_of(ds: pydicom.Dataset, keyword: str) -> str:
    """Return the first value of a code string: upper case, without the outer spaces that VR CS allows (PS3.5 6.2)."""
    return text_of(ds, keyword).upper()


def integer_of(ds: pydicom.Dataset, keyword: str) -> int:
    """Return the first value of an element as an integer; 0 if there is none."""
    try:
        return int(values_of(ds, keyword)[0])
    except (IndexError, TypeError, ValueError):
        return 0


def numbers_of(ds: pydicom.Dataset, keyword: str, count: int | None = None) -> list[float] | None:
    """Return finite numbers of an element; ``None`` if there are not exactly ``count`` of them."""
    try:
        numbers = [float(value) for value in values_of(ds, keyword)]
    except (TypeError, ValueError):
        return None
    if not numbers or (count is not None and len(numbers) != count) or not all(map(math.isfinite, numbers)):
        return None
    return numbers
