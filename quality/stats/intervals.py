"""Intervals of proportions and means, and bootstrap intervals by patient for other scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.stats.estimate import Interval

LEVEL = 0.95


def proportion_interval(hits: int, total: int, method: Literal["wilson", "exact"] = "wilson") -> Interval:
    """95 % interval of a proportion: Wilson's score interval, or Clopper and Pearson's exact one.

    Args:
        hits: number of successful trials.
        total: number of independent trials.
        method: ``wilson`` (near-nominal coverage) or ``exact`` (never below nominal).

    Raises:
        UnsupportedClaim: there was no trial.
    """
    if total < 1:
        raise UnsupportedClaim("a proportion of no images has no interval")
    bounds = stats.binomtest(hits, total).proportion_ci(LEVEL, method=method)
    return float(bounds.low), float(bounds.high)


def proportion_lower_bound(hits: int, total: int) -> float:
    """95 % lower bound of a proportion, one-sided (Clopper and Pearson): 59 of 59 give .95.

    Raises:
        UnsupportedClaim: there was no trial.
    """
    if total < 1:
        raise UnsupportedClaim("a proportion of no images has no bound")
    return float(stats.binomtest(hits, total, alternative="greater").proportion_ci(LEVEL, method="exact").low)


def patient_bootstrap(
    score: Callable[[Array], float | None],
    patients: Sequence[str] | Array,
    *,
    draws: int,
    rng: np.random.Generator,
    around: float | None = None,
) -> Interval | None:
    """95 % percentile interval of a score when whole patients are drawn with replacement.

    Args:
        score: function of row numbers (with repeats) that returns the score, or ``None`` if a draw cannot support it.
        patients: patient of each row.
        draws: number of bootstrap samples.
        rng: source of the bootstrap samples.
        around: value of a score that is biased under resampling, such as a calibration error. The draws are shifted so
            that their mean equals this value, and the interval is that of its expectation at this number of images.
            Such scores are never negative, and neither is the interval.

    Returns:
        The interval; ``None`` when more than a tenth of the draws could not be scored, or when all draws agree (a score
        at its limit), since an interval of zero width would be misleading.
    """
    _, owner = np.unique(np.asarray(patients), return_inverse=True)
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    values = []
    for _ in range(draws):
        chosen = rng.integers(len(counts), size=len(counts))
        many = counts[chosen]  # rows of each, one patient after the other
        before = np.cumsum(many) - many
        value = score(order[np.repeat(starts[chosen] - before, many) + np.arange(many.sum())])
        if value is not None:
            values.append(value)
    if len(values) < 0.9 * draws:
        return None
    moved = 0.0 if around is None else around - float(np.mean(values))
    low, high = (float(bound) + moved for bound in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    if around is not None:
        low = max(0.0, low)
    return (low, high) if low < high else None


def mean_interval(values: Array) -> Interval | None:
    """95 % t interval of the mean of independent values; ``None`` for fewer than two."""
    if len(values) < 2:
        return None
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    center = float(np.mean(values))
    return center - float(half), center + float(half)
