"""The division that a source already has is kept; what it lacks is carved from its training patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medphantom.cohorts.export import export_cohort
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from tests.cohorts.files import images_by_path, reasons, structure, take_in, uid, write_dicom, write_png, write_series


def splits_by_path(result_folder: Path, cohort: Cohort) -> dict[str, str]:
    links = pl.read_parquet(result_folder / "links.parquet").filter(pl.col("role") == "image")
    split_of = dict(zip(cohort.manifest["image_id"], cohort.manifest["split"], strict=True))
    return {path: split_of[image] for path, image in links.select("path", "image_id").iter_rows()}


def divided(source: Path, parts: dict[str, int]) -> Path:
    seed = 0
    for part, total in parts.items():
        for number in range(total):
            write_png(source / part / f"{part}{number}.png", structure(seed))
            seed += 1
    return source


def test_their_test_is_ours_and_the_rest_is_carved_from_their_train(tmp_path: Path) -> None:
    result = take_in(divided(tmp_path / "s", {"train": 120, "test": 20}), tmp_path / "c")
    found = splits_by_path(result.private_folder, result.cohort)
    assert {split for path, split in found.items() if path.startswith("test/")} == {"test"}
    assert {split for path, split in found.items() if path.startswith("train/")} == {"train", "val", "holdout"}


def test_their_validation_is_ours_whatever_they_call_it(tmp_path: Path) -> None:
    result = take_in(divided(tmp_path / "s", {"Training": 60, "valid": 10, "Testing": 10}), tmp_path / "c")
    found = splits_by_path(result.private_folder, result.cohort)
    assert {split for path, split in found.items() if path.startswith("valid/")} == {"val"}
    assert {split for path, split in found.items() if path.startswith("Training/")} == {"train", "holdout"}


def test_a_column_and_the_parts_of_an_archive_count_as_well(tmp_path: Path) -> None:
    lines = ["image,split"]
    for number in range(40):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
        lines.append(f"{number}.png,{'test' if number < 10 else 'train'}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c")
    found = splits_by_path(result.private_folder, result.cohort)
    assert {int(Path(path).stem) for path, split in found.items() if split == "test"} == set(range(10))

    images = {part: np.stack([structure(seed + i) for i in range(30)]) for seed, part in ((0, "train"), (50, "test"))}
    np.savez(tmp_path / "a.npz", train_images=images["train"], test_images=images["test"])
    cohort = take_in(tmp_path / "a.npz", tmp_path / "d").cohort
    assert cohort.manifest["split"].to_list()[30:] == ["test"] * 30
    assert "test" not in cohort.manifest["split"].to_list()[:30]
    ignored = take_in(tmp_path / "a.npz", tmp_path / "e", source_splits="ignore").cohort
    assert set(ignored.manifest["split"].to_list()[30:]) != {"test"}


def test_images_that_are_all_held_out_stay_held_out(tmp_path: Path) -> None:
    result = take_in(divided(tmp_path / "s", {"test": 20}), tmp_path / "c")
    assert set(result.cohort.manifest["split"]) == {"test"}
    assert any("assigns no image to train" in warning for warning in result.warnings)
    result = take_in(divided(tmp_path / "t", {"val": 10, "test": 10}), tmp_path / "d")
    assert set(result.cohort.manifest["split"]) == {"val", "test"}
    np.savez(tmp_path / "a.npz", val_images=np.stack([structure(n) for n in range(12)]))
    assert set(take_in(tmp_path / "a.npz", tmp_path / "e").cohort.manifest["split"]) == {"val"}


def test_a_folder_and_a_column_that_differ_are_reported(tmp_path: Path) -> None:
    divided(tmp_path / "s", {"train": 10, "test": 5})
    lines = ["image,split", *(f"train/train{n}.png,{'test' if n < 2 else 'train'}" for n in range(10))]
    lines += [f"test/test{n}.png,test" for n in range(5)]
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert any("2 images are in folders of another split than in the table" in line for line in result.warnings)


def test_a_patient_on_both_sides_goes_to_the_held_out_one_or_is_refused(tmp_path: Path) -> None:
    for number in range(20):
        write_png(tmp_path / "s" / "train" / f"p{number}_a.png", structure(number))
    for number in range(5):
        write_png(tmp_path / "s" / "test" / f"p{number + 18}_b.png", structure(100 + number))
    pattern = r"(p\d+)_"
    moved = take_in(tmp_path / "s", tmp_path / "c", patient_pattern=pattern)
    found = splits_by_path(moved.private_folder, moved.cohort)
    assert found["train/p18_a.png"] == found["train/p19_a.png"] == found["test/p18_b.png"] == "test"
    assert any("2 patients are in several splits" in warning for warning in moved.warnings)
    refused = take_in(tmp_path / "s", tmp_path / "d", patient_pattern=pattern, split_conflicts="refuse")
    assert reasons(refused) == {"split_conflict": 4}


def test_a_division_of_some_images_only_is_kept_when_requested(tmp_path: Path) -> None:
    source = divided(tmp_path / "s", {"train": 30, "test": 10})
    write_png(source / "loose.png", structure(500))
    left = take_in(source, tmp_path / "c")
    assert any("40 of 41 images are in a split of the source" in warning for warning in left.warnings)
    kept = take_in(source, tmp_path / "d", source_splits="use")
    found = splits_by_path(kept.private_folder, kept.cohort)
    assert {split for path, split in found.items() if path.startswith("test/")} == {"test"}
    with pytest.raises(InputError, match="divides its images into no splits"):
        take_in(divided(tmp_path / "flat", {"x": 9}), tmp_path / "e", source_splits="use")


def test_export_and_ingestion_keep_every_split(tmp_path: Path) -> None:
    for number in range(60):
        write_png(tmp_path / "s" / f"{number:02d}.png", structure(number))
    first = take_in(tmp_path / "s", tmp_path / "c")
    export_cohort(first.cohort, tmp_path / "x")
    again = take_in(tmp_path / "x", tmp_path / "d")
    split_of = {
        p.tobytes(): s for p, s in zip(first.cohort.pixels(range(60)), first.cohort.manifest["split"], strict=True)
    }
    for pixels, split in zip(again.cohort.pixels(range(60)), again.cohort.manifest["split"], strict=True):
        assert split_of[pixels.tobytes()] == split
    assert again.cohort.schema.patients == first.cohort.schema.patients == "per_image"
    assert len(images_by_path(again)) == 60


def test_export_and_ingestion_keep_what_is_in_no_split(tmp_path: Path) -> None:
    for number in range(40):
        write_png(tmp_path / "s" / f"{number:02d}.png", structure(number // 2, high=240) + np.uint8(4 * (number % 2)))
    first = take_in(tmp_path / "s", tmp_path / "c", near_duplicates="mark")
    assert "left_out" in first.cohort.manifest["split"].to_list()
    export_cohort(first.cohort, tmp_path / "x")
    again = take_in(tmp_path / "x", tmp_path / "d", near_duplicates="mark")
    digests = [dict(c.manifest.select("digest", "split").iter_rows()) for c in (first.cohort, again.cohort)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("source_splits", ["auto", "use"])
def test_rows_of_one_image_that_name_two_splits_hold_it_out_or_refuse_it(tmp_path: Path, source_splits: str) -> None:
    lines = ["file,patient_id,label,x,y,width,height,split"]
    for number in range(40):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
        lines.append(f"{number}.png,p{number},a,1,1,2,2,{'train' if number < 38 else 'test'}")
        lines += [f"{number}.png,p{number},b,3,3,2,2,{'test' if number else 'val'}"] if number < 3 else []
        lines += [f"{number}.png,p{number},b,5,5,2,2,"] if number < 5 else []
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c", source_splits=source_splits)
    found = splits_by_path(result.private_folder, result.cohort)
    assert {int(Path(path).stem) for path, split in found.items() if split == "test"} == {1, 2, 38, 39}
    assert {int(Path(path).stem) for path, split in found.items() if split == "val"} == {0}
    assert "column 'split': rows of 3 images name several splits, see split_conflicts" in result.understood
    assert any(line.startswith("3 patients are in several splits of the source; all their") for line in result.warnings)
    refused = take_in(tmp_path / "s", tmp_path / "d", source_splits=source_splits, split_conflicts="refuse")
    assert reasons(refused) == {"split_conflict": 3}
    kept = splits_by_path(refused.private_folder, refused.cohort)
    assert {int(Path(path).stem) for path, split in kept.items() if split == "test"} == {38, 39}


def test_a_volume_of_which_one_slice_is_held_out_is_held_out(tmp_path: Path) -> None:
    lines = ["file,bleed,split"]
    for number in range(6):
        write_series(
            tmp_path / "s" / f"v{number}",
            structure(number, (6, 24, 24), "uint16", 1000),
            [(0, 0, place) for place in range(6)],
            PatientID=f"P{number}",
            StudyInstanceUID=uid("study", number),
            SeriesInstanceUID=uid("series", number),
        )
        sides = ["test" if number == 5 or (number, place) == (4, 3) else "train" for place in range(6)]
        lines += [f"v{number}/{place:03d}.dcm,{place % 2},{side}" for place, side in enumerate(sides)]
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, label_columns=("bleed",))
    found = splits_by_path(result.private_folder, result.cohort)
    assert {path.split("/")[0] for path, split in found.items() if split == "test"} == {"v4", "v5"}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train set", "Test set"),
        ("training set", "Test (internal)"),
        ("train_images", "test_images"),
        ("train2017", "test2017"),
        ("trainval", "test"),
        ("TrainSet", "TestSet"),
    ],
)
def test_words_beside_the_word_for_a_split_change_nothing(tmp_path: Path, train: str, test: str) -> None:
    lines = ["image,split"]
    for number in range(20):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
        lines.append(f"{number}.png,{test if number < 5 else train}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c")
    found = splits_by_path(result.private_folder, result.cohort)
    assert {int(Path(path).stem) for path, split in found.items() if split == "test"} == set(range(5))


def test_an_odd_cell_costs_the_cell_and_not_the_column(tmp_path: Path) -> None:
    lines = ["image,split"]
    for number in range(20):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
        lines.append(f"{number}.png,{'later' if number == 19 else 'test' if number < 5 else 'train'}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c", source_splits="use")
    found = splits_by_path(result.private_folder, result.cohort)
    assert {int(Path(path).stem) for path, split in found.items() if split == "test"} >= set(range(5))
    assert "column 'split': 1 of 20 cells name no split and are not stated" in result.understood


@pytest.mark.parametrize(
    ("train", "test"), [("TrainVal", "Test"), ("train2017", "test2017"), ("train_images", "test_images")]
)
def test_folders_may_say_more_than_the_word(tmp_path: Path, train: str, test: str) -> None:
    result = take_in(divided(tmp_path / "s", {train: 30, test: 8}), tmp_path / "c")
    found = splits_by_path(result.private_folder, result.cohort)
    assert {split for path, split in found.items() if path.startswith(test)} == {"test"}
    assert "test" not in {split for path, split in found.items() if path.startswith(train)}


def test_one_side_alone_is_reported(tmp_path: Path) -> None:
    """A test folder beside others that no word names: its images would go to train without a word."""
    result = take_in(divided(tmp_path / "s", {"x": 20, "test": 6}), tmp_path / "c", folders="ignore")
    assert any("6 of 26 images are in a split of the source" in line for line in result.warnings)


def volume_over(source: Path, folders: list[str], patient: str) -> None:
    rng = np.random.default_rng(len(patient))
    for place, folder in enumerate(folders):
        write_dicom(
            source / folder / f"{patient}{place}.dcm",
            rng.integers(0, 999, (24, 24), dtype=np.uint16),
            PatientID=patient,
            StudyInstanceUID=uid("study", patient),
            SeriesInstanceUID=uid("series", patient),
            SOPInstanceUID=uid("slice", patient, place),
            ImagePositionPatient=[0.0, 0.0, 2.0 * place],
            ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            PixelSpacing=[1.0, 1.0],
        )


def test_slices_in_folders_of_two_splits_hold_the_volume_out_or_refuse_it(tmp_path: Path) -> None:
    for number in range(6):
        volume_over(tmp_path / "s", ["train"] * 4, f"P{'x' * number}")
    volume_over(tmp_path / "s", ["train", "train", "test", "test"], "BOTH")
    options = {"spatial_dims": 3, "min_slices": 3}
    held = take_in(tmp_path / "s", tmp_path / "c", **options)
    assert held.cohort.manifest["split"].to_list().count("test") == 1
    assert any("are in several splits of the source" in line for line in held.warnings)
    refused = take_in(tmp_path / "s", tmp_path / "d", split_conflicts="refuse", **options)
    assert reasons(refused) == {"split_conflict": 4}


def test_slices_in_folders_of_two_classes_are_refused(tmp_path: Path) -> None:
    for number in range(6):
        volume_over(tmp_path / "s", ["normal" if number % 2 else "bleed"] * 4, f"P{'x' * number}")
    volume_over(tmp_path / "s", ["normal", "normal", "bleed", "bleed"], "BOTH")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, min_slices=3, folders="classes")
    assert reasons(result) == {"geometry": 4}
    assert result.cohort.schema.labels == ("bleed", "normal")
