"""Ingestion as a whole: every file is accounted for, nothing is half-written, the result depends on nothing else."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medphantom.cohorts.identity import SplitFractions
from medphantom.cohorts.ingest import ingest
from medphantom.cohorts.options import IngestOptions
from medphantom.core.errors import InputError, ResourceError
from medphantom.core.folders import DIGEST_FILE
from tests.cohorts.files import (
    KEY,
    images_by_path,
    names_in,
    reasons,
    rejections,
    structure,
    take_in,
    write_dicom,
    write_png,
)


def mixed_source(folder: Path) -> Path:
    """Good and bad files of several kinds."""
    for number in range(12):
        write_png(folder / f"p{number:02d}.png", structure(number))
        write_dicom(
            folder / "d" / f"{number}.dcm", structure(100 + number, dtype="uint16", high=999), PatientID=str(number)
        )
    write_png(folder / "z_copy.png", structure(3))
    brighter = np.clip(structure(4).astype(int) + 9, 0, 255).astype(np.uint8)
    write_png(folder / "z_near.png", brighter)
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "readme.txt").write_text("text")
    return folder


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    source = mixed_source(tmp_path / "s")
    runs = [take_in(source, tmp_path / f"c{workers}", workers=workers) for workers in (0, 1, 3)]
    assert len({run.cohort.digest for run in runs}) == 1
    assert len({tuple(run.cohort.manifest["image_id"]) for run in runs}) == 1
    assert rejections(runs[0]) == rejections(runs[1]) == rejections(runs[2])
    assert rejections(runs[0]) == {"bad.png": "undecodable", "readme.txt": "not_an_image", "z_copy.png": "duplicate"}
    runs[2].cohort.verify()


def test_the_private_folder_is_beside_the_cohort_and_closed_to_others(tmp_path: Path) -> None:
    result = take_in(mixed_source(tmp_path / "s"), tmp_path / "c")
    assert result.private_folder == tmp_path / "c.private"
    assert stat.S_IMODE(result.private_folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in result.private_folder.iterdir()} == {0o600}
    links = pl.read_parquet(result.private_folder / "links.parquet")
    row = links.row(by_predicate=pl.col("path") == "d/7.dcm", named=True)
    assert (row["patient_id"], row["patient"]) == ("7", KEY.pseudonym("patient", "7"))
    assert set(links["image_id"].drop_nulls()) == set(result.cohort.manifest["image_id"])


def test_exact_duplicates_are_dropped_or_kept_and_near_ones_marked(tmp_path: Path) -> None:
    source = mixed_source(tmp_path / "s")
    dropped = take_in(source, tmp_path / "c")
    assert (dropped.exact_duplicates, dropped.near_duplicates) == (1, 1)
    marked = dropped.cohort.manifest.filter(pl.col("near_duplicate_of").is_not_null())
    assert marked["image_id"].to_list() == [KEY.pseudonym("image", "z_near.png\0")]
    assert marked["near_duplicate_of"].to_list() == [KEY.pseudonym("image", "p04.png\0")]
    assert any("1 images nearly repeat an earlier one" in warning for warning in dropped.warnings)
    kept = take_in(source, tmp_path / "d", duplicates="keep")
    assert kept.accepted == dropped.accepted + 1
    assert (kept.exact_duplicates, kept.near_duplicates) == (0, 2)
    assert take_in(source, tmp_path / "e", near_duplicates="off").near_duplicates == 0


def test_duplicates_under_different_labels_are_reported(tmp_path: Path) -> None:
    for number in range(6):
        write_png(tmp_path / "s" / ("a", "b")[number % 2] / f"{number}.png", structure(number))
    write_png(tmp_path / "s" / "b" / "9.png", structure(0))
    result = take_in(tmp_path / "s", tmp_path / "c", folders="classes")
    assert any("1 exact duplicates have other labels than the first copy" in warning for warning in result.warnings)
    table = pl.read_parquet(result.private_folder / "rejections.parquet")
    assert table.select("path", "detail").row(0) == (
        "b/9.png",
        "the same pixels as an earlier image, under other labels",
    )


def test_strict_stops_at_the_first_bad_file_and_leaves_nothing(tmp_path: Path) -> None:
    source = mixed_source(tmp_path / "s")
    with pytest.raises(InputError, match=r"a file of the source was refused \((undecodable|not_an_image): ") as raised:
        take_in(source, tmp_path / "c", strict=True)
    assert "\n" not in str(raised.value)
    assert "bad.png" not in str(raised.value)
    assert names_in(tmp_path) == ["s"]
    for name in ("bad.png", "readme.txt", "z_copy.png"):
        (source / name).unlink()
    assert take_in(source, tmp_path / "c", strict=True).accepted == 25


def test_a_source_that_gives_nothing_says_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no files"):
        take_in(tmp_path / "empty", tmp_path / "c")
    with pytest.raises(InputError, match="gone does not exist"):
        take_in(tmp_path / "gone", tmp_path / "c")
    write_png(tmp_path / "s" / "flat.png", np.zeros((32, 32), np.uint8))
    (tmp_path / "s" / "a.txt").write_text("text")
    with pytest.raises(InputError, match=r"no image of .* could be taken: 1 constant, 1 not_an_image"):
        take_in(tmp_path / "s", tmp_path / "c")
    assert names_in(tmp_path) == ["empty", "s"]


def test_nothing_is_written_over_or_into_the_source(tmp_path: Path) -> None:
    write_png(tmp_path / "s" / "a.png", structure(1))
    with pytest.raises(InputError, match="lies inside the source"):
        take_in(tmp_path / "s", tmp_path / "s" / "c")
    take_in(tmp_path / "s", tmp_path / "c")
    before = (tmp_path / "c" / DIGEST_FILE).read_bytes()
    with pytest.raises(InputError, match="exists already"):
        take_in(tmp_path / "s", tmp_path / "c")
    assert (tmp_path / "c" / DIGEST_FILE).read_bytes() == before


def test_links_that_leave_the_source_pipes_and_odd_names(tmp_path: Path) -> None:
    source = tmp_path / "s"
    write_png(source / "a.png", structure(1))
    write_png(tmp_path / "outside" / "b.png", structure(2))
    (source / "link.png").symlink_to(tmp_path / "outside" / "b.png")
    (source / "folder").symlink_to(tmp_path / "outside")
    (source / "inner.png").symlink_to("a.png")
    (source / "loop").symlink_to(".")
    (source / "nothing.png").symlink_to("gone.png")
    os.mkfifo(source / "pipe.png")
    odd = os.fsdecode(b"caf\xe9 \n.png")
    (source / odd).write_bytes((source / "a.png").read_bytes()[:-200])
    result = take_in(source, tmp_path / "c")
    assert rejections(result) == {
        "folder": "outside_source",
        "inner.png": "duplicate",
        "link.png": "outside_source",
        "nothing.png": "broken",
        "pipe.png": "not_an_image",
        "caf\\udce9 \n.png": "truncated",
    }
    assert result.accepted == 1


def test_one_file_may_be_a_source(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", structure(1))
    write_png(tmp_path / "b.png", structure(2))
    assert take_in(tmp_path / "a.png", tmp_path / "c").total_files == 1


def test_the_format_may_be_fixed(tmp_path: Path) -> None:
    source = mixed_source(tmp_path / "s")
    result = take_in(source, tmp_path / "c", format="dicom")
    assert set(result.cohort.manifest["modality"]) == {"CT"}
    assert reasons(result) == {"not_an_image": 16}


def test_a_decoder_that_hangs_costs_only_its_file(tmp_path: Path) -> None:
    for number in range(5):
        nib.save(nib.Nifti1Image(structure(number, (16, 16, 8)), np.eye(4)), _folder(tmp_path / "s") / f"{number}.nii")
    head = nib.Nifti1Header()
    head.set_data_dtype(np.uint8)
    head.set_data_shape((1290, 1290, 1250))
    zeros = gzip.compress(bytes(2**26), 1)
    start = gzip.compress(head.binaryblock + bytes(4))
    (tmp_path / "s" / "3_slow.nii.gz").write_bytes(start + zeros * 31)  # 2 GiB of nothing take longer than a second
    result = take_in(tmp_path / "s", tmp_path / "c", workers=1, seconds_per_file=1, max_expansion=2000)
    assert rejections(result) == {"3_slow.nii.gz": "crashed"}
    assert result.accepted == 5


@pytest.mark.parametrize("name", ["a\x07b", "stage: one", "x" * 81])
def test_class_folders_whose_names_are_no_labels_cost_one_line(tmp_path: Path, name: str) -> None:
    for number in range(4):
        write_png(tmp_path / "s" / ("mass", name)[number % 2] / f"{number}.png", structure(number, (16, 16)))
    with pytest.raises(InputError, match="the names of 1 class folders are no label names"):
        take_in(tmp_path / "s", tmp_path / "c", folders="classes")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_changes_after_the_first_look_is_not_taken(tmp_path: Path, workers: int) -> None:
    """Its header was read before, its pixels after somebody wrote to it: nothing of it can be believed."""
    for number in range(3):
        write_png(tmp_path / "s" / f"{number}.png", structure(number, (16, 16)))

    def write_between(done: int, total: int, doing: str) -> None:
        if doing == "scanning files" and done == total:
            write_png(tmp_path / "s" / "1.png", structure(9, (16, 16)))

    options = IngestOptions(min_side=8, workers=workers)
    result = ingest(tmp_path / "s", tmp_path / "c", options, KEY, progress=write_between)
    assert rejections(result) == {"1.png": "changed"}
    assert result.accepted == 2


def test_an_archive_that_changes_while_it_is_read_is_refused_whole(tmp_path: Path) -> None:
    images = np.stack([structure(number, (16, 16)) for number in range(4)])
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=np.zeros((4, 1)))

    def write_between(done: int, total: int, doing: str) -> None:
        if doing == "scanning files" and done == total:
            np.savez(tmp_path / "a.npz", train_images=images[::-1], train_labels=np.zeros((4, 1)))

    with pytest.raises(InputError, match="changed while it was read"):
        ingest(tmp_path / "a.npz", tmp_path / "c", IngestOptions(min_side=8), KEY, progress=write_between)
    assert not (tmp_path / "c").exists()


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_splits_follow_patients_and_labels_too_rare_are_reported(tmp_path: Path) -> None:
    rows = ["image,patient_id,label"]
    for number in range(60):
        write_png(tmp_path / "s" / f"{number:02d}.png", structure(number, (16, 16)))
        rows.append(f"{number:02d}.png,P{number // 2},{'rare' if number == 7 else 'common'}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(rows))
    split = SplitFractions(train=0.4, val=0.2, holdout=0.2, test=0.2)
    result = take_in(tmp_path / "s", tmp_path / "c", split=split)
    by_patient = result.cohort.manifest.group_by("patient").agg(pl.col("split").n_unique(), pl.len())
    assert set(by_patient["split"]) == {1}
    assert set(by_patient["len"]) == {2}
    rare = [warning for warning in result.warnings if "'rare' is too rare to split" in warning]
    assert len(rare) == 1
    assert rare[0].endswith("(1 in all)")
    assert not any("'common'" in warning for warning in result.warnings)


def test_images_without_patient_are_reported(tmp_path: Path) -> None:
    write_dicom(tmp_path / "s" / "a.dcm", structure(1), PatientID="")
    write_dicom(tmp_path / "s" / "b.dcm", structure(2), PatientID="")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.cohort.schema.patients == "per_image"
    assert result.cohort.manifest["patient"].n_unique() == 1  # their study stands for the patient
    assert "2 of 2 images name no patient: splits may share patients" in result.warnings


def test_messages_name_no_file_of_the_source(tmp_path: Path) -> None:
    source = mixed_source(tmp_path / "s")
    result = take_in(source, tmp_path / "c")
    text = " ".join(result.warnings) + repr(result.cohort)
    assert not any(path.name in text for path in source.rglob("*.*"))


MEMORY_TRIAL = """
import resource, sys
from pathlib import Path
from medphantom.cohorts.ingest import ingest
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.identity import IdentityKey
for name in sys.argv[1:]:
    ingest(name, name + "-c", IngestOptions(workers=0), IdentityKey.from_phrase("x"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_is_flat_in_the_number_of_files(tmp_path: Path) -> None:
    import tifffile

    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "t.tif", np.zeros((256, 256), np.uint8), photometric="minisblack")
    template = (tmp_path / "t.tif").read_bytes()[: -(256 * 256)]
    for name, total in (("warm", 100), ("few", 100), ("many", 1300)):
        (tmp_path / name).mkdir()
        for number in range(total):
            pixels = np.repeat(np.repeat(rng.integers(0, 255, (16, 16), np.uint8), 16, 0), 16, 1)
            (tmp_path / name / f"{number}.tif").write_bytes(template + pixels.tobytes())
    names = [str(tmp_path / name) for name in ("warm", "few", "many")]
    run = subprocess.run([sys.executable, "-c", MEMORY_TRIAL, *names], capture_output=True, text=True, check=True)
    _, few, many = (int(line) * 1024 for line in run.stdout.split())
    assert many - few < 25 * 2**20  # their pixels are 75 MiB


DISK_FULL_TRIAL = """
import resource, sys
from medphantom.core.errors import ResourceError
from medphantom.cohorts.ingest import ingest
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.identity import IdentityKey
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # writing a larger file fails as on a full disk
try:
    ingest(sys.argv[1], sys.argv[2], IngestOptions(workers=0), IdentityKey.from_phrase("x"))
except ResourceError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (512, 512), np.uint8)
        write_png(tmp_path / "s" / f"{number}.png", pixels)
    command = [sys.executable, "-c", DISK_FULL_TRIAL, str(tmp_path / "s"), str(tmp_path / "c")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"the disk under {tmp_path} is full; free some space and run again\n"
    assert names_in(tmp_path) == ["s"]


@pytest.mark.parametrize("out", ["a.file/cohort", "/proc/cohort"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, out: str) -> None:
    write_png(tmp_path / "s" / "a.png", structure(1))
    (tmp_path / "a.file").write_text("no folder")
    with pytest.raises(ResourceError, match=r"cannot be (written|created); choose another folder with --out"):
        take_in(tmp_path / "s", tmp_path / out)


def test_progress_counts_files_and_images(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    source = mixed_source(tmp_path / "s")
    ingest(source, tmp_path / "c", IngestOptions(workers=0), KEY, lambda *call: calls.append(call))
    assert ("scanning files", 28, 28) in {(what, done, total) for done, total, what in calls}
    assert calls[-1] == (27, 27, "reading images")


@settings(max_examples=8, deadline=None)
@given(seeds=st.lists(st.integers(0, 40), min_size=2, max_size=8))
def test_kept_and_dropped_images_follow_from_their_pixels(
    tmp_path_factory: pytest.TempPathFactory, seeds: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("trial")
    for place, seed in enumerate(seeds):
        write_png(folder / "s" / f"{place}.png", structure(seed, (16, 16)))
    result = take_in(folder / "s", folder / "c", near_duplicates="off")
    assert result.accepted == len(set(seeds))
    first = {seed: seeds.index(seed) for seed in seeds}
    assert sorted(images_by_path(result)) == sorted(f"{place}.png" for place in first.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_side": 0}, "min_side"),
        ({"attributes": ("age:number",)}, "name:continuous"),
        ({"patient_pattern": "abc"}, "must have a group"),
        ({"patient_pattern": "(a"}, "regular expression"),
        ({"colour": "grey"}, "colour"),
        ({"split": {"train": 0.5, "val": 0.1, "holdout": 0.1, "test": 0.1}}, "sum to 1"),
    ],
)
def test_options_that_break_a_rule_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IngestOptions.model_validate(options)


def test_identity_of_options_ignores_what_changes_nothing() -> None:
    assert IngestOptions(workers=4, strict=True).identity() == IngestOptions().identity()
    assert IngestOptions(min_side=9).identity() != IngestOptions().identity()
    assert IngestOptions.model_validate_json(IngestOptions().model_dump_json()) == IngestOptions()


def test_excluded_files_are_not_looked_at(tmp_path: Path) -> None:
    for number in range(4):
        write_png(tmp_path / "source" / "CXR" / f"c{number}.png", structure(number))
        write_png(tmp_path / "source" / "Hand" / "left" / f"h{number}.png", structure(10 + number))
        write_png(tmp_path / "source" / "Head" / f"k{number}.png", structure(20 + number))
    (tmp_path / "source" / "CXR" / "notes.txt").write_text("not an image")
    options = IngestOptions(exclude=("CXR/*", "*/h3.png"), folders="classes", min_patients=1, workers=0)
    result = ingest(tmp_path / "source", tmp_path / "cohort", options, KEY)
    assert result.cohort.schema.labels == ("Hand", "Head")
    assert len(result.cohort) == 7
    assert not result.rejected
