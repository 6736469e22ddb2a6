"""What the utility study found, as one frozen value: numbers and names of labels, nothing of any patient."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medphantom.cohorts.scale import Reading
from medphantom.core.errors import ArtifactError
from medphantom.core.folders import read_json, write_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.quality.config import StudyArm, StudyConfig
from medphantom.quality.stats.estimate import Estimate

Measure = Literal["AUROC", "Dice", "accuracy", "average precision", "balanced accuracy", "calibration error"]
MEASURES: dict[Literal["classification", "segmentation"], Measure] = {"classification": "AUROC", "segmentation": "Dice"}
Recommendation = Literal["add", "instead", "no gain", "harm", "refused"]
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
"""Arms that take real and synthetic images, at every ratio."""
FREE: tuple[StudyArm, ...] = ("classical", "oversampled")
"""Arms that cost neither a generator nor privacy: what synthetic images have to beat."""


class TrainingArm(Frozen):
    """What a classifier learned from.

    Attributes:
        kind: which way; ``metadata`` is a logistic regression on attributes.
        ratio: synthetic images per real one; ``None`` where there is no choice of it.
    """

    kind: StudyArm | Literal["metadata"]
    ratio: float | None = None

    @property
    def words(self) -> str:
        """For tables."""
        return ARM_WORDS[self.kind] + ("" if self.ratio is None else f" ({self.ratio:.3g} x)")


class Beside(Frozen):
    """A mixing arm less one that costs nothing.

    Attributes:
        arm: the arm that costs nothing.
        difference: on the same patients and seeds.
        p: two-sided, that it is zero.
    """

    arm: TrainingArm
    difference: Estimate
    p: float


class StudyScore(Frozen):
    """One cell of the table.

    Attributes:
        arm: what was learned from.
        test: ``test``, ``synthetic`` (diagnostic: trained on real, tested on synthetic images), or an external cohort.
        measure: what is scored.
        group: subgroup of the test patients, such as ``sex = F``; ``None``: all.
        estimate: mean over classifier and generator seeds; its label is ``None`` for the mean over labels.
        by_seed: the values behind the mean.
        difference: the same less that of *real*, on the same patients and seeds; ``None`` for *real* itself.
        p: two-sided, that the difference is zero.
        p_holm: after Holm's correction over labels, arms and ratios, the mean over labels among them; ``None`` for
            labels that the question is not about.
        beside: of an arm that mixes real and synthetic images: the same less arms that cost nothing.
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
    beside: tuple[Beside, ...] = ()


class GroupGap(Frozen):
    """How far apart two subgroups are served.

    Attributes:
        arm: what was learned from.
        attribute: what the groups differ in.
        better: the group that *real* serves best.
        worse: the group that it serves worst.
        gap: mean AUROC of ``better`` less that of ``worse``.
        change: the gap less that of *real*; ``None`` for *real* itself.
        widened: whether the interval of ``change`` lies above zero.
    """

    arm: TrainingArm
    attribute: str
    better: str
    worse: str
    gap: Estimate
    change: Estimate | None = None
    widened: bool = False


class Advice(Frozen):
    """What to do about one label.

    Attributes:
        label: which; ``None``: all of them on average.
        recommendation: in one word.
        arm: the arm that is advised or was nearest to helping.
        sentence: in words, with the numbers.
    """

    label: str | None
    recommendation: Recommendation
    arm: TrainingArm | None
    sentence: str


class StudyReport(Frozen):
    """The result of :func:`medphantom.quality.utility.study.run_study`.

    Attributes:
        real_digest: digest of the real cohort.
        synthetic_digests: of the synthetic cohorts, one per generator seed.
        config: how it was done.
        readings: how values were read, of ``real``, ``synthetic 1``, … and the external cohorts.
        real_images: real images learned from.
        real_patients: their patients.
        test_images: real test images.
        test_patients: their patients.
        synthetic_images: synthetic images per generator seed.
        scores: the table.
        gaps: subgroups beside each other.
        advice: by label, the mean over labels first.
        warnings: what to know before quoting a number.
    """

    format_version: Literal[2] = 2
    real_digest: str
    synthetic_digests: tuple[str, ...]
    config: StudyConfig
    readings: dict[str, Reading] = Field(default_factory=dict)
    real_images: int
    real_patients: int
    test_images: int
    test_patients: int
    synthetic_images: tuple[int, ...]
    scores: tuple[StudyScore, ...]
    gaps: tuple[GroupGap, ...] = ()
    advice: tuple[Advice, ...] = ()
    warnings: tuple[str, ...] = Field(default=())

    def find(
        self, arm: TrainingArm, label: str | None, *, measure: Measure = "AUROC", test: str = "test"
    ) -> StudyScore:
        """The score of all test patients.

        Raises:
            KeyError: there is none.
        """
        for score in self.scores:
            key = (score.arm, score.estimate.label, score.measure, score.test, score.group)
            if key == (arm, label, measure, test, None):
                return score
        raise KeyError((arm, label, measure, test))

    def save(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> StudyReport:
        """Read :meth:`save`.

        Raises:
            ArtifactError: the file is missing, damaged or of another format version.
        """
        return parse_model(
            cls, read_json(path), path, ArtifactError, "is not a utility study of this version; do the study again"
        )
