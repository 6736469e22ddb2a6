"""Precision, recall, density and coverage: do synthetic features lie where real ones do, and everywhere they do?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from cohorts.errors import UnsupportedClaim
from cohorts.records import Array

PRECISION_RECALL_K = 3  # Kynkäänniemi et al. 2019, section 3.1
DENSITY_COVERAGE_K = 5  # Naeem et al. 2020, section 4.2.2


class ManifoldScores(NamedTuple):
    """Shares (density may exceed 1); all four are near their real-vs-real floor for a perfect generator."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbour_radii(points_ND: Array, k: int) -> Array:
    """Distance of each point to its k-th nearest other point, ``(N,)``.

    Raises:
        UnsupportedClaim: there are no k other points.
    """
    if len(points_ND) <= k:
        raise UnsupportedClaim(f"{len(points_ND)} images have no {k} neighbours each", f"give more than {k}")
    distances = cdist(points_ND, points_ND)
    np.fill_diagonal(distances, np.inf)
    radii: Array = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def manifold_scores(
    real_ND: Array, synthetic_MD: Array, *, k: int = PRECISION_RECALL_K, k_density: int = DENSITY_COVERAGE_K
) -> ManifoldScores:
    """Precision and recall (Kynkäänniemi et al. 2019, equations 1 to 3), density and coverage (Naeem et al. 2020, 4.1).

    Balls are closed, a point is not its own neighbour. Precision and recall presume N = M.

    Args:
        real_ND: features of real images.
        synthetic_MD: features of synthetic images.
        k: neighbours for precision and recall.
        k_density: neighbours for density and coverage.

    Raises:
        UnsupportedClaim: too few images for k neighbours.
    """
    real, synthetic = np.asarray(real_ND, dtype=np.float64), np.asarray(synthetic_MD, dtype=np.float64)
    between_NM = cdist(real, synthetic)
    in_real_ball_NM = between_NM <= neighbour_radii(real, k)[:, None]
    in_synthetic_ball_NM = between_NM <= neighbour_radii(synthetic, k)[None, :]
    in_dense_ball_NM = between_NM <= neighbour_radii(real, k_density)[:, None]
    return ManifoldScores(
        precision=float(in_real_ball_NM.any(axis=0).mean()),
        recall=float(in_synthetic_ball_NM.any(axis=1).mean()),
        density=float(in_dense_ball_NM.sum() / (k_density * len(synthetic))),
        coverage=float(in_dense_ball_NM.any(axis=1).mean()),
    )
