"""Distances between the distributions of real and of synthetic features."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.metrics.base import FeatureMetric
from medphantom.quality.fidelity.frechet import frechet_distance, frechet_interval, frechet_refusal
from medphantom.quality.fidelity.kernel import KernelDistance as KernelValue
from medphantom.quality.fidelity.kernel import kernel_distance, kernel_interval, kernel_refusal
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.influence import by_owner, variance_of

INSTEAD_OF_FRECHET = "use KernelDistance, which is unbiased at every n"


class FrechetDistance(FeatureMetric):
    """Squared Fréchet distance between Gaussians fitted to real and synthetic features (Heusel et al. 2017).

    Lower is better. It is biased upwards by about ``trace(covariance) / n``, so compare only values at equal n. With
    ``inception`` it is the FID. It is refused below 2 images per feature, or below 50, on either side.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> rng = np.random.default_rng(0)
        >>> distance = mp.metrics.FrechetDistance()
        >>> distance.update(rng.normal(0, 1, (4000, 4)), real=True)
        >>> distance.update(rng.normal(1, 1, (4000, 4)), real=False)        # each of 4 means is 1 off
        >>> abs(float(distance.compute()) - 4) < 0.4
        True
        >>> few = mp.metrics.FrechetDistance()
        >>> for real in (True, False):
        ...     few.update(rng.normal(0, 1, (60, 64)), real=real)
        >>> few.compute()
        Traceback (most recent call last):
        medphantom.core.errors.UnsupportedClaim: 60 images cannot support a covariance of 64 features (≥ 128); \
use KernelDistance, which is unbiased at every n
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the squared distance, a float64 scalar ≥ 0 up to rounding.

        Raises:
            UnsupportedClaim: There are too few images for so many features.
        """
        return self._value(frechet_distance(*self._supported()))

    def interval(self, *, seed: int = 0) -> tuple[float, Interval | None]:
        """Return the distance and a 95 % interval of its expectation at this n, with patients as units.

        Args:
            seed: The seed of the half samples from which the second-order part is estimated.

        Raises:
            UnsupportedClaim: There are too few images for so many features.
        """
        with self._synced():
            rng = np.random.default_rng(derive_seed(seed, "halves"))
            return frechet_interval(*self._supported(), self._names("synthetic"), self._names("real"), rng=rng)

    def _supported(self) -> tuple[Array, Array]:
        synthetic, real = self._pair()
        if why := frechet_refusal(min(len(synthetic), len(real)), real.shape[1]):
            raise UnsupportedClaim(why.partition(":")[0], INSTEAD_OF_FRECHET)
        return synthetic, real


class KernelDistance(FeatureMetric):
    """Squared maximum mean discrepancy with the kernel ``(x·y/d + 1)³`` (Bińkowski et al. 2018).

    Lower is better. It is unbiased at every n, so single values may be negative; with ``inception`` it is the KID of
    all images at once. Images of one patient are never compared with each other. It is refused below 25 images a side.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> rng = np.random.default_rng(0)
        >>> distance = mp.metrics.KernelDistance()
        >>> distance.update(rng.normal(0, 1, (60, 8)), real=True, patients=[f"p{i // 2}" for i in range(60)])
        >>> distance.update(rng.normal(0, 1, (60, 8)), real=False)
        >>> value, (low, high) = distance.interval()
        >>> value == float(distance.compute()), low < 0 < high
        (True, True)
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the squared distance, a float64 scalar.

        Raises:
            UnsupportedClaim: There are too few images or patients.
        """
        return self._value(self._distance().value)

    def interval(self) -> tuple[float, Interval]:
        """Return the distance and its 95 % interval, with patients as units.

        Raises:
            UnsupportedClaim: There are too few images or patients.
        """
        with self._synced():
            found = self._distance()
            sides = by_owner(found.first, self._names("synthetic")), by_owner(found.second, self._names("real"))
        return found.value, kernel_interval(found.value, variance_of(*sides), found.quadratic)

    def _distance(self) -> KernelValue:
        synthetic, real = self._pair()
        if why := kernel_refusal(min(len(synthetic), len(real))):
            raise UnsupportedClaim(why.partition(";")[0], "inspect the images and the label agreement instead")
        return kernel_distance(synthetic, real, self._owners("synthetic"), self._owners("real"))
