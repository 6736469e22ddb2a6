"""The utility study of labels: the same classifier trained in several arms, scored by AUROC on real test patients."""

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
from medphantom.quality.data.evaluation_data import EvaluationData
from medphantom.quality.data.targets import Targets, positives, targets_of
from medphantom.quality.results.model_score import ModelScore, TrainingArm
from medphantom.quality.results.study_report import StudyReport
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.utility.base_study import Study, check_counts
from medphantom.quality.utility.cells import METADATA, REAL, TestSet
from medphantom.quality.utility.check import Counts
from medphantom.quality.utility.metadata import metadata_predictions, metadata_table
from medphantom.quality.utility.repeated import Predictions, RepeatedScore, trained
from medphantom.quality.utility.subgroups import subgroups
from medphantom.quality.utility.trainers import ClassifierTrainer, Examples

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
    """As :func:`medphantom.quality.utility.study.run_study`, for labels.

    Raises:
        InputError: there is no synthetic cohort, or the cohorts cannot be compared.
        UnsupportedClaim: there are no labels, or no label has enough patients.
    """
    if not synthetic:
        raise InputError("a utility study needs synthetic images", "generate some first")
    evaluations = [EvaluationData(real, cohort, preprocess) for cohort in synthetic]
    for data in evaluations:
        data.check()
    first = evaluations[0]
    if first.targets.source != "labels" or not first.rows["train"]:
        raise UnsupportedClaim("a utility study needs training images with labels")
    test_sets = [_test_set(first), *(_external(first, name, one) for name, one in (external or {}).items())]
    check_counts(test_sets[0].counts, first.targets.names, config)
    trainer = ClassifierTrainer(
        Examples(first.images["train"], first.targets.values["train"]),
        tuple(Examples(data.synthetic_images, data.requested) for data in evaluations),
        config,
        work,
        progress,
        tuple(first.targets.names),
        first.targets.exclusive,
    )
    return LabelStudy(evaluations, test_sets, config, trainer).report()


def check_label_study(real: Cohort, config: StudyConfig) -> None:
    """As :func:`medphantom.quality.utility.study.check_study`, for labels.

    Raises:
        InputError: the cohort has no test patients, or not all labels of interest.
        UnsupportedClaim: there are no labels, or no label, or not every label of interest, has enough patients.
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


def _test_set(data: EvaluationData) -> TestSet:
    targets, patients = data.targets, data.patients
    counts = _counts(data.real, targets, patients)
    groups = subgroups(data.real, data.rows["test"], data.rows["train"])
    names = np.asarray(patients["test"])
    return TestSet("test", data.images["test"], targets.values["test"], names, counts, tuple(groups))


def _external(data: EvaluationData, name: str, cohort: Cohort) -> TestSet:
    """The test set of an external cohort, with labels in the order of the real cohort and -1 for those it lacks."""
    other = EvaluationData(data.real, cohort, data.preprocess, called=f"images of {name}", remedy=UNIT)
    if not (other.requested >= 0).any():
        raise InputError(f"the external cohort {name} shares no label with the real one", "use the same label names")
    owners = np.asarray(cohort.patients())
    unit = "patients" if cohort.schema.patients == "known" else "images"
    train = positives(data.targets.values["train"], np.asarray(data.patients["train"]))
    counts = Counts(train=train, test=positives(other.requested, owners), unit=unit)
    return TestSet(name, other.synthetic_images, other.requested, owners, counts, reading=other.reading)


@dataclass
class LabelStudy(Study):
    """The study of classifiers.

    Attributes:
        trainer: trainer of the classifiers.
    """

    trainer: ClassifierTrainer

    @property
    def targets(self) -> Targets:
        """Targets of the classifiers."""
        return self.evaluations[0].targets

    def learn(self) -> None:
        """Train all arms and keep the predictions for test, val and synthetic images."""
        trainer = self.trainer
        val = self.evaluations[0].images["val"]
        looked = [test_set.images_NC for test_set in self.test_sets]
        done = 0
        for arm in trainer.arms():
            sets = [*looked, *([val] if len(val) else [])]
            if arm == REAL:
                sets += [data.synthetic_images for data in self.evaluations]
            found = trainer.train(arm, sets, done)
            done += found[0].by_seed.shape[0] * self.config.classifier_seeds
            of_val = found[len(looked)].by_seed if len(val) else None
            for test_set, made in zip(self.test_sets, found, strict=False):
                self.predictions[arm, test_set.name] = Predictions(made.by_seed, of_val)
            if arm == REAL:
                for number, made in enumerate(found[-len(self.evaluations) :]):
                    self.predictions[arm, f"synthetic {number}"] = made
        first = self.evaluations[0]
        train, test = (metadata_table(first.real, first.rows[split]) for split in ("train", "test"))
        known = metadata_predictions(train, self.targets.values["train"], test, exclusive=self.targets.exclusive)
        if known is not None:
            self.predictions[METADATA, "test"] = Predictions(known[None, None])

    def on_synthetic(self) -> Iterator[ModelScore]:
        """Scores of models trained on real and tested on synthetic images (TRTS), a diagnostic of the labels."""
        for place, label in enumerate(self.targets.names):
            found = []
            for number, data in enumerate(self.evaluations):
                made = self.predictions[REAL, f"synthetic {number}"]
                one = trained(made, data.requested, place, np.arange(len(data.requested)))
                if one is not None:
                    found.append(one)
            if len(found) < len(self.evaluations):
                continue
            values = [one.mean.value for one in found]
            estimate = Estimate(
                name="utility",
                estimand="AUROC of a classifier trained on real images for the prompted labels of synthetic images",
                value=float(np.mean(values)),
                interval=found[0].interval() if len(found) == 1 else None,
                spread=(min(values), max(values)),
                method=f"mean over {len(found)} generators, range over them",
                n_synthetic=sum(len(data.requested) for data in self.evaluations),
                better="higher",
                label=label,
            )
            yield ModelScore(arm=REAL, test="synthetic", measure="AUROC", estimate=estimate)

    def by_group(self, arm: TrainingArm, rows: Array) -> dict[str, RepeatedScore]:
        """AUROC by label for a subgroup of test patients, for labels with enough patients in it."""
        test_set = self.test_sets[0]
        found = {}
        for place, label in enumerate(self.targets.names):
            if test_set.counts.refusal(place, self.config) is not None:
                continue
            shows = test_set.values_NT[rows, place] == 1
            lacks = test_set.values_NT[rows, place] == 0
            sizes = [len(np.unique(test_set.patients[rows][side])) for side in (shows, lacks)]
            if min(sizes) < self.config.least_test:
                continue
            made = trained(self.predictions[arm, "test"], test_set.values_NT, place, test_set.patients, rows)
            if made is not None:
                found[label] = made
        return found
