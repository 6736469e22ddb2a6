"""Near duplicates share a split where patients are unknown, and never evaluate what was trained on their duplicate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from medphantom.cohorts.ingestion.repeats import Repeats
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.overview import left_out_sentence
from medphantom.core.records import Array
from tests.cohorts.files import reasons, structure, take_in, write_png


def brighter(pixels: Array, by: int) -> Array:
    return np.clip(pixels.astype(int) + by, 0, 255).astype(np.uint8)


def scenes(source: Path, *, per_scene: int = 3, total: int = 30) -> Path:
    """Scenes of several nearly equal pictures each."""
    for scene in range(total):
        for number in range(per_scene):
            write_png(source / f"{scene:02d}_{number}.png", brighter(structure(scene, high=240), 4 * number))
    return source


def test_connected_near_duplicates_share_a_split(tmp_path: Path) -> None:
    cohort = take_in(scenes(tmp_path / "s"), tmp_path / "c").cohort
    splits = np.array(cohort.manifest["split"].to_list()).reshape(30, 3)
    assert (splits == splits[:, :1]).all()
    assert set(splits.ravel()) == {"train", "val", "holdout", "test"}
    apart = take_in(tmp_path / "s", tmp_path / "d", near_duplicates="off").cohort
    splits = np.array(apart.manifest["split"].to_list()).reshape(30, 3)
    assert not (splits == splits[:, :1]).all()


def test_marked_only_they_still_evaluate_nothing_that_was_trained_on_a_duplicate(tmp_path: Path) -> None:
    result = take_in(scenes(tmp_path / "s"), tmp_path / "c", near_duplicates="mark")
    splits = np.array(result.cohort.manifest["split"].to_list()).reshape(30, 3)
    learned = (splits == "train").any(axis=1)
    assert np.isin(splits[learned], ["train", "left_out"]).all()
    total = int((splits == "left_out").sum())
    assert total > 5
    assert any(f"{total} images outside train nearly repeat a training image" in line for line in result.warnings)
    result.cohort.verify()
    sentence = left_out_sentence(result.cohort)
    assert sentence is not None
    assert sentence.startswith(f"{total} real images outside train nearly repeat a training image of another patient")
    together = take_in(tmp_path / "s", tmp_path / "d").cohort
    assert left_out_sentence(together) is None


def test_dropped_they_are_gone(tmp_path: Path) -> None:
    result = take_in(scenes(tmp_path / "s"), tmp_path / "c", near_duplicates="drop")
    assert len(result.cohort) == 30
    assert reasons(result) == {"duplicate": 60}
    assert set(result.cohort.manifest["split"]) <= {"train", "val", "holdout", "test"}


def test_patients_who_are_known_are_not_moved_but_their_repeats_are_left_out(tmp_path: Path) -> None:
    result = take_in(scenes(tmp_path / "s"), tmp_path / "c", patient_pattern=r"_(\d)\.png")
    by_patient = result.cohort.manifest.group_by("patient").agg("split")
    assert all(len(set(splits) - {"left_out"}) <= 1 for splits in by_patient["split"].to_list())


def test_a_file_is_never_torn_apart_by_its_frames(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for number in range(12):
        frames = [structure(100 + 10 * number + frame, high=240) for frame in range(3)]
        if number % 2:
            frames[0] = brighter(structure(100 + 10 * (number - 1) + 1, high=240), 4)
        tifffile.imwrite(tmp_path / "s" / f"{number:02d}.tif", np.stack(frames), photometric="minisblack")
    cohort = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=2).cohort
    splits = cohort.manifest.group_by("patient").agg("split")["split"].to_list()
    assert len(splits) == 12
    assert all(len(set(found) - {"left_out"}) == 1 for found in splits)


def test_an_ignored_division_divides_nothing(tmp_path: Path) -> None:
    for number in range(16):
        write_png(tmp_path / "s" / "train" / f"{number}.png", structure(number, high=240))
        write_png(tmp_path / "s" / "test" / f"{number}b.png", brighter(structure(number, high=240), 5))
    cohort = take_in(tmp_path / "s", tmp_path / "c", source_splits="ignore").cohort
    assert "left_out" not in cohort.manifest["split"].to_list()


def test_yaml_reads_off_as_a_boolean() -> None:
    assert IngestOptions.model_validate({"near_duplicates": False}).near_duplicates == "off"


def test_groups_and_what_is_left_out() -> None:
    repeats = Repeats()
    for earlier in ([], [0], [], [1], [2], []):
        repeats.add(earlier)
    alone = list("uvwxyz")
    assert repeats.groups([""] * 6, alone) == [0, 0, 2, 0, 2, 5]
    assert repeats.groups(["a", "b", "a", "b", "a", "a"], alone) == [0, 1, 2, 1, 2, 5]
    assert repeats.groups([None] * 6, alone) == [0, 1, 2, 3, 4, 5]
    assert repeats.groups([""] * 6, ["u", "v", "w", "x", "y", "w"]) == [0, 0, 2, 0, 2, 2]  # frames of one file
    splits = ["train", "test", "test", "test", "train", "val"]
    assert repeats.left_out(splits, list("abcdef")) == [1, 2]
    assert repeats.left_out(splits, ["a", "a", "c", "d", "c", "f"]) == []
