"""The utility study of labels: the same classifier taught in several ways, its AUROC on real test patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import SPLITS
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.core.progress import Progress
from medphantom.core.records import Array
from medphantom.quality.config import StudyConfig
from medphantom.quality.data.material import Material
from medphantom.quality.data.targets import Targets, positives, targets_of
from medphantom.quality.results.study_report import StudyReport, StudyScore, Taught
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.utility.base_study import Study, check_counts
from medphantom.quality.utility.cells import METADATA, REAL, Exam
from medphantom.quality.utility.check import Counts
from medphantom.quality.utility.judging import Guesses, Trained, trained
from medphantom.quality.utility.lessons import Examples, LabelSchool
from medphantom.quality.utility.metadata import metadata_guesses, metadata_table
from medphantom.quality.utility.subgroups import subgroups

UNIT = "ingest both cohorts with values in the same unit"


def run_label_study(
    real: Cohort,
    synthetic: Sequence[Cohort],
    preprocess: Preprocess,
    config: StudyConfig,
    *,
    work: Path,
    external: dict[str, Cohort] | None = None,
    progress: Progress | None = None,
) -> StudyReport:
    """As :func:`medphantom.quality.utility.study.run_study`, of labels.

    Raises:
        InputError: no synthetic cohort, or cohorts that cannot be compared.
        UnsupportedClaim: no labels, or no label with enough patients.
    """
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
    school = LabelSchool(
        Examples(first.images["train"], first.targets.values["train"]),
        tuple(Examples(material.synthetic_images, material.asked) for material in materials),
        config,
        work,
        progress,
        tuple(first.targets.names),
        first.targets.exclusive,
    )
    return LabelStudy(materials, exams, config, school).report()


def check_label_study(real: Cohort, config: StudyConfig) -> None:
    """As :func:`medphantom.quality.utility.study.check_study`, of labels.

    Raises:
        InputError: the cohort has no test patients, or not the label that the question is about.
        UnsupportedClaim: no labels, or no label with enough patients, or not the one that the question is about.
    """
    rows: dict[str, list[int]] = {split: real.rows(split) for split in SPLITS}
    targets = targets_of(real, rows)
    if targets.source != "labels" or not rows["train"]:
        raise UnsupportedClaim("a utility study needs training images with labels")
    if not rows["test"]:
        raise InputError("the real cohort has no test patients", "ingest with a test split > 0")
    counts = _counts(real, targets, {split: real.patients(rows[split]) for split in ("train", "test")})
    check_counts(counts, targets.names, config)


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
    other = Material(material.real, cohort, material.preprocess, called=f"images of {name}", remedy=UNIT)
    if not (other.asked >= 0).any():
        raise InputError(f"the external cohort {name} shares no label with the real one", "name labels alike")
    owners = np.asarray(cohort.patients())
    unit = "patients" if cohort.schema.patients == "known" else "images"
    train = positives(material.targets.values["train"], np.asarray(material.patients["train"]))
    counts = Counts(train=train, test=positives(other.asked, owners), unit=unit)
    return Exam(name, other.synthetic_images, other.asked, owners, counts, reading=other.reading)


@dataclass
class LabelStudy(Study):
    """The study of classifiers.

    Attributes:
        school: teaches.
    """

    school: LabelSchool

    @property
    def targets(self) -> Targets:
        """What is learned."""
        return self.materials[0].targets

    def learn(self) -> None:
        """All trainings; what every classifier sees in the test, val and synthetic images is kept."""
        school = self.school
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
