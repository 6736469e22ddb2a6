"""The common part of all utility studies: arms compared on the same real patients, multiple testing, and advice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from medphantom.cohorts.overview import left_out_sentence
from medphantom.cohorts.scale import Reading, own_reading
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.config import StudyConfig
from medphantom.quality.data.evaluation_data import EvaluationData
from medphantom.quality.data.targets import Targets
from medphantom.quality.results.model_score import FREE, MEASURES, ModelScore, TrainingArm
from medphantom.quality.results.study_report import GroupGap, StudyReport
from medphantom.quality.stats.correction import holm
from medphantom.quality.utility.advice import advise
from medphantom.quality.utility.cells import METADATA, REAL, Evaluation, TestSet
from medphantom.quality.utility.check import Counts
from medphantom.quality.utility.repeated import Predictions, RepeatedScore
from medphantom.quality.utility.subgroups import group_gaps
from medphantom.quality.utility.trainers import ArmTrainer


def check_counts(counts: Counts, names: Sequence[str], config: StudyConfig) -> None:
    """Refuse a study if no label, or not every label of interest, has enough patients.

    Raises:
        InputError: the cohort has no label of that name.
        UnsupportedClaim: there are too few patients.
    """
    refusals = [counts.refusal(place, config) for place in range(len(names))]
    for label in config.primary:
        if label not in names:
            raise InputError(f"the cohort has no label {label!r}", f"it has {', '.join(names)}")
        why = refusals[list(names).index(label)]
        if why is not None:
            raise UnsupportedClaim(f"the effect of synthetic images on {label!r} cannot be measured: {why}")
    if all(refusals):
        raise UnsupportedClaim(f"no label has enough patients for a utility study ({names[0]}: {refusals[0]})")


@dataclass
class Study(ABC):
    """A study of classifiers or segmenters.

    Attributes:
        evaluations: evaluation data of real and synthetic images, one per generator seed.
        test_sets: test sets, starting with that of the real cohort.
        config: settings of the study.
        trainer: trainer of the downstream models.
        predictions: predictions by arm and test set.
    """

    evaluations: list[EvaluationData]
    test_sets: list[TestSet]
    config: StudyConfig
    trainer: ArmTrainer[Any]
    predictions: dict[tuple[TrainingArm, str], Predictions] = field(default_factory=dict, kw_only=True)

    @property
    @abstractmethod
    def targets(self) -> Targets:
        """Targets of the downstream models."""

    def report(self) -> StudyReport:
        """Train all arms, score them, and derive the advice."""
        self.learn()
        scores = [score for test_set in self.test_sets for score in self.scores(test_set)]
        scores += self.on_synthetic()
        test = self.test_sets[0]
        gaps = tuple(group_gaps(test.groups, self.by_group, [t for t in self.arms() if t.kind != "metadata"]))
        first, labels = self.evaluations[0], self.config.primary or self.targets.names
        return StudyReport(
            real_digest=first.real.digest,
            synthetic_digests=tuple(data.synthetic.digest for data in self.evaluations),
            config=self.config,
            readings=self.readings(),
            real_images=len(self.trainer.real),
            real_patients=len(set(first.patients["train"])),
            test_images=len(test.images_NC),
            test_patients=len(set(test.patients.tolist())),
            synthetic_images=tuple(len(part) for part in self.trainer.synthetic),
            scores=tuple(scores),
            gaps=gaps,
            advice=tuple(advise(scores, labels, self.config.significance, MEASURES[self.config.task])),
            warnings=tuple(self.warnings(gaps)),
        )

    def arms(self) -> tuple[TrainingArm, ...]:
        """The trained arms, and the metadata baseline if there are attributes."""
        known = (METADATA,) if (METADATA, "test") in self.predictions else ()
        return (*self.trainer.arms(), *known)

    @abstractmethod
    def learn(self) -> None:
        """Train all arms and keep the predictions of every network."""

    def scores(self, test_set: TestSet) -> Iterator[ModelScore]:
        """All scores of one test set; p values are corrected over labels, arms and ratios as one family."""
        known = [arm for arm in self.arms() if (arm, test_set.name) in self.predictions]
        cells = [cell for arm in known for cell in self.evaluation(arm, test_set).cells()]
        tested = [cell.p if self.tests(cell.estimate.label) else None for cell in cells]
        for cell, p in zip(cells, holm(tested), strict=True):
            yield cell.model_copy(update={"p_holm": p})
        for arm in known:
            if arm.kind != "metadata":
                yield from self.evaluation(arm, test_set).secondary()

    def evaluation(self, arm: TrainingArm, test_set: TestSet) -> Evaluation:
        """The predictions from which the scores of an arm are computed."""
        predictions, real = self.predictions[arm, test_set.name], self.predictions[REAL, test_set.name]
        free = {
            other: found
            for (other, name), found in self.predictions.items()
            if other.kind in FREE and name == test_set.name
        }
        return Evaluation(arm, test_set, predictions, real, self.targets, self.config, free)

    def tests(self, label: str | None) -> bool:
        """Whether hypotheses about a label are tested; those about the mean over labels always are."""
        return label is None or label in (self.config.primary or self.targets.names)

    def on_synthetic(self) -> Iterator[ModelScore]:
        """Scores on synthetic images, if a study has any."""
        yield from ()

    @abstractmethod
    def by_group(self, arm: TrainingArm, rows: Array) -> dict[str, RepeatedScore]:
        """Scores by label for a subgroup of test patients, for labels with enough patients in it."""

    def readings(self) -> dict[str, Reading]:
        """How the intensity values of every cohort were read."""
        first = self.evaluations[0]
        made = {f"synthetic {number}": data.reading for number, data in enumerate(self.evaluations, 1)}
        outside = {test_set.name: test_set.reading for test_set in self.test_sets if test_set.reading is not None}
        return {"real": own_reading(first.real, first.preprocess), **made, **outside}

    def warnings(self, gaps: Sequence[GroupGap]) -> Iterator[str]:
        """Warnings that a reader must know before citing a number."""
        if len(self.evaluations) < 2:
            yield (
                "there is only one generator seed: the intervals do not include the variance between generator "
                "trainings"
            )
        for ratio in self.trainer.left_out():
            yield f"there are too few synthetic images for the mixing ratio {ratio:g}, which was omitted"
        if self.evaluations[0].real.schema.patients == "per_image":
            yield (
                "patients are unknown: images of one patient may be in the training and test sets, which makes every "
                "arm look better than it is"
            )
        if (left_out := left_out_sentence(self.evaluations[0].real)) is not None:
            yield left_out
        for gap in gaps:
            if gap.widened:
                yield (
                    f"{gap.arm.words}: the performance gap between subgroups of {gap.attribute} is wider than with "
                    "real images"
                )
