"""Scores of how much the synthetic images differ from each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from medphantom.cohorts.preprocess import Preprocess
from medphantom.core.errors import UnsupportedClaim
from medphantom.core.randomness import derive_seed
from medphantom.metrics.base import FeatureMetric, ImageMetric, Images, require_neighbourhoods
from medphantom.quality.fidelity.diversity import diversity
from medphantom.quality.fidelity.half_samples import Standardised
from medphantom.quality.fidelity.vendi import vendi_score
from medphantom.quality.stats.estimate import Estimate


class VendiScore(FeatureMetric):
    """How many different images the synthetic ones amount to, by cosine of features (Friedman and Dieng 2023).

    It is 1 when all images are the same, and at most the number of features. It grows with n, so compare only values at
    equal n. If real images were given, their mean and standard deviation standardise the features first, as in a
    report. The score is refused below 50 synthetic images.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> score = mp.metrics.VendiScore()
        >>> score.update(np.repeat(np.eye(3), 20, axis=0), real=False)         # three kinds of image
        >>> round(float(score.compute()), 6)
        3.0
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the score in 1…d, a float64 scalar.

        Raises:
            UnsupportedClaim: There are too few images, or a few real images dominate the features.
        """
        if not len(self.real_kept):
            synthetic = self._table("synthetic")
            require_neighbourhoods(len(synthetic))
            return self._value(vendi_score(synthetic))
        synthetic, real = self._pair()
        require_neighbourhoods(min(len(synthetic), len(real)))
        return self._value(vendi_score(Standardised.by(real, synthetic)))


class MSSSIMDiversity(ImageMetric):
    """Mean MS-SSIM of random pairs of synthetic images, 0…1; best near the value of real images of different patients.

    The metric takes images, not features, all of one size of at least 11 pixels a side. MS-SSIM of fewer scales is
    another measure, so compare only values at equal size. The score is refused below 10 pairs of independent images on
    either side.

    Args:
        preprocess: The preprocessing that brings source values to -1…1, or ``None`` if the images are in -1…1 or uint8.
        pairs: The maximum number of pairs on either side.
        seed: The seed of the random pairs.
        kwargs: The arguments of :class:`torchmetrics.Metric`.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> noise = np.random.default_rng(0).uniform(-1, 1, (40, 1, 16, 16)).astype("float32")
        >>> score = mp.metrics.MSSSIMDiversity()
        >>> score.update(noise, real=True)
        >>> score.update(np.repeat(noise[:1], 20, axis=0), real=False)         # the same image twenty times
        >>> round(float(score.compute()), 3), score.estimate().floor < 0.2
        (1.0, True)
    """

    higher_is_better = None

    def __init__(self, preprocess: Preprocess | None = None, *, pairs: int = 200, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(preprocess, **kwargs)
        self.pairs, self.seed = pairs, seed

    def compute(self) -> Tensor:
        """Return the mean over synthetic pairs, a float64 scalar.

        Raises:
            UnsupportedClaim: There are too few pairs, or the images are too small for the window of SSIM.
        """
        found = self._estimate()
        if found.value is None:
            raise UnsupportedClaim((found.refused or "").partition(";")[0], "use Recall and Coverage instead")
        return self._value(found.value)

    def estimate(self) -> Estimate:
        """Return the score with its interval and its floor, which is the score of real images of different patients."""
        with self._synced():
            return self._estimate()

    def _estimate(self) -> Estimate:
        rng = np.random.default_rng(derive_seed(self.seed, "pairs"))
        synthetic, real = self._table("synthetic"), self._table("real")
        return diversity(synthetic, real, np.asarray(self._names("real")), pairs=self.pairs, rng=rng)

    def _kept(self, images: Images) -> Tensor:
        return self._network_images(images).to(self.device)
