"""DICOM headers: the declared list of elements that are read, and the description of patient, geometry and kind."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import pydicom

from medphantom.cohorts.readers.dicom_file import (
    MEASURES,
    ORIENTATION,
    POSITION,
    has,
    identifier_of,
    integer_of,
    no_pixels,
    numbers_of,
    open_dicom,
    quietly,
    stating,
    text_of,
    values_of,
    whole_text_of,
)
from medphantom.cohorts.readers.dicom_geometry import Plane
from medphantom.cohorts.readers.dicom_terms import DEFINED_TERMS, defined_term
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.naming import is_nobody, plain_id

HEADER_ALLOW_LIST: dict[str, str] = {
    "PatientID": "keyed pseudonym and split; itself only in the private folder",
    "IssuerOfPatientID": "tells patients of one id apart; not stored",
    "StudyInstanceUID": "keyed pseudonym, and grouping into volumes",
    "SeriesInstanceUID": "grouping into volumes and joining a table; not stored",
    "SOPInstanceUID": "joining a table; not stored",
    "FrameOfReferenceUID": "grouping into volumes; not stored",
    "Modality": "stored, when it is a defined term",
    "PatientAge": "attribute age, in years",
    "PatientSex": "attribute sex, when it is a defined term",
    "ViewPosition": "attribute view, when it is a defined term",
    "BodyPartExamined": "attribute body_part, when it is a defined term",
    "PixelSpacing": "spacing in mm",
    "ImagerPixelSpacing": "spacing in mm, where PixelSpacing is absent",
    "NominalScannedPixelSpacing": "spacing in mm, where both are absent",
    "EstimatedRadiographicMagnificationFactor": "corrects ImagerPixelSpacing",
    "PixelAspectRatio": "refuses pixels that are not square and have no spacing",
    "WindowCenter": "VOI window, as metadata",
    "WindowWidth": "VOI window, as metadata",
    "VOILUTFunction": "what the VOI window means",
    "VOILUTSequence": "VOI window, where there is no other",
    "ImagePositionPatient": "order of slices and affine",
    "ImageOrientationPatient": "order of slices and affine",
    "GridFrameOffsetVector": "positions of the frames of a dose grid",
    "DoseGridScaling": "makes doses of the values of a dose grid",
    "Units": "refuses volumes whose slices differ in it",
    "RescaleType": "refuses volumes whose slices differ in it",
    "DoseUnits": "refuses volumes whose slices differ in it",
    "DoseType": "refuses volumes whose slices differ in it",
    "PhotometricInterpretation": "whether small values are bright",
    "PresentationLUTShape": "refuses images whose header contradicts itself about that",
    "BurnedInAnnotation": "refuses images that show who the patient is",
}
"""Every header element whose content reaches a cohort or decides about it, and its use.

In addition, elements that describe the encoding of the pixels (rows, bits, padding, LUTs, transfer syntax) are needed
to decode them, and :data:`STACK_TRAITS` and :data:`STACK_RANKS` are compared to separate stacks. Nothing else is read
or kept.
"""

STACK_TRAITS = (
    "SeriesNumber",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "EchoNumbers",
    "EchoTime",
    "AcquisitionNumber",
    "InversionTime",
    "ImageType",
)
"""Values that slices of one volume share, and that order several volumes at the same positions, in this order."""

STACK_RANKS = ("TriggerTime", "AcquisitionTime", "ContentTime", "InstanceNumber")
"""Values that may differ within a volume, but order the slices at each position."""

_ENCODING = ("SOPClassUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
_BEFORE_PIXELS = (
    *(
        "PatientID",
        "IssuerOfPatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "FrameOfReferenceUID",
    ),
    *("Modality", "PatientAge", "PatientSex", "ViewPosition", "BodyPartExamined"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "EstimatedRadiographicMagnificationFactor"),
    *("ImagePositionPatient", "ImageOrientationPatient", "GridFrameOffsetVector"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_HEAD_TAGS = [*_BEFORE_PIXELS, *STACK_TRAITS, *STACK_RANKS, *_ENCODING]

OLDEST_YEARS = 120  # an age beyond is none
SEGMENTATION_CLASSES = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
_AGE = re.compile(r"(\d{1,3})([DWMY])")  # VR AS, PS3.5 6.2
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(slots=True)
class DicomHead:
    """Content of one file's header, within :data:`HEADER_ALLOW_LIST`.

    Attributes:
        patient: PatientID without what tools change about it (:func:`~medphantom.core.naming.plain_id`).
        study: StudyInstanceUID of the file.
        series: SeriesInstanceUID of the file.
        sop: SOPInstanceUID; cleared if different images have the same one.
        frame_of_reference: FrameOfReferenceUID; slices with different ones share no coordinate system.
        modality: Modality if it is a defined term, else ``None``.
        frames: NumberOfFrames, at least 1.
        decoded_bytes: Memory that the decoded pixels will need, in bytes.
        attributes: Attributes by their cohort names; only present ones, and codes only as defined terms.
        plane: Geometry of a single frame.
        localizer: Whether ImageType declares a localizer.
        frame_positions: Whether frames have positions of their own.
        instance: InstanceNumber; 0 if there is none.
        unknown_codes: Keywords of elements whose value was dropped, since it is not a defined term or not an age.
        issuer: IssuerOfPatientID, normalised like ``patient``.
    """

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
    frame_of_reference: str = ""
    unknown_codes: tuple[str, ...] = ()
    issuer: str = ""


def read_head(path: Path) -> DicomHead:
    """Read the header of a file.

    Raises:
        UnreadableImage: If the file is not a DICOM image, or was truncated before its pixels.
    """
    with quietly():
        ds = open_dicom(path, only=_HEAD_TAGS)
        rows, columns = integer_of(ds, "Rows"), integer_of(ds, "Columns")
        if not rows or not columns:
            raise no_pixels(path, "a DICOM object without an image")
        if text_of(ds, "SOPClassUID") in SEGMENTATION_CLASSES:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a segmentation: export it as NIfTI or PNG and give masks")
        frames = max(1, integer_of(ds, "NumberOfFrames"))
        samples = max(1, integer_of(ds, "SamplesPerPixel"))
        sample_bytes = max(1, integer_of(ds, "BitsAllocated") // 8)
        image_type = [str(value).upper() for value in values_of(ds, "ImageType")]
        codes = {keyword: defined_term(keyword, text_of(ds, keyword)) for keyword in DEFINED_TERMS}
        age = _age(ds)
        read: dict[str, float | str | None] = {**codes, "PatientAge": age}
        return DicomHead(
            patient=_named(plain_id(identifier_of(ds, "PatientID"))),
            study=whole_text_of(ds, "StudyInstanceUID"),
            series=whole_text_of(ds, "SeriesInstanceUID"),
            sop=whole_text_of(ds, "SOPInstanceUID"),
            modality=codes["Modality"],
            frames=frames,
            decoded_bytes=rows * columns * samples * sample_bytes * frames,
            attributes=_attributes(age, codes),
            plane=plane_of(ds, (rows, columns)),
            localizer="LOCALIZER" in image_type,
            frame_positions=has(ds, "SharedFunctionalGroupsSequence") or has(ds, "GridFrameOffsetVector"),
            instance=integer_of(ds, "InstanceNumber"),
            frame_of_reference=whole_text_of(ds, "FrameOfReferenceUID"),
            unknown_codes=tuple(keyword for keyword, term in read.items() if term is None and text_of(ds, keyword)),
            issuer=plain_id(identifier_of(ds, "IssuerOfPatientID")),
        )


def _named(patient: str) -> str:
    """Return an id, or an empty string if it is a placeholder."""
    return "" if is_nobody(patient) else patient


def _age(ds: pydicom.Dataset) -> float | None:
    found = years(text_of(ds, "PatientAge"))
    return found if found is None or found <= OLDEST_YEARS else None


def years(age: str) -> float | None:
    """Convert a DICOM age string (``041Y``, ``006M``) to years; ``None`` if it is not one."""
    match = _AGE.fullmatch(age.strip().upper())
    return None if match is None else round(int(match[1]) * _YEARS[match[2]], 3)


def plane_of(ds: pydicom.Dataset, size: tuple[int, int]) -> Plane | None:
    """Return the geometry of a single-frame image; ``None`` if its header does not declare it."""
    traits = tuple(trait_of(ds, keyword) for keyword in STACK_TRAITS)
    ranks = tuple(rank_of(ds, keyword) for keyword in STACK_RANKS)
    if integer_of(ds, "NumberOfFrames") > 1:
        return make_plane(ds, ds, ds, size, traits=traits, ranks=ranks)
    where, direction, measures = (stating(ds, 0, place) for place in (POSITION, ORIENTATION, MEASURES))
    return make_plane(where, direction, measures or ds, size, traits=traits, ranks=ranks)


def trait_of(ds: pydicom.Dataset, keyword: str) -> Hashable:
    """Return an element as a comparable value: its numbers, else its text; ``()`` if it is absent."""
    numbers = numbers_of(ds, keyword)
    return tuple(numbers) if numbers is not None else tuple(str(value) for value in values_of(ds, keyword))


def rank_of(ds: pydicom.Dataset, keyword: str) -> float | None:
    """Return the single number (or time of day, as ``HHMMSS.F``) of an element; ``None`` if there is none."""
    numbers = numbers_of(ds, keyword, 1)
    return None if numbers is None else numbers[0]


def make_plane(
    where: pydicom.Dataset | None,
    direction: pydicom.Dataset | None,
    measures: pydicom.Dataset | None,
    size: tuple[int, int],
    *,
    traits: tuple[Hashable, ...] = (),
    ranks: tuple[float | None, ...] = (),
) -> Plane | None:
    """Return a plane from the data sets with its position, its orientation and its pixel measures."""
    position = None if where is None else numbers_of(where, "ImagePositionPatient", 3)
    orientation = None if direction is None else numbers_of(direction, "ImageOrientationPatient", 6)
    spacing = None if measures is None else spacing_of(measures)
    if position is None or orientation is None or spacing is None:
        return None
    place = (position[0], position[1], position[2])
    return Plane(place, tuple(orientation), (spacing[0], spacing[1]), size, traits, ranks)


def spacing_of(ds: pydicom.Dataset) -> tuple[float, ...] | None:
    """Return the distance between rows, then columns, in mm (see PS3.3 10.7.1.3 on the meaning of the attributes)."""
    spacing = numbers_of(ds, "PixelSpacing", 2)
    if spacing is None:
        spacing = numbers_of(ds, "ImagerPixelSpacing", 2)
        magnification = numbers_of(ds, "EstimatedRadiographicMagnificationFactor", 1)
        if spacing is not None and magnification is not None and magnification[0] > 0:
            spacing = [value / magnification[0] for value in spacing]
    if spacing is None:
        spacing = numbers_of(ds, "NominalScannedPixelSpacing", 2)
    return tuple(spacing) if spacing is not None and min(spacing) > 0 else None


def _attributes(age: float | None, codes: dict[str, str | None]) -> dict[str, float | str | None]:
    found: dict[str, float | str | None] = {
        "age": age,
        "sex": codes["PatientSex"],
        "view": codes["ViewPosition"],
        "body_part": codes["BodyPartExamined"],
    }
    return {name: value for name, value in found.items() if value is not None}
