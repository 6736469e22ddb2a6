"""What every utility study does: arms compared on the same real patients, corrected for their number, and advice."""

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
from medphantom.quality.data.material import Material
from medphantom.quality.data.targets import Targets
from medphantom.quality.results.study_report import FREE, MEASURES, GroupGap, StudyReport, StudyScore, Taught
from medphantom.quality.stats.correction import holm
from medphantom.quality.utility.advice import advise
from medphantom.quality.utility.cells import METADATA, REAL, Desk, Exam
from medphantom.quality.utility.check import Counts
from medphantom.quality.utility.judging import Guesses, Trained
from medphantom.quality.utility.lessons import School
from medphantom.quality.utility.subgroups import group_gaps


def check_counts(counts: Counts, names: Sequence[str], config: StudyConfig) -> None:
    """Refuse a study that no label, or not the one that the question is about, has enough patients for.

    Raises:
        InputError: the question is about a label that there is none of.
        UnsupportedClaim: too few patients.
    """
    refusals = [counts.refusal(place, config) for place in range(len(names))]
    for label in config.primary:
        if label not in names:
            raise InputError(f"the cohort has no label {label!r}", f"it has {', '.join(names)}")
        why = refusals[list(names).index(label)]
        if why is not None:
            raise UnsupportedClaim(f"whether synthetic images help {label!r} cannot be said: {why}")
    if all(refusals):
        raise UnsupportedClaim(f"no label has enough patients for a utility study ({names[0]}: {refusals[0]})")


@dataclass
class Study(ABC):
    """What studies of classifiers and of segmenters have in common.

    Attributes:
        materials: real and synthetic images, one per generator seed.
        exams: test sets; the first is that of the real cohort.
        config: how.
        school: teaches.
        guesses: what was seen, by arm and test set.
    """

    materials: list[Material]
    exams: list[Exam]
    config: StudyConfig
    school: School[Any]
    guesses: dict[tuple[Taught, str], Guesses] = field(default_factory=dict, kw_only=True)

    @property
    @abstractmethod
    def targets(self) -> Targets:
        """What is learned."""

    def report(self) -> StudyReport:
        """Everything."""
        self.learn()
        scores = [score for exam in self.exams for score in self.scores(exam)]
        scores += self.on_synthetic()
        test = self.exams[0]
        gaps = tuple(group_gaps(test.groups, self.by_group, [t for t in self.lessons() if t.arm != "metadata"]))
        first, asked = self.materials[0], self.config.primary or self.targets.names
        return StudyReport(
            real_digest=first.real.digest,
            synthetic_digests=tuple(material.synthetic.digest for material in self.materials),
            config=self.config,
            readings=self.readings(),
            real_images=len(self.school.real),
            real_patients=len(set(first.patients["train"])),
            test_images=len(test.images_NC),
            test_patients=len(set(test.patients.tolist())),
            synthetic_images=tuple(len(part) for part in self.school.synthetic),
            scores=tuple(scores),
            gaps=gaps,
            advice=tuple(advise(scores, asked, self.config.significance, MEASURES[self.config.task])),
            warnings=tuple(self.warnings(gaps)),
        )

    def lessons(self) -> tuple[Taught, ...]:
        """The arms that were taught, and metadata where there are any."""
        known = (METADATA,) if (METADATA, "test") in self.guesses else ()
        return (*self.school.lessons(), *known)

    @abstractmethod
    def learn(self) -> None:
        """All trainings; what every network sees is kept."""

    def scores(self, exam: Exam) -> Iterator[StudyScore]:
        """All cells of one test set, corrected for their number: labels, arms and ratios are one family."""
        known = [taught for taught in self.lessons() if (taught, exam.name) in self.guesses]
        cells = [cell for taught in known for cell in self.desk(taught, exam).cells()]
        tested = [cell.p if self.tests(cell.estimate.label) else None for cell in cells]
        for cell, p in zip(cells, holm(tested), strict=True):
            yield cell.model_copy(update={"p_holm": p})
        for taught in known:
            if taught.arm != "metadata":
                yield from self.desk(taught, exam).secondary()

    def desk(self, taught: Taught, exam: Exam) -> Desk:
        """What the cells of an arm are made of."""
        guesses, real = self.guesses[taught, exam.name], self.guesses[REAL, exam.name]
        free = {
            other: found for (other, name), found in self.guesses.items() if other.arm in FREE and name == exam.name
        }
        return Desk(taught, exam, guesses, real, self.targets, self.config, free)

    def tests(self, label: str | None) -> bool:
        """Whether the study's question is about a label; it always is about all of them on average."""
        return label is None or label in (self.config.primary or self.targets.names)

    def on_synthetic(self) -> Iterator[StudyScore]:
        """Scores on synthetic images, where a study has them."""
        yield from ()

    @abstractmethod
    def by_group(self, taught: Taught, rows: Array) -> dict[str, Trained]:
        """The measure of every label that a subgroup of the test patients has enough of, by label."""

    def readings(self) -> dict[str, Reading]:
        """How the values of every cohort were read."""
        first = self.materials[0]
        made = {f"synthetic {number}": material.reading for number, material in enumerate(self.materials, 1)}
        outside = {exam.name: exam.reading for exam in self.exams if exam.reading is not None}
        return {"real": own_reading(first.real, first.preprocess), **made, **outside}

    def warnings(self, gaps: Sequence[GroupGap]) -> Iterator[str]:
        """What a reader must know before quoting a number."""
        if len(self.materials) < 2:
            yield "one generator seed: the luck of the generator's training is in no interval"
        for ratio in self.school.left_out():
            yield f"there are too few synthetic images for {ratio:g} per real one, which was left out"
        if self.materials[0].real.schema.patients == "per_image":
            yield "the source named no patients: images of one may lie in training and test, which flatters every arm"
        if (left_out := left_out_sentence(self.materials[0].real)) is not None:
            yield left_out
        for gap in gaps:
            if gap.widened:
                yield f"{gap.taught.words}: the gap between groups of {gap.attribute} is wider than with real images"
