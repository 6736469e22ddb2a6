"""AUROC and differences of AUROCs on the same images, with intervals clustered by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from medphantom.core.records import Array
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.influence import Variance, by_owner, plain_interval, student_quantile, variance_of

AUROC_METHOD = "DeLong et al. 1988 on the logit scale"
"""How :meth:`Auroc.interval` is computed, for reports."""


@dataclass(frozen=True)
class Auroc:
    """An area under the ROC curve, or a mean or difference of several.

    Attributes:
        value: probability that a positive image scores higher than a negative one, with ties counted as one half.
        influence: influence of each image on the value, ``(n,)``, with sum zero.
        sides: rows of the positive and of the negative images; ``None`` for other measures and for differences.
    """

    value: float
    influence: Array
    sides: tuple[Array, Array] | None = None

    def variance(self, patients: Sequence[str] | Array) -> Variance:
        """Variance of the value for independent patients (DeLong et al. 1988; by patient: Obuchowski 1997)."""
        return variance_of(by_owner(self.influence, patients))

    def interval(self, patients: Sequence[str] | Array) -> Interval | None:
        """95 % interval of an AUROC, clustered by patient; see :func:`auroc_interval`."""
        return auroc_interval(self.value, self.variance(patients), self.smaller_side(patients))

    def smaller_side(self, patients: Sequence[str] | Array) -> int | None:
        """Number of patients with a positive or with a negative image, whichever is smaller."""
        if self.sides is None:
            return None
        owners = np.asarray(patients)
        return min(len(np.unique(owners[side])) for side in self.sides)


def auroc_interval(value: float, variance: Variance, smaller_side: int | None) -> Interval | None:
    """The one 95 % interval of an AUROC: on the logit scale, with Student's quantile.

    Where the value is 0 or 1, no variance can be estimated: the other end is 3 / n away (the rule of three, Hanley and
    Lippman-Hand 1983), with n the patients of the smaller side.

    Args:
        value: The AUROC, 0 to 1.
        variance: Its variance.
        smaller_side: Number of patients of the smaller side; ``None`` where it is not known, which leaves such a value
            without an interval.

    Example:
        >>> auroc_interval(1.0, Variance(0.0, 10), 12)
        (0.75, 1.0)
    """
    if not 0 < value < 1 or variance.value <= 0:
        if not smaller_side:
            return None
        return max(0.0, value - 3 / smaller_side), min(1.0, value + 3 / smaller_side)
    center = np.log(value / (1 - value))
    half = student_quantile(variance) * np.sqrt(variance.value) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-(center + side * half)))) for side in (-1, 1))
    return low, high


def auroc(present: Array, score: Array) -> float | None:
    """AUROC without its interval; ``None`` if all images have the same label.

    The Mann-Whitney statistic over its maximum, with ties counted as one half. Resampling calls this thousands of
    times, so it does without scikit-learn's checks.

    Args:
        present: 1 for positive images.
        score: Score of each image, higher for a more likely positive.
    """
    positive = np.asarray(present) == 1
    total, hits = len(positive), int(positive.sum())
    if hits in {0, total}:
        return None
    ranks = rankdata(score)
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * (total - hits)))


def auroc_with_influence(present: Array, score: Array) -> Auroc | None:
    """AUROC with the influence of each image; ``None`` if all images have the same label.

    Args:
        present: 1 for positive images.
        score: score of each image, higher for a more likely positive.
    """
    positive = np.asarray(present) == 1
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        return None
    score = np.asarray(score, dtype=np.float64)
    ranks = rankdata(score)
    above = np.empty(len(score))  # share of the images with the other label that each image is ranked correctly against
    above[positive] = (ranks[positive] - rankdata(score[positive])) / misses
    above[~positive] = 1 - (ranks[~positive] - rankdata(score[~positive])) / hits
    value = float(above[positive].mean())
    sides = np.flatnonzero(positive), np.flatnonzero(~positive)
    return Auroc(value, (above - value) / np.where(positive, hits, misses), sides)


def mean_auroc(parts: Sequence[Auroc]) -> Auroc:
    """The mean over classifiers that were tested on the same images."""
    influence = np.mean([part.influence for part in parts], axis=0)
    known = [part.sides for part in parts if part.sides is not None]
    smallest = min(known, key=lambda sides: min(map(len, sides)), default=None) if len(known) == len(parts) else None
    return Auroc(float(np.mean([part.value for part in parts])), influence, smallest)


def auroc_difference(first: Auroc, second: Auroc, patients: Sequence[str] | Array) -> tuple[float, Interval]:
    """Difference of two AUROCs on the same images, with a 95 % interval clustered by patient."""
    apart = Auroc(first.value - second.value, first.influence - second.influence)
    return apart.value, plain_interval(apart.value, apart.variance(patients))
