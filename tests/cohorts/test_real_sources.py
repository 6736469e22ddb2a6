"""Real files: no crash, every file accounted for, stored values equal to what pydicom and nibabel say themselves."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pydicom
import pytest
from PIL import Image

from medphantom.cohorts.readers.common import luminance
from medphantom.core.records import Array
from tests.cohorts.files import expected_pixels, images_by_path, reasons, rejections, take_in

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom"),  # pydicom on its own broken test files
]
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def can_be_shown(path: Path) -> bool:
    try:
        expected_pixels(path)
    except Exception:  # pydicom may raise anything on its own broken files
        return False
    return True


def equal_to_pydicom(source: Path, out: Path, **options: object) -> dict[str, int]:
    """Ingest and compare every stored image with pydicom's own output; how many files and images were compared."""
    result = take_in(source, out, duplicates="keep", spatial_dims=2, workers=2, **options)
    compared = {"files": 0, "images": 0}
    for path, images in images_by_path(result).items():
        if not can_be_shown(source / path):
            continue
        expected = expected_pixels(source / path)
        colour = expected.ndim > 2 and expected.shape[-1] == 3
        if colour and options.get("color") != "keep":
            expected = luminance(expected)
        shape = expected.shape[-3:] if colour and options.get("color") == "keep" else expected.shape[-2:]
        frames = expected.reshape(-1, *shape)
        kept = [frame for frame in frames if frame.min() != frame.max()]  # constant frames are refused
        assert len(images) == len(kept)
        for stored, frame in zip(images, kept, strict=True):
            assert np.array_equal(stored, frame), path
            assert stored.dtype.itemsize <= frame.dtype.itemsize
        compared["files"] += 1
        compared["images"] += len(images)
    only_here = {path for path in images_by_path(result) if not can_be_shown(source / path)}
    assert only_here <= {"JPEG-lossy.dcm", "JPGExtended.dcm"}  # JPEG of 12 bits
    assert compared["files"] + len(only_here) == result.accepted_files
    print(f"\n{source.name}: {result.total_files} files, {compared}, rejected {reasons(result)}")
    return compared


@pytest.mark.parametrize("color", ["grey", "keep"])
def test_pydicoms_own_files(tmp_path: Path, color: str) -> None:
    compared = equal_to_pydicom(PYDICOM_FILES, tmp_path / "c", color=color)
    assert compared["files"] >= 75


def test_what_pydicom_can_show_is_taken_or_refused_for_a_declared_reason(tmp_path: Path) -> None:
    result = take_in(PYDICOM_FILES, tmp_path / "c", duplicates="keep", spatial_dims=2, workers=2)
    stated = {"unsupported_pixels", "too_small"}  # segmentations, and files of 3 x 3 pixels
    for path, reason in rejections(result).items():
        assert reason in stated or not can_be_shown(PYDICOM_FILES / path), (path, reason)


@pytest.mark.real_data
@pytest.mark.parametrize("color", ["grey", "keep"])
def test_dicom_of_many_kinds(real_data: Path, tmp_path: Path, color: str) -> None:
    compared = equal_to_pydicom(real_data / "dicom_varied", tmp_path / "c", color=color)
    assert (
        compared["files"] == 66
    )  # of 69 that pydicom shows: two have oblong pixels without spacing, one false colours


@pytest.mark.real_data
def test_five_series_become_five_volumes(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "brain_mr_dicom"
    result = take_in(source, tmp_path / "c", workers=2)
    assert (result.accepted, result.total_files, reasons(result)) == (5, 128, {})
    links = pl.read_parquet(result.private_folder / "links.parquet")
    compared = 0
    for record in result.cohort.records():
        assert record.affine is not None
        affine = np.reshape(record.affine, (4, 4))
        for path in links.filter(pl.col("image_id") == record.image_id)["path"]:
            ds = pydicom.dcmread(source / path)
            lps = np.array([float(value) for value in ds.ImagePositionPatient]) * [-1, -1, 1]
            index = np.linalg.solve(affine, [*lps, 1])
            assert np.allclose(index[1:3], 0, atol=0.01)
            assert index[0] == pytest.approx(round(index[0]), abs=0.01)
            plane = record.pixels[round(index[0])]
            assert np.array_equal(plane, pydicom.pixels.apply_modality_lut(ds.pixel_array, ds))
            compared += 1
    assert compared == 128
    print(
        f"\nbrain_mr_dicom: {compared} slices in {result.accepted} volumes: {result.cohort.manifest['group'].to_list()}"
    )


@pytest.mark.real_data
def test_volumes_with_masks(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "hippocampus_mr_3d"
    result = take_in(source, tmp_path / "c", workers=2)
    assert rejections(result) == {
        "images/.DS_Store": "not_an_image",
        "images/hippocampus_118.nii.gz": "no_mask",
        "labels/hippocampus_010.nii.gz": "orphan_mask",
        "labels/hippocampus_281.nii.gz": "orphan_mask",
    }
    assert (result.accepted, result.total_files, result.used_files) == (260, 524, 260)
    assert set(result.cohort.schema.mask_values) == {0, 1, 2}
    links = pl.read_parquet(result.private_folder / "links.parquet").filter(pl.col("role") == "image")
    path_of = dict(links.select("image_id", "path").iter_rows())
    for record in result.cohort.records():
        path = source / path_of[record.image_id]
        assert np.array_equal(record.pixels, nib.load(path).get_fdata().T)
        assert record.mask is not None
        assert np.array_equal(record.mask, nib.load(source / "labels" / path.name).get_fdata().T)
    print(f"\nhippocampus_mr_3d: {result.accepted} pairs, rejected {reasons(result)}")


@pytest.mark.real_data
def test_radiographs_with_a_table_need_no_options(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "nih_chest_xray_256"
    result = take_in(source, tmp_path / "c", workers=2)
    table = pl.read_csv(source / "metadata.csv", infer_schema=False)
    assert result.total_files == len(table) + 1
    assert (result.accepted, reasons(result)) == (1604, {"duplicate": 1})
    cohort = result.cohort
    assert (len(cohort.schema.labels), cohort.schema.exclusive, cohort.schema.patients) == (14, False, "known")
    assert [spec.name for spec in cohort.schema.attributes] == ["age", "sex", "view"]
    assert cohort.manifest["patient"].n_unique() == table["patient_id"].n_unique()
    edema = table.filter(pl.col("findings").str.split("|").list.contains("Edema"))
    assert abs(int(cohort.manifest["label:Edema"].sum()) - len(edema)) <= 1
    per_patient = cohort.manifest.group_by("patient").agg(pl.col("split").n_unique())
    assert set(per_patient["split"]) == {1}
    for path, (pixels,) in list(images_by_path(result).items())[::100]:
        shown: Array = np.asarray(Image.open(source / path))
        assert np.array_equal(pixels, shown)
    print(
        f"\nnih_chest_xray_256: {result.accepted} images, near duplicates {result.near_duplicates}, {result.warnings}"
    )


@pytest.mark.slow
@pytest.mark.real_data
def test_blood_cells_with_their_table_need_no_options(real_data: Path, tmp_path: Path) -> None:
    result = take_in(real_data / "malaria_cells_50", tmp_path / "c", min_patients=5)
    cohort = result.cohort
    assert len(cohort) == 10_378
    assert cohort.schema.labels == ("parasitized",)
    assert cohort.schema.patients == "known"
    assert cohort.manifest["patient"].n_unique() == 80
    assert int((cohort.labels() == 1).sum()) == 4_873
    assert not result.rejected
    sides = cohort.manifest.filter(pl.col("split") != "left_out").group_by("patient").agg(pl.col("split").n_unique())
    assert set(sides["split"]) == {1}
