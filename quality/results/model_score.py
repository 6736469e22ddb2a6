"""Scores of downstream models, by the images on which the models were trained, and differences between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from medphantom.core.records import Frozen
from medphantom.quality.config import StudyArm
from medphantom.quality.stats.estimate import Estimate

Measure = Literal["AUROC", "Dice", "accuracy", "average precision", "balanced accuracy", "calibration error"]
MEASURES: dict[Literal["classification", "segmentation"], Measure] = {"classification": "AUROC", "segmentation": "Dice"}
CheckedArm = Literal["real", "synthetic", "real_and_synthetic", "metadata"]
"""Arms of the utility check."""
ARM_WORDS: dict[StudyArm | Literal["metadata"], str] = {
    "real": "real",
    "synthetic": "synthetic alone",
    "real_and_synthetic": "real + synthetic",
    "pretrained": "synthetic, then real",
    "classical": "real + classical augmentation",
    "oversampled": "real, rare labels oversampled",
    "classical_and_synthetic": "real + synthetic + classical augmentation",
    "metadata": "age, sex and other attributes alone",
}
MIXING: tuple[StudyArm, ...] = ("real_and_synthetic", "classical_and_synthetic", "pretrained")
"""Arms that mix real and synthetic images, at every mixing ratio."""
FREE: tuple[StudyArm, ...] = ("classical", "oversampled")
"""Arms without synthetic images, which synthetic images have to exceed."""


class TrainingArm(Frozen):
    """The training set of a downstream model.

    Attributes:
        kind: kind of training set; ``metadata`` is a logistic regression on attributes.
        ratio: number of synthetic images per real image; ``None`` if it does not apply.
    """

    kind: StudyArm | Literal["metadata"]
    ratio: float | None = None

    @property
    def words(self) -> str:
        """Name of the arm in tables."""
        return ARM_WORDS[self.kind] + ("" if self.ratio is None else f" ({self.ratio:.3g} x)")


class Difference(Frozen):
    """The paired difference between two training arms, with the test that there is none.

    Attributes:
        arm: arm that is subtracted.
        difference: difference on the same patients and seeds.
        p: two-sided p value of no difference.
    """

    arm: TrainingArm
    difference: Estimate
    p: float


class ModelScore(Frozen):
    """One score of the downstream models of a training arm, of the utility check or of a utility study.

    Attributes:
        arm: training arm of the downstream model.
        test: ``test``, ``synthetic`` (diagnostic: trained on real, tested on synthetic images), or an external cohort.
        measure: performance measure of the score.
        group: subgroup of the test patients, such as ``sex = F``; ``None`` for all patients.
        estimate: mean over classifier and generator seeds; its label is ``None`` for the mean over labels.
        by_seed: values of the single trainings.
        difference: difference to *real* on the same patients and seeds; ``None`` for *real* itself.
        p: two-sided p value of no difference.
        p_holm: p value after Holm's correction over labels (and their mean), arms and ratios; ``None`` for labels that
            are not of interest.
        beside: differences of a mixing arm to arms without synthetic images.
    """

    arm: TrainingArm
    test: str
    measure: Measure
    group: str | None = None
    estimate: Estimate
    by_seed: tuple[float, ...] = ()
    difference: Estimate | None = None
    p: float | None = None
    p_holm: float | None = None
    beside: tuple[Difference, ...] = ()

    def against(self, real: Difference, free: tuple[Difference, ...] = ()) -> ModelScore:
        """Return the score with its differences to *real* and to the arms without synthetic images."""
        return self.model_copy(update={"difference": real.difference, "p": real.p, "beside": free})


def _of_utility_check(value: Any) -> Any:
    """Return the fields of a score that a quality report stores as ``trained_on`` and ``estimate``."""
    if not isinstance(value, Mapping):
        return value
    if set(value) != {"trained_on", "estimate"}:
        raise ValueError("a score of the utility check has trained_on and estimate")
    estimate = Estimate.model_validate(value["estimate"])
    return {
        "arm": {"kind": value["trained_on"]},
        "test": "test",
        "measure": "accuracy" if estimate.label is None else "AUROC",
        "estimate": estimate,
    }


def _of_a_checked_arm(score: ModelScore) -> ModelScore:
    read = ModelScore.model_validate(_of_utility_check(_stored(score)))
    if score.arm.kind not in get_args(CheckedArm) or score != read:
        raise ValueError("a score of the utility check has one of its arms and all test patients, and no difference")
    return score


def _stored(score: ModelScore) -> dict[str, Any]:
    return {"trained_on": score.arm.kind, "estimate": score.estimate}


CheckedScore = Annotated[
    ModelScore,
    BeforeValidator(_of_utility_check),
    AfterValidator(_of_a_checked_arm),
    PlainSerializer(_stored, return_type=dict[str, Any]),
]
"""A score of the utility check, written and read as ``trained_on`` and ``estimate``."""
