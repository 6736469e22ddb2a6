"""NIfTI: values and affines as nibabel gives them, axes reversed; masks paired, turned onto the grid, or refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medphantom.cohorts.preprocess import Preprocess, Window
from medphantom.core.errors import InputError
from medphantom.core.records import Array
from tests.cohorts.files import reasons, rejections, structure, take_in, write_series

AFFINE = np.array([[0.7, 0, 0, -10], [0, 0.8, 0.1, 20], [0, -0.1, 2.5, 30], [0, 0, 0, 1.0]])


def save(path: Path, values: Array, affine: Array = AFFINE, slope: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    if slope is not None:
        image.header.set_slope_inter(slope, 3)
    nib.save(image, path)


def test_values_and_affine_are_nibabels_with_axes_reversed(tmp_path: Path) -> None:
    save(tmp_path / "s" / "a.nii.gz", structure(1, (20, 24, 6), "int16", 900))
    (record,) = take_in(tmp_path / "s", tmp_path / "c").cohort.records()
    expected = nib.load(tmp_path / "s" / "a.nii.gz")
    assert np.array_equal(record.pixels, expected.get_fdata().T)
    assert record.pixels.dtype == np.int16
    assert record.affine is not None
    k, j, i = 4, 5, 6
    ours = np.reshape(record.affine, (4, 4)) @ [k, j, i, 1]
    assert np.allclose(ours, expected.affine @ [i, j, k, 1])
    assert record.spacing_mm == pytest.approx(tuple(reversed(expected.header.get_zooms())))


@pytest.mark.parametrize("kind", ["uint8", "int32", "float32", "float64"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "without_suffix"])
def test_types_and_names(tmp_path: Path, kind: str, name: str) -> None:
    values = structure(1, (20, 24, 6), "uint8").astype(kind)
    save(tmp_path / "a.nii", values)
    (tmp_path / "s").mkdir()
    if name.endswith(".gz"):
        save(tmp_path / "s" / name, values)
    else:
        (tmp_path / "a.nii").rename(tmp_path / "s" / name)
    assert np.array_equal(take_in(tmp_path / "s", tmp_path / "c").cohort.pixels([0])[0], values.T)


def test_scaled_values_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "s" / "a.nii.gz"
    save(path, structure(1, (20, 24, 6), "int16", 900), slope=0.37)
    expected = nib.load(path).get_fdata()
    assert np.array_equal(take_in(tmp_path / "s", tmp_path / "c").cohort.pixels([0])[0], expected.T)


def test_a_modality_may_be_given_for_files_that_do_not_declare_theirs(tmp_path: Path) -> None:
    save(tmp_path / "s" / "a.nii.gz", structure(1, (20, 24, 6), "int16", 900))
    cohort = take_in(tmp_path / "s", tmp_path / "c", modality="CT").cohort
    assert cohort.manifest["modality"].to_list() == ["CT"]
    assert Preprocess.for_cohort(cohort, (8, 16, 16)).intensity == Window(low=-1000, high=1000)


def test_nifti2_and_big_endian(tmp_path: Path) -> None:
    values = structure(1, (20, 24, 6), "int16", 900)
    (tmp_path / "s").mkdir()
    nib.save(nib.Nifti2Image(values, AFFINE), tmp_path / "s" / "two.nii")
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(values[::-1].astype(">i2"), AFFINE, header), tmp_path / "s" / "big.nii")
    first, second = take_in(tmp_path / "s", tmp_path / "c").cohort.pixels([0, 1])
    assert np.array_equal(first, values[::-1].T)
    assert np.array_equal(second, values.T)


def test_a_fourth_axis_gives_a_volume_each_or_is_refused(tmp_path: Path) -> None:
    values = np.stack([structure(seed, (20, 24, 6)) for seed in (1, 2)], axis=-1)
    save(tmp_path / "s" / "a.nii.gz", values)
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    assert [np.array_equal(cohort.pixels([n])[0], values[..., n].T) for n in (0, 1)] == [True, True]
    with pytest.raises(InputError, match="1 geometry"):
        take_in(tmp_path / "s", tmp_path / "d", frames="reject")


def test_a_single_slice_is_an_image(tmp_path: Path) -> None:
    values = structure(1, (20, 24))
    save(tmp_path / "s" / "a.nii.gz", values[..., np.newaxis])
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    assert cohort.schema.spatial_dims == 2
    assert np.array_equal(cohort.pixels([0])[0], values.T)
    assert cohort.manifest["spacing_mm"][0].to_list() == pytest.approx([0.8, 0.7], abs=0.01)


def test_broken_and_unsupported_files_say_why(tmp_path: Path) -> None:
    source = tmp_path / "s"
    good = structure(1, (20, 24, 6), "int16", 900)
    save(source / "good.nii", good)
    save(source / "nan.nii", np.where(good == good.max(), np.nan, good).astype(np.float32))
    save(source / "complex.nii", good.astype(np.complex64))
    colour = np.zeros((20, 24, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(source / "rgb.nii", colour)
    (source / "cut.nii").write_bytes((source / "good.nii").read_bytes()[:-100])
    save(tmp_path / "b.nii.gz", good)
    (source / "cut.nii.gz").write_bytes((tmp_path / "b.nii.gz").read_bytes()[:-100])
    huge = bytearray((source / "good.nii").read_bytes())
    huge[42:48] = np.array([30000, 30000, 300], "<i2").tobytes()  # dim[1..3] of the header
    (source / "huge.nii").write_bytes(bytes(huge))
    assert rejections(take_in(source, tmp_path / "c")) == {
        "complex.nii": "unsupported_pixels",
        "cut.nii": "truncated",
        "cut.nii.gz": "truncated",
        "huge.nii": "too_large",
        "nan.nii": "not_finite",
        "rgb.nii": "unsupported_pixels",
    }


def test_masks_are_found_beside_images_and_paired_by_name(tmp_path: Path) -> None:
    source = tmp_path / "s"
    masks = {}
    for seed in (1, 2, 3):
        save(source / "images" / f"case_{seed}.nii.gz", structure(seed, (20, 24, 6), "int16", 900))
        masks[seed] = (structure(seed + 10, (20, 24, 6)) > 128).astype(np.float32) * seed
        if seed != 3:
            save(source / "labels" / f"case_{seed}.nii.gz", masks[seed])
    save(source / "labels" / "case_9.nii.gz", masks[1])
    (source / "images" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    result = take_in(source, tmp_path / "c", mask_values={2: "tumour"})
    assert rejections(result) == {
        "images/.DS_Store": "not_an_image",
        "images/case_3.nii.gz": "no_mask",
        "labels/case_9.nii.gz": "orphan_mask",
    }
    found = result.cohort.masks([0, 1])
    assert all(np.array_equal(mask, masks[seed].T) for seed, mask in zip((1, 2), found, strict=True))
    assert {mask.dtype.name for mask in found if mask is not None} == {"uint8"}
    assert result.cohort.schema.mask_values == {0: "background", 1: "1", 2: "tumour"}
    lenient = take_in(source, tmp_path / "d", mask_required=False)
    assert [mask is None for mask in lenient.cohort.masks([0, 1, 2])] == [False, False, True]
    with pytest.raises(InputError, match="is not a folder of masks"):
        take_in(source, tmp_path / "e", masks="nowhere")


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "s"
    planted = {
        "good": np.ones((20, 24, 6), np.uint8),
        "other_shape": np.ones((20, 24, 5), np.uint8),
        "half": np.full((20, 24, 6), 0.5, np.float32),
        "negative": np.full((20, 24, 6), -1, np.int16),
    }
    for seed, (name, mask) in enumerate(planted.items()):
        save(source / "images" / f"{name}.nii", structure(seed, (20, 24, 6), "int16", 900))
        save(source / "masks" / f"{name}_mask.nii", mask)
    moved = AFFINE.copy()
    moved[0, 3] += 5
    save(source / "images" / "moved.nii", structure(9, (20, 24, 6), "int16", 900))
    save(source / "masks" / "moved_mask.nii", planted["good"], moved)
    result = take_in(source, tmp_path / "c")
    assert result.accepted == 1
    assert reasons(result) == {"mask_mismatch": 4}


def test_a_nifti_mask_of_a_dicom_series_is_turned_onto_its_grid(tmp_path: Path) -> None:
    volume = structure(1, (6, 24, 20), "int16", 1000)
    mask = (structure(2, (6, 24, 20)) > 128).astype(np.uint8)
    positions = np.arange(6)[:, np.newaxis] * [0, 0, 2.5]
    write_series(tmp_path / "s" / "scan", volume, positions)
    # the same grid as another tool writes it: x and y run the other way, RAS+
    affine = np.diag([0.6, 0.8, 2.5, 1.0])
    affine[:3, 3] = [-19 * 0.6, -23 * 0.8, 0]
    save(tmp_path / "m" / "scan.nii.gz", mask.T[::-1, ::-1], affine)
    (record,) = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, masks=tmp_path / "m").cohort.records()
    assert record.mask is not None
    assert np.array_equal(record.mask, mask)
