"""Recommendation on synthetic images of a rare label, combining the privacy gate and the utility study."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from medphantom.core.errors import ArtifactError
from medphantom.core.folders import read_json, write_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.quality.results.quality_report import QualityReport, Verdict
from medphantom.quality.results.study_report import Recommendation, StudyReport

Decision = Literal["use", "use inside", "instead", "no", "harm", "unsafe"]
DECISIONS: dict[Recommendation, Decision] = {"add": "use", "instead": "instead", "no gain": "no", "harm": "harm"}
HEADLINES: dict[Decision, str] = {
    "use": "Yes, use them",
    "use inside": "Yes, but only where access to the real images is allowed",
    "instead": "No, a method without synthetic images performs as well",
    "no": "No, a benefit was not shown",
    "harm": "No, they reduce performance",
    "unsafe": "No, they may reveal training patients",
}


class AugmentPlan(Frozen):
    """The proposed augmentation of a rare label.

    Attributes:
        label: label to be augmented.
        to: target number of images of the label, real and synthetic together.
        images: number of real training images with the label.
        patients: number of patients of these images.
        training_images: number of all real training images.
        planned: number of synthetic images needed to reach the target.
        shares: shares of the planned images on which classifiers are trained.
        generators: number of generator seeds.
        trained: whether generators are trained for the plan; otherwise they are given.
        classifiers: number of classifiers that are trained.
        classifier_steps: optimiser steps of each classifier.
    """

    label: str
    to: int
    images: int
    patients: int
    training_images: int
    planned: int
    shares: tuple[float, ...]
    generators: int
    trained: bool
    classifiers: int
    classifier_steps: int

    @property
    def ratios(self) -> tuple[float, ...]:
        """Mixing ratio (synthetic images per real image) of every share."""
        return tuple(share * self.planned / self.training_images for share in self.shares)

    def lines(self) -> tuple[str, ...]:
        """The plan in words."""
        made = "are trained on exactly these images" if self.trained else "are given"
        shares = ", ".join(f"{share:.0%}" for share in self.shares)
        counts = (
            f"{self.label}: {self.images:,} of {self.training_images:,} training images have this label "
            f"({self.patients:,} patients); {self.planned:,} synthetic images increase this to {self.to:,} "
            f"({self.planned / self.images:.2g} per real image)."
        )
        work = (
            f"{self.generators} generators {made}; the images are searched for copies of training images; then "
            f"{self.classifiers} classifiers ({self.classifier_steps} steps each) are trained on real images, with "
            f"oversampling or classical augmentation, and with synthetic images ({shares} of the planned images), and "
            "tested on real patients."
        )
        return counts, work


class AugmentReport(Frozen):
    """The recommendation and its basis.

    Attributes:
        plan: augmentation that was tested.
        decision: decision as a keyword.
        sentence: recommendation in words, with the numbers.
        verdict: verdict of the privacy gate.
        verdict_reasons: reasons for the verdict.
        real_digest: digest of the real cohort.
        synthetic_digest: digest of the synthetic images of the first generator, which may be used.
        study: whether the utility study was done; it is omitted if the privacy gate fails.
    """

    format_version: Literal[2] = 2
    plan: AugmentPlan
    decision: Decision
    sentence: str
    verdict: Verdict
    verdict_reasons: tuple[str, ...]
    real_digest: str
    synthetic_digest: str
    study: bool

    @property
    def headline(self) -> str:
        """The decision as a short sentence."""
        return HEADLINES[self.decision]

    def save(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> AugmentReport:
        """Read :meth:`save`.

        Raises:
            ArtifactError: the file is missing, damaged or of another format version.
        """
        return parse_model(
            cls, read_json(path), path, ArtifactError, "is not an augmentation report of this version; augment again"
        )


def answer(plan: AugmentPlan, quality: QualityReport, study: StudyReport | None) -> AugmentReport:
    """Derive the recommendation from the privacy gate, then from the utility study.

    Args:
        plan: augmentation that was tested.
        quality: quality report of the images, with the verdict of the gate.
        study: utility study; ``None`` if the gate failed.

    Raises:
        ValueError: the study is missing although the gate did not fail, or it has no advice on the label.
    """
    decision, sentence = _decide(plan, quality, study)
    return AugmentReport(
        plan=plan,
        decision=decision,
        sentence=sentence,
        verdict=quality.verdict,
        verdict_reasons=quality.verdict_reasons,
        real_digest=quality.real_digest,
        synthetic_digest=quality.synthetic_digest,
        study=study is not None,
    )


def _decide(plan: AugmentPlan, quality: QualityReport, study: StudyReport | None) -> tuple[Decision, str]:
    if quality.verdict == "fail":
        return (
            "unsafe",
            f"{plan.label}: do not use the images, because the privacy gate failed: {quality.verdict_reasons[0]}.",
        )
    if study is None:
        raise ValueError("the study is missing")
    advice = next(one for one in study.advice if one.label == plan.label)
    decision, sentence = DECISIONS[advice.recommendation], advice.sentence
    if decision == "use" and quality.verdict == "inconclusive":
        decision = "use inside"
        sentence += " It is not known whether they contain copies of patients, so treat them as real images."
    if decision in {"use", "use inside"} and advice.arm is not None:
        overall = study.find(advice.arm, None).difference
        if overall is not None and overall.value is not None and overall.interval is not None:
            low, high = overall.interval
            sentence += f" Mean over labels: AUROC {overall.value:+.3f} [{low:+.3f}, {high:+.3f}]."
    return decision, sentence
