"""Segmenters arm in several ways: images with right masks help a scarce set, images with wrong ones harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.quality.config import SegmenterConfig, StudyConfig
from medphantom.quality.report.study_table import study_table
from medphantom.quality.results.model_score import TrainingArm
from medphantom.quality.results.study_report import StudyReport
from medphantom.quality.utility.study import check_study, run_study

SIDE = 24
CONFIG = StudyConfig(
    task="segmentation",
    arms=("real", "synthetic", "real_and_synthetic", "pretrained", "classical", "oversampled"),
    segmenter=SegmenterConfig(steps=25, batch_size=4, learning_rate=3e-3, device="cpu"),
    classifier_seeds=2,
    ratios=(2.0,),
    least_train=4,
    least_test=15,
)


def write(path: Path, total: int, seed: int, *, synthetic: bool = False, wrong: bool = False) -> Cohort:
    """A disc, with a core in two of three, whose mask is right, or half a side off."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    schema = CohortSchema(
        kind="synthetic" if synthetic else "real", mask_values={0: "background", 3: "disc", 7: "core"}
    )
    drawn = []
    for number in range(total):
        far = np.hypot(y - rng.uniform(8, 16), x - rng.uniform(8, 16))
        mask = np.where(far < 7, 3, 0)
        mask = np.where((far < 3.5) & (number % 3 > 0), 7, mask).astype(np.uint8)
        pixels = np.choose(np.searchsorted((0, 3, 7), mask), (40, 130, 220)) + rng.normal(0, 25, mask.shape)
        drawn.append((pixels.clip(0, 255).astype(np.uint8), mask))
    with CohortWriter(path, schema) as writer:
        for number, (pixels, mask) in enumerate(drawn):
            name = f"i{number:04d}"
            split = "train" if number < 12 else "val" if number < 14 else "holdout" if number < 16 else "test"
            writer.add(
                ImageRecord(
                    name,
                    name if synthetic else f"p{number // 2:04d}",
                    pixels,
                    "synthetic" if synthetic else split,
                    mask=np.roll(mask, (SIDE // 2, SIDE // 2), (0, 1)) if wrong else mask,
                    provenance=Provenance("0" * 64, "{}", number) if synthetic else None,
                )
            )
    return Cohort.open(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masks")


@pytest.fixture(scope="module")
def real(folder: Path) -> Cohort:
    return write(folder / "real", 76, 1)


@pytest.fixture(scope="module")
def report(real: Cohort, folder: Path) -> StudyReport:
    sets = [write(folder / str(seed), 40, seed, synthetic=True) for seed in (2, 3)]
    return run_study(real, sets, Preprocess(size=(SIDE, SIDE)), CONFIG, work=folder / "work")


def test_every_arm_has_a_dice_of_every_structure_on_the_same_images(report: StudyReport) -> None:
    arms = list(dict.fromkeys(score.arm.words for score in report.scores))
    assert arms == [
        "real",
        "synthetic alone",
        "real + synthetic (2 x)",
        "synthetic, then real (2 x)",
        "real + classical augmentation",
    ]
    for score in report.scores:
        assert score.measure == "Dice"
        assert score.estimate.value is not None
        assert score.estimate.interval is not None
        assert "segmenter" in score.estimate.estimand
        takes = score.arm.kind in {"synthetic", "real_and_synthetic", "pretrained"}
        assert len(score.by_seed) == (4 if takes else 2)
        assert score.estimate.value == pytest.approx(np.mean(score.by_seed))
    assert {score.estimate.label for score in report.scores} == {None, "disc", "core"}
    mixed = report.find(TrainingArm(kind="real_and_synthetic", ratio=2.0), "core", measure="Dice")
    assert {one.arm.kind for one in mixed.beside} == {"classical"}
    assert (report.find(TrainingArm(kind="synthetic"), "disc", measure="Dice").estimate.value or 0) > 0.7
    assert [advice.label for advice in report.advice] == [None, "disc", "core"]
    assert "Dice" in report.advice[0].sentence
    assert "segmenter (U-Net, 25 steps" in study_table(report)


def test_masks_in_the_wrong_place_harm(real: Cohort, folder: Path, report: StudyReport) -> None:
    wrong = write(folder / "wrong", 40, 2, synthetic=True, wrong=True)
    config = CONFIG.model_copy(update={"arms": ("real", "synthetic")})
    found = run_study(real, [wrong], Preprocess(size=(SIDE, SIDE)), config, work=folder / "work")
    right = report.find(TrainingArm(kind="synthetic"), "disc", measure="Dice").estimate
    harmed = found.find(TrainingArm(kind="synthetic"), "disc", measure="Dice")
    assert harmed.estimate.value is not None
    assert right.value is not None
    assert harmed.estimate.value < right.value - 0.2
    assert harmed.difference is not None
    assert harmed.difference.value is not None
    assert harmed.difference.value < -0.05


def test_what_cannot_be_studied_is_refused(real: Cohort, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedClaim, match="no label has enough patients"):
        check_study(real, CONFIG.model_copy(update={"least_test": 500}))
    check_study(real, CONFIG)
    plain = CohortSchema(labels=("a",))
    with CohortWriter(tmp_path / "plain", plain) as writer:
        writer.add(ImageRecord("i", "p", np.zeros((SIDE, SIDE), np.uint8), "test", labels={"a": True}))
    with pytest.raises(UnsupportedClaim, match="needs masks"):
        check_study(Cohort.open(tmp_path / "plain"), CONFIG)
    with pytest.raises(InputError, match="needs synthetic images"):
        run_study(real, [], Preprocess(size=(SIDE, SIDE)), CONFIG, work=tmp_path / "work")
    made = write(tmp_path / "made", 4, 9, synthetic=True)
    with pytest.raises(InputError, match="no external cohort"):
        run_study(real, [made], Preprocess(size=(SIDE, SIDE)), CONFIG, work=tmp_path / "work", external={"x": real})
