"""Means over draws, with the influence of every patient and synthetic image on each draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.fidelity.score import LEAST_KEPT, FoldFeatures, Scale, Statistic
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.influence import Variance, corrected, variance_of

Influences = tuple[Literal["real", "synthetic"], Array, Array]


class DrawMeans:
    """A mean over draws, with the influence of every patient and synthetic image on each draw.

    Args:
        fold: features of the fold.
        draws: number of draws in total.
    """

    def __init__(self, fold: FoldFeatures, draws: int) -> None:
        self.patients = np.unique(fold.patients, return_inverse=True)[1]
        self.values: list[list[float]] = [[] for _ in range(draws)]
        self.real = np.zeros((draws, int(self.patients.max()) + 1))
        self.synthetic = np.zeros((draws, len(fold.synthetic)))

    def add(self, draw: int, value: float, *influences: Influences) -> None:
        """Add a value to a draw, with the influence of rows on it."""
        self.values[draw].append(value)
        for side, rows, influence in influences:
            if side == "real":
                np.add.at(self.real[draw], self.patients[rows], influence)
            else:
                np.add.at(self.synthetic[draw], rows, influence)

    def by_draw(self) -> Array:
        """Mean of each draw, ``(draws,)``."""
        return np.array([np.mean(values) for values in self.values])

    def influences(self) -> tuple[Array, Array]:
        """Influences of patients and of synthetic images on the mean of each draw, ``(draws, …)``."""
        counts = np.array([len(values) for values in self.values])[:, None]
        return self.real / counts, self.synthetic / counts


@dataclass(frozen=True)
class Joined:
    """A mean over folds, which have different patients but the same synthetic images.

    Attributes:
        values: mean of each draw, ``(draws,)``.
        real: influence of every patient on each draw, ``(draws, patients)``.
        synthetic: influence of every synthetic image on each draw.
        ends: smallest and largest value of one comparison.
    """

    values: Array
    real: Array
    synthetic: Array
    ends: Interval | None

    @classmethod
    def of(cls, means: Sequence[DrawMeans]) -> Joined:
        """The mean over folds."""
        parts = [mean.influences() for mean in means]
        every = [value for mean in means for values in mean.values for value in values]
        return cls(
            np.mean([mean.by_draw() for mean in means], axis=0),
            np.concatenate([real for real, _ in parts], axis=1) / len(means),
            np.mean([synthetic for _, synthetic in parts], axis=0),
            (min(every), max(every)),
        )

    @property
    def value(self) -> float:
        """Mean over draws."""
        return float(self.values.mean())

    def variance(self, share: float = 0.0) -> Variance:
        """Variance of the mean over draws.

        Influences on a mean over a few draws include the random error of the draws: their variance over draws is
        subtracted, and that of the value itself is added (Wager, Hastie, Efron 2014, section 3).

        Args:
            share: share of the second-order part, see :func:`medphantom.quality.stats.influence.quadratic_share`.
        """
        found = corrected(variance_of(self.real.mean(axis=0), self.synthetic.mean(axis=0)), share)
        draws = len(self.values)
        if draws < 2:
            return found
        chance = sum(float(part.var(axis=0, ddof=1).sum()) / draws for part in (self.real, self.synthetic))
        kept = max(found.value - chance, LEAST_KEPT * found.value)
        return Variance(kept + float(self.values.var(ddof=1)) / draws, found.freedom)

    def part(self, scale: Scale, share: float = 0.0) -> Statistic:
        """The mean with the quantities from which its interval is computed."""
        found = self.variance(share)
        return Statistic(value=self.value, variance=found.value, freedom=found.freedom, scale=scale, draws=self.ends)

    def over(self, other: Joined) -> Statistic | None:
        """The ratio of two means of the same images, which accounts for their covariance."""
        if self.value <= 0 or other.value <= 0:
            return None
        logs = [
            Joined(part.values / part.value, part.real / part.value, part.synthetic / part.value, None)
            for part in (self, other)
        ]
        ratio = self.value / other.value
        found = logs[0].less(logs[1]).variance().scaled(ratio**2)
        return Statistic(value=ratio, variance=found.value, freedom=found.freedom, scale="log")

    def halved(self) -> Joined:
        """Halved influences, for distances between two halves of the same patients.

        In the mean over halvings the contributions of pairs of images cancel, because they are in different halves as
        often as in the same half. Only squared contributions of single images remain, and the influence on a square
        is twice its value.
        """
        return Joined(self.values, self.real / 2, self.synthetic / 2, self.ends)

    def less(self, other: Joined, factor: float = 1.0) -> Joined:
        """``factor`` times this mean minus the other."""
        return Joined(
            factor * self.values - other.values,
            factor * self.real - other.real,
            factor * self.synthetic - other.synthetic,
            None,
        )
