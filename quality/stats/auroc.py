"""AUROC and differences of AUROCs on the same images, with intervals clustered by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from medphantom.core.records import Array
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.influence import Variance, by_owner, plain_interval, student_quantile, variance_of


@dataclass(frozen=True)
class Auroc:
    """An area under the ROC curve, or a mean or difference of several.

    Attributes:
        value: probability that a positive image scores higher than a negative one, with ties counted as one half.
        influence: influence of each image on the value, ``(n,)``, with sum zero.
    """

    value: float
    influence: Array

    def variance(self, patients: Sequence[str] | Array) -> Variance:
        """Variance of the value for independent patients (DeLong et al. 1988; by patient: Obuchowski 1997)."""
        return variance_of(by_owner(self.influence, patients))

    def interval(self, patients: Sequence[str] | Array) -> Interval | None:
        """95 % interval on the logit scale; ``None`` for a value of 0 or 1, whose variance cannot be estimated."""
        if not 0 < self.value < 1:
            return None
        variance = self.variance(patients)
        center = np.log(self.value / (1 - self.value))
        half = student_quantile(variance) * np.sqrt(variance.value) / (self.value * (1 - self.value))
        low, high = (float(1 / (1 + np.exp(-(center + side * half)))) for side in (-1, 1))
        return low, high


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
    above = np.empty(
        len(score)
    )  # share of images with the other label that are ranked correctly relative to each image
    above[positive] = (ranks[positive] - rankdata(score[positive])) / misses
    above[~positive] = 1 - (ranks[~positive] - rankdata(score[~positive])) / hits
    value = float(above[positive].mean())
    return Auroc(value, (above - value) / np.where(positive, hits, misses))


def mean_auroc(parts: Sequence[Auroc]) -> Auroc:
    """The mean over classifiers that were tested on the same images."""
    return Auroc(float(np.mean([part.value for part in parts])), np.mean([part.influence for part in parts], axis=0))


def auroc_difference(first: Auroc, second: Auroc, patients: Sequence[str] | Array) -> tuple[float, Interval]:
    """Difference of two AUROCs on the same images, with a 95 % interval clustered by patient."""
    apart = Auroc(first.value - second.value, first.influence - second.influence)
    return apart.value, plain_interval(apart.value, apart.variance(patients))
