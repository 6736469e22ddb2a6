"""Whether to use synthetic images of a scarce label: what the privacy gate and the utility study say, as one answer."""

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
    "use inside": "Yes, but only where the real images may be seen",
    "instead": "No, something that costs nothing does as well",
    "no": "No, that they help was not shown",
    "harm": "No, they harm",
    "unsafe": "No, they may give patients away",
}


class AugmentPlan(Frozen):
    """What is proposed for a scarce label.

    Attributes:
        label: which.
        to: images of it that are wanted, real and synthetic together.
        images: real training images that show it.
        patients: their patients.
        training_images: real training images in all.
        planned: synthetic images that are missing.
        shares: shares of these that classifiers learn from.
        generators: seeds of the generator.
        trained: whether generators are trained for it, or given.
        classifiers: how many classifiers are trained.
        classifier_steps: of each.
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
        """Synthetic images per real one, for every share."""
        return tuple(share * self.planned / self.training_images for share in self.shares)

    def lines(self) -> tuple[str, ...]:
        """The plan in words."""
        made = "are trained on exactly these images" if self.trained else "are given"
        shares = ", ".join(f"{share:.0%}" for share in self.shares)
        counts = (
            f"{self.label}: {self.images:,} of {self.training_images:,} training images show it ({self.patients:,} "
            f"patients); {self.planned:,} synthetic ones make {self.to:,}, {self.planned / self.images:.2g} for each."
        )
        work = (
            f"{self.generators} generators {made}; the images are searched for copies of patients; then "
            f"{self.classifiers} classifiers ({self.classifier_steps} steps each) learn from real images, the same "
            f"oversampled, the same under classical augmentation, and both with synthetic ones ({shares} of the plan), "
            "and are tested on real patients."
        )
        return counts, work


class AugmentReport(Frozen):
    """The answer.

    Attributes:
        plan: what was done.
        decision: in a word.
        sentence: in words, with the numbers.
        verdict: of the privacy gate.
        verdict_reasons: of it.
        real_digest: digest of the real cohort.
        synthetic_digest: of the images that may be used; of the first generator.
        study: whether the utility study was done; it is not for images that may repeat patients.
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
        return parse_model(cls, read_json(path), path, ArtifactError, "is not an answer of this version; augment again")


def answer(plan: AugmentPlan, quality: QualityReport, study: StudyReport | None) -> AugmentReport:
    """Put the gate first, then what helps.

    Args:
        plan: what was done.
        quality: of the images, with the verdict of the gate.
        study: ``None`` where the gate failed.

    Raises:
        ValueError: there is no study although the gate did not fail, or it has no advice on the label.
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
        return "unsafe", f"{plan.label}: do not use the images, the privacy gate failed: {quality.verdict_reasons[0]}."
    if study is None:
        raise ValueError("the study is missing")
    advice = next(one for one in study.advice if one.label == plan.label)
    decision, sentence = DECISIONS[advice.recommendation], advice.sentence
    if decision == "use" and quality.verdict == "inconclusive":
        decision = "use inside"
        sentence += " Whether they repeat patients is not known: treat them as real images."
    if decision in {"use", "use inside"} and advice.arm is not None:
        overall = study.find(advice.arm, None).difference
        if overall is not None and overall.value is not None and overall.interval is not None:
            low, high = overall.interval
            sentence += f" All labels on average: AUROC {overall.value:+.3f} [{low:+.3f}, {high:+.3f}]."
    return decision, sentence
