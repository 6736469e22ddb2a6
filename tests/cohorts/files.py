"""Small real files for the tests: DICOM written by pydicom, and the ingest call that all tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.ingest import IngestResult, ingest
from medphantom.cohorts.options import IngestOptions
from medphantom.core.records import Array

KEY = IdentityKey.from_phrase("tests")
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def uid(*parts: object) -> str:
    """A UID that is the same in every run."""
    return str(generate_uid(entropy_srcs=["tests", *(str(part) for part in parts)]))


def structure(seed: int, shape: tuple[int, ...] = (32, 32), dtype: str = "uint8", high: int = 255) -> Array:
    """Smooth random pixels that fill 0…high and resemble no other seed's."""
    rng = np.random.default_rng(seed)
    coarse = rng.random([max(2, side // 4) for side in shape])
    for axis, side in enumerate(shape):
        coarse = np.repeat(coarse, -(-side // coarse.shape[axis]), axis=axis).take(range(side), axis=axis)
    coarse = coarse + 0.2 * rng.random(shape)
    unit = (coarse - coarse.min()) / (coarse.max() - coarse.min())
    return np.rint(unit * high).astype(dtype)


def dicom_dataset(pixels: Array, **elements: Any) -> Dataset:
    """A CT-like data set around ``(H, W)``, ``(F, H, W)`` or ``(H, W, 3)`` pixels; keywords set or replace elements."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    color = pixels.ndim == 3 and pixels.shape[-1] == 3
    ds.SOPClassUID = CTImageStorage
    ds.PatientID = "P1"
    ds.PatientName = "Made^Up"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid("series")
    ds.SOPInstanceUID = uid(pixels.tobytes(), sorted(map(str, elements.items())))
    ds.Modality = "CT"
    ds.Rows, ds.Columns = pixels.shape[:2] if color else pixels.shape[-2:]
    if pixels.ndim == 3 and not color:
        ds.NumberOfFrames = pixels.shape[0]
    ds.SamplesPerPixel = 3 if color else 1
    ds.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    if len(ds.PixelData) % 2:
        ds.PixelData += b"\0"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def write_dicom(path: Path, pixels: Array, **elements: Any) -> Dataset:
    """Write :func:`dicom_dataset` as a file and return it."""
    ds = dicom_dataset(pixels, **elements)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return ds


def item(**elements: Any) -> Dataset:
    """One sequence item."""
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def sequence(**elements: Any) -> DicomSequence:
    """A sequence of one item."""
    return DicomSequence([item(**elements)])


def write_series(
    folder: Path,
    volume: Array,
    positions: Sequence[Sequence[float]],
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.8, 0.6),
    names: Sequence[str] | None = None,
    **elements: Any,
) -> None:
    """One file per slice of ``(D, H, W)``, at the given positions."""
    series = elements.pop("SeriesInstanceUID", uid("series", folder.name))
    for number, (plane, position) in enumerate(zip(volume, positions, strict=True)):
        write_dicom(
            folder / (names[number] if names else f"{number:03d}.dcm"),
            plane,
            SeriesInstanceUID=series,
            SOPInstanceUID=uid(series, number, *elements.values()),
            ImagePositionPatient=[float(value) for value in position],
            ImageOrientationPatient=[float(value) for value in orientation],
            PixelSpacing=[float(value) for value in spacing],
            **elements,
        )


def write_png(path: Path, pixels: Array) -> None:
    """Write a PNG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def names_in(folder: Path) -> list[str]:
    """Names in a folder, sorted, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def take_in(source: Path, out: Path, **options: Any) -> IngestResult:
    """Ingest in this process (fast) with the tests' key, and check that every file is accounted for.

    Tests have few patients: unless they say otherwise, one is enough to share a label.
    """
    result = ingest(source, out, IngestOptions(**{"workers": 0, "min_patients": 1, **options}), KEY)
    assert result.total_files == result.accepted_files + sum(result.rejected.values()) + result.used_files
    return result


def reasons(result: IngestResult) -> dict[str, int]:
    """Rejected files by the name of their reason."""
    return {reason.value: total for reason, total in result.rejected.items()}


def rejections(result: IngestResult) -> dict[str, str]:
    """Path → reason, out of the private table."""
    table = pl.read_parquet(result.private_folder / "rejections.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


def images_by_path(result: IngestResult) -> dict[str, list[Array]]:
    """Path → its images in the cohort, in the order of their frames."""
    links = pl.read_parquet(result.private_folder / "links.parquet").filter(pl.col("role") == "image")
    row_of = {image_id: row for row, image_id in enumerate(result.cohort.manifest["image_id"])}
    listed = [
        (path, row_of[image_id]) for path, image_id in links.sort("path", "frame")["path", "image_id"].iter_rows()
    ]
    found: dict[str, list[Array]] = {}
    for (path, _), pixels in zip(listed, result.cohort.pixels([row for _, row in listed]), strict=True):
        found.setdefault(path, []).append(pixels)
    return found


def expected_pixels(path: Path) -> Array:
    """What pydicom itself says: modality LUT for grey, its conversion for colour and palette; padding is darkest."""
    ds = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    raw = ds.pixel_array
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        return pydicom.pixels.apply_color_lut(raw, ds)
    groups = ds.get("SharedFunctionalGroupsSequence")
    source = ds
    if groups and "PixelValueTransformationSequence" in groups[0] and "RescaleSlope" not in ds:
        source = groups[0].PixelValueTransformationSequence[0]
    values = pydicom.pixels.apply_modality_lut(raw, source)
    if "DoseGridScaling" in ds:  # pydicom leaves it to its caller
        values = values.astype(float) * float(ds.DoseGridScaling)
    if "PixelPaddingValue" in ds:
        padding = raw == ds.PixelPaddingValue
        values = np.where(padding, values[~padding].min(initial=values.max()), values)
    return values
