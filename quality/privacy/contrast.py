"""Copies by contrast: how much more alike synthetic images are to training than to holdout patients, and what chance
does.

An image that nobody copied is as alike to the nearest of M training images as to the nearest of M holdout images: the
difference of the two is symmetric about nought, whether the image is sharp, blurred, noisy or odd. So the images
themselves say how far chance reaches: as far towards training as it is seen to reach towards holdout. A threshold taken
from other images would not, since those may be alike to everybody more, or less.

Training has more images than holdout. By the union bound over its B = N / M blocks of M images, chance exceeds a
contrast with all of training at most B times as often as one with a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.records import Array

TAIL = 0.15  # share of the values that the tail is fitted to
SMALLEST_TAIL = 10
SMALLEST_CHANCE = 50
SCALES = 60
SHAPES = {0.0: 0.7, 0.1: 0.15, 0.2: 0.1, 0.3: 0.05}  # of the tail, with what is thought of them beforehand
NEGLIGIBLE = 1e-6
DEPTHS = (1, 2, 3, 5, 8, 13, 21)


@dataclass(frozen=True)
class ChanceModel:
    """How often chance exceeds a contrast: counted, and beyond a threshold by a generalised Pareto tail.

    The tail is known from few values only. That is part of chance: probabilities are means over the shapes and scales
    that those values leave possible, each weighed by how well it explains them (a posterior on a grid). Shapes run from
    the exponential tail of contrasts between unlike images to the heavier ones of cohorts with near duplicates.

    Attributes:
        values: contrasts of chance, rising.
        threshold: where the tail begins.
        share: of the values, beyond it.
        shapes: ``(T,)`` of the tails that are possible.
        scales: ``(T,)`` likewise.
        weights: ``(T,)``, adding up to one.
    """

    values: Array
    threshold: float
    share: float
    shapes: Array
    scales: Array
    weights: Array

    @classmethod
    def of(cls, values: Array) -> ChanceModel:
        """Fit to contrasts that chance alone made.

        Raises:
            UnsupportedClaim: fewer than :data:`SMALLEST_CHANCE` values.
        """
        ordered = np.sort(np.asarray(values, dtype=float))
        if len(ordered) < SMALLEST_CHANCE:
            raise UnsupportedClaim(
                f"{len(ordered)} images do not say how far chance reaches, at least {SMALLEST_CHANCE} do"
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
        """Probability that chance exceeds each contrast, ``(T, n)``: one row for each tail that is possible."""
        given = np.asarray(contrasts, dtype=float)
        counted = np.clip(1 - np.searchsorted(self.values, given, side="left") / len(self.values), 0, 1)
        excess = np.maximum(given - self.threshold, 0)[None, :] / self.scales[:, None]
        tail = self.share * np.exp(_log_survival(excess, self.shapes[:, None]))
        found: Array = np.where(given > self.threshold, tail, np.maximum(counted, self.share))
        return found


def _log_survival(excess: Array, shape: Array) -> Array:
    """Of the generalised Pareto distribution with scale 1; shape 0 is exponential."""
    heavy = np.where(shape > 0, shape, 1.0)
    found: Array = np.where(shape > 0, -np.log1p(heavy * excess) / heavy, -excess)
    return found


def _log_density(excess: Array, shape: Array) -> Array:
    found: Array = _log_survival(excess, shape) - np.log1p(shape * excess)
    return found


@dataclass(frozen=True)
class CopyTest:
    """Which images are copies beyond chance, and whether there are any.

    Attributes:
        model: how far chance reaches.
        blocks: number of blocks of training images.
        contrast: of each image with all of training.
        p_values: probability, for each image, that chance makes such a contrast with any block of training.
        p_value: probability that chance makes as many contrasts as large.
        depth: number of images, from the most contrasting one on, at which that is least likely.
    """

    model: ChanceModel
    blocks: float
    contrast: Array
    p_values: Array
    p_value: float
    depth: int

    def p_values_of(self, contrast: Array) -> Array:
        """The same probability for other images."""
        return _mean_p_values(self.model, self.blocks, contrast)

    def p_value_of(self, contrast: Array) -> float:
        """The same probability for another set."""
        return _of_set(self.model, self.blocks, contrast)[0]


def find_copies(train_score: Array, block_score: Array, holdout_score: Array, *, blocks: float) -> CopyTest:
    """Test a set of images for copies of training images.

    Args:
        train_score: similarity of each image to the most alike of all N training images.
        block_score: to the most alike of a block of M of them.
        holdout_score: to the most alike of M holdout images.
        blocks: N / M.

    Raises:
        UnsupportedClaim: too few images.
    """
    contrast = np.asarray(train_score, dtype=float) - holdout_score
    # Copies in the block would only lengthen the side that is not looked at: chance is read from what leans to holdout.
    model = ChanceModel.of(np.asarray(holdout_score, dtype=float) - block_score)
    p_value, depth = _of_set(model, blocks, contrast)
    return CopyTest(model, blocks, contrast, _mean_p_values(model, blocks, contrast), p_value, depth)


def _p_values(model: ChanceModel, blocks: float, contrast: Array) -> Array:
    found: Array = np.minimum(1.0, max(1.0, blocks) * model.exceeds(contrast))
    return found


def _mean_p_values(model: ChanceModel, blocks: float, contrast: Array) -> Array:
    found: Array = model.weights @ _p_values(model, blocks, contrast)
    return found


def _of_set(model: ChanceModel, blocks: float, contrast: Array) -> tuple[float, int]:
    """The p-value of a set, and the depth at which it is found."""
    total = len(contrast)
    depths = [depth for depth in DEPTHS if depth <= total]
    largest = -np.sort(-np.partition(contrast, total - depths[-1])[-depths[-1] :])
    each = _p_values(model, blocks, largest[np.array(depths) - 1])
    chances = model.weights @ stats.binom.sf(np.array(depths) - 1, total, each)
    best = int(np.argmin(chances))
    return min(1.0, len(depths) * float(chances[best])), depths[best]
