"""The cells of the utility table: AUROC and accuracy with their differences to *real*, and what has no formula."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medphantom.cohorts.scale import Reading
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.quality.config import StudyConfig
from medphantom.quality.data.targets import Targets
from medphantom.quality.results.study_report import MIXING, Beside, Measure, StudyScore, Taught
from medphantom.quality.stats.classification import (
    average_precision,
    balanced_accuracy,
    best_threshold,
    calibration_error,
)
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.intervals import patient_bootstrap
from medphantom.quality.utility.check import Counts
from medphantom.quality.utility.judging import Guesses, Trained, mean_over, right_guesses, trained
from medphantom.quality.utility.subgroups import Subgroup

REAL = Taught(arm="real")
METADATA = Taught(arm="metadata")
PUPILS: dict[Measure, str] = {"Dice": "segmenter"}
CALIBRATION: Measure = "calibration error"
SECONDARY: tuple[Measure, ...] = ("average precision", "balanced accuracy", CALIBRATION)


@dataclass(frozen=True)
class Exam:
    """Images that classifiers are tested on.

    Attributes:
        name: ``test``, or the name of an external cohort.
        images_NC: float32 ``(n, C, *spatial)``.
        values_NT: what they show.
        patients: of each.
        counts: patients that show each label, for refusals.
        groups: subgroups of them.
        reading: how the values of an external cohort were read.
    """

    name: str
    images_NC: Array
    values_NT: Array
    patients: Array
    counts: Counts
    groups: tuple[Subgroup, ...] = ()
    reading: Reading | None = None


@dataclass(frozen=True)
class Desk:
    """What the cells of one arm and test set are made of.

    Attributes:
        taught: the arm.
        exam: the test set.
        guesses: of its classifiers.
        real: of those taught real.
        targets: labels.
        config: how the study is done.
        free: guesses of the arms that cost nothing, which a mixing arm is compared with.
    """

    taught: Taught
    exam: Exam
    guesses: Guesses
    real: Guesses
    targets: Targets
    config: StudyConfig
    free: Mapping[Taught, Guesses] = field(default_factory=dict)

    def cells(self) -> Iterator[StudyScore]:
        """AUROC over labels and by label, and accuracy over exclusive labels."""
        exam, scored, rows = self.exam, [], []
        for place, label in enumerate(self.targets.names):
            why = exam.counts.refusal(place, self.config)
            known = [trained(each, exam.values_NT, place, exam.patients) for each in self._sides()]
            sides = [one for one in known if one is not None]
            if why is None and len(sides) < len(known):
                why = "all test images that state it are alike"
            if why is not None:
                refused = self.estimate("AUROC", label, refused=why)
                rows.append(StudyScore(taught=self.taught, test=exam.name, measure="AUROC", estimate=refused))
                continue
            scored.append(sides)
            rows.append(self._cell("AUROC", label, sides))
        if scored:
            yield self._cell("AUROC", None, [mean_over(parts) for parts in zip(*scored, strict=True)])
        if self.targets.exclusive and self.taught.arm != "metadata":
            right = [right_guesses(each, exam.values_NT, exam.patients) for each in self._sides()]
            yield self._cell("accuracy", None, right)
        yield from rows

    def _sides(self) -> list[Guesses]:
        """Of this arm, of *real*, and of those that cost nothing, where this one has to beat them."""
        return [self.guesses, self.real, *(self.free.values() if self.taught.arm in MIXING else ())]

    def _cell(self, measure: Measure, label: str | None, sides: Sequence[Trained]) -> StudyScore:
        mine, real, *free = sides
        values = mine.values
        unit = self.exam.counts.unit
        trainings = "one fit" if self.taught.arm == "metadata" else f"mean of {values.size} trainings"
        score = StudyScore(
            taught=self.taught,
            test=self.exam.name,
            measure=measure,
            estimate=self.estimate(
                measure,
                label,
                value=mine.mean.value,
                interval=mine.interval(),
                method=f"{trainings}; variance of {unit} (influence) and of seeds, logit scale",
            ),
            by_seed=tuple(values.ravel().tolist()),
        )
        if self.taught == REAL:
            return score
        apart = mine.less(real) if self.taught.arm != "metadata" else _repeated(mine, real).less(real)
        difference, p = self._difference(measure, label, apart, REAL)
        beside = []
        for taught, other in zip(self.free, free, strict=False):
            less, chance = self._difference(measure, label, mine.less(other), taught)
            beside.append(Beside(taught=taught, difference=less, p=chance))
        return score.model_copy(update={"difference": difference, "p": p, "beside": tuple(beside)})

    def _difference(self, measure: Measure, label: str | None, apart: Trained, other: Taught) -> tuple[Estimate, float]:
        """This arm less another, and the p that there is no difference."""
        value, interval, p = apart.plain()
        estimate = Estimate(
            name="utility_difference",
            estimand=f"{measure} taught {self.taught.words} less that taught {other.words}, same patients and seeds",
            value=value,
            interval=_kept(interval),
            method=f"paired by {self.exam.counts.unit} and seed; variance of both, Student's t",
            n_real=len(self.exam.values_NT),
            better="higher",
            label=label,
        )
        return estimate, p

    def secondary(self) -> Iterator[StudyScore]:
        """Average precision, balanced accuracy, calibration: means over trainings, patients resampled."""
        exam, of_val = self.exam, _flat(self.guesses.of_val)
        every, val = _flat(self.guesses.by_seed), self.targets.values["val"]
        for place, label in enumerate(self.targets.names):
            if every is None or exam.counts.refusal(place, self.config) is not None:
                continue
            rows = np.flatnonzero(exam.values_NT[:, place] >= 0)
            cuts = np.full(len(every), 0.5)
            if of_val is not None:
                stated = val[:, place] >= 0
                cuts = np.array([best_threshold(val[stated, place], one[stated, place]) for one in of_val])
            answers = Answers(exam.values_NT[rows, place], every[:, rows, place], cuts, exam.patients[rows])
            for measure in SECONDARY:
                rng = np.random.default_rng(derive_seed(self.config.seed, measure, label, self.taught.words, exam.name))
                drawn = "bootstrap (its mean put on the value)" if measure == CALIBRATION else "percentile bootstrap"
                value, interval = answers.score(measure, self.config.bootstrap, rng)
                estimate = self.estimate(
                    measure,
                    label,
                    value=value,
                    interval=interval,
                    method=f"mean of {len(every)} trainings; {drawn} of test {exam.counts.unit}",
                    n_real=len(rows),
                    better="lower" if measure == CALIBRATION else "higher",
                )
                yield StudyScore(taught=self.taught, test=exam.name, measure=measure, estimate=estimate)

    def estimate(self, measure: Measure, label: str | None, **facts: object) -> Estimate:
        """An estimate of this arm on this test set."""
        where = "real test patients" if self.exam.name == "test" else f"patients of {self.exam.name}"
        return Estimate.model_validate(
            {
                "name": "utility",
                "estimand": f"{measure} on {where} of a {PUPILS.get(measure, 'classifier')} taught {self.taught.words}",
                "value": None,
                "better": "higher",
                "label": label,
                "n_real": len(self.exam.values_NT),
                **facts,
            }
        )


@dataclass(frozen=True)
class Answers:
    """Guesses of every training about one label.

    Attributes:
        truth: 1 present, 0 absent, ``(n,)``.
        seen_SN: probabilities, one row per training.
        cuts_S: threshold of each training.
        patients: of each image.
    """

    truth: Array
    seen_SN: Array
    cuts_S: Array
    patients: Array

    def score(self, measure: Measure, bootstrap: int, rng: np.random.Generator) -> tuple[float | None, Interval | None]:
        """A measure, with a percentile bootstrap by patient."""

        def mean(rows: Array) -> float | None:
            values = [
                _measured(measure, self.truth[rows], guess[rows], float(cut))
                for guess, cut in zip(self.seen_SN, self.cuts_S, strict=True)
            ]
            known = [value for value in values if value is not None]
            return float(np.mean(known)) if len(known) == len(values) else None

        value = mean(np.arange(len(self.truth)))
        around = value if measure == CALIBRATION else None
        return value, patient_bootstrap(mean, self.patients, draws=bootstrap, rng=rng, around=around)


def _measured(measure: Measure, truth: Array, guess: Array, cut: float) -> float | None:
    if measure == "average precision":
        return average_precision(truth, guess)
    return balanced_accuracy(truth, guess, cut) if measure == "balanced accuracy" else calibration_error(truth, guess)


def _flat(guesses: Array | None) -> Array | None:
    """Generators and seeds as one axis."""
    return None if guesses is None else guesses.reshape(-1, *guesses.shape[2:])


def _repeated(one: Trained, real: Trained) -> Trained:
    """A single fit beside every training of *real*."""
    return Trained(tuple(tuple(one.by_seed[0][0] for _ in row) for row in real.by_seed), one.patients)


def _kept(interval: Interval) -> Interval | None:
    return interval if interval[0] < interval[1] else None
