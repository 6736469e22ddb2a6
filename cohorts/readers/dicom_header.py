"""DICOM headers: the declared list of what is looked at, and typed access that keeps no free text."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cohorts.errors import Reason, UnreadableImage
from cohorts.readers.dicom_geometry import Plane

HEADER_ALLOW_LIST: dict[str, str] = {
    "PatientID": "keyed pseudonym and split; itself only in the private folder",
    "StudyInstanceUID": "keyed pseudonym",
    "SeriesInstanceUID": "grouping into volumes and joining a table; not stored",
    "SOPInstanceUID": "joining a table; not stored",
    "Modality": "stored",
    "PatientAge": "attribute age, in years",
    "PatientSex": "attribute sex",
    "ViewPosition": "attribute view",
    "BodyPartExamined": "attribute body_part",
    "PixelSpacing": "spacing in mm",
    "ImagerPixelSpacing": "spacing in mm, where PixelSpacing is absent",
    "NominalScannedPixelSpacing": "spacing in mm, where both are absent",
    "EstimatedRadiographicMagnificationFactor": "corrects ImagerPixelSpacing",
    "WindowCenter": "VOI window, as metadata",
    "WindowWidth": "VOI window, as metadata",
    "ImagePositionPatient": "order of slices and affine",
    "ImageOrientationPatient": "order of slices and affine",
    "GridFrameOffsetVector": "positions of the frames of a dose grid",
    "PhotometricInterpretation": "whether small values are bright",
}
"""Every header element whose content reaches a cohort or decides about it, and what becomes of it.

Beside these, elements that describe the encoding of the pixels (rows, bits, LUTs, transfer syntax) are needed to decode
them, and :data:`STACK_TRAITS` are compared to tell stacks apart. Nothing else is looked at, and nothing else is kept.
"""

STACK_TRAITS = (
    "ImageType",
    "EchoNumbers",
    "EchoTime",
    "InversionTime",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ContentTime",
)
_ENCODING = ("SOPClassUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
_HEAD_TAGS = [*HEADER_ALLOW_LIST, *STACK_TRAITS, *_ENCODING, "InstanceNumber", "SharedFunctionalGroupsSequence"]

SEGMENTATION_CLASSES = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")  # VR CS, PS3.5 6.2
_ASCII_VRS = {"AS", "CS", "DA", "DS", "IS", "TM", "UI"}  # their values are plain text (PS3.5 6.2)
_AGE = re.compile(r"(\d{1,3})([DWMY])")  # VR AS, PS3.5 6.2
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(slots=True)
class DicomHead:
    """What the header of one file says, within :data:`HEADER_ALLOW_LIST`."""

    patient: str
    study: str
    series: str
    sop: str
    modality: str | None
    frames: int
    decoded_bytes: int
    attributes: dict[str, float | str | None]
    plane: Plane | None
    localizer: bool
    frame_positions: bool
    instance: int


@contextmanager
def quietly() -> Iterator[None]:
    """Keep pydicom from logging or warning, since its messages repeat header values, and from judging values."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def read_head(path: Path) -> DicomHead:
    """Read what the header says.

    Raises:
        UnreadableImage: the file is no DICOM image.
    """
    with quietly():
        ds = open_dicom(path, stop_before_pixels=True, specific_tags=_HEAD_TAGS)
        rows, columns = integer_of(ds, "Rows"), integer_of(ds, "Columns")
        if not rows or not columns:
            raise UnreadableImage(Reason.NO_PIXELS, "a DICOM object without an image")
        if str(ds.get("SOPClassUID", "")) in SEGMENTATION_CLASSES:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a segmentation: export it as NIfTI or PNG and give masks")
        frames = max(1, integer_of(ds, "NumberOfFrames"))
        samples = max(1, integer_of(ds, "SamplesPerPixel"))
        sample_bytes = max(1, integer_of(ds, "BitsAllocated") // 8)
        image_type = [str(value).upper() for value in values_of(ds, "ImageType")]
        return DicomHead(
            patient=text_of(ds, "PatientID"),
            study=text_of(ds, "StudyInstanceUID"),
            series=text_of(ds, "SeriesInstanceUID"),
            sop=text_of(ds, "SOPInstanceUID"),
            modality=code_of(ds, "Modality"),
            frames=frames,
            decoded_bytes=rows * columns * samples * sample_bytes * frames,
            attributes=_attributes(ds),
            plane=plane_of(ds, (rows, columns)),
            localizer="LOCALIZER" in image_type,
            frame_positions="SharedFunctionalGroupsSequence" in ds or "GridFrameOffsetVector" in ds,
            instance=integer_of(ds, "InstanceNumber"),
        )


def years(age: str) -> float | None:
    """A DICOM age string (``041Y``, ``006M``) in years; ``None`` when it is none."""
    match = _AGE.fullmatch(age.strip().upper())
    return None if match is None else round(int(match[1]) * _YEARS[match[2]], 3)


def open_dicom(path: Path, **how: Any) -> pydicom.Dataset:
    """Read a file; one without preamble or file meta information is taken when it names a SOP class.

    Raises:
        UnreadableImage: it is no DICOM file, or a directory of others.
    """
    try:
        ds = pydicom.dcmread(path, force=True, **how)
        sop_class = str(ds.get("SOPClassUID", "")) or str(ds.file_meta.get("MediaStorageSOPClassUID", ""))
        if "TransferSyntaxUID" not in ds.file_meta:
            implicit, little = ds.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    except MemoryError:
        raise
    except Exception as error:  # a broken file may raise anything
        raise UnreadableImage(Reason.BROKEN, f"cannot be parsed as DICOM ({type(error).__name__})") from None
    if not sop_class and not has_pixels(ds) and "Rows" not in ds:
        raise UnreadableImage(Reason.NO_PIXELS, "a DICOM data set without SOP class and image")
    if sop_class == DIRECTORY_CLASS:
        raise UnreadableImage(Reason.NOT_AN_IMAGE, "a DICOMDIR")
    return ds


def has_pixels(ds: pydicom.Dataset) -> bool:
    """Whether the data set carries pixels of any kind."""
    return any(keyword in ds for keyword in PIXEL_KEYWORDS)


def functional_group(ds: pydicom.Dataset, frame: int, keyword: str) -> pydicom.Dataset | None:
    """The first item of a functional group macro of one frame: its own, else the shared one."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = ds.get(groups)
        if items and index < len(items) and items[index].get(keyword):
            return items[index][keyword][0]
    return None


def plane_of(ds: pydicom.Dataset, size: tuple[int, int]) -> Plane | None:
    """Where a single-frame image lies; ``None`` when its header does not say."""
    traits = tuple("\\".join(map(str, values_of(ds, keyword))) for keyword in STACK_TRAITS)
    return make_plane(ds, ds, ds, size, traits)


def make_plane(
    where: pydicom.Dataset | None,
    direction: pydicom.Dataset | None,
    measures: pydicom.Dataset | None,
    size: tuple[int, int],
    traits: tuple[str, ...],
) -> Plane | None:
    """A plane out of the data sets that hold its position, its orientation and its pixel measures."""
    position = None if where is None else numbers_of(where, "ImagePositionPatient", 3)
    orientation = None if direction is None else numbers_of(direction, "ImageOrientationPatient", 6)
    spacing = None if measures is None else spacing_of(measures)
    if position is None or orientation is None or spacing is None:
        return None
    return Plane((position[0], position[1], position[2]), tuple(orientation), (spacing[0], spacing[1]), size, traits)


def spacing_of(ds: pydicom.Dataset) -> tuple[float, ...] | None:
    """Distance between rows, then between columns, in mm (PS3.3 10.7.1.3 on which attribute means what)."""
    spacing = numbers_of(ds, "PixelSpacing", 2)
    if spacing is None:
        spacing = numbers_of(ds, "ImagerPixelSpacing", 2)
        magnification = numbers_of(ds, "EstimatedRadiographicMagnificationFactor", 1)
        if spacing is not None and magnification is not None and magnification[0] > 0:
            spacing = [value / magnification[0] for value in spacing]
    if spacing is None:
        spacing = numbers_of(ds, "NominalScannedPixelSpacing", 2)
    return tuple(spacing) if spacing is not None and min(spacing) > 0 else None


def _attributes(ds: pydicom.Dataset) -> dict[str, float | str | None]:
    sex = code_of(ds, "PatientSex")
    found: dict[str, float | str | None] = {
        "age": years(text_of(ds, "PatientAge")),
        "sex": sex if sex in {"M", "F", "O"} else None,
        "view": code_of(ds, "ViewPosition"),
        "body_part": code_of(ds, "BodyPartExamined"),
    }
    return {name: value for name, value in found.items() if value is not None}


def values_of(ds: pydicom.Dataset, keyword: str) -> list[Any]:
    """The values of an element; none when it is absent, empty or does not parse."""
    try:
        raw = ds.get_item(_tag(keyword))
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
    """The first value of an element as stripped text; empty when there is none."""
    values = values_of(ds, keyword)
    return str(values[0]).strip() if values else ""


def code_of(ds: pydicom.Dataset, keyword: str) -> str | None:
    """A code string; anything that is none (free text, a name in the wrong place) is not kept."""
    text = text_of(ds, keyword).upper()
    return text if _CODE_STRING.fullmatch(text) else None


def integer_of(ds: pydicom.Dataset, keyword: str) -> int:
    """The first value of an element as a whole number; 0 when there is none."""
    try:
        return int(values_of(ds, keyword)[0])
    except (IndexError, TypeError, ValueError):
        return 0


def numbers_of(ds: pydicom.Dataset, keyword: str, count: int | None = None) -> list[float] | None:
    """Finite numbers of an element; ``None`` when there are not exactly ``count`` of them."""
    try:
        numbers = [float(value) for value in values_of(ds, keyword)]
    except (TypeError, ValueError):
        return None
    if not numbers or (count is not None and len(numbers) != count) or not all(map(math.isfinite, numbers)):
        return None
    return numbers
