"""What a table of differences leads to, in every case: add, use what costs nothing instead, not shown, harm."""

from __future__ import annotations

import pytest

from medphantom.quality.config import StudyArm
from medphantom.quality.results.augment_report import AugmentPlan, answer
from medphantom.quality.results.model_score import Difference, ModelScore, TrainingArm
from medphantom.quality.results.quality_report import QualityReport
from medphantom.quality.results.study_report import Advice
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.utility.advice import advise

PLAN = AugmentPlan(
    label="rings", to=100, images=40, patients=30, training_images=400, planned=60, shares=(1.0,), generators=2,
    trained=True, classifiers=35, classifier_steps=100,
)  # fmt: skip


def difference(value: float, half: float) -> Estimate:
    return Estimate(
        name="utility_difference",
        estimand="AUROC less AUROC",
        value=value,
        interval=(value - half, value + half),
        better="higher",
        label="rings",
    )


def score(
    arm: StudyArm,
    gain: float,
    p: float | None,
    *,
    ratio: float | None = None,
    over: dict[StudyArm, tuple[float, float]] | None = None,
) -> ModelScore:
    beside = tuple(
        Difference(arm=TrainingArm(kind=other), difference=difference(*pair), p=0.5)
        for other, pair in (over or {}).items()
    )
    estimate = Estimate(name="utility", estimand="AUROC", value=0.7 + gain, better="higher", label="rings")
    return ModelScore(
        arm=TrainingArm(kind=arm, ratio=ratio),
        test="test",
        measure="AUROC",
        estimate=estimate,
        difference=difference(gain, 0.02),
        p=p,
        p_holm=p,
        beside=beside,
    )


def recommendation(*scores: ModelScore) -> Advice:
    return list(advise(scores, ["rings"], 0.05))[1]


def test_what_helps_is_added_at_the_smallest_ratio_that_is_as_good() -> None:
    found = recommendation(
        score("real_and_synthetic", 0.01, 0.4, ratio=0.5),
        score("real_and_synthetic", 0.05, 0.001, ratio=1),
        score("real_and_synthetic", 0.055, 0.001, ratio=2),
        score("classical", 0.01, 0.3),
    )
    assert found.recommendation == "add"
    assert found.arm == TrainingArm(kind="real_and_synthetic", ratio=1)
    assert "larger ratios bring no further gain (+0.055 at 2)" in found.sentence
    assert "real + classical augmentation alone: AUROC +0.010" in found.sentence


def test_what_costs_nothing_is_used_instead_unless_it_is_beaten() -> None:
    free = score("classical", 0.04, 0.01)
    close = score("real_and_synthetic", 0.05, 0.001, ratio=1, over={"classical": (0.01, 0.03)})
    found = recommendation(close, free)
    assert found.recommendation == "instead"
    assert found.arm == TrainingArm(kind="classical")
    assert "use real + classical augmentation instead" in found.sentence
    assert "difference: +0.010 [-0.020, +0.040]" in found.sentence
    beaten = score("real_and_synthetic", 0.09, 0.001, ratio=1, over={"classical": (0.05, 0.03)})
    assert recommendation(beaten, free).recommendation == "add"
    not_significant = score("classical", 0.04, 0.3)  # that it helps was not shown, and synthetic images gain more
    assert recommendation(close, not_significant).recommendation == "add"
    better = score("oversampled", 0.06, 0.3)  # not shown either, but no worse than them
    assert recommendation(close, better).recommendation == "instead"


@pytest.mark.parametrize(
    ("gain", "p", "expected"),
    [(0.03, 0.2, "no gain"), (0.03, None, "no gain"), (-0.05, 0.01, "harm"), (-0.05, 0.2, "no gain")],
)
def test_a_random_gain_is_none_and_a_significant_loss_is_harm(gain: float, p: float | None, expected: str) -> None:
    found = recommendation(score("real_and_synthetic", gain, p, ratio=1))
    assert found.recommendation == expected
    assert ("not shown" in found.sentence) == (expected == "no gain")


def test_a_failed_gate_outranks_every_gain_and_an_open_one_keeps_images_inside(quality: QualityReport) -> None:
    failed = quality.model_copy(update={"verdict": "fail", "verdict_reasons": ("one image repeats a patient",)})
    found = answer(PLAN, failed, None)
    assert found.decision == "unsafe"
    assert "one image repeats a patient" in found.sentence
    with pytest.raises(ValueError, match="study is missing"):
        answer(PLAN, quality.model_copy(update={"verdict": "screened"}), None)


@pytest.fixture
def quality() -> QualityReport:
    return QualityReport(
        real_digest="0" * 64,
        synthetic_digest="1" * 64,
        config_digest="2" * 64,
        seed=0,
        real_counts={"train": 400, "test": 100},
        synthetic_count=60,
        estimates=(),
        verdict="inconclusive",
        verdict_reasons=("too few controls",),
    )
