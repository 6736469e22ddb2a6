"""The scores of a utility study: AUROC and accuracy with differences to *real*, and further bootstrapped measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medphantom.cohorts.scale import Reading
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.quality.config import StudyConfig
from medphantom.quality.data.targets import Targets
from medphantom.quality.results.model_score import MIXING, Difference, Measure, ModelScore, TrainingArm
from medphantom.quality.stats.classification import (
    average_precision,
    balanced_accuracy,
    best_threshold,
    calibration_error,
)
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.intervals import patient_bootstrap
from medphantom.quality.utility.check import Counts
from medphantom.quality.utility.repeated import Predictions, RepeatedScore, correct_predictions, mean_over, trained
from medphantom.quality.utility.subgroups import Subgroup

REAL = TrainingArm(kind="real")
METADATA = TrainingArm(kind="metadata")
MODELS: dict[Measure, str] = {"Dice": "segmenter"}
CALIBRATION: Measure = "calibration error"
SECONDARY: tuple[Measure, ...] = ("average precision", "balanced accuracy", CALIBRATION)


@dataclass(frozen=True)
class TestSet:
    """A set of test images.

    Attributes:
        name: ``test``, or the name of an external cohort.
        images_NC: float32 ``(n, C, *spatial)``.
        values_NT: labels of the images.
        patients: patient of each image.
        counts: number of patients with each label, for refusals.
        groups: subgroups of the images.
        reading: how the intensity values of an external cohort were read.
    """

    name: str
    images_NC: Array
    values_NT: Array
    patients: Array
    counts: Counts
    groups: tuple[Subgroup, ...] = ()
    reading: Reading | None = None


@dataclass(frozen=True)
class Evaluation:
    """The predictions from which the scores of one arm and test set are computed.

    Attributes:
        arm: training arm of the predictions.
        test_set: test set of the predictions.
        predictions: predictions of the arm's downstream models.
        real: predictions of the arm *real*.
        targets: targets of the predictions.
        config: settings of the study.
        free: predictions of the arms without synthetic images, with which a mixing arm is compared.
    """

    arm: TrainingArm
    test_set: TestSet
    predictions: Predictions
    real: Predictions
    targets: Targets
    config: StudyConfig
    free: Mapping[TrainingArm, Predictions] = field(default_factory=dict)

    def cells(self) -> Iterator[ModelScore]:
        """AUROC over labels and by label, and accuracy over exclusive labels."""
        test_set, scored, rows = self.test_set, [], []
        for place, label in enumerate(self.targets.names):
            why = test_set.counts.refusal(place, self.config)
            known = [trained(each, test_set.values_NT, place, test_set.patients) for each in self._sides()]
            sides = [one for one in known if one is not None]
            if why is None and len(sides) < len(known):
                why = "all test images with a known value have the same label"
            if why is not None:
                refused = self.estimate("AUROC", label, refused=why)
                rows.append(ModelScore(arm=self.arm, test=test_set.name, measure="AUROC", estimate=refused))
                continue
            scored.append(sides)
            rows.append(self._cell("AUROC", label, sides))
        if scored:
            yield self._cell("AUROC", None, [mean_over(parts) for parts in zip(*scored, strict=True)])
        if self.targets.exclusive and self.arm.kind != "metadata":
            right = [correct_predictions(each, test_set.values_NT, test_set.patients) for each in self._sides()]
            yield self._cell("accuracy", None, right)
        yield from rows

    def _sides(self) -> list[Predictions]:
        """Predictions of this arm, of *real* and, for a mixing arm, of the arms without synthetic images."""
        return [self.predictions, self.real, *(self.free.values() if self.arm.kind in MIXING else ())]

    def _cell(self, measure: Measure, label: str | None, sides: Sequence[RepeatedScore]) -> ModelScore:
        mine, real, *free = sides
        values = mine.values
        unit = self.test_set.counts.unit
        trainings = "one fit" if self.arm.kind == "metadata" else f"mean of {values.size} trainings"
        score = ModelScore(
            arm=self.arm,
            test=self.test_set.name,
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
        if self.arm == REAL:
            return score
        apart = mine.less(real) if self.arm.kind != "metadata" else _repeated(mine, real).less(real)
        beside = [
            self._difference(measure, label, mine.less(other), arm) for arm, other in zip(self.free, free, strict=False)
        ]
        return score.against(self._difference(measure, label, apart, REAL), tuple(beside))

    def _difference(self, measure: Measure, label: str | None, apart: RepeatedScore, other: TrainingArm) -> Difference:
        """Difference between this arm and another."""
        value, interval, p = apart.plain()
        estimate = Estimate(
            name="utility_difference",
            estimand=f"{measure} of models trained on {self.arm.words} minus that of models trained on "
            f"{other.words}, for the same patients and seeds",
            value=value,
            interval=_kept(interval),
            method=f"paired by {self.test_set.counts.unit} and seed; variance of both, Student's t",
            n_real=len(self.test_set.values_NT),
            better="higher",
            label=label,
        )
        return Difference(arm=other, difference=estimate, p=p)

    def secondary(self) -> Iterator[ModelScore]:
        """Average precision, balanced accuracy and calibration error: means over trainings, bootstrap by patient."""
        test_set, of_val = self.test_set, _flat(self.predictions.of_val)
        every, val = _flat(self.predictions.by_seed), self.targets.values["val"]
        for place, label in enumerate(self.targets.names):
            if every is None or test_set.counts.refusal(place, self.config) is not None:
                continue
            rows = np.flatnonzero(test_set.values_NT[:, place] >= 0)
            cuts = np.full(len(every), 0.5)
            if of_val is not None:
                known = val[:, place] >= 0
                cuts = np.array([best_threshold(val[known, place], one[known, place]) for one in of_val])
            predicted = TargetPredictions(
                test_set.values_NT[rows, place], every[:, rows, place], cuts, test_set.patients[rows]
            )
            for measure in SECONDARY:
                rng = np.random.default_rng(
                    derive_seed(self.config.seed, measure, label, self.arm.words, test_set.name)
                )
                drawn = "bootstrap centred on the value" if measure == CALIBRATION else "percentile bootstrap"
                value, interval = predicted.score(measure, self.config.bootstrap, rng)
                estimate = self.estimate(
                    measure,
                    label,
                    value=value,
                    interval=interval,
                    method=f"mean of {len(every)} trainings; {drawn} of test {test_set.counts.unit}",
                    n_real=len(rows),
                    better="lower" if measure == CALIBRATION else "higher",
                )
                yield ModelScore(arm=self.arm, test=test_set.name, measure=measure, estimate=estimate)

    def estimate(self, measure: Measure, label: str | None, **facts: object) -> Estimate:
        """An estimate of this arm on this test set."""
        where = "real test patients" if self.test_set.name == "test" else f"patients of {self.test_set.name}"
        return Estimate.model_validate(
            {
                "name": "utility",
                "estimand": (
                    f"{measure} on {where} of a {MODELS.get(measure, 'classifier')} trained on {self.arm.words}"
                ),
                "value": None,
                "better": "higher",
                "label": label,
                "n_real": len(self.test_set.values_NT),
                **facts,
            }
        )


@dataclass(frozen=True)
class TargetPredictions:
    """Predictions of every training for one label.

    Attributes:
        truth: 1 for present and 0 for absent, ``(n,)``.
        seen_SN: predicted probabilities, one row per training.
        cuts_S: decision threshold of each training.
        patients: patient of each image.
    """

    truth: Array
    seen_SN: Array
    cuts_S: Array
    patients: Array

    def score(self, measure: Measure, bootstrap: int, rng: np.random.Generator) -> tuple[float | None, Interval | None]:
        """A measure with its bootstrap interval by patient."""

        def mean(rows: Array) -> float | None:
            values = [
                _measured(measure, self.truth[rows], prediction[rows], float(cut))
                for prediction, cut in zip(self.seen_SN, self.cuts_S, strict=True)
            ]
            known = [value for value in values if value is not None]
            return float(np.mean(known)) if len(known) == len(values) else None

        value = mean(np.arange(len(self.truth)))
        around = value if measure == CALIBRATION else None
        return value, patient_bootstrap(mean, self.patients, draws=bootstrap, rng=rng, around=around)


def _measured(measure: Measure, truth: Array, prediction: Array, cut: float) -> float | None:
    if measure == "average precision":
        return average_precision(truth, prediction)
    return (
        balanced_accuracy(truth, prediction, cut)
        if measure == "balanced accuracy"
        else calibration_error(truth, prediction)
    )


def _flat(predictions: Array | None) -> Array | None:
    """Predictions with generators and seeds as one axis."""
    return None if predictions is None else predictions.reshape(-1, *predictions.shape[2:])


def _repeated(one: RepeatedScore, real: RepeatedScore) -> RepeatedScore:
    """A single fit repeated for every training of *real*."""
    return RepeatedScore(tuple(tuple(one.by_seed[0][0] for _ in row) for row in real.by_seed), one.patients)


def _kept(interval: Interval) -> Interval | None:
    return interval if interval[0] < interval[1] else None
