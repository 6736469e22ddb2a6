"""Standard errors out of influence: what every image adds to a score's deviation from its expectation, by patient.

A score of a set of images deviates from its expectation by about the sum of its images' influences (the infinitesimal
jackknife, Jaeckel 1972; Efron 1982, chapter 6). The sum of their squares, by patient, is its variance. Scores of pairs
have a part of second order too, which the squares count twice (Efron and Stein 1981): where nothing differs, it is all
there is. :func:`quadratic_share` tells it by its growth when the sets are halved, and :func:`corrected` takes the
surplus away.
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
    """A variance that was estimated.

    Attributes:
        value: variance of the score.
        freedom: degrees of freedom of the variance estimate (Satterthwaite 1946).
    """

    value: float
    freedom: float

    def scaled(self, factor: float) -> Variance:
        """The same, times a factor."""
        return Variance(self.value * factor, self.freedom)


def by_owner(influence_N: Array, owners: Sequence[str] | Array) -> Array:
    """Influences summed by patient, ``(patients,)``."""
    _, owner = np.unique(np.asarray(owners), return_inverse=True)
    found: Array = np.bincount(owner, weights=influence_N)
    return found


def variance_of(*influences: Array) -> Variance:
    """Variance of a score out of the influences of independent patients.

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
    """Share of a variance out of influences that is due to the part of second order, counted twice.

    A part of first order doubles when the sets are halved, one of second order grows fourfold.

    Args:
        whole: variance of the whole sets.
        halves: variances of halves of the sets.
    """
    if whole <= 0 or not halves:
        return 0.0
    return float(np.clip((np.mean(halves) / whole - 2) / 2, 0, 1))


def corrected(variance: Variance, share: float) -> Variance:
    """The variance without the surplus of :func:`quadratic_share`.

    A share is uncertain, and small where the score happens to be large: it is squared, so that a part of second order
    that is not all there is does not make intervals too short. Chosen by trials (``benchmarks/interval_coverage.py``):
    with the share as it is, 92 of 100 intervals held the expectation where little differs.
    """
    return variance.scaled(1 - share**2 / 2)


def plain_interval(value: float, variance: Variance) -> Interval:
    """95 % interval with Student's quantile."""
    half = student_quantile(variance) * np.sqrt(variance.value)
    return float(value - half), float(value + half)


def log_interval(value: float, variance: Variance) -> Interval | None:
    """95 % interval of a positive score on the logarithmic scale, where its error does not grow with it.

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
