"""Copies by contrast: how much more alike synthetic images are to training than to gate patients, and what chance does.

An image that nobody copied is as alike to the nearest of M training images as to the nearest of M gate images: the
difference of the two is symmetric about nought, whether the image is sharp, blurred, noisy or odd. So the images
themselves say how far chance reaches: as far towards training as it is seen to reach towards gate. A threshold taken
from other images would not, since those may be alike to everybody more, or less.

Training has more images than gate. By the union bound over its B = N / M blocks of M images, chance exceeds a contrast
with all of training at most B times as often as one with a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from cohorts.errors import UnsupportedClaim
from cohorts.records import Array

TAIL = 0.15  # share of the values that the tail is fitted to
SMALLEST_TAIL = 10
SMALLEST_CHANCE = 50
SCALES = 200
DEPTHS = (1, 2, 3, 5, 8, 13, 21)


@dataclass(frozen=True)
class Chance:
    """How often chance exceeds a contrast: counted, and beyond a threshold by an exponential tail.

    The tail's scale is known from few values only. That is part of chance: probabilities are means over the scales that
    those values leave possible (an inverse gamma distribution), so that one far value is not taken for impossible.

    Attributes:
        values: contrasts of chance, rising.
        threshold: where the tail begins.
        beyond: number of values beyond it.
        scale: their mean excess.
    """

    values: Array
    threshold: float
    beyond: int
    scale: float

    @classmethod
    def of(cls, values: Array) -> Chance:
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
        return cls(ordered, threshold, beyond, max(float(np.mean(ordered[-beyond:] - threshold)), 1e-6))

    def exceeds(self, contrasts: Array) -> Array:
        """Probability that chance exceeds each contrast, ``(SCALES, n)``: one row for each scale that is possible."""
        given = np.asarray(contrasts, dtype=float)
        quantiles = (np.arange(SCALES) + 0.5) / SCALES
        scales = self.scale * self.beyond / stats.gamma.ppf(quantiles, self.beyond)
        counted = np.clip(1 - np.searchsorted(self.values, given, side="left") / len(self.values), 0, 1)
        share = self.beyond / len(self.values)
        tail = share * np.exp(-np.maximum(given - self.threshold, 0)[None, :] / scales[:, None])
        found: Array = np.where(given > self.threshold, tail, np.maximum(counted, share))
        return found


@dataclass(frozen=True)
class CopyTest:
    """Which images are copies beyond chance, and whether there are any.

    Attributes:
        contrast: of each image with all of training.
        chance: probability, for each image, that chance makes such a contrast with any block of training.
        p_value: probability that chance makes as many contrasts as large.
        depth: number of images, from the most contrasting one on, at which that is least likely.
    """

    contrast: Array
    chance: Array
    p_value: float
    depth: int

    def flagged(self, level: float) -> Array:
        """Images whose own chance is below a level."""
        found: Array = self.chance < level
        return found


def find_copies(train_score: Array, block_score: Array, gate_score: Array, *, blocks: float) -> CopyTest:
    """Test a set of images for copies of training images.

    Args:
        train_score: likeness of each image to the most alike of all N training images.
        block_score: to the most alike of a block of M of them.
        gate_score: to the most alike of M gate images.
        blocks: N / M.

    Raises:
        UnsupportedClaim: too few images.
    """
    contrast = np.asarray(train_score, dtype=float) - gate_score
    # Copies in the block would only lengthen the side that is not looked at: chance is read from what leans to gate.
    chance = Chance.of(np.asarray(gate_score, dtype=float) - block_score)
    order = np.argsort(-contrast, kind="stable")
    each = np.minimum(1.0, max(1.0, blocks) * chance.exceeds(contrast))
    depths = [depth for depth in DEPTHS if depth <= len(order)]
    chances = [float(stats.binom.sf(depth - 1, len(order), each[:, order[depth - 1]]).mean()) for depth in depths]
    best = int(np.argmin(chances))
    return CopyTest(contrast, each.mean(axis=0), min(1.0, len(depths) * chances[best]), depths[best])
