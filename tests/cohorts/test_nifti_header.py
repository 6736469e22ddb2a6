"""The NIfTI header field by field: what it says of the voxels is honoured, or the file is refused and says why."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
import pytest

from medphantom.cohorts.ingest import IngestResult
from medphantom.cohorts.records import ImageRecord
from medphantom.core.records import Array
from tests.cohorts.files import rejections, structure, take_in

VALUES = structure(1, (20, 24, 6), "int16", 900)
SFORM: dict[str, Any] = {"sform_code": 1, "srow_x": [-0.5, 0, 0, 9], "srow_y": [0, 0.75, 0, 8], "srow_z": [0, 0, 2, 7]}
SIZES = [1, 0.5, 0.75, 2, 1, 1, 1, 1]
TURNED: dict[str, Any] = {"quatern_b": 0.0, "quatern_c": 1.0, "quatern_d": 0.0}  # half a turn about y


def write(path: Path, values: Array = VALUES, *, header: Any = None, **fields: Any) -> None:
    """A file whose header holds these fields as they are, unlike nibabel's own, which are made consistent."""
    header = nib.Nifti1Header() if header is None else header
    header.set_data_dtype(values.dtype)
    header["dim"] = [values.ndim, *values.shape, *[1] * (7 - values.ndim)]
    header["pixdim"] = SIZES
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = header.single_vox_offset
    for name, value in fields.items():
        header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    head = header.binaryblock.ljust(header.single_vox_offset, b"\0")
    path.write_bytes(head + values.tobytes(order="F"))


def only(tmp_path: Path, values: Array = VALUES, **fields: Any) -> ImageRecord:
    write(tmp_path / "s" / "a.nii", values, **fields)
    (record,) = take_in(tmp_path / "s", tmp_path / "c").cohort.records()
    return record


def refused(tmp_path: Path, **fields: Any) -> tuple[str, str]:
    """Reason and detail of a file with these fields, beside one that is taken."""
    write(tmp_path / "s" / "a.nii", **fields)
    write(tmp_path / "s" / "good.nii", structure(2, (20, 24, 6), "int16", 900))
    return refusal(take_in(tmp_path / "s", tmp_path / "c"), "a.nii")


def refusal(result: IngestResult, path: str) -> tuple[str, str]:
    table = pl.read_parquet(result.private_folder / "rejections.parquet").filter(pl.col("path") == path)
    return table["reason"][0], table["detail"][0]


def affine_of(record: ImageRecord) -> Array:
    """The affine over ``(i, j, k)`` again."""
    assert record.affine is not None
    return np.reshape(record.affine, (4, 4))[:, [2, 1, 0, 3]]


@pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (2 + 8, 1), (3 + 16, 0.001)])
def test_lengths_are_in_millimetres_whatever_their_unit(tmp_path: Path, unit: int, factor: float) -> None:
    record = only(tmp_path, xyzt_units=unit, **SFORM)
    assert record.spacing_mm == pytest.approx((2 * factor, 0.75 * factor, 0.5 * factor))
    assert np.allclose(affine_of(record)[:3], factor * np.array([SFORM["srow_x"], SFORM["srow_y"], SFORM["srow_z"]]))


def test_spacing_is_that_of_the_affine(tmp_path: Path) -> None:
    record = only(tmp_path, **SFORM | {"pixdim": [1, 0.501, 0.749, 2, 1, 1, 1, 1]})  # rounded by their writer
    assert record.spacing_mm == (2.0, 0.75, 0.5)


def test_an_sform_needs_no_pixdim(tmp_path: Path) -> None:
    assert only(tmp_path, **SFORM, pixdim=[1, 0, 0, 0, 0, 0, 0, 0]).spacing_mm == (2.0, 0.75, 0.5)


def test_a_sheared_affine_keeps_its_columns(tmp_path: Path) -> None:
    tilted = SFORM | {"srow_y": [0, 0.75, 0.6, 8], "pixdim": [1, 0.5, 0.75, np.hypot(0.6, 2), 1, 1, 1, 1]}
    record = only(tmp_path, **tilted)
    assert affine_of(record)[1] == pytest.approx(tilted["srow_y"])
    assert record.spacing_mm is not None
    assert record.spacing_mm[0] == pytest.approx(np.hypot(0.6, 2))


@pytest.mark.parametrize("qfac", [1, 0, -1])
def test_a_qform_is_nibabels(tmp_path: Path, qfac: int) -> None:
    record = only(tmp_path, qform_code=1, qoffset_x=3, pixdim=[qfac, *SIZES[1:]], **TURNED)
    expected = np.diag([-0.5, 0.75, -2.0 * (qfac or 1), 1])
    expected[0, 3] = 3
    assert np.allclose(affine_of(record), expected)


def test_an_unknown_place_stays_unknown(tmp_path: Path) -> None:
    record = only(tmp_path)
    assert (record.affine, record.spacing_mm) == (None, (2.0, 0.75, 0.5))


@pytest.mark.parametrize("sizes", [[1, 0.5, 0, 2], [1, -0.5, 0.75, 2], [1, np.nan, 0.75, 2], [1, np.inf, 0.75, 2]])
def test_sizes_that_are_none_are_not_stated(tmp_path: Path, sizes: list[float]) -> None:
    assert only(tmp_path, pixdim=[*sizes, 1, 1, 1, 1]).spacing_mm is None


def test_a_standard_space_that_stretches_gives_way_to_the_patients_own(tmp_path: Path) -> None:
    stretched = SFORM | {"sform_code": 4, "srow_z": [0, 0, 2.5, 7]}
    record = only(tmp_path, qform_code=1, **stretched)
    assert np.allclose(affine_of(record), np.diag([0.5, 0.75, 2, 1]))


def test_the_sform_wins_where_both_may_be_right(tmp_path: Path) -> None:
    assert np.allclose(affine_of(only(tmp_path, qform_code=1, **SFORM | {"sform_code": 2}))[0], SFORM["srow_x"])


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "sizes": (SFORM | {"pixdim": [1, 0.5, 0.75, 5, 1, 1, 1, 1]}, "geometry", "different sizes of a voxel"),
    "places": (SFORM | {"qform_code": 1}, "geometry", "different places in the same space"),
    "singular": (SFORM | {"srow_z": [0, 0, 0, 0]}, "geometry", "maps no volume"),
    "not finite": (SFORM | {"srow_z": [0, 0, np.nan, 0]}, "geometry", "maps no volume"),
    "qform without sizes": ({"qform_code": 1, "pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, "geometry", "qform without"),
    "qfac": ({"qform_code": 1, "pixdim": [-3, 1, 1, 1, 1, 1, 1, 1]}, "geometry", "qform without"),
    "quaternion": ({"qform_code": 1, "quatern_b": 3}, "geometry", "qform without"),
    "unit": ({"xyzt_units": 5}, "geometry", "a unit of length"),
    "bits": ({"bitpix": 8}, "broken", "bitpix contradicts datatype"),
    "offset": ({"vox_offset": 100}, "broken", "into the header"),
    "half an offset": ({"vox_offset": 352.5}, "broken", "not an integer"),
    "no offset": ({"vox_offset": np.nan}, "broken", "not an integer"),
    "header size": ({"sizeof_hdr": 347}, "broken", "sizeof_hdr"),
    "axes": ({"dim": [3, 20, 24, -6, 1, 1, 1, 1]}, "geometry", "dim has"),
    "datatype": ({"datatype": 77}, "unsupported_pixels", "does not define"),
    "one bit": ({"datatype": 1, "bitpix": 1}, "unsupported_pixels", "not read"),
    "slope": ({"scl_slope": np.inf}, "unsupported_pixels", "not a finite number"),
    "intercept": ({"scl_slope": 2, "scl_inter": np.nan}, "unsupported_pixels", "not a finite number"),
    "pair": ({"magic": b"ni1"}, "unsupported_pixels", "second file"),
    "statistics": ({"intent_code": 3}, "unsupported_pixels", "statistics"),
    "labels": ({"intent_code": 1002}, "unsupported_pixels", "label map"),
    "displacements": ({"intent_code": 1006}, "unsupported_pixels", "vectors"),
    "too short": ({"dim": [3, 20, 24, 7, 1, 1, 1, 1]}, "truncated", "declared voxels"),
    "vectors": ({"values": np.stack([VALUES] * 3, -1)[:, :, :, None]}, "geometry", "vectors"),
    "long double": ({"datatype": 1536, "bitpix": 128}, "unsupported_pixels", "voxels of"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_header_that_cannot_be_believed_is_refused_for_the_true_reason(tmp_path: Path, kind: str) -> None:
    fields, reason, words = CONTRADICTIONS[kind]
    found = refused(tmp_path, **fields)
    assert found[0] == reason
    assert words in found[1]


@pytest.mark.parametrize(("slope", "intercept"), [(0, 5), (np.nan, 0), (np.nan, np.nan), (1, 0)])
def test_no_slope_means_stored_values(tmp_path: Path, slope: float, intercept: float) -> None:
    record = only(tmp_path, scl_slope=slope, scl_inter=intercept)
    assert np.array_equal(record.pixels, VALUES.T)
    assert record.pixels.dtype == np.int16


def test_numbers_that_no_float_holds_are_not_scaled(tmp_path: Path) -> None:
    wide = VALUES.astype(np.int64) + 2**60
    assert refused(tmp_path, values=wide, scl_slope=2)[0] == "unsupported_pixels"
    (tmp_path / "s" / "good.nii").unlink()
    write(tmp_path / "s" / "a.nii", wide)
    assert np.array_equal(take_in(tmp_path / "s", tmp_path / "d").cohort.pixels([0])[0], wide.T)


def test_the_display_range_becomes_the_window(tmp_path: Path) -> None:
    voi = only(tmp_path, cal_min=100, cal_max=700).voi
    assert voi is not None
    assert (voi.center, voi.width) == (400, 600)


@pytest.mark.parametrize("fields", [{"cal_min": 0, "cal_max": 0}, {"cal_min": 5, "cal_max": 1}, {"cal_max": np.nan}])
def test_a_display_range_that_is_none_is_no_window(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert only(tmp_path, **fields).voi is None


def test_a_slice_alone_needs_no_third_column(tmp_path: Path) -> None:
    flat: dict[str, Any] = SFORM | {"srow_z": [0, 0, 0, 0], "pixdim": [1, 0.5, 0.75, 0, 1, 1, 1, 1], "xyzt_units": 3}
    assert only(tmp_path, structure(1, (20, 24)), **flat).spacing_mm == pytest.approx((0.00075, 0.0005))


def test_text_of_a_header_reaches_nothing(tmp_path: Path) -> None:
    write(tmp_path / "s" / "a.nii", descrip=b"SURNAME", aux_file=b"SURNAME", intent_name=b"SURNAME", db_name=b"SURNAME")
    result = take_in(tmp_path / "s", tmp_path / "c")
    for path in [*(tmp_path / "c").rglob("*"), *result.private_folder.rglob("*")]:
        assert not path.is_file() or b"SURNAME" not in path.read_bytes()


def test_nifti2_says_the_same(tmp_path: Path) -> None:
    write(tmp_path / "s" / "a.nii", header=nib.Nifti2Header(), xyzt_units=1, cal_max=700, **SFORM)
    (record,) = take_in(tmp_path / "s", tmp_path / "c").cohort.records()
    assert list(record.spacing_mm or ()) == [2000, 750, 500]
    assert np.array_equal(record.pixels, VALUES.T)
    whole = bytearray((tmp_path / "s" / "a.nii").read_bytes())
    del whole[8]  # "\r\n" became "\n"
    (tmp_path / "s" / "text.nii").write_bytes(bytes(whole))
    assert refusal(take_in(tmp_path / "s", tmp_path / "d"), "text.nii")[0] == "broken"


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99, -4])
def test_a_compressed_file_that_was_cut_off_is_truncated(tmp_path: Path, kept: float) -> None:
    write(tmp_path / "s" / "good.nii", structure(2, (40, 40, 20)))
    packed = gzip.compress((tmp_path / "s" / "good.nii").read_bytes())
    end = int(kept) if kept < 0 else int(len(packed) * kept)
    (tmp_path / "s" / "cut.nii.gz").write_bytes(packed[:end])
    assert rejections(take_in(tmp_path / "s", tmp_path / "c")) == {"cut.nii.gz": "truncated"}


def test_a_compressed_file_that_was_altered_is_undecodable(tmp_path: Path) -> None:
    write(tmp_path / "s" / "good.nii")
    packed = bytearray(gzip.compress(bytes((tmp_path / "s" / "good.nii").read_bytes()), 0))
    packed[-500] ^= 1  # stored without compression, so that only the checksum can tell
    (tmp_path / "s" / "altered.nii.gz").write_bytes(bytes(packed))
    assert rejections(take_in(tmp_path / "s", tmp_path / "c")) == {"altered.nii.gz": "undecodable"}


def test_masks_follow_units_and_intents(tmp_path: Path) -> None:
    labels = (VALUES > 400).astype(np.uint8)
    micro: dict[str, Any] = {"xyzt_units": 3, "pixdim": [1, 500, 750, 2000, 1, 1, 1, 1], "sform_code": 1}
    micro |= {"srow_x": [-500, 0, 0, 9000], "srow_y": [0, 750, 0, 8000], "srow_z": [0, 0, 2000, 7000]}
    write(tmp_path / "s" / "images" / "a.nii", **SFORM)
    write(tmp_path / "s" / "labels" / "a.nii", labels, intent_code=1002, **micro)
    write(tmp_path / "s" / "images" / "b.nii", structure(2, (20, 24, 6), "int16", 900), **SFORM)
    write(tmp_path / "s" / "labels" / "b.nii", labels, intent_code=22, **micro)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert rejections(result) == {"images/b.nii": "mask_mismatch"}
    mask = result.cohort.masks([0])[0]
    assert mask is not None
    assert np.array_equal(mask, labels.T)
