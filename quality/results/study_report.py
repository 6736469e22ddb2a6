"""The results of a utility study as one frozen value: numbers and label names, without data of any patient."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medphantom.cohorts.scale import Reading
from medphantom.core.errors import ArtifactError
from medphantom.core.folders import read_json, write_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.quality.config import StudyConfig
from medphantom.quality.results.model_score import Measure, ModelScore, TrainingArm
from medphantom.quality.stats.estimate import Estimate

Recommendation = Literal["add", "instead", "no gain", "harm", "refused"]


class GroupGap(Frozen):
    """The performance gap between two subgroups.

    Attributes:
        arm: training arm of the downstream model.
        attribute: attribute that defines the subgroups.
        better: subgroup with the highest score in the arm *real*.
        worse: subgroup with the lowest score in the arm *real*.
        gap: mean AUROC of ``better`` minus that of ``worse``.
        change: the gap minus that of *real*; ``None`` for *real* itself.
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
    """The recommendation for one label.

    Attributes:
        label: label of the recommendation; ``None`` for the mean over labels.
        recommendation: recommendation as a keyword.
        arm: recommended arm, or the one with the largest gain.
        sentence: recommendation in words, with the numbers.
    """

    label: str | None
    recommendation: Recommendation
    arm: TrainingArm | None
    sentence: str


class StudyReport(Frozen):
    """The result of :func:`medphantom.quality.utility.study.run_study`.

    Attributes:
        real_digest: digest of the real cohort.
        synthetic_digests: digests of the synthetic cohorts, one per generator seed.
        config: settings of the study.
        readings: how intensity values were read, for ``real``, ``synthetic 1``, … and external cohorts.
        real_images: number of real training images.
        real_patients: number of real training patients.
        test_images: number of real test images.
        test_patients: number of real test patients.
        synthetic_images: number of synthetic images per generator seed.
        scores: scores of all arms.
        gaps: differences in performance between subgroups.
        advice: recommendations by label, starting with the mean over labels.
        warnings: warnings that a reader must know before citing a number.
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
    scores: tuple[ModelScore, ...]
    gaps: tuple[GroupGap, ...] = ()
    advice: tuple[Advice, ...] = ()
    warnings: tuple[str, ...] = Field(default=())

    def find(
        self, arm: TrainingArm, label: str | None, *, measure: Measure = "AUROC", test: str = "test"
    ) -> ModelScore:
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
