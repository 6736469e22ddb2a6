"""The utility study: the same classifier taught in several ways, at equal steps, tested on the same real patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from cohorts.errors import InputError, UnsupportedClaim
from cohorts.preprocess import Preprocess
from cohorts.progress import Progress
from cohorts.records import SPLITS, Array
from cohorts.store import Cohort
from quality.config import StudyConfig
from quality.estimate import Estimate
from quality.material import Material
from quality.ranking import holm
from quality.targets import Targets, targets_of
from quality.utility.advice import advise
from quality.utility.cells import METADATA, REAL, Desk, Exam
from quality.utility.check import Counts, positives
from quality.utility.judging import Guesses, Trained, trained
from quality.utility.lessons import Examples, School
from quality.utility.metadata import metadata_guesses, metadata_table
from quality.utility.study_report import FREE, GroupGap, Measure, StudyReport, StudyScore, Taught
from quality.utility.subgroups import group_gaps, subgroups


def run_study(
    real: Cohort,
    synthetic: Sequence[Cohort],
    preprocess: Preprocess,
    config: StudyConfig,
    *,
    work: Path,
    external: dict[str, Cohort] | None = None,
    progress: Progress | None = None,
) -> StudyReport:
    """Teach classifiers from real and synthetic images, and test them on real patients.

    What has been trained is found again in ``work`` after an interruption.

    Args:
        real: real cohort; ``train`` teaches, ``test`` tests, thresholds are chosen on ``val``.
        synthetic: cohorts drawn by generators of different seeds that learned from exactly these training patients.
        preprocess: what the classifier sees.
        config: how.
        work: private folder.
        external: further cohorts to test on, by name; all their images count.
        progress: told how far it is.

    Raises:
        InputError: no synthetic cohort, or cohorts that cannot be compared.
        UnsupportedClaim: no labels, or no label with enough patients.
    """
    if config.task == "segmentation":
        from quality.utility.mask_study import run_mask_study

        return run_mask_study(real, synthetic, preprocess, config, work=work, external=external, progress=progress)
    if not synthetic:
        raise InputError("a utility study needs synthetic images", "generate some first")
    materials = [Material(real, cohort, preprocess) for cohort in synthetic]
    for material in materials:
        material.check()
    first = materials[0]
    if first.targets.source != "labels" or not first.rows["train"]:
        raise UnsupportedClaim("a utility study needs training images with labels")
    exams = [_exam(first), *(_external(first, name, one) for name, one in (external or {}).items())]
    check_counts(exams[0].counts, first.targets.names, config)
    school = School(
        Examples(first.images["train"], first.targets.values["train"]),
        tuple(Examples(material.synthetic_images, material.asked) for material in materials),
        tuple(first.targets.names),
        first.targets.exclusive,
        config,
        work,
        progress,
    )
    return Study(materials, school, exams, config).report()


def check_study(real: Cohort, config: StudyConfig) -> None:
    """Refuse a study before anything is trained for it.

    Raises:
        InputError: the cohort has no test patients, or not the label that the question is about.
        UnsupportedClaim: no labels, or no label with enough patients, or not the one that the question is about.
    """
    if config.task == "segmentation":
        from quality.utility.mask_study import check_mask_study

        check_mask_study(real, config)
        return
    rows: dict[str, list[int]] = {split: real.rows(split) for split in SPLITS}
    targets = targets_of(real, rows)
    if targets.source != "labels" or not rows["train"]:
        raise UnsupportedClaim("a utility study needs training images with labels")
    if not rows["test"]:
        raise InputError("the real cohort has no test patients", "ingest with a test split > 0")
    counts = _counts(real, targets, {split: real.patients(rows[split]) for split in ("train", "test")})
    check_counts(counts, targets.names, config)


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


def _counts(real: Cohort, targets: Targets, patients: dict[str, list[str]]) -> Counts:
    train, test = (positives(targets.values[split], np.asarray(patients[split])) for split in ("train", "test"))
    return Counts(train, test, "patients" if real.schema.patients == "known" else "images")


def _exam(material: Material) -> Exam:
    targets, patients = material.targets, material.patients
    counts = _counts(material.real, targets, patients)
    groups = subgroups(material.real, material.rows["test"], material.rows["train"])
    names = np.asarray(patients["test"])
    return Exam("test", material.images["test"], targets.values["test"], names, counts, tuple(groups))


def _external(material: Material, name: str, cohort: Cohort) -> Exam:
    """Another cohort, its labels in the order of ours; those that it does not know are not stated."""
    other = Material(material.real, cohort, material.preprocess)
    if not (other.asked >= 0).any():
        raise InputError(f"the external cohort {name} shares no label with the real one", "name labels alike")
    owners = np.asarray(cohort.patients())
    unit = "patients" if cohort.schema.patients == "known" else "images"
    train = positives(material.targets.values["train"], np.asarray(material.patients["train"]))
    counts = Counts(train=train, test=positives(other.asked, owners), unit=unit)
    return Exam(name, other.synthetic_images, other.asked, owners, counts)


class Classroom(Protocol):
    """What a study needs to know of its trainings."""

    @property
    def real(self) -> Sized:
        """Real training examples."""

    @property
    def synthetic(self) -> Sequence[Sized]:
        """Synthetic ones, one set per generator seed."""

    def lessons(self) -> tuple[Taught, ...]:
        """The arms, with their ratios."""

    def left_out(self) -> tuple[float, ...]:
        """Ratios that there are too few synthetic images for."""


@dataclass
class Study:
    """A study of classifiers; what is particular to them can be replaced.

    Attributes:
        materials: real and synthetic images, one per generator seed.
        school: teaches.
        exams: test sets; the first is that of the real cohort.
        config: how.
        guesses: what was seen, by arm and test set.
    """

    materials: list[Material]
    school: Classroom
    exams: list[Exam]
    config: StudyConfig
    guesses: dict[tuple[Taught, str], Guesses] = field(default_factory=dict)
    measure: ClassVar[Measure] = "AUROC"

    @property
    def targets(self) -> Targets:
        """What is learned."""
        return self.materials[0].targets

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
            real_images=len(self.school.real),
            real_patients=len(set(first.patients["train"])),
            test_images=len(test.images_NC),
            test_patients=len(set(test.patients.tolist())),
            synthetic_images=tuple(len(part) for part in self.school.synthetic),
            scores=tuple(scores),
            gaps=gaps,
            advice=tuple(advise(scores, asked, self.config.significance, self.measure)),
            warnings=tuple(self.warnings(gaps)),
        )

    def lessons(self) -> tuple[Taught, ...]:
        """The arms that were taught, and metadata where there are any."""
        known = (METADATA,) if (METADATA, "test") in self.guesses else ()
        return (*self.school.lessons(), *known)

    def learn(self) -> None:
        """All trainings; what every classifier sees in the test, val and synthetic images is kept."""
        school = self.school
        if not isinstance(school, School):
            raise TypeError("classifiers are taught by a School")
        val = self.materials[0].images["val"]
        looked = [exam.images_NC for exam in self.exams]
        done = 0
        for taught in school.lessons():
            sets = [*looked, *([val] if len(val) else [])]
            if taught == REAL:
                sets += [material.synthetic_images for material in self.materials]
            found = school.teach(taught, sets, done)
            done += found[0].by_seed.shape[0] * self.config.classifier_seeds
            of_val = found[len(looked)].by_seed if len(val) else None
            for exam, made in zip(self.exams, found, strict=False):
                self.guesses[taught, exam.name] = Guesses(made.by_seed, of_val)
            if taught == REAL:
                for number, made in enumerate(found[-len(self.materials) :]):
                    self.guesses[taught, f"synthetic {number}"] = made
        first = self.materials[0]
        train, test = (metadata_table(first.real, first.rows[split]) for split in ("train", "test"))
        known = metadata_guesses(train, self.targets.values["train"], test, exclusive=self.targets.exclusive)
        if known is not None:
            self.guesses[METADATA, "test"] = Guesses(known[None, None])

    # ---- scores ----

    def scores(self, exam: Exam) -> Iterator[StudyScore]:
        """All cells of one test set, corrected for their number."""
        known = [taught for taught in self.lessons() if (taught, exam.name) in self.guesses]
        for arm in dict.fromkeys(taught.arm for taught in known):
            cells = [cell for taught in known if taught.arm == arm for cell in self.desk(taught, exam).cells()]
            tested = [cell.p if self.asked(cell.estimate.label) else None for cell in cells]
            for cell, p in zip(cells, holm(tested), strict=True):
                alone = cell.p if cell.estimate.label is None else p
                yield cell.model_copy(update={"p_holm": alone})
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

    def asked(self, label: str | None) -> bool:
        """Whether the study's question is about a label."""
        return label is not None and label in (self.config.primary or self.targets.names)

    def on_synthetic(self) -> Iterator[StudyScore]:
        """Trained on real, tested on synthetic images (TRTS): a diagnostic of the labels, not of use."""
        for place, label in enumerate(self.targets.names):
            found = []
            for number, material in enumerate(self.materials):
                made = self.guesses[REAL, f"synthetic {number}"]
                one = trained(made, material.asked, place, np.arange(len(material.asked)))
                if one is not None:
                    found.append(one)
            if len(found) < len(self.materials):
                continue
            values = [one.mean.value for one in found]
            estimate = Estimate(
                name="utility",
                estimand="AUROC on synthetic images, of what they were asked to show, of a classifier taught real",
                value=float(np.mean(values)),
                interval=found[0].interval() if len(found) == 1 else None,
                spread=(min(values), max(values)),
                method=f"mean over {len(found)} generators, range over them",
                n_synthetic=sum(len(material.asked) for material in self.materials),
                better="higher",
                label=label,
            )
            yield StudyScore(taught=REAL, test="synthetic", measure="AUROC", estimate=estimate)

    def by_group(self, taught: Taught, rows: Array) -> dict[str, Trained]:
        """AUROC of every label that a subgroup of the test patients has enough of, by label."""
        exam = self.exams[0]
        found = {}
        for place, label in enumerate(self.targets.names):
            if exam.counts.refusal(place, self.config) is not None:
                continue
            shows = exam.values_NT[rows, place] == 1
            lacks = exam.values_NT[rows, place] == 0
            sizes = [len(np.unique(exam.patients[rows][side])) for side in (shows, lacks)]
            if min(sizes) < self.config.least_test:
                continue
            made = trained(self.guesses[taught, "test"], exam.values_NT, place, exam.patients, rows)
            if made is not None:
                found[label] = made
        return found

    def warnings(self, gaps: Sequence[GroupGap]) -> Iterator[str]:
        """What a reader must know before quoting a number."""
        if len(self.materials) < 2:
            yield "one generator seed: the luck of the generator's training is in no interval"
        for ratio in self.school.left_out():
            yield f"there are too few synthetic images for {ratio:g} per real one, which was left out"
        if self.materials[0].real.schema.patients == "per_image":
            yield "the source named no patients: images of one may lie in training and test, which flatters every arm"
        for gap in gaps:
            if gap.widened:
                yield f"{gap.taught.words}: the gap between groups of {gap.attribute} is wider than with real images"
