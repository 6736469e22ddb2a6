"""Several volumes at the same positions are distinguished by what orders them, and come in that order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
import pytest

from medphantom.cohorts.readers.dicom_geometry import Plane
from medphantom.cohorts.readers.dicom_stacks import REPEATED, find_stacks
from medphantom.core.records import Array
from tests.cohorts.files import AXIAL, item, sequence, structure, take_in, uid, write_dicom

SLICES = 5
DIRECTIONS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]


def volume_of(seed: int) -> Array:
    return structure(seed, (SLICES, 24, 20), "int16", 1000)


def write_slice(path: Path, volume: int, number: int, **elements: Any) -> None:
    write_dicom(
        path,
        volume_of(volume)[number],
        SeriesInstanceUID=uid("series"),
        SOPInstanceUID=uid(volume, number),
        ImagePositionPatient=[0.0, 0.0, 2.0 * number],
        ImageOrientationPatient=list(AXIAL),
        PixelSpacing=[0.8, 0.6],
        **elements,
    )


def write_shuffled(folder: Path, headers: list[list[dict[str, Any]]]) -> None:
    """One file for each header, ``headers[volume][slice]``, under names that tell nothing."""
    places = [(volume, number) for volume in range(len(headers)) for number in range(SLICES)]
    names = np.random.default_rng(0).permutation(len(places))
    for (volume, number), name in zip(places, names, strict=True):
        write_slice(folder / f"{name:03d}", volume, number, **headers[volume][number])


def volumes_in_order(folder: Path, out: Path) -> list[bytes]:
    result = take_in(folder, out, spatial_dims=3)
    assert not result.rejected
    return [record.pixels.tobytes() for record in result.cohort.records()]


def expected(total: int) -> list[bytes]:
    return [volume_of(volume).tobytes() for volume in range(total)]


def same_for_all(values: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [[value] * SLICES for value in values]


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("DiffusionBValue", [0.0, 500.0, 1000.0]),
        ("TemporalPositionIdentifier", [1, 2, 10]),
        ("TriggerTime", ["0", "40.5", "100"]),
        ("NominalPercentageOfCardiacPhase", [0.0, 25.0, 100.0]),
        ("EchoNumbers", [1, 2, 10]),
        ("EchoTime", ["9", "20", "100"]),
        ("AcquisitionNumber", [1, 2, 10]),
        ("InversionTime", ["90", "200", "1000"]),
        ("AcquisitionTime", ["090000", "100000.5", "110000"]),
        ("ContentTime", ["090000", "100000.5", "110000"]),
    ],
)
def test_volumes_come_in_the_order_of_the_number_that_tells_them_apart(
    tmp_path: Path, keyword: str, values: list[Any]
) -> None:
    write_shuffled(tmp_path / "s", same_for_all([{keyword: value} for value in values]))
    assert volumes_in_order(tmp_path / "s", tmp_path / "c") == expected(3)


def test_diffusion_is_ordered_by_b_value_then_direction(tmp_path: Path) -> None:
    headers: list[dict[str, Any]] = [{"DiffusionBValue": 0.0}]
    for b_value in (500.0, 1000.0):
        headers += [
            {"DiffusionBValue": b_value, "DiffusionGradientOrientation": list(direction)}
            for direction in reversed(DIRECTIONS)
        ]
    write_shuffled(tmp_path / "s", same_for_all(headers))
    assert volumes_in_order(tmp_path / "s", tmp_path / "c") == expected(7)


def test_repeated_volumes_without_diffusion_are_distinguished_by_their_times(tmp_path: Path) -> None:
    """Three of b = 0, distinguished only by when each slice was acquired, before the directions."""
    headers: list[list[dict[str, Any]]] = [
        [{"DiffusionBValue": 0.0, "AcquisitionTime": f"1000{volume}{n}"} for n in range(SLICES)] for volume in range(3)
    ]
    for volume, direction in enumerate(reversed(DIRECTIONS), 3):
        stated = {"DiffusionBValue": 700.0, "DiffusionGradientOrientation": list(direction)}
        headers.append([{**stated, "AcquisitionTime": f"0900{volume}{n}"} for n in range(SLICES)])
    write_shuffled(tmp_path / "s", headers)
    assert volumes_in_order(tmp_path / "s", tmp_path / "c") == expected(6)


def test_phases_of_a_heart_are_ordered_at_each_position_by_its_own_trigger_times(tmp_path: Path) -> None:
    """The times of a phase differ from slice to slice, as heart beats do."""
    rng = np.random.default_rng(1)
    headers = [[{"TriggerTime": f"{40 * phase + rng.uniform(0, 9):.2f}"} for _ in range(SLICES)] for phase in range(4)]
    write_shuffled(tmp_path / "s", headers)
    assert volumes_in_order(tmp_path / "s", tmp_path / "c") == expected(4)


@pytest.mark.parametrize("by_slice", [False, True])
def test_instance_numbers_tell_volumes_apart_where_they_run_through_them(tmp_path: Path, by_slice: bool) -> None:
    """Through one volume after the other, or through all phases of one slice after the other."""
    headers = [
        [
            {"InstanceNumber": 1 + (3 * number + volume if by_slice else SLICES * volume + number)}
            for number in range(SLICES)
        ]
        for volume in range(3)
    ]
    write_shuffled(tmp_path / "s", headers)
    assert volumes_in_order(tmp_path / "s", tmp_path / "c") == expected(3)


def test_instance_numbers_that_run_criss_cross_are_not_believed(tmp_path: Path) -> None:
    numbers = np.random.default_rng(2).permutation(3 * SLICES).reshape(3, SLICES)
    headers = [[{"InstanceNumber": int(number) + 1} for number in row] for row in numbers]
    write_shuffled(tmp_path / "s", headers)
    write_dicom(tmp_path / "s" / "x" / "other", structure(9))
    for number in range(SLICES):
        write_slice(tmp_path / "s" / f"good{number}", 7, number, StudyInstanceUID=uid("other study"))
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    details = pl.read_parquet(result.private_folder / "rejections.parquet")["detail"].to_list()
    assert details.count(REPEATED) == 3 * SLICES
    assert result.accepted == 1


def test_times_that_differ_from_slice_to_slice_do_not_tear_a_series_apart(tmp_path: Path) -> None:
    headers = [
        [{"EchoNumbers": echo, "ContentTime": f"10{echo}{n}00", "AcquisitionTime": f"1{n}0000"} for n in range(SLICES)]
        for echo in (1, 2)
    ]
    write_shuffled(tmp_path / "s", headers)
    assert volumes_in_order(tmp_path / "s", tmp_path / "c") == expected(2)


def test_a_missing_slice_refuses_its_own_volume_alone(tmp_path: Path) -> None:
    write_shuffled(tmp_path / "s", same_for_all([{"DiffusionBValue": value} for value in (0.0, 800.0)]))
    lost = next(p for p in (tmp_path / "s").iterdir() if pydicom.dcmread(p).SOPInstanceUID == uid(1, 2))
    lost.unlink()
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    assert [record.pixels.tobytes() for record in result.cohort.records()] == expected(1)
    details = pl.read_parquet(result.private_folder / "rejections.parquet")["detail"].to_list()
    assert len(details) == SLICES - 1
    assert details[0].startswith("slices are missing")


def enhanced(path: Path, frames: list[tuple[int, int, dict[str, Any]]]) -> None:
    """An enhanced file with these frames: volume, slice, and functional groups."""
    groups = [
        item(PlanePositionSequence=sequence(ImagePositionPatient=[0.0, 0.0, 2.0 * number]), **extra)
        for _, number, extra in frames
    ]
    shared = sequence(
        PlaneOrientationSequence=sequence(ImageOrientationPatient=list(AXIAL)),
        PixelMeasuresSequence=sequence(PixelSpacing=[0.8, 0.6]),
    )
    write_dicom(
        path,
        np.stack([volume_of(volume)[number] for volume, number, _ in frames]),
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=shared,
    )


@pytest.mark.parametrize("kind", ["diffusion", "trigger", "time"])
def test_frames_of_an_enhanced_file_are_ordered_likewise(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    frames: list[tuple[int, int, dict[str, Any]]] = []
    for volume in range(3):
        for number in range(SLICES):
            direction = sequence(DiffusionGradientOrientation=list(DIRECTIONS[2 - volume]))
            diffusion: dict[str, Any] = {"DiffusionBValue": 700.0, "DiffusionGradientDirectionSequence": direction}
            delay = 50.0 * volume + float(rng.uniform(0, 9))
            time = f"202001011{volume}{number}000.25"
            extra: dict[str, Any] = {
                "diffusion": {"MRDiffusionSequence": sequence(**diffusion if volume else {"DiffusionBValue": 0.0})},
                "trigger": {"CardiacSynchronizationSequence": sequence(NominalCardiacTriggerDelayTime=delay)},
                "time": {"FrameContentSequence": sequence(FrameAcquisitionDateTime=time)},
            }[kind]
            frames.append((volume, number, extra))
    shuffled = [frames[i] for i in rng.permutation(len(frames))]
    enhanced(tmp_path / "s" / "a.dcm", shuffled)
    assert volumes_in_order(tmp_path / "s", tmp_path / "c") == expected(3)


def test_the_fewest_traits_that_tell_volumes_apart_are_taken_whatever_the_order_of_the_planes() -> None:
    planes = [
        Plane(
            (0.0, 0.0, float(z)),
            AXIAL,
            (1, 1),
            (8, 8),
            traits=((b,), (b * 10.0 + direction,), (float(z),)),
            ranks=(None,),
        )
        for b in (0.0, 1.0)
        for direction in (0.0, 1.0)
        for z in range(6)
    ]
    rng = np.random.default_rng(0)
    for _ in range(5):
        shuffled = [planes[i] for i in rng.permutation(len(planes))]
        stacks, leftovers = find_stacks(shuffled, 4)
        assert not leftovers
        found = [{shuffled[i].traits[:2] for i in stack.order} for stack in stacks]
        assert found == [{((0.0,), (0.0,))}, {((0.0,), (1.0,))}, {((1.0,), (10.0,))}, {((1.0,), (11.0,))}]
