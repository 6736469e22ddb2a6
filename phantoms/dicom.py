"""Simulated patients as DICOM objects: DX and CR radiographs and CT series, with identities that must be removed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from medphantom.core.randomness import stream
from medphantom.core.records import Array
from medphantom.phantoms.factors import ImageFactors, SimulatedPatient
from medphantom.phantoms.identities import Identity, identity_of
from medphantom.phantoms.render import Size, spacing_mm
from medphantom.phantoms.scanner import FULL_SCALE

CT_INTERCEPT = -1024  # CT values are stored unsigned, as most scanners do
PRIVATE_GROUP, PRIVATE_CREATOR = 0x0011, "PHANTOM VENDOR 1.0"


def uid(patient: SimulatedPatient, *parts: str | int) -> str:
    """Return a UID under pydicom's root that is determined by seed, patient and purpose."""
    return str(generate_uid(entropy_srcs=[str(part) for part in ("phantom", patient.seed, patient.number, *parts)]))


def stored_pixels(image: ImageFactors, pixels: Array) -> Array:
    """Convert radiograph pixels to the scanner's bit depth and photometric interpretation.

    Args:
        image: Factors of the image.
        pixels: uint16 pixels over the full scale, bright where dense.

    Returns:
        uint16 pixels, or uint8 at a depth of 8 bits.
    """
    bits = image.scanner.bits_stored
    kept = pixels >> (16 - bits)
    if image.scanner.photometric == "MONOCHROME1":
        kept = (FULL_SCALE >> (16 - bits)) - kept
    return np.asarray(kept, dtype=np.uint8 if bits == 8 else np.uint16)


def radiograph(patient: SimulatedPatient, image: ImageFactors, pixels: Array, modality: str) -> Dataset:
    """Return one DX or CR object (DICOM PS3.3 A.26, A.2)."""
    who = identity_of(patient)
    kind = DigitalXRayImageStorageForPresentation if modality == "DX" else ComputedRadiographyImageStorage
    ds = _common(patient, who, image, kind, modality)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(patient, "image", image.image)
    ds.InstanceNumber = 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.ViewPosition = image.pose.view
    ds.PatientOrientation = ["L", "F"]
    ds.ImageLaterality = "U"
    spacing = [round(step, 6) for step in spacing_mm(image, pixels.shape[0])]
    ds.PixelSpacing = ds.ImagerPixelSpacing = spacing
    ds.KVP = "125" if image.pose.view == "PA" else "90"
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    bits = image.scanner.bits_stored
    ds.WindowCenter, ds.WindowWidth = 2 ** (bits - 1), 2**bits
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "INVERSE" if image.scanner.photometric == "MONOCHROME1" else "IDENTITY"
    if modality == "DX":
        ds.PresentationIntentType = "FOR PRESENTATION"
        ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", 1
        ds.DetectorType = "SCINTILLATOR"
        ds.PositionerType = "NONE"
        ds.AcquisitionContextSequence = []
        ds.AnatomicRegionSequence = [_code("43799004", "SCT", "Chest")]
        code = ("399348003", "postero-anterior") if image.pose.view == "PA" else ("399067008", "antero-posterior")
        ds.ViewCodeSequence = [_code(code[0], "SCT", code[1])]
        ds.ViewCodeSequence[0].ViewModifierCodeSequence = []
    _put_pixels(ds, stored_pixels(image, pixels), bits, image.scanner.photometric)
    return ds


def ct_series(patient: SimulatedPatient, image: ImageFactors, volume: Array, size: Size) -> Iterator[Dataset]:
    """Yield one CT object per slice (DICOM PS3.3 A.3), from foot to head; instance numbers run from head to foot.

    Args:
        patient: Patient to whom the volume belongs.
        image: Factors of this volume.
        volume: Voxel values in HU, int16 ``(D, H, W)``.
        size: Size at which the volume was drawn.
    """
    who = identity_of(patient)
    spacing = across_d, across_h, across_w = spacing_3d(image, size)
    total = len(volume)
    for level, plane in enumerate(volume):
        ds = _common(patient, who, image, CTImageStorage, "CT")
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(patient, "image", image.image, level)
        ds.InstanceNumber = total - level
        ds.AcquisitionNumber = 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.FrameOfReferenceUID = uid(patient, "frame", image.image)
        ds.PositionReferenceIndicator = ""
        ds.PatientPosition = "HFS"
        ds.PatientOrientation = ["L", "P"]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [round(v, 4) for v in slice_origin(volume.shape, spacing, level)]
        ds.SliceLocation = ds.ImagePositionPatient[2]
        ds.SliceThickness = round(across_d, 6)
        ds.PixelSpacing = [round(across_h, 6), round(across_w, 6)]
        ds.KVP = "120"
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = CT_INTERCEPT, 1, "HU"
        ds.WindowCenter, ds.WindowWidth = [40, -600], [400, 1500]
        _put_pixels(ds, (plane.astype(np.int32) - CT_INTERCEPT).astype(np.uint16), 12, "MONOCHROME2")
        yield ds


def spacing_3d(image: ImageFactors, size: Size) -> tuple[float, float, float]:
    """Return the distance between voxels along D, H and W in mm."""
    d, h, w = spacing_mm(image, size)
    return d, h, w


def slice_origin(shape: tuple[int, ...], spacing: tuple[float, float, float], level: int) -> tuple[float, float, float]:
    """Return patient coordinates (LPS, mm) of the first pixel of a slice; the volume is centred on the origin."""
    d, h, w = shape
    return (
        -(w - 1) / 2 * spacing[2],
        -(h - 1) / 2 * spacing[1],
        (level - (d - 1) / 2) * spacing[0],
    )


def _common(patient: SimulatedPatient, who: Identity, image: ImageFactors, kind: Any, modality: str) -> Dataset:
    """Return the patient, study, series and equipment attributes that are shared by all objects of a series."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = kind
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SyntheticData = "YES"  # (0008,001C), DICOM PS3.3 C.12.1
    _put_identity(ds, who)
    ds.PatientSex = patient.sex
    ds.PatientAge = f"{int(image.age):03d}Y"
    day = f"{who.first_study + timedelta(days=patient.days[image.image]):%Y%m%d}"
    clock = stream(patient.seed, "clock", patient.number, image.study)
    time = f"{int(clock.integers(7, 19)):02d}{int(clock.integers(60)):02d}{int(clock.integers(60)):02d}"
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{name}Date", day)
        setattr(ds, f"{name}Time", time)
    ds.StudyInstanceUID = uid(patient, "study", image.study)
    ds.SeriesInstanceUID = uid(patient, "series", image.image)
    ds.StudyID = f"{image.study + 1}"
    ds.SeriesNumber = image.image + 1
    ds.AccessionNumber = f"A{int(clock.integers(10**7, 10**8))}"
    ds.Modality = modality
    ds.BodyPartExamined = "CHEST"
    ds.StudyDescription = f"Chest {'CT' if modality == 'CT' else image.pose.view} for {who.family}"
    ds.Manufacturer = "Phantom Imaging"
    ds.ManufacturerModelName = f"Simulator {image.scanner.site}"
    ds.DeviceSerialNumber = f"{patient.site.upper()}-0001"
    ds.SoftwareVersions = "1"
    return ds


def _put_identity(ds: Dataset, who: Identity) -> None:
    ds.PatientName = who.person_name
    ds.PatientID = who.patient_id
    ds.OtherPatientIDs = who.national_id
    ds.PatientBirthDate = f"{who.birth_date:%Y%m%d}"
    ds.PatientAddress = who.address
    ds.PatientTelephoneNumbers = who.phone
    ds.ReferringPhysicianName = who.physician
    ds.OperatorsName = who.operator
    ds.InstitutionName = who.institution
    ds.StationName = who.station
    ds.PatientComments = who.note
    ds.ImageComments = f"Repeat for {who.given} {who.family}"
    block = ds.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LO", who.person_name)
    block.add_new(0x02, "LT", who.note)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _put_pixels(ds: Dataset, pixels: Array, bits: int, photometric: str) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = photometric
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored, ds.HighBit = bits, bits - 1
    ds.PixelRepresentation = 0
    data = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
