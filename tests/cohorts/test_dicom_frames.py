"""Elements that may stand in functional groups and in the header around them: one rule for all, the group counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medphantom.cohorts.records import ImageRecord, Voi
from medphantom.core.records import Array
from tests.cohorts.files import AXIAL, item, reasons, sequence, structure, take_in, write_dicom

FRAMES = 5
CORONAL = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]


def pixels() -> Array:
    return structure(1, (FRAMES, 24, 20), "uint16", 3000)


def rescale(slope: object, intercept: object) -> Any:
    return sequence(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")


def groups(**shared: Any) -> dict[str, Any]:
    """Functional groups of an axial stack, 2 mm apart; keywords set or replace shared ones."""
    places = [item(PlanePositionSequence=sequence(ImagePositionPatient=[0, 0, 2 * f])) for f in range(FRAMES)]
    common = {
        "PlaneOrientationSequence": sequence(ImageOrientationPatient=list(AXIAL)),
        "PixelMeasuresSequence": sequence(PixelSpacing=[0.3, 0.4]),
        **shared,
    }
    return {"PerFrameFunctionalGroupsSequence": places, "SharedFunctionalGroupsSequence": [item(**common)]}


def read(folder: Path, dims: int = 3, values: Array | None = None, **elements: Any) -> list[ImageRecord]:
    write_dicom(folder / "s" / "a.dcm", pixels() if values is None else values, **elements)
    options = {"spatial_dims": dims, "near_duplicates": "off", "duplicates": "keep", "min_slices": 2}
    return list(take_in(folder / "s", folder / "c", **options).cohort.records())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "around",
    [
        {},
        {"RescaleSlope": "1", "RescaleIntercept": "0"},
        {"PixelSpacing": [9, 9], "ImageOrientationPatient": CORONAL, "ImagePositionPatient": [7, 7, 7]},
        {"WindowCenter": 1, "WindowWidth": 2},
    ],
)
def test_the_functional_group_counts_before_the_header(tmp_path: Path, dims: int, around: dict[str, Any]) -> None:
    stated = groups(
        PixelValueTransformationSequence=rescale(1, -1024),
        FrameVOILUTSequence=sequence(WindowCenter=40, WindowWidth=400),
    )
    records = read(tmp_path, dims, **stated, **around)
    expected = pixels().astype(int) - 1024
    found = np.concatenate([record.pixels.reshape(-1, 24, 20) for record in records])
    assert sorted(map(bytes, found)) == sorted(map(bytes, expected.astype(found.dtype)))
    assert {record.voi for record in records} == {Voi(40, 400)}
    assert {record.spacing_mm for record in records} == {(0.3, 0.4) if dims == 2 else (2.0, 0.3, 0.4)}
    if dims == 3:
        assert records[0].affine is not None
        assert np.allclose(np.reshape(records[0].affine, (4, 4))[:3, 3], 0)


@pytest.mark.parametrize("around", [("2", "0"), ("", ""), ("1", "")])
def test_a_header_that_contradicts_its_functional_groups_is_refused(tmp_path: Path, around: tuple[str, str]) -> None:
    stated = groups(PixelValueTransformationSequence=rescale(1, -1024))
    write_dicom(tmp_path / "s" / "a.dcm", pixels(), **stated, RescaleSlope=around[0], RescaleIntercept=around[1])
    write_dicom(tmp_path / "s" / "b.dcm", pixels() + 1, **groups(), PatientID="P2")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, near_duplicates="off")
    assert reasons(result) == {"unsupported_pixels": 1}


def test_the_frame_counts_before_the_shared_group(tmp_path: Path) -> None:
    stated = groups(PixelValueTransformationSequence=rescale(1, -1024))
    for number, frame in enumerate(stated["PerFrameFunctionalGroupsSequence"]):
        frame.PixelValueTransformationSequence = rescale(1, -number)
    records = read(tmp_path, 3, **stated, RescaleSlope="1", RescaleIntercept="0")
    assert np.array_equal(records[0].pixels, pixels().astype(int) - np.arange(FRAMES)[:, None, None])


def test_what_no_functional_group_states_is_read_around_them(tmp_path: Path) -> None:
    stated = groups(PixelMeasuresSequence=sequence(SliceThickness=2))
    del stated["SharedFunctionalGroupsSequence"][0].PlaneOrientationSequence
    around = {"RescaleSlope": "2", "RescaleIntercept": "1", "PixelSpacing": [0.5, 0.6]}
    records = read(tmp_path, 3, **stated, **around, ImageOrientationPatient=list(AXIAL), WindowCenter=9, WindowWidth=8)
    assert np.array_equal(records[0].pixels, pixels().astype(int) * 2 + 1)
    assert (records[0].spacing_mm, records[0].voi) == ((2.0, 0.5, 0.6), Voi(9, 8))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("macro", "stated"),
    [
        ("PixelValueTransformationSequence", {"RescaleSlope": "1", "RescaleIntercept": "0"}),
        ("PixelMeasuresSequence", {"PixelSpacing": [0.3, 0.4]}),
        ("PlaneOrientationSequence", {"ImageOrientationPatient": list(AXIAL)}),
    ],
)
def test_groups_of_some_frames_beside_the_header_are_refused(
    tmp_path: Path, dims: int, macro: str, stated: dict[str, Any]
) -> None:
    elements = groups()
    shared: Dataset = elements["SharedFunctionalGroupsSequence"][0]
    if macro in shared:
        delattr(shared, macro)
    for frame in elements["PerFrameFunctionalGroupsSequence"][1:]:
        setattr(frame, macro, sequence(**stated))
    write_dicom(tmp_path / "s" / "a.dcm", pixels(), **elements, **stated)
    write_dicom(tmp_path / "s" / "b.dcm", pixels() + 1, **groups(), PatientID="P2")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=dims, near_duplicates="off")
    assert reasons(result) == {"unsupported_pixels": 1}


def test_slices_of_one_frame_lie_where_their_functional_groups_say(tmp_path: Path) -> None:
    for number, plane in enumerate(pixels()):
        stated = groups(PixelValueTransformationSequence=rescale(1, -1024))
        own = stated["PerFrameFunctionalGroupsSequence"][number]
        around = {"ImagePositionPatient": [0, 0, -number], "PixelSpacing": [9, 9], "RescaleSlope": 1}
        write_dicom(
            tmp_path / "s" / f"{number}.dcm",
            plane,
            **{**stated, "PerFrameFunctionalGroupsSequence": [own]},
            **around,
            RescaleIntercept=0,
            ImageOrientationPatient=CORONAL,
            NumberOfFrames=1,
        )
    records = list(take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3).cohort.records())
    assert np.array_equal(records[0].pixels, pixels().astype(int) - 1024)
    assert records[0].spacing_mm == (2.0, 0.3, 0.4)
