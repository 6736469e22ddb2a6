"""Scores of classifiers trained several times and tested on the same patients: means, differences and intervals.

There are two sources of variance: the test patients, and the seeds of classifier and generator. The variance of a mean
over seeds is that of the patients (by influence, clustered) plus that of the seeds, with degrees of freedom according
to the number of seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from medphantom.core.records import Array
from medphantom.quality.stats.auroc import Auroc, auroc_interval, auroc_with_influence, mean_auroc
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.influence import MOST_FREEDOM, Variance, plain_interval


@dataclass(frozen=True)
class Predictions:
    """Predictions of one arm's classifiers for the test images.

    Attributes:
        by_seed: predicted probabilities ``(generators, seeds, n, T)``.
        of_val: the same for the ``val`` images, on which thresholds are chosen; ``None`` without any.
    """

    by_seed: Array
    of_val: Array | None = None


@dataclass(frozen=True)
class RepeatedScore:
    """Scores of all trainings on the same images.

    Attributes:
        by_seed: score of each training, ``[generator][seed]``.
        patients: patient of each image.
    """

    by_seed: tuple[tuple[Auroc, ...], ...]
    patients: Array

    @property
    def mean(self) -> Auroc:
        """Mean over all trainings."""
        return mean_auroc([one for row in self.by_seed for one in row])

    @property
    def values(self) -> Array:
        """Values of all trainings, ``(generators, seeds)``."""
        return np.array([[one.value for one in row] for row in self.by_seed])

    def variance(self) -> Variance:
        """Variance of the mean: that of patients plus that of seeds."""
        return _sum(self.mean.variance(self.patients), seed_variance(self.values))

    def interval(self) -> Interval | None:
        """95 % interval of the mean; see :func:`medphantom.quality.stats.auroc.auroc_interval`."""
        mean = self.mean
        return auroc_interval(mean.value, self.variance(), mean.smaller_side(self.patients))

    def less(self, other: RepeatedScore) -> RepeatedScore:
        """Differences paired by training; an arm without a generator is used for all generators."""
        found = []
        for generator, row in enumerate(self.by_seed):
            beside = other.by_seed[generator % len(other.by_seed)]
            found.append(
                tuple(
                    Auroc(mine.value - theirs.value, mine.influence - theirs.influence)
                    for mine, theirs in zip(row, beside, strict=True)
                )
            )
        return RepeatedScore(tuple(found), self.patients)

    def plain(self) -> tuple[float, Interval, float]:
        """The mean difference with its 95 % interval and two-sided p value."""
        value, variance = self.mean.value, self.variance()
        if variance.value <= 0:
            return value, (value, value), 1.0
        p = float(2 * stats.t.sf(abs(value) / np.sqrt(variance.value), variance.freedom))
        return value, plain_interval(value, variance), p


def seed_variance(values_GS: Array) -> Variance:
    """Variance of a mean over trainings that is due to the seeds of generators and classifiers.

    Generators and seeds are crossed: trainings with the same generator are correlated, and so are trainings with the
    same classifier seed, including the training on real images with which all generators are compared. Therefore both
    are clusters (Owen 2007, two-way product of variances, an upper bound).

    Args:
        values_GS: one value per generator and seed, ``(generators, seeds)``.
    """
    found = Variance(0.0, MOST_FREEDOM)
    for axis, total in ((0, values_GS.shape[1]), (1, values_GS.shape[0])):
        if total > 1:
            found = _sum(found, Variance(float(values_GS.mean(axis=axis).var(ddof=1)) / total, total - 1))
    return found


def _sum(first: Variance, second: Variance) -> Variance:
    """Sum of independent variances (Satterthwaite 1946)."""
    value = first.value + second.value
    noise = first.value**2 / first.freedom + second.value**2 / second.freedom
    return Variance(value, value**2 / noise if noise > 0 else MOST_FREEDOM)


def trained(
    predictions: Predictions, truth_NT: Array, target: int, patients: Array, rows: Array | None = None
) -> RepeatedScore | None:
    """AUROC of one target for every training; ``None`` if all images with a known value have the same label.

    Args:
        predictions: predictions of an arm.
        truth_NT: 1 for present, 0 for absent, -1 for unknown.
        target: number of the target.
        patients: patient of each image.
        rows: rows of the images to use; all by default.
    """
    chosen = np.arange(len(truth_NT)) if rows is None else rows
    chosen = chosen[truth_NT[chosen, target] >= 0]
    found = []
    for per_generator in predictions.by_seed:
        row = []
        for one in per_generator:
            made = auroc_with_influence(truth_NT[chosen, target], one[chosen, target])
            if made is None:
                return None
            influence = np.zeros(len(truth_NT))
            influence[chosen] = made.influence
            sides = None if made.sides is None else (chosen[made.sides[0]], chosen[made.sides[1]])
            row.append(Auroc(made.value, influence, sides))
        found.append(tuple(row))
    return RepeatedScore(tuple(found), patients)


def mean_over(parts: Sequence[RepeatedScore]) -> RepeatedScore:
    """The mean over labels (or groups), training by training."""
    first = parts[0]
    return RepeatedScore(
        tuple(
            tuple(mean_auroc([part.by_seed[g][s] for part in parts]) for s in range(len(row)))
            for g, row in enumerate(first.by_seed)
        ),
        first.patients,
    )


def correct_predictions(predictions: Predictions, truth_NT: Array, patients: Array) -> RepeatedScore:
    """Accuracy over exclusive labels, as a mean over images, for every training."""
    classes = (truth_NT == 1).argmax(axis=1)
    observed = (truth_NT == 1).any(axis=1)
    found = []
    for per_generator in predictions.by_seed:
        row = []
        for one in per_generator:
            right = (one.argmax(axis=1) == classes)[observed].astype(float)
            influence = np.zeros(len(truth_NT))
            influence[observed] = (right - right.mean()) / len(right)
            row.append(Auroc(float(right.mean()), influence))
        found.append(tuple(row))
    return RepeatedScore(tuple(found), patients)
