"""A first utility check: train on synthetic images, test on real patients, beside what metadata alone predict.

Every arm sees the same number of optimiser steps, and every arm is tested on the same real test patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cohorts.records import Array
from cohorts.store import Cohort
from quality.config import UtilityConfig
from quality.estimate import Estimate, Interval
from quality.intervals import patient_bootstrap
from quality.quality_report import TrainedOn, UtilityScore
from quality.targets import Judged, present_class

NAME = "utility"
ITERATIONS = 2000


@dataclass(frozen=True)
class Arm:
    """One training set, and what a classifier trained on it sees in the real test images.

    Attributes:
        trained_on: which.
        total: images (or rows of metadata) in it.
        judged: labels of the test images and the classifier's guesses; ``None`` when there was nothing to train on.
    """

    trained_on: TrainedOn
    total: int
    judged: Judged | None


@dataclass(frozen=True)
class Counts:
    """How many patients show each label, and what they are called (images, where the source named no patients).

    Attributes:
        train: positive training patients per label.
        test: positive test patients per label.
        unit: ``patients`` or ``images``.
    """

    train: Array
    test: Array
    unit: str

    def refusal(self, label: int, config: UtilityConfig) -> str | None:
        """Why a label cannot be scored, ``None`` when it can."""
        for side, found, needed in (
            ("training", int(self.train[label]), config.least_train),
            ("test", int(self.test[label]), config.least_test),
        ):
            if found < needed:
                return f"{found} {side} {self.unit} show it (≥ {needed}): pool labels or bring more patients"
        return None


def positives(values_NT: Array, patients: Array) -> Array:
    """Patients with at least one image that shows each label, ``(T,)``."""
    return np.array([len(np.unique(patients[column == 1])) for column in values_NT.T], dtype=np.int64)


def score_arm(
    arm: Arm,
    labels: Sequence[str],
    counts: Counts,
    *,
    exclusive: bool,
    config: UtilityConfig,
    rng: np.random.Generator,
) -> list[UtilityScore]:
    """Accuracy over exclusive labels, then AUROC per label, each refused where counts are too small."""
    found = [_accuracy(arm, counts.unit, config, rng)] if exclusive else []
    for number, label in enumerate(labels):
        refused = counts.refusal(number, config)
        if arm.judged is None:
            refused = "there was nothing to train on"
        value, interval, total = None, None, None
        if refused is None and arm.judged is not None:
            judged = arm.judged.stated(number)
            value, total = judged.auroc(), len(judged.patients)
            interval = patient_bootstrap(judged.auroc, judged.patients, draws=config.bootstrap, rng=rng)
            refused = None if value is not None else "all test images that state it are alike"
        found.append(_estimate(arm, "AUROC", counts.unit, value, interval, n_real=total, label=label, refused=refused))
    return [UtilityScore(trained_on=arm.trained_on, estimate=estimate) for estimate in found]


def _words(arm: Arm) -> str:
    return f"{arm.trained_on.replace('_', ' ')} ({arm.total} {'rows' if arm.trained_on == 'metadata' else 'images'})"


def _accuracy(arm: Arm, unit: str, config: UtilityConfig, rng: np.random.Generator) -> Estimate:
    value, interval, total = None, None, 0
    if arm.judged is not None:
        right = arm.judged.right()
        owners = arm.judged.patients[(arm.judged.values_NT == 1).any(axis=1)]
        total = len(right)
        if total:
            value = float(right.mean())
            interval = patient_bootstrap(
                lambda rows: float(right[rows].mean()), owners, draws=config.bootstrap, rng=rng
            )
    refused = None if value is not None else "there was nothing to train or test on"
    return _estimate(arm, "accuracy", unit, value, interval, n_real=total, refused=refused)


def _estimate(
    arm: Arm,
    measure: str,
    unit: str,
    value: float | None,
    interval: Interval | None,
    *,
    n_real: int | None,
    refused: str | None,
    label: str | None = None,
) -> Estimate:
    return Estimate(
        name=NAME,
        estimand=f"{measure} on real test patients of a classifier trained on {_words(arm)}",
        value=value,
        interval=interval,
        method=f"percentile bootstrap of test {unit}; one training",
        n_synthetic=arm.total if arm.trained_on == "synthetic" else None,
        n_real=n_real,
        better="higher",
        label=label,
        refused=refused,
    )


def metadata_table(cohort: Cohort, rows: Sequence[int]) -> Array:
    """Attributes of rows as numbers: values as they are, categories one by one, and whether each is stated.

    Returns:
        float64 ``(n, columns)``; no column when the cohort has no attributes.
    """
    columns: list[Array] = []
    for spec in cohort.schema.attributes:
        stated = cohort.attribute(spec.name, rows)
        if spec.kind == "categorical":
            columns += [np.array([value == category for value in stated], float) for category in spec.categories]
        else:
            known = np.array([np.nan if value is None else float(value) for value in stated])
            middle = 0.0 if spec.low is None or spec.high is None else (spec.low + spec.high) / 2
            columns += [np.nan_to_num(known, nan=middle), np.isnan(known).astype(float)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))


def metadata_guesses(train: Array, values_NT: Array, test: Array, *, exclusive: bool) -> Array | None:
    """Probabilities of a logistic regression on metadata alone; ``None`` when there are no metadata.

    Args:
        train: metadata of training images, from :func:`metadata_table`.
        values_NT: their labels.
        test: metadata of test images.
        exclusive: exactly one label is present per image.

    Returns:
        float64 ``(n, T)``; labels that cannot be learned are 0.5 throughout.
    """
    if not train.shape[1]:
        return None
    guesses = np.full((len(test), values_NT.shape[1]), 0.5)
    if exclusive:
        classes = present_class(values_NT)
        if len(np.unique(classes[classes >= 0])) > 1:
            model = _logistic().fit(train[classes >= 0], classes[classes >= 0])
            guesses[:] = 0.0
            guesses[:, model.classes_] = model.predict_proba(test)
        return guesses
    for number in range(values_NT.shape[1]):
        stated = values_NT[:, number] >= 0
        if len(np.unique(values_NT[stated, number])) > 1:
            model = _logistic().fit(train[stated], values_NT[stated, number])
            guesses[:, number] = model.predict_proba(test)[:, 1]
    return guesses


def _logistic() -> LogisticRegression:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
