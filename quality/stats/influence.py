"""Standard errors from the influence of every patient's images on the deviation of a score from its expectation.

A score of a set of images deviates from its expectation by about the sum of its images' influences (the infinitesimal
jackknife, Jaeckel 1972; Efron 1982, chapter 6). The sum of their squares, by patient, is its variance. Scores of pairs
also have a second-order part, which the squares count twice (Efron and Stein 1981); it is the whole variance if the
distributions are equal. :func:`quadratic_share` estimates it by its growth when the sets are halved, and
:func:`corrected` removes the surplus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from medphantom.core.records import Array
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.intervals import LEVEL

MOST_FREEDOM = 1e6


@dataclass(frozen=True)
class Variance:
    """An estimated variance.

    Attributes:
        value: variance of the score.
        freedom: degrees of freedom of the variance estimate (Satterthwaite 1946).
    """

    value: float
    freedom: float

    def scaled(self, factor: float) -> Variance:
        """The variance multiplied by a factor."""
        return Variance(self.value * factor, self.freedom)


def by_owner(influence_N: Array, owners: Sequence[str] | Array) -> Array:
    """Influences summed by patient, ``(patients,)``."""
    _, owner = np.unique(np.asarray(owners), return_inverse=True)
    found: Array = np.bincount(owner, weights=influence_N)
    return found


def variance_of(*influences: Array) -> Variance:
    """Variance of a score from the influences of independent patients.

    Args:
        influences: one array per independent set (real patients, synthetic images), one number per patient; each sums
            to about zero.
    """
    value = noise = 0.0
    for influence in influences:
        total = len(influence)
        if total < 2:
            continue
        squares = influence**2 * total / (total - 1)
        value += float(squares.sum())
        noise += float((squares**2).sum() - squares.sum() ** 2 / total)
    freedom = 2 * value**2 / noise if noise > 0 else MOST_FREEDOM
    return Variance(value, float(np.clip(freedom, 2, MOST_FREEDOM)))


def quadratic_share(whole: float, halves: Sequence[float]) -> float:
    """Share of a variance from influences that is due to the second-order part, which it counts twice.

    The first-order part doubles when the sets are halved, the second-order part grows fourfold.

    Args:
        whole: variance of the whole sets.
        halves: variances of halves of the sets.
    """
    if whole <= 0 or not halves:
        return 0.0
    return float(np.clip((np.mean(halves) / whole - 2) / 2, 0, 1))


def corrected(variance: Variance, share: float) -> Variance:
    """The variance without the surplus of :func:`quadratic_share`.

    The estimated share is uncertain, and negatively correlated with the score. It is squared so that a second-order
    part that is only a part of the variance does not make intervals too short. This was chosen by simulation
    (``benchmarks/interval_coverage.py``): without squaring, the coverage was 92 % for small differences.
    """
    return variance.scaled(1 - share**2 / 2)


def plain_interval(value: float, variance: Variance) -> Interval:
    """95 % interval with Student's quantile."""
    half = student_quantile(variance) * np.sqrt(variance.value)
    return float(value - half), float(value + half)


def log_interval(value: float, variance: Variance) -> Interval | None:
    """95 % interval of a positive score on the logarithmic scale, on which its error does not depend on its value.

    Returns:
        The interval; ``None`` for a score of zero.
    """
    if value <= 0:
        return None
    factor = float(np.exp(student_quantile(variance) * np.sqrt(variance.value) / value))
    return value / factor, value * factor


def student_quantile(variance: Variance) -> float:
    """Student's quantile of a two-sided 95 % interval."""
    return float(stats.t.ppf((1 + LEVEL) / 2, variance.freedom))
