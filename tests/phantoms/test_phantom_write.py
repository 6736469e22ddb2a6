"""Folders of simulated patients: what a reader must find in them, and what a de-identifier must remove."""

from __future__ import annotations

import csv
import json
from datetime import date, timedelta

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_modality_lut
from pydicom.uid import UID

from medphantom.core.errors import InputError
from medphantom.phantoms.dicom import stored_pixels
from medphantom.phantoms.factors import (
    FINDINGS,
    ImageFactors,
    continuous_factors,
    factor_column,
    factor_value,
    with_factor,
)
from medphantom.phantoms.identities import identity_of
from medphantom.phantoms.narrative import report_of
from medphantom.phantoms.population import simulate
from medphantom.phantoms.render import MASK_VALUES, label_map, render
from medphantom.phantoms.write import write_phantoms

SEED = 31
WORDS = {
    "effusion": "effusion", "pneumothorax": "pneumothorax", "nodule": "nodule", "pacemaker": "pacemaker",
    "cardiomegaly": "enlarged", "consolidation": ("consolidation", "opacity"),
}  # fmt: skip


def rows_of(folder):
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def truths_of(folder):
    return [json.loads(line) for line in (folder / "factors.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dx") / "out"
    summary = write_phantoms(folder, 12, format="dicom", seed=SEED, size=32)
    return folder, summary


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct") / "out"
    write_phantoms(folder, 2, format="dicom", spatial_dims=3, seed=SEED, size=32)
    return folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nii") / "out"
    write_phantoms(folder, 2, format="nifti", seed=SEED, size=32, masks=True)
    return folder


def pairs(folder):
    return zip(rows_of(folder), truths_of(folder), strict=True)


# ---------------------------------------------------------------------- DICOM radiographs


def test_stored_pixels_are_those_that_were_drawn(radiographs):
    folder, _ = radiographs
    seen = set()
    for row, truth in pairs(folder):
        image = ImageFactors.model_validate(truth["factors"])
        ds = pydicom.dcmread(folder / row["image"])
        drawn = render(image, 32)
        assert np.array_equal(ds.pixel_array, stored_pixels(image, drawn))
        bright = ds.pixel_array.astype(int)
        if ds.PhotometricInterpretation == "MONOCHROME1":
            bright = 2**ds.BitsStored - 1 - bright
        assert np.array_equal(bright, drawn >> (16 - ds.BitsStored))
        seen.add((ds.PhotometricInterpretation, ds.BitsStored, ds.Modality))
    assert {"MONOCHROME1", "MONOCHROME2"} == {photometric for photometric, _, _ in seen}
    assert {bits for _, bits, _ in seen} == {12, 14}
    assert {modality for _, _, modality in seen} == {"DX", "CR"}


def test_headers_say_synthetic_and_agree_with_the_table(radiographs):
    folder, _ = radiographs
    for row, truth in pairs(folder):
        ds = pydicom.dcmread(folder / row["image"])
        assert ds[0x0008, 0x001C].value == "YES"
        assert ds.SOPInstanceUID == row["uid"]
        assert ds.PatientID == row["patient_id"]
        assert (ds.ViewPosition, ds.PatientSex) == (row["view"], row["sex"])
        assert int(ds.PatientAge[:3]) == int(row["age"]) == int(truth["factors"]["age"])
        born, taken = (date.fromisoformat(f"{d[:4]}-{d[4:6]}-{d[6:]}") for d in (ds.PatientBirthDate, ds.StudyDate))
        assert timedelta(-2) < (taken - born) - timedelta(days=truth["factors"]["age"] * 365.25) < timedelta(2)
        assert ds.PixelSpacing == pytest.approx([336 / 32] * 2)
        assert ds.WindowWidth == 2**ds.BitsStored


def test_identities_fill_the_headers_and_the_paths(radiographs):
    """So that a test of ingestion can prove that none of it survives."""
    folder, _ = radiographs
    for patient in simulate(12, SEED):
        who = identity_of(patient)
        files = sorted((folder / "dicom" / who.folder_name).rglob("*.dcm"))
        assert len(files) == len(patient.images)
        for file in files:
            ds = pydicom.dcmread(file)
            text = str(file) + "".join(str(element.value) for element in ds.iterall())
            assert {secret for secret in who.secrets() if secret not in text} == {who.birth_date.isoformat()}
            assert who.note == ds[0x0011, 0x1002].value == ds.PatientComments


def test_uids_are_valid_unique_and_the_same_again(radiographs, tmp_path):
    folder, _ = radiographs
    write_phantoms(tmp_path / "again", 12, format="dicom", seed=SEED, size=32)
    instances, studies = [], {}
    for row in rows_of(folder):
        ds = pydicom.dcmread(folder / row["image"])
        for value in (ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID):
            assert UID(value).is_valid
        instances.append(ds.SOPInstanceUID)
        studies.setdefault(row["study"], set()).add(ds.StudyInstanceUID)
        assert (tmp_path / "again" / row["image"]).read_bytes() == (folder / row["image"]).read_bytes()
    assert len(set(instances)) == len(instances)
    assert all(len(uids) == 1 for uids in studies.values())
    assert len(set.union(*studies.values())) == len(studies)
    other = pydicom.dcmread(next((folder / "dicom").rglob("*.dcm")))
    write_phantoms(tmp_path / "other", 1, format="dicom", seed=SEED + 1, size=32)
    assert pydicom.dcmread(next((tmp_path / "other").rglob("*.dcm"))).SOPInstanceUID != other.SOPInstanceUID


def test_summary_counts_what_lies_there(radiographs):
    folder, summary = radiographs
    files = list(folder.rglob("*.dcm"))
    assert summary.total_files == summary.total_images == len(files) == len(rows_of(folder))
    assert summary.total_images > summary.total_patients == 12
    for name in FINDINGS:
        assert summary.present[name] == sum(name in row["findings"].split("|") for row in rows_of(folder))


# ---------------------------------------------------------------------- DICOM series and NIfTI


def stacked(folder, place):
    """Slices of one series sorted by position: HU ``(D, H, W)`` and the datasets."""
    slices = [pydicom.dcmread(file) for file in sorted((folder / place).glob("*.dcm"))]
    order = sorted(range(len(slices)), key=lambda i: slices[i].ImagePositionPatient[2])
    assert order != list(range(len(slices)))  # file names do not give the order away
    slices = [slices[i] for i in order]
    return np.stack([apply_modality_lut(ds.pixel_array, ds) for ds in slices]), slices


def test_series_stack_to_the_volume_that_was_drawn(series):
    for row, truth in pairs(series):
        stack, slices = stacked(series, row["image"])
        assert np.array_equal(stack, render(ImageFactors.model_validate(truth["factors"]), 32))
        assert {ds.SeriesInstanceUID for ds in slices} == {row["uid"]}
        steps = np.diff([ds.ImagePositionPatient[2] for ds in slices])
        assert steps == pytest.approx([slices[0].SliceThickness] * len(steps), abs=1e-3)


def test_nifti_and_dicom_place_the_same_voxel_at_the_same_point(series, volumes):
    for of_series, of_volumes in zip(rows_of(series), rows_of(volumes), strict=True):
        stack, slices = stacked(series, of_series["image"])
        picture = nibabel.load(volumes / of_volumes["image"])
        assert np.array_equal(np.asarray(picture.dataobj).transpose(2, 1, 0), stack)
        d, h, w = 5, 20, 3
        ds = slices[d]
        lps = np.array(ds.ImagePositionPatient, dtype=float)
        lps += [w * ds.PixelSpacing[1], h * ds.PixelSpacing[0], 0]
        assert (picture.affine @ [w, h, d, 1])[:3] == pytest.approx([-lps[0], -lps[1], lps[2]], abs=1e-3)


def test_labels_pair_with_images_by_name(volumes):
    for row, truth in pairs(volumes):
        labels = nibabel.load(volumes / row["image"].replace("images/", "labels/"))
        image = ImageFactors.model_validate(truth["factors"])
        assert np.array_equal(np.asarray(labels.dataobj).transpose(2, 1, 0), label_map(image, 32))
    names = json.loads((volumes / "mask_values.json").read_text(encoding="utf-8"))
    assert {int(value): name for value, name in names.items()} == MASK_VALUES


# ---------------------------------------------------------------------- PNG, table, truth


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_png_holds_the_pixels_of_its_factors(tmp_path, bit_depth):
    write_phantoms(tmp_path / "out", 3, format="png", seed=SEED, size=32, bit_depth=bit_depth, masks=True)
    for row, truth in pairs(tmp_path / "out"):
        image = ImageFactors.model_validate(truth["factors"])
        pixels = np.asarray(Image.open(tmp_path / "out" / row["image"]))
        assert pixels.dtype == (np.uint8 if bit_depth == 8 else np.uint16)
        assert np.array_equal(pixels, render(image, 32) >> (16 - bit_depth))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / row["mask"])), label_map(image, 32))
        present = [name for name in FINDINGS if truth["labels"][name]]
        assert row["findings"] == ("|".join(present) or "No Finding")


def test_missing_cells_are_empty_and_never_no_finding(tmp_path):
    write_phantoms(tmp_path / "full", 40, format="png", seed=SEED, size=32)
    write_phantoms(tmp_path / "gaps", 40, format="png", seed=SEED, size=32, missing=0.3)
    full, gaps = rows_of(tmp_path / "full"), rows_of(tmp_path / "gaps")
    columns = ("age", "sex", "view", "findings", "report")
    assert all(row[name] for row in full for name in columns)
    empty = sum(row[name] == "" for row in gaps for name in columns)
    assert empty == pytest.approx(0.3 * len(gaps) * len(columns), abs=4 * np.sqrt(0.21 * len(gaps) * len(columns)))
    for whole, holed in zip(full, gaps, strict=True):
        assert all(value in {"", whole[name]} for name, value in holed.items())
        assert holed["patient_id"] == whole["patient_id"]


def test_reports_name_what_is_present_and_nothing_else():
    for patient in simulate(150, seed=3):
        for image in patient.images:
            text = report_of(image).lower()
            for name, shown in image.labels.items():
                words = (WORDS[name],) if isinstance(WORDS[name], str) else WORDS[name]
                if shown:
                    assert any(word in text for word in words)
                elif any(image.labels.values()):
                    assert not any(word in text for word in words)
            assert not any(secret.lower() in text for secret in identity_of(patient).secrets())


def test_workers_write_the_same_bytes(tmp_path):
    for workers in (1, 2):
        write_phantoms(tmp_path / str(workers), 5, format="dicom", seed=SEED, size=32, workers=workers)
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "2") for path in (tmp_path / "2").rglob("*") if path.is_file())
    assert all((tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes() for file in files)


def test_a_stopped_run_leaves_nothing(tmp_path):
    def stop(done, total, what=""):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path / "out", 4, format="png", size=32, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_patients(tmp_path):
    calls = []
    write_phantoms(tmp_path / "out", 3, format="png", size=32, progress=lambda *call: calls.append(call[:2]))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 0}, "patients must be ≥ 1, got 0"),
        ({"patients": 2, "size": 16}, "size must be ≥ 32, got 16"),
        ({"patients": 2, "format": "png", "spatial_dims": 3}, "format png cannot hold 3-D images"),
        ({"patients": 2, "format": "nifti", "spatial_dims": 2}, "format nifti cannot hold 2-D images"),
        ({"patients": 2, "missing": 1.0}, "missing must be < 1, got 1.0"),
        ({"patients": 2, "size": 0}, "size must be ≥ 32, got 0"),
        ({"patients": 2, "seed": -1}, "seed must be ≥ 0, got -1"),
    ],
)
def test_wrong_options_are_refused_in_one_line(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_phantoms(tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "kept.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists already"):
        write_phantoms(tmp_path, 1, format="png", size=32)
    assert (tmp_path / "kept.txt").read_text(encoding="utf-8") == "mine"


def test_eight_bit_detectors_store_bytes():
    image = with_factor(next(simulate(1, seed=1)).images[0], "scanner.bits_stored", 8)
    assert stored_pixels(image, render(image, 32)).dtype == np.uint8


# ---------------------------------------------------------------------- factors as columns


def test_factors_become_columns_of_their_own(tmp_path):
    factors = ("anatomy.adiposity", "pose.inspiration", "nodule.severity", "nodule.contrast", "scanner.contrast")
    write_phantoms(tmp_path / "p", 5, format="png", seed=SEED, size=32, factors=factors)
    columns = ("adiposity", "inspiration", "nodule_severity", "nodule_contrast", "contrast")
    assert tuple(rows_of(tmp_path / "p")[0])[-5:] == columns
    for row, truth in pairs(tmp_path / "p"):
        for path, column in zip(factors, columns, strict=True):
            part, name = path.split(".")
            assert float(row[column]) == pytest.approx(truth["factors"][part][name], rel=1e-5)
    for path in continuous_factors():
        image = ImageFactors.model_validate(truths_of(tmp_path / "p")[0]["factors"])
        assert with_factor(image, path, factor_value(image, path)) == image
    assert len({factor_column(path) for path in continuous_factors()}) == len(continuous_factors())


@pytest.mark.parametrize(
    ("factor", "match"),
    [
        ("anatomy.adipose", "did you mean 'anatomy.adiposity'"),
        ("anatomy.rib_pairs", "is not a continuous factor"),
        ("effusion.side", "is not a continuous factor"),
    ],
)
def test_other_factors_are_one_line(tmp_path, factor, match):
    with pytest.raises(InputError, match=match):
        write_phantoms(tmp_path / "p", 2, format="png", factors=[factor])
    assert not (tmp_path / "p").exists()
