"""A utility study with invented numbers, for its page: two labels, one of which tries to be HTML."""

from __future__ import annotations

from medphantom.quality.config import StudyConfig
from medphantom.quality.results.model_score import Difference, Measure, ModelScore, TrainingArm
from medphantom.quality.results.study_report import GroupGap, StudyReport
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.utility.advice import advise

EVIL = "<script>alert(1)</script>"
LABELS = ("effusion", EVIL)
ARMS = (
    TrainingArm(kind="real"),
    *(TrainingArm(kind="real_and_synthetic", ratio=ratio) for ratio in (0.5, 1.0, 2.0)),
    *(TrainingArm(kind="pretrained", ratio=ratio) for ratio in (0.5, 1.0, 2.0)),
    TrainingArm(kind="classical"),
    TrainingArm(kind="metadata"),
)


def made_up_study() -> StudyReport:
    scores = [score for place, arm in enumerate(ARMS) for score in _of(arm, 0.6 + 0.02 * place)]
    gap = Estimate(name="gap", estimand="a gap", value=0.05, interval=(0.01, 0.09), better="lower")
    return StudyReport(
        real_digest="a" * 64,
        synthetic_digests=("b" * 64, "c" * 64),
        config=StudyConfig(),
        real_images=962,
        real_patients=752,
        test_images=337,
        test_patients=265,
        synthetic_images=(1924, 1924),
        scores=tuple(scores),
        gaps=(
            GroupGap(arm=ARMS[0], attribute=EVIL, better="F", worse="M", gap=gap),
            GroupGap(arm=ARMS[1], attribute=EVIL, better="F", worse="M", gap=gap, change=gap, widened=True),
        ),
        advice=tuple(advise(scores, LABELS, 0.05)),
        warnings=("one generator seed",),
    )


def _of(arm: TrainingArm, value: float) -> list[ModelScore]:
    found = []
    for number, label in enumerate((None, *LABELS, "hernia")):
        refused = "3 test patients have it (≥ 30)" if label == "hernia" else None
        center = None if refused else value + 0.01 * number
        measures: tuple[Measure, ...] = ("AUROC",) if label is None else ("AUROC", "calibration error")
        for measure in measures:
            estimate = _estimate(center, 0.05, label, refused)
            less = None if refused or arm.kind == "real" else _estimate(value - 0.6, 0.03, label, None)
            beside = (
                Difference(arm=TrainingArm(kind="classical"), difference=_estimate(0.01, 0.02, label, None), p=0.4),
            )
            found.append(
                ModelScore(
                    arm=arm,
                    test="test",
                    measure=measure,
                    estimate=estimate,
                    difference=less if measure == "AUROC" else None,
                    p=0.01 if less else None,
                    p_holm=0.04 if less else None,
                    beside=beside if less and arm.ratio else (),
                )
            )
    return found


def _estimate(value: float | None, half: float, label: str | None, refused: str | None) -> Estimate:
    interval = None if value is None else (value - half, value + half)
    return Estimate(
        name="utility", estimand="AUROC", value=value, interval=interval, label=label, refused=refused, better="higher"
    )
