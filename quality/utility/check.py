"""The utility check: train on synthetic images, test on real patients, and compare with metadata alone.

Every arm uses the same number of optimiser steps and is tested on the same real test patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.config import StudyConfig, UtilityConfig
from medphantom.quality.data.targets import LabelPredictions
from medphantom.quality.results.model_score import CheckedArm, Measure, ModelScore, TrainingArm
from medphantom.quality.stats.auroc import AUROC_METHOD
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.intervals import patient_bootstrap

NAME = "utility"


@dataclass(frozen=True)
class Arm:
    """One training set, and the predictions of a classifier trained on it for the real test images.

    Attributes:
        trained_on: kind of training set.
        total: number of images (or rows of metadata) in it.
        predictions: predictions for the test images with their labels; ``None`` if there was nothing to train on.
    """

    trained_on: CheckedArm
    total: int
    predictions: LabelPredictions | None


@dataclass(frozen=True)
class Counts:
    """Number of patients with each label, or of images if patients are unknown.

    Attributes:
        train: number of positive training patients per label.
        test: number of positive test patients per label.
        unit: counted unit, ``patients`` or ``images``.
    """

    train: Array
    test: Array
    unit: str

    def refusal(self, label: int, config: UtilityConfig | StudyConfig) -> str | None:
        """Reason why a label cannot be scored, or ``None``."""
        for side, found, needed in (
            ("training", int(self.train[label]), config.least_train),
            ("test", int(self.test[label]), config.least_test),
        ):
            if found < needed:
                return f"{found} {side} {self.unit} have it (≥ {needed}): combine labels or add patients"
        return None


def score_arm(
    arm: Arm,
    labels: Sequence[str],
    counts: Counts,
    *,
    exclusive: bool,
    config: UtilityConfig,
    rng: np.random.Generator,
) -> list[ModelScore]:
    """Accuracy over exclusive labels, then AUROC per label, each refused if counts are too small."""
    found: list[tuple[Measure, Estimate]] = []
    if exclusive:
        found.append(("accuracy", _accuracy(arm, counts.unit, config, rng)))
    for number, label in enumerate(labels):
        refused = counts.refusal(number, config)
        if arm.predictions is None:
            refused = "there was nothing to train on"
        value, interval, total = None, None, None
        if refused is None and arm.predictions is not None:
            predicted = arm.predictions.observed(number)
            (value, interval), total = predicted.auroc(), len(predicted.patients)
            refused = None if value is not None else "all test images with a known value have the same label"
        estimate = _estimate(arm, "AUROC", counts.unit, value, interval, n_real=total, label=label, refused=refused)
        found.append(("AUROC", estimate))
    trained_on = TrainingArm(kind=arm.trained_on)
    return [ModelScore(arm=trained_on, test="test", measure=measure, estimate=estimate) for measure, estimate in found]


def _words(arm: Arm) -> str:
    return f"{arm.trained_on.replace('_', ' ')} ({arm.total} {'rows' if arm.trained_on == 'metadata' else 'images'})"


def _accuracy(arm: Arm, unit: str, config: UtilityConfig, rng: np.random.Generator) -> Estimate:
    value, interval, total = None, None, 0
    if arm.predictions is not None:
        right = arm.predictions.right()
        owners = arm.predictions.patients[(arm.predictions.values_NT == 1).any(axis=1)]
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
    how = "percentile bootstrap of" if measure == "accuracy" else AUROC_METHOD + " over"
    return Estimate(
        name=NAME,
        estimand=f"{measure} on real test patients of a classifier trained on {_words(arm)}",
        value=value,
        interval=interval,
        method=f"{how} test {unit}; one training",
        n_synthetic=arm.total if arm.trained_on == "synthetic" else None,
        n_real=n_real,
        better="higher",
        label=label,
        refused=refused,
    )
