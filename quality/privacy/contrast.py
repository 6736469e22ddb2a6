"""Copy test by contrast: how much more similar synthetic images are to training than to holdout images, with p values.

An image that is not a copy is as similar to the nearest of M training images as to the nearest of M holdout images.
The difference of both similarities is therefore symmetric about zero under the null hypothesis, whether the image is
sharp, blurred, noisy or unusual, and its null distribution can be estimated from the side of the holdout. A threshold
from other images would not be valid, because their similarity to real images may differ in general.

The training set is larger than the holdout. By the union bound over its B = N / M blocks of M images, the p value of a
contrast with the whole training set is at most B times that of a contrast with one block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.records import Array

TAIL = 0.15  # share of the values to which the tail is fitted
SMALLEST_TAIL = 10
SMALLEST_NULL = 50
SCALES = 60
SHAPES = {0.0: 0.7, 0.1: 0.15, 0.2: 0.1, 0.3: 0.05}  # shapes of the tail with their prior probabilities
NEGLIGIBLE = 1e-6
DEPTHS = (1, 2, 3, 5, 8, 13, 21)


@dataclass(frozen=True)
class NullDistribution:
    """The null distribution of contrasts: empirical, with a generalised Pareto tail beyond a threshold.

    The tail is estimated from few values. To account for this uncertainty, tail probabilities are averaged over a grid
    of shapes and scales, weighted by their posterior probability. Shapes range from the exponential tail of contrasts
    between dissimilar images to the heavier tails of cohorts with near duplicates.

    Attributes:
        values: contrasts under the null hypothesis, ascending.
        threshold: contrast at which the tail begins.
        share: share of the values beyond the threshold.
        shapes: shape of each candidate tail, ``(T,)``.
        scales: scale of each candidate tail, ``(T,)``.
        weights: posterior weight of each candidate tail, ``(T,)``, with sum one.
    """

    values: Array
    threshold: float
    share: float
    shapes: Array
    scales: Array
    weights: Array

    @classmethod
    def of(cls, values: Array) -> NullDistribution:
        """Fit the distribution to contrasts under the null hypothesis.

        Raises:
            UnsupportedClaim: there are fewer than :data:`SMALLEST_NULL` values.
        """
        ordered = np.sort(np.asarray(values, dtype=float))
        if len(ordered) < SMALLEST_NULL:
            raise UnsupportedClaim(
                f"{len(ordered)} images are too few for a test of single images; at least {SMALLEST_NULL} are required"
            )
        beyond = max(SMALLEST_TAIL, int(TAIL * len(ordered)))
        threshold = float(ordered[-beyond - 1])
        excess = ordered[-beyond:] - threshold
        steps = np.exp(np.linspace(-1.2, 1.0, SCALES)) * max(float(excess.mean()), 1e-6)
        shapes, scales = (grid.ravel() for grid in np.meshgrid(list(SHAPES), steps, indexing="ij"))
        prior = np.repeat(np.log(list(SHAPES.values())), SCALES)
        excesses = excess[None, :] / scales[:, None]
        weights = prior - beyond * np.log(scales) + _log_density(excesses, shapes[:, None]).sum(axis=1)
        weights = np.exp(weights - weights.max())
        kept = weights > NEGLIGIBLE
        weights = weights[kept] / weights[kept].sum()
        return cls(ordered, threshold, beyond / len(ordered), shapes[kept], scales[kept], weights)

    def exceeds(self, contrasts: Array) -> Array:
        """Survival function at each contrast, ``(T, n)``, with one row for each candidate tail."""
        given = np.asarray(contrasts, dtype=float)
        counted = np.clip(1 - np.searchsorted(self.values, given, side="left") / len(self.values), 0, 1)
        excess = np.maximum(given - self.threshold, 0)[None, :] / self.scales[:, None]
        tail = self.share * np.exp(_log_survival(excess, self.shapes[:, None]))
        found: Array = np.where(given > self.threshold, tail, np.maximum(counted, self.share))
        return found


def _log_survival(excess: Array, shape: Array) -> Array:
    """Logarithmic survival function of the generalised Pareto distribution with scale 1; shape 0 is exponential."""
    heavy = np.where(shape > 0, shape, 1.0)
    found: Array = np.where(shape > 0, -np.log1p(heavy * excess) / heavy, -excess)
    return found


def _log_density(excess: Array, shape: Array) -> Array:
    found: Array = _log_survival(excess, shape) - np.log1p(shape * excess)
    return found


@dataclass(frozen=True)
class CopyTest:
    """The test for copies: p values of single images and of the whole set.

    Attributes:
        model: null distribution of the contrasts.
        blocks: number of blocks of training images.
        contrast: contrast of each image with the whole training set.
        p_values: p value of each image, corrected for the number of blocks.
        p_value: p value of the whole set.
        depth: number of images with the largest contrasts on which the p value of the set is based.
    """

    model: NullDistribution
    blocks: float
    contrast: Array
    p_values: Array
    p_value: float
    depth: int

    def p_values_of(self, contrast: Array) -> Array:
        """P values of other images with the given contrasts."""
        return _mean_p_values(self.model, self.blocks, contrast)

    def p_value_of(self, contrast: Array) -> float:
        """P value of another set with the given contrasts."""
        return _of_set(self.model, self.blocks, contrast)[0]


def find_copies(train_score: Array, block_score: Array, holdout_score: Array, *, blocks: float) -> CopyTest:
    """Test a set of images for copies of training images.

    Args:
        train_score: similarity of each image to the nearest of all N training images.
        block_score: similarity of each image to the nearest of a block of M training images.
        holdout_score: similarity of each image to the nearest of M holdout images.
        blocks: number of blocks, N / M.

    Raises:
        UnsupportedClaim: there are too few images.
    """
    contrast = np.asarray(train_score, dtype=float) - holdout_score
    # Copies in the block affect only the side of the training set, and the null distribution uses that of the holdout.
    model = NullDistribution.of(np.asarray(holdout_score, dtype=float) - block_score)
    p_value, depth = _of_set(model, blocks, contrast)
    return CopyTest(model, blocks, contrast, _mean_p_values(model, blocks, contrast), p_value, depth)


def _p_values(model: NullDistribution, blocks: float, contrast: Array) -> Array:
    found: Array = np.minimum(1.0, max(1.0, blocks) * model.exceeds(contrast))
    return found


def _mean_p_values(model: NullDistribution, blocks: float, contrast: Array) -> Array:
    found: Array = model.weights @ _p_values(model, blocks, contrast)
    return found


def _of_set(model: NullDistribution, blocks: float, contrast: Array) -> tuple[float, int]:
    """The p value of a set, and the depth at which it is reached."""
    total = len(contrast)
    depths = [depth for depth in DEPTHS if depth <= total]
    largest = -np.sort(-np.partition(contrast, total - depths[-1])[-depths[-1] :])
    each = _p_values(model, blocks, largest[np.array(depths) - 1])
    tail = model.weights @ stats.binom.sf(np.array(depths) - 1, total, each)
    best = int(np.argmin(tail))
    return min(1.0, len(depths) * float(tail[best])), depths[best]
