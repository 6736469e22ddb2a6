"""One score over folds and draws: its parts, their intervals, and the features from which it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medphantom.core.records import Array, Frozen
from medphantom.quality.fidelity.halves import Halves, draw_halves
from medphantom.quality.fidelity.kernel import kernel_interval
from medphantom.quality.fidelity.table import Rows, Table
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.influence import Variance, log_interval, plain_interval

Scale = Literal["log", "plain", "share", "kernel"]
LEAST_KEPT = 0.1  # smallest share of a variance that remains after the random error of draws is subtracted


class Statistic(Frozen):
    """One value with the quantities from which its interval is computed, before it becomes an estimate.

    Attributes:
        value: mean over draws and folds.
        variance: variance from influences; on the logarithmic scale that of the value itself.
        freedom: degrees of freedom of the variance.
        quadratic: variance of the second-order part, for the kernel distance.
        scale: scale on which the interval is computed.
        draws: smallest and largest value over draws and folds.
    """

    value: float
    variance: float | None = None
    freedom: float = 1e6
    quadratic: float = 0.0
    scale: Scale = "plain"
    draws: Interval | None = None

    def interval(self) -> Interval | None:
        """95 % interval of the value's expectation; ``None`` if there is none."""
        if self.variance is None or self.variance <= 0:
            return None
        variance = Variance(self.variance, self.freedom)
        if self.scale == "log":
            return log_interval(self.value, variance)
        if self.scale == "kernel":
            return kernel_interval(self.value, variance, self.quadratic)
        low, high = plain_interval(self.value, variance)
        return (max(low, 0.0), min(high, 1.0)) if self.scale == "share" else (low, high)


class ScoreStatistics(Frozen):
    """The statistics of one score in one network run, from which its estimate is computed.

    Attributes:
        name: name of the score, as in :data:`medphantom.quality.fidelity.scores.ESTIMANDS`.
        n_synthetic: synthetic images in one comparison, the smallest number over folds.
        n_real: real images in one comparison.
        label: label that the images of both sides have; ``None`` for all images.
        synthetic: statistic of synthetic images against real images.
        floor: statistic of real images against those of other patients.
        reconstruction: statistic of reconstructed real images against those of other patients; ``None`` without an
            autoencoder.
        refused: reason why there is no score.
    """

    name: str
    n_synthetic: int
    n_real: int
    label: str | None = None
    synthetic: Statistic | None = None
    floor: Statistic | None = None
    reconstruction: Statistic | None = None
    refused: str | None = None


@dataclass(frozen=True)
class FoldFeatures:
    """The features of the images by one fold's network.

    Attributes:
        real: features of the real images that it may score, ``(n, d)``.
        synthetic: features of all synthetic images, ``(m, d)``.
        rebuilt: features of the reconstructed real images in the same order; ``None`` without an autoencoder.
        patients: patient of each real image.
        strata: class of each real image if halves are matched for class counts, else ``None``.
        synthetic_strata: class of each synthetic image.
    """

    real: Table
    synthetic: Table
    rebuilt: Table | None
    patients: Array
    strata: Array | None = None
    synthetic_strata: Array | None = None

    def restricted(self, real: Array, synthetic: Array) -> FoldFeatures:
        """The given real and synthetic rows, without strata and reconstructions."""
        return FoldFeatures(Rows(self.real, real), Rows(self.synthetic, synthetic), None, self.patients[real])

    def halves(self, draws: int, rng: np.random.Generator, synthetic_seed: int, *, matched: bool) -> list[Halves]:
        """Random halves, in which the selection of synthetic images depends only on the seed."""
        return draw_halves(
            self.patients,
            len(self.synthetic),
            draws=draws,
            rng=rng,
            synthetic_rng=np.random.default_rng(synthetic_seed),
            strata=self.strata if matched else None,
            synthetic_strata=self.synthetic_strata if matched else None,
        )


def smallest_half(halves: Sequence[Sequence[Halves]]) -> int:
    """Number of images in the smallest half over all folds and draws."""
    return min((len(half.first) for draws in halves for half in draws), default=0)


def refused(names: Sequence[str], size: int, why: str) -> list[ScoreStatistics]:
    """Refused scores that the number of images does not support."""
    return [ScoreStatistics(name=name, n_synthetic=size, n_real=size, refused=why) for name in names]
