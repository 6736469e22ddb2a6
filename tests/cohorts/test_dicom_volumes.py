"""Series and multi-frame files as volumes: order and affine follow positions, never file names or instance numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydicom.uid import RTDoseStorage

from medphantom.cohorts.ingest import IngestResult
from medphantom.cohorts.readers.dicom_geometry import Plane
from medphantom.cohorts.readers.dicom_stacks import find_stacks
from medphantom.cohorts.records import ImageRecord
from medphantom.core.errors import InputError
from medphantom.core.records import Array
from tests.cohorts.files import (
    AXIAL,
    images_by_path,
    item,
    reasons,
    rejections,
    sequence,
    structure,
    take_in,
    uid,
    write_dicom,
    write_series,
)


def volume_of(seed: int = 1, shape: tuple[int, int, int] = (6, 24, 20)) -> Array:
    return structure(seed, shape, "int16", 1000)


def stack_positions(total: int, step: float = 2.5, start: tuple[float, float, float] = (10.0, 20.0, -30.0)) -> Array:
    return np.array(start) + np.arange(total)[:, np.newaxis] * [0, 0, step]


def only_record(source: Path, out: Path, **options: object) -> ImageRecord:
    (record,) = take_in(source, out, spatial_dims=3, **options).cohort.records()
    return record


def world(record: ImageRecord, index: tuple[int, int, int]) -> Array:
    assert record.affine is not None
    position: Array = (np.reshape(record.affine, (4, 4)) @ [*index, 1])[:3]
    return position


def test_slices_are_sorted_by_position_whatever_their_names(tmp_path: Path) -> None:
    volume = volume_of()
    names = [f"{name}.dcm" for name in "dbfeac"]
    write_series(tmp_path / "s", volume, stack_positions(6), names=names)
    record = only_record(tmp_path / "s", tmp_path / "c")
    assert np.array_equal(record.pixels, volume)
    assert record.spacing_mm == (2.5, 0.8, 0.6)
    # PS3.3 C.7.6.2.1.1 in LPS+, x and y turned to RAS+
    assert np.allclose(world(record, (0, 0, 0)), [-10, -20, -30])
    assert np.allclose(world(record, (2, 3, 4)), [-(10 + 4 * 0.6), -(20 + 3 * 0.8), -30 + 2 * 2.5])


def test_an_oblique_series_maps_every_voxel_to_its_place_in_the_patient(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    across, down = rotation[:, 0], rotation[:, 1]
    normal = np.cross(across, down)
    positions = np.array([5.0, -7.0, 11.0]) + np.arange(6)[:, np.newaxis] * 3.0 * normal
    orientation = [*across, *down]
    write_series(tmp_path / "s", volume_of(), positions[::-1], orientation=orientation)
    record = only_record(tmp_path / "s", tmp_path / "c")
    assert np.array_equal(record.pixels, volume_of()[::-1])
    lps = positions[4] + 7 * 0.8 * down + 9 * 0.6 * across
    assert np.allclose(world(record, (4, 7, 9)), lps * [-1, -1, 1], atol=1e-4)


def test_a_tilted_gantry_shears_the_affine(tmp_path: Path) -> None:
    positions = np.array([0.0, 0.0, 0.0]) + np.arange(6)[:, np.newaxis] * [0, 1.0, 2.0]  # not along the normal
    write_series(tmp_path / "s", volume_of(), positions)
    record = only_record(tmp_path / "s", tmp_path / "c")
    assert np.allclose(world(record, (5, 0, 0)), [0, -5, 10])
    assert record.spacing_mm is not None
    assert record.spacing_mm[0] == pytest.approx(5**0.5)


def test_each_slice_is_rescaled_by_its_own_header_before_stacking(tmp_path: Path) -> None:
    volume = structure(1, (6, 24, 20), "int16", 9000)  # the last slices need more than 16 bits, the first do not
    for number in range(6):
        write_series(
            tmp_path / "s",
            volume[number : number + 1],
            stack_positions(6)[number : number + 1],
            names=[f"{number}.dcm"],
            RescaleSlope=number + 1,
            RescaleIntercept=-number,
            SeriesInstanceUID=uid("pet"),
        )
    record = only_record(tmp_path / "s", tmp_path / "c")
    scale = np.arange(6)[:, np.newaxis, np.newaxis]
    assert np.array_equal(record.pixels, volume.astype(int) * (scale + 1) - scale)


@pytest.mark.parametrize(
    ("drop", "detail"), [([2], "slices are missing"), ([], "slice distances differ"), (None, "several slices at one")]
)
def test_irregular_series_are_refused_with_the_reason(tmp_path: Path, drop: list[int] | None, detail: str) -> None:
    positions = stack_positions(8)
    volume = volume_of(shape=(8, 24, 20))
    if drop is None:
        positions[3] = positions[4]
    elif drop:
        positions, volume = np.delete(positions, drop, axis=0), np.delete(volume, drop, axis=0)
    else:
        positions[3] += [0, 0, 0.5]
    write_series(tmp_path / "s" / "bad", volume, positions)
    write_series(tmp_path / "s" / "good", volume_of(2), stack_positions(6))
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    assert reasons(result) == {"geometry": len(volume)}
    details = pl.read_parquet(result.private_folder / "rejections.parquet")["detail"].unique().to_list()
    assert len(details) == 1
    assert details[0].startswith(detail)


@pytest.mark.parametrize("odd", [2, 5])
@pytest.mark.parametrize("kind", ["size", "spacing"])
def test_slices_of_another_size_are_not_missing(tmp_path: Path, odd: int, kind: str) -> None:
    positions = stack_positions(6)
    rest = [number for number in range(6) if number != odd]
    series = {"SeriesInstanceUID": uid("unlike")}
    write_series(tmp_path / "s" / "a", volume_of(1)[rest], positions[rest], **series)
    other = structure(9, (1, 32, 20), "int16", 1000) if kind == "size" else volume_of(1)[[odd]]
    how = {"spacing": (0.8, 0.6) if kind == "size" else (1.6, 1.2)}
    write_series(tmp_path / "s" / "b", other, positions[[odd]], **how, **series)  # type: ignore[arg-type]
    kept = [0, 1, 3, 4, 5]
    write_series(tmp_path / "s" / "gap", volume_of(2)[kept], positions[kept], PatientID="P2")
    write_series(tmp_path / "s" / "good", volume_of(3), positions, PatientID="P3")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, near_duplicates="off")
    table = pl.read_parquet(result.private_folder / "rejections.parquet")
    details = dict(zip(table["path"], table["detail"], strict=True))
    assert "differ in size or pixel spacing" in details["b/000.dcm"]
    assert ("a/000.dcm" in details) == (odd == 2)
    assert "differ in size or pixel spacing" in details.get("a/000.dcm", details["b/000.dcm"])
    assert "slices are missing" in details["gap/000.dcm"]


def test_two_echoes_of_one_series_become_two_volumes(tmp_path: Path) -> None:
    first, second = volume_of(1), volume_of(2)
    for echo, volume in ((1, first), (2, second)):
        names = [f"{echo}-{number}.dcm" for number in range(6)]
        write_series(
            tmp_path / "s", volume, stack_positions(6), names=names, SeriesInstanceUID=uid("both"), EchoNumbers=echo
        )
    records = list(take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3).cohort.records())
    assert len(records) == 2
    assert {record.pixels.tobytes() for record in records} == {first.tobytes(), second.tobytes()}


def test_two_orientations_of_one_series_become_two_volumes(tmp_path: Path) -> None:
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    series = uid("planes")
    write_series(tmp_path / "s" / "a", volume_of(1), stack_positions(6), SeriesInstanceUID=series)
    positions = np.arange(6)[:, np.newaxis] * [0, 3.0, 0]
    write_series(
        tmp_path / "s" / "b", volume_of(2), positions, orientation=coronal, SeriesInstanceUID=series, ImageComments="b"
    )
    assert take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3).accepted == 2


def test_a_file_copied_twice_does_not_break_its_series(tmp_path: Path) -> None:
    write_series(tmp_path / "s", volume_of(), stack_positions(6))
    (tmp_path / "s" / "copy.dcm").write_bytes((tmp_path / "s" / "003.dcm").read_bytes())
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    assert result.accepted == 1
    assert reasons(result) == {"duplicate": 1}


def test_localizers_short_stacks_and_slices_without_position_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "s" / "good", volume_of(1), stack_positions(6))
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(tmp_path / "s" / "scout", volume_of(2), stack_positions(6), ImageType=scout)
    write_series(tmp_path / "s" / "short", volume_of(3)[:3], stack_positions(3))
    write_dicom(tmp_path / "s" / "x.dcm", structure(4))
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    details = pl.read_parquet(result.private_folder / "rejections.parquet").group_by("detail").len()
    assert dict(details.iter_rows()) == {
        "a localizer": 6,
        "a stack of 3 slices, at least 4 are needed": 3,
        "a slice without position, orientation or spacing": 1,
    }


def test_a_slice_that_cannot_be_decoded_refuses_its_volume_and_no_other(tmp_path: Path) -> None:
    for name, seed in (("bad", 1), ("good", 2)):
        write_series(tmp_path / "s" / name, volume_of(seed), stack_positions(6))
    cut = tmp_path / "s" / "bad" / "002.dcm"
    cut.write_bytes(cut.read_bytes()[:-100])
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    assert (result.accepted, reasons(result)) == (1, {"truncated": 6})


def test_dimensions_are_detected(tmp_path: Path) -> None:
    write_series(tmp_path / "s" / "a", volume_of(1), stack_positions(6))
    assert take_in(tmp_path / "s", tmp_path / "v").cohort.schema.spatial_dims == 3
    for number in range(7):
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number))
    result = take_in(tmp_path / "s", tmp_path / "i")
    assert result.cohort.schema.spatial_dims == 2
    assert result.accepted == 13


def enhanced_groups(positions: Array, **extra: object) -> dict[str, object]:
    frames = [item(PlanePositionSequence=sequence(ImagePositionPatient=[float(v) for v in p])) for p in positions]
    shared = sequence(
        PlaneOrientationSequence=sequence(ImageOrientationPatient=list(AXIAL)),
        PixelMeasuresSequence=sequence(PixelSpacing=[0.8, 0.6]),
    )
    return {"PerFrameFunctionalGroupsSequence": frames, "SharedFunctionalGroupsSequence": shared, **extra}


def test_enhanced_multi_frame_becomes_a_volume_in_the_order_of_its_frames_positions(tmp_path: Path) -> None:
    volume = volume_of()
    shuffled = [3, 0, 5, 1, 4, 2]
    write_dicom(tmp_path / "s" / "a.dcm", volume[shuffled], **enhanced_groups(stack_positions(6)[shuffled]))
    record = only_record(tmp_path / "s", tmp_path / "c")
    assert np.array_equal(record.pixels, volume)
    assert record.spacing_mm == (2.5, 0.8, 0.6)
    assert np.allclose(world(record, (1, 0, 0)), [-10, -20, -27.5])


def test_stacks_of_one_enhanced_file_are_distinguished_by_their_frames(tmp_path: Path) -> None:
    both = np.concatenate([volume_of(1), volume_of(2)])
    groups = enhanced_groups(np.concatenate([stack_positions(6)] * 2))
    frames = groups["PerFrameFunctionalGroupsSequence"]
    assert isinstance(frames, list)
    for number, frame in enumerate(frames):
        frame.FrameContentSequence = sequence(TemporalPositionIndex=1 + number // 6)
    write_dicom(tmp_path / "s" / "a.dcm", both, **groups)
    records = list(take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3).cohort.records())
    assert [record.pixels.tobytes() for record in records] == [both[:6].tobytes(), both[6:].tobytes()]


def test_dose_grids_take_positions_from_their_offsets(tmp_path: Path) -> None:
    volume = structure(1, (6, 24, 20), "uint32", 10**6)
    write_dicom(
        tmp_path / "s" / "a.dcm",
        volume,
        GridFrameOffsetVector=[0, 3, 6, 9, 12, 15],
        ImagePositionPatient=[0, 0, 5],
        ImageOrientationPatient=list(AXIAL),
        PixelSpacing=[2, 2],
    )
    record = only_record(tmp_path / "s", tmp_path / "c")
    assert np.array_equal(record.pixels, volume)
    assert np.allclose(world(record, (5, 0, 0)), [0, 0, 20])


def dose_grid(volume: Array, **elements: object) -> dict[str, object]:
    place = {"ImagePositionPatient": [0, 0, 5], "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [2, 2]}
    offsets = [3 * number for number in range(len(volume))]
    return {"SOPClassUID": RTDoseStorage, "Modality": "RTDOSE", "GridFrameOffsetVector": offsets, **place, **elements}


def test_values_of_a_dose_grid_are_doses(tmp_path: Path) -> None:
    volume = structure(1, (6, 24, 20), "uint32", 10**6)
    for name, scaling in (("a", "0.001"), ("b", "0.002"), ("c", "2")):
        given = dose_grid(volume, DoseGridScaling=scaling, PatientID=name, DoseUnits="GY")
        write_dicom(tmp_path / "s" / f"{name}.dcm", volume, **given)
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, near_duplicates="off")
    found = images_by_path(result)  # three of them: the same cells under another scaling are another dose
    for name, scaling in (("a", 0.001), ("b", 0.002), ("c", 2)):
        assert np.array_equal(found[f"{name}.dcm"][0], volume.astype(np.float64) * scaling)
    assert found["c.dcm"][0].dtype == np.uint32 or found["c.dcm"][0].dtype == np.int32


@pytest.mark.parametrize("scaling", [{}, {"DoseGridScaling": None}, {"DoseGridScaling": "0"}])
def test_a_dose_without_scaling_is_none(tmp_path: Path, scaling: dict[str, object]) -> None:
    volume = volume_of(1)
    write_dicom(tmp_path / "s" / "a.dcm", volume, **dose_grid(volume, DoseGridScaling="1"))
    write_dicom(tmp_path / "s" / "b.dcm", volume_of(2), **dose_grid(volume, PatientID="P2", **scaling))
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    assert rejections(result) == {"b.dcm": "unsupported_pixels"}
    assert "dose grid whose scaling" in details(result)[0]


def details(result: IngestResult) -> list[str]:
    return list(pl.read_parquet(result.private_folder / "rejections.parquet")["detail"])


RESCALED = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
SAME_VALUES = {"RescaleSlope": "1", "RescaleIntercept": "0"}


@pytest.mark.parametrize(
    ("usual", "odd", "named"),
    [
        (RESCALED, {}, "others none"),
        ({}, RESCALED, "others none"),
        ({"Units": "BQML"}, {}, "units"),
        ({"Units": "BQML"}, {"Units": "CNTS"}, "units"),
        (RESCALED | {"RescaleType": "HU"}, RESCALED, "type of their rescale"),
        (RESCALED | {"RescaleType": "HU"}, RESCALED | {"RescaleType": "US"}, "type of their rescale"),
        (RESCALED, SAME_VALUES, ""),
        (SAME_VALUES, {}, ""),
        ({"Units": "BQML"}, {"Units": "BQML "}, ""),
    ],
)
def test_slices_of_one_volume_have_one_scale(
    tmp_path: Path, usual: dict[str, object], odd: dict[str, object], named: str
) -> None:
    volume, positions = volume_of(3), stack_positions(6)
    write_series(tmp_path / "s" / "good", volume_of(4), positions, PatientID="P2", StudyInstanceUID=uid("other"))
    series = {"SeriesInstanceUID": uid("mixed")}
    rest = [0, 1, 3, 4, 5]
    write_series(tmp_path / "s" / "mixed" / "a", volume[rest], positions[rest], **series, **usual)
    write_series(tmp_path / "s" / "mixed" / "b", volume[[2]], positions[[2]], **series, **odd)
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, near_duplicates="off")
    assert len(result.cohort) == (1 if named else 2)
    assert set(rejections(result).values()) == ({"geometry"} if named else set())
    assert all(named in detail for detail in details(result))


def test_frames_of_one_volume_have_one_scale(tmp_path: Path) -> None:
    volume, groups = volume_of(3), enhanced_groups(stack_positions(6))
    write_dicom(tmp_path / "s" / "good.dcm", volume_of(4), PatientID="P2", **enhanced_groups(stack_positions(6)))
    for number, frame in enumerate(groups["PerFrameFunctionalGroupsSequence"]):  # type: ignore[var-annotated, arg-type]
        if number != 2:
            frame.PixelValueTransformationSequence = sequence(**RESCALED)
    write_dicom(tmp_path / "s" / "mixed.dcm", volume, **groups)
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, near_duplicates="off")
    assert rejections(result) == {"mixed.dcm": "geometry"}


def test_frames_without_positions_form_no_volume(tmp_path: Path) -> None:
    write_dicom(tmp_path / "s" / "a.dcm", volume_of())
    with pytest.raises(InputError, match="1 geometry"):
        take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)


def test_order_does_not_depend_on_the_order_of_planes() -> None:
    planes = [Plane((0, 0, float(z)), AXIAL, (1, 1), (8, 8)) for z in range(10)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        shuffled = rng.permutation(10)
        ((stack,), leftovers) = find_stacks([planes[i] for i in shuffled], 4)
        assert not leftovers
        assert [shuffled[i] for i in stack.order] == list(range(10))
