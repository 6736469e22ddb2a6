"""Precision, recall, density and coverage: scores by neighbourhoods in feature space."""

from __future__ import annotations

from typing import Any

from medphantom.metrics.base import Extractor, FeatureMetric, require_neighbourhoods
from medphantom.quality.fidelity.manifold import (
    DENSITY_COVERAGE_K,
    PRECISION_RECALL_K,
    ManifoldScores,
    manifold_scores,
)


class PRDC(FeatureMetric):
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), as a dictionary.

    Compare them with what real images reach against other real images of other patients. Precision and recall presume
    as many real as synthetic images. The scores are refused below 50 images a side.

    Args:
        feature_extractor: The same as for :class:`FrechetDistance`.
        k: The number of neighbours for precision and recall.
        k_density: The number of neighbours for density and coverage.
        kwargs: The same as for :class:`FrechetDistance`.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> rng = np.random.default_rng(0)
        >>> scores = mp.metrics.PRDC()
        >>> scores.update(rng.normal(0, 1, (200, 4)), real=True)
        >>> scores.update(rng.normal(9, 1, (200, 4)), real=False)      # far from all of them
        >>> {name: float(value) for name, value in scores.compute().items()}
        {'precision': 0.0, 'recall': 0.0, 'density': 0.0, 'coverage': 0.0}
    """

    higher_is_better = True

    def __init__(
        self,
        feature_extractor: Extractor | None = None,
        *,
        k: int = PRECISION_RECALL_K,
        k_density: int = DENSITY_COVERAGE_K,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_extractor, **kwargs)
        self.k, self.k_density = k, k_density

    def compute(self) -> Any:
        """Return name → float64 scalar: shares in 0…1, and a density ≥ 0 that is about 1 for a perfect generator.

        Raises:
            UnsupportedClaim: There are too few images for neighbourhoods.
        """
        return {name: self._value(value) for name, value in self._scores()._asdict().items()}

    def _scores(self) -> ManifoldScores:
        synthetic, real = self._pair()
        require_neighbourhoods(min(len(synthetic), len(real)))
        return manifold_scores(real, synthetic, k=self.k, k_density=self.k_density)


class _OneOfPRDC(PRDC):
    """One of the four scores alone."""

    def compute(self) -> Any:
        """Return the score, a float64 scalar; :class:`PRDC` computes several of them at less cost.

        Raises:
            UnsupportedClaim: There are too few images for neighbourhoods.
        """
        return self._value(getattr(self._scores(), type(self).__name__.lower()))


class Precision(_OneOfPRDC):
    """Share of synthetic images within the real ones' neighbourhoods, 0…1 (Kynkäänniemi et al. 2019, equation 3)."""


class Recall(_OneOfPRDC):
    """Share of real images within the synthetic ones' neighbourhoods, 0…1 (Kynkäänniemi et al. 2019, equation 3)."""


class Density(_OneOfPRDC):
    """Real neighbourhoods per synthetic image, over k, from 0 on (Naeem et al. 2020, section 4.1)."""


class Coverage(_OneOfPRDC):
    """Share of real images with a synthetic one in their neighbourhood, 0…1 (Naeem et al. 2020, section 4.1)."""
