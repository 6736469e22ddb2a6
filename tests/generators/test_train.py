from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError, MedphantomError
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.train import train_generator
from medphantom.generators.training_data import cached_images, learnt_geometry, learnt_schema, training_rows
from tests.generators.tiny import SIDE, make_cohort, tiny_config


def short_config(**changes: object) -> GeneratorConfig:
    """The tiny networks, hardly fitted at all."""
    steps = {"steps": 6, "batch_size": 4, "validate_every": 3, "checkpoint_every": 3, "tracker": "none"}
    fits = {f"{name}_fit": steps for name in ("features", "autoencoder", "denoiser")}
    return tiny_config(**(fits | changes))


def rewritten(source: Cohort, out: Path, *, order: list[int], **changes: object) -> Cohort:
    """A cohort with the same rows in another order, those outside train and val changed."""
    from dataclasses import replace

    with CohortWriter(out, source.schema) as writer:
        for record in source.records(order):
            evaluates = record.split in {"holdout", "test"}
            writer.add(replace(record, **changes) if evaluates else record)
    return Cohort.open(out)


# ---- what is learnt from ----


def test_gate_and_test_rows_leave_no_trace_in_the_bundle(
    cohort: Cohort, preprocess: Preprocess, tmp_path: Path
) -> None:
    order = [int(i) for i in np.random.default_rng(1).permutation(len(cohort))]
    noise = np.random.default_rng(2).integers(0, 255, (SIDE, SIDE)).astype(np.uint8)
    other = rewritten(
        cohort,
        tmp_path / "other",
        order=order,
        pixels=noise,
        labels={"bright": None, "dark": None},
        attributes={"age": 200.0, "sex": "another"},
        spacing_mm=(9.0, 9.0),
        modality="XX",
    )
    assert other.digest != cohort.digest
    first = train_generator(cohort, preprocess, short_config(), tmp_path / "a", work=tmp_path / "work-a")
    second = train_generator(other, preprocess, short_config(), tmp_path / "b", work=tmp_path / "work-b")
    assert first.digest == second.digest


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_changed_training_row_does_leave_one(cohort: Cohort, tmp_path: Path, split: str) -> None:
    chosen = cohort.rows(split)[3]
    with CohortWriter(tmp_path / "other", cohort.schema) as writer:
        for number, record in enumerate(cohort.records()):
            if number == chosen:
                record.pixels[0, 0] ^= 1
            writer.add(record)
    assert training_rows(Cohort.open(tmp_path / "other")).digest != training_rows(cohort).digest


def test_only_what_training_rows_show_can_be_requested(tmp_path: Path) -> None:
    schema = CohortSchema(labels=("common", "elsewhere"))
    with CohortWriter(tmp_path / "c", schema) as writer:
        for i in range(20):
            split = "test" if i > 15 else "train"
            labels = {"common": i % 2 == 0, "elsewhere": split == "test"}
            pixels = np.full((SIDE, SIDE), i, np.uint8)
            writer.add(ImageRecord(image_id=f"{i:02d}", patient=f"{i:02d}", pixels=pixels, split=split, labels=labels))
    cohort = Cohort.open(tmp_path / "c")
    assert learnt_schema(cohort, cohort.rows("train")).labels == ("common",)


def test_images_are_cached_as_the_network_sees_them(cohort: Cohort, preprocess: Preprocess, tmp_path: Path) -> None:
    rows = cohort.rows("train")
    calls: list[tuple[int, int]] = []
    images = cached_images(cohort, rows, preprocess, tmp_path, lambda done, total, what="": calls.append((done, total)))
    assert calls[-1] == (len(rows), len(rows))
    assert images.shape == (len(rows), 1, SIDE, SIDE)
    back = np.stack([preprocess.undo(image) for image in images])
    assert np.array_equal(back, np.stack(cohort.pixels(rows)))
    again = cached_images(cohort, rows, preprocess, tmp_path, lambda *_: pytest.fail("was read again"))
    assert isinstance(again, np.memmap)
    assert np.array_equal(again, images)
    other = preprocess.model_copy(update={"size": (8, 8)})
    assert cached_images(cohort, rows, other, tmp_path).shape[2:] == (8, 8)


@pytest.mark.parametrize(
    "damaged",
    [lambda d: d[:-64], lambda d: d.replace(b"<f2", b">f2"), lambda d: d.replace(b"(", b"'"), lambda _: b"\x93NUMPY"],
)
def test_a_damaged_cache_is_made_again(
    cohort: Cohort, preprocess: Preprocess, tmp_path: Path, damaged: Callable[[bytes], bytes]
) -> None:
    rows = cohort.rows("val")
    expected = np.array(cached_images(cohort, rows, preprocess, tmp_path))
    file = next(tmp_path.glob("*/images.npy"))
    file.write_bytes(damaged(file.read_bytes()))
    assert np.array_equal(cached_images(cohort, rows, preprocess, tmp_path), expected)


def test_spacing_of_generated_images_is_that_of_the_networks_grid(cohort: Cohort) -> None:
    halved = Preprocess(size=(SIDE // 2, SIDE // 2))
    geometry = learnt_geometry(cohort, cohort.rows("train"), halved)
    assert geometry.spacing_mm == (1.0, 1.0)
    assert geometry.modality == "DX"


# ---- what comes out ----


def test_both_networks_learnt(bundle: GeneratorBundle) -> None:
    for name, share in (("autoencoder", 0.9), ("denoiser", 0.8)):  # the shortcut leaves the autoencoder less to learn
        rows = bundle.training[name]["rows"]
        losses = [row["val_loss"] for row in rows if "val_loss" in row]
        assert bundle.training[name]["best_loss"] == min(losses) < 1.2
        trained = [row["loss"] for row in rows if "loss" in row]
        assert np.mean(trained[-3:]) < share * trained[0]


def test_train_val_gap_is_in_the_curves(bundle: GeneratorBundle) -> None:
    for name in ("autoencoder", "denoiser"):
        measured = [row for row in bundle.training[name]["rows"] if "gap" in row]
        assert measured
        assert all(row["gap"] == pytest.approx(row["val_loss"] - row["train_loss"]) for row in measured)


def test_validation_is_at_fixed_noise(cohort: Cohort, preprocess: Preprocess, tmp_path: Path) -> None:
    config = short_config()
    still = config.denoiser_fit.model_copy(update={"learning_rate": 1e-12, "ema_decay": None})
    config = config.model_copy(update={"denoiser_fit": still})
    bundle = train_generator(cohort, preprocess, config, tmp_path / "b", work=tmp_path / "work")
    losses = [row["val_loss"] for row in bundle.training["denoiser"]["rows"] if "val_loss" in row]
    assert len(losses) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_sample_grids_are_drawn_while_training(cohort: Cohort, preprocess: Preprocess, tmp_path: Path) -> None:
    fit = short_config().denoiser_fit.model_copy(update={"grid_every": 6})
    config = short_config().model_copy(update={"denoiser_fit": fit, "autoencoder_fit": fit})
    train_generator(cohort, preprocess, config, tmp_path / "b", work=tmp_path / "work")
    grids = sorted(path.parent.parent.name.split("-")[0] for path in (tmp_path / "work").glob("*/grids/*.png"))
    assert grids == ["autoencoder", "denoiser"]


@pytest.mark.parametrize(
    "changes",
    [
        {"reconstruction": {"features": 0.1}},
        {"reconstruction": {"features": 0.1, "feature_network": "random"}},
        {"reconstruction": {"adversary": 0.05, "adversary_from": 0.5, "adversary_channels": 8, "adversary_layers": 1}},
        {"flip": True, "objective": {"kind": "v", "times": "uniform"}},
        {"autoencoder": {"channels": (8, 16), "norm_groups": 8, "shortcut": False, "middle_attention": True}},
    ],
    ids=["features", "random features", "adversary", "flip and v", "plain with attention"],
)
def test_other_recipes_train(
    cohort: Cohort, preprocess: Preprocess, tmp_path: Path, changes: dict[str, object]
) -> None:
    bundle = train_generator(cohort, preprocess, short_config(**changes), tmp_path / "b", work=tmp_path / "work")
    logged = bundle.training["autoencoder"]["rows"]
    wanted = {"features": "features", "adversary": "adversary_loss"}
    for setting, name in wanted.items():
        present = setting in changes.get("reconstruction", {})
        assert any(name in row for row in logged) == present


# ---- resume ----


def test_finished_stages_are_skipped_and_changed_ones_redone(
    cohort: Cohort, preprocess: Preprocess, work: Path, bundle: GeneratorBundle, tmp_path: Path
) -> None:
    calls: list[tuple[str, int]] = []

    def progress(done: int, total: int, what: str = "") -> None:
        calls.append((what, done))

    started = time.process_time()
    same = train_generator(cohort, preprocess, tiny_config(), tmp_path / "a", work=work, progress=progress)
    assert same == bundle
    assert calls == []
    assert time.process_time() - started < 5
    fit = tiny_config().denoiser_fit.model_copy(update={"steps": 3})
    config = tiny_config().model_copy(update={"denoiser_fit": fit})
    other = train_generator(cohort, preprocess, config, tmp_path / "b", work=work, progress=progress)
    assert calls == [("denoiser", 1), ("denoiser", 2), ("denoiser", 3)]
    assert other != bundle
    assert other.training["autoencoder"] == bundle.training["autoencoder"]


KILLED = """
import sys
from pathlib import Path
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.generators.train import train_generator
from tests.generators.test_train import short_config

def progress(done, total, what=""):
    print(what, done, flush=True)

cohort = Cohort.open(sys.argv[1])
preprocess, out, work = Preprocess.for_cohort(cohort, (16, 16)), Path(sys.argv[2]), Path(sys.argv[3])
train_generator(cohort, preprocess, short_config(), out, work=work, progress=progress)
"""


def test_a_killed_training_goes_on_to_the_same_bundle(cohort: Cohort, preprocess: Preprocess, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(cohort.path), str(tmp_path / "killed"), str(tmp_path / "work")]
    environment = {**os.environ, "PYTHONPATH": "."}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split() == ["denoiser", "4"]:  # a checkpoint lies at 3: one step is lost
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    calls: list[str] = []
    resumed = train_generator(
        cohort,
        preprocess,
        short_config(),
        tmp_path / "killed",
        work=tmp_path / "work",
        progress=lambda done, total, what="": calls.append(f"{what} {done}"),
    )
    assert calls == ["denoiser 4", "denoiser 5", "denoiser 6"]
    whole = train_generator(cohort, preprocess, short_config(), tmp_path / "whole", work=tmp_path / "other")
    assert resumed.digest == whole.digest


# ---- errors ----


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "c", total=8)
    with pytest.raises(InputError, match="5 training images, but a generator needs ≥ 8"):
        train_generator(cohort, Preprocess(size=(16, 16)), tiny_config(), tmp_path / "b", work=tmp_path / "w")


def test_no_validation_image_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    with CohortWriter(tmp_path / "c", cohort.schema) as writer:
        for record in cohort.records(cohort.rows("train")):
            writer.add(record)
    with pytest.raises(InputError, match="no validation image, but validation selects the checkpoint"):
        training_rows(Cohort.open(tmp_path / "c"))


def test_nothing_to_condition_on_is_refused_unless_wanted(tmp_path: Path) -> None:
    with CohortWriter(tmp_path / "c", CohortSchema()) as writer:
        for i in range(12):
            pixels = np.full((SIDE, SIDE), 20 * i, np.uint8)
            split = "val" if i == 0 else "train"
            writer.add(ImageRecord(image_id=f"{i:02d}", patient=f"{i:02d}", pixels=pixels, split=split))
    cohort, preprocess = Cohort.open(tmp_path / "c"), Preprocess(size=(SIDE, SIDE))
    with pytest.raises(InputError, match=r"neither labels nor attributes .*; .* generator\.unconditional"):
        train_generator(cohort, preprocess, short_config(), tmp_path / "b", work=tmp_path / "w")
    config = short_config(unconditional=True)
    bundle = train_generator(cohort, preprocess, config, tmp_path / "b", work=tmp_path / "w")
    assert bundle.facts.conditions.labels == ()


@pytest.mark.parametrize(("size", "message"), [((18, 16), "not divisible by 4"), ((16, 16, 16), "has 3 sides")])
def test_sizes_that_do_not_fit_are_refused_before_anything_is_read(
    cohort: Cohort, tmp_path: Path, size: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_generator(cohort, Preprocess(size=size), tiny_config(), tmp_path / "b", work=tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_nan_pixels_are_refused(tmp_path: Path) -> None:
    with CohortWriter(tmp_path / "c", CohortSchema(labels=("a",))) as writer:
        for i in range(12):
            pixels = np.full((SIDE, SIDE), np.nan if i == 5 else float(i), np.float32)
            split = "val" if i == 0 else "train"
            labels = {"a": i % 2 == 0}
            writer.add(ImageRecord(image_id=f"{i:02d}", patient=f"{i:02d}", pixels=pixels, split=split, labels=labels))
    with pytest.raises(InputError, match="a training image has NaN or infinite pixels"):
        train_generator(
            Cohort.open(tmp_path / "c"), Preprocess(size=(16, 16)), tiny_config(), tmp_path / "b", work=tmp_path / "w"
        )
    assert not (tmp_path / "b").exists()


def test_diverging_training_says_what_to_lower(cohort: Cohort, preprocess: Preprocess, tmp_path: Path) -> None:
    fit = short_config().autoencoder_fit.model_copy(
        update={"learning_rate": 1e30, "clip_norm": None, "warmup_steps": 0, "precision": "fp32"}
    )
    config = short_config().model_copy(update={"autoencoder_fit": fit})
    with pytest.raises(MedphantomError, match=r"not finite at step .*lower learning_rate"):
        train_generator(cohort, preprocess, config, tmp_path / "b", work=tmp_path / "w")


def test_an_existing_bundle_is_not_overwritten(
    bundle_folder: Path, cohort: Cohort, preprocess: Preprocess, work: Path
) -> None:
    with pytest.raises(InputError, match="exists already; choose another"):
        train_generator(cohort, preprocess, tiny_config(), bundle_folder, work=work)


def test_splits_in_the_tiny_cohort_are_all_there(cohort: Cohort) -> None:
    assert set(cohort.manifest.group_by("split").agg(pl.len())["split"]) == {"train", "val", "holdout", "test"}
