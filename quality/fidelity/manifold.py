"""Precision, recall, density and coverage: agreement of the supports of synthetic and real features.

Distances are computed in blocks of rows, so that memory does not grow with the square of the number of images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.fidelity.table import Table, blocks, mean_of

PRECISION_RECALL_K = 3  # Kynkäänniemi et al. 2019, section 3.1
DENSITY_COVERAGE_K = 5  # Naeem et al. 2020, section 4.2.2
COLUMNS_PER_TILE = 4096


class ManifoldScores(NamedTuple):
    """Four scores that are close to their real-vs-real floor for a perfect generator; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbour_radii(points_ND: Table, *ks: int, center: Array | float = 0.0) -> Array:
    """Distance of each point to its k-th nearest other point, ``(len(ks), N)``.

    Args:
        points_ND: feature vectors, one row per image.
        ks: ranks k of the neighbours.
        center: vector subtracted from every point, because large offsets reduce the numerical precision.

    Raises:
        UnsupportedClaim: there are fewer than k other points.
    """
    most = max(ks)
    if len(points_ND) <= most:
        raise UnsupportedClaim(
            f"{len(points_ND)} images have fewer than {most} neighbours each", f"give more than {most}"
        )
    found = np.empty((len(ks), len(points_ND)))
    for rows, block in blocks(points_ND):
        nearest = np.full((len(block), most), np.inf)
        for columns, other in blocks(points_ND, COLUMNS_PER_TILE):
            distances = euclidean_distances(block - center, other - center)
            inside = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
            distances[inside - rows.start, inside - columns.start] = np.inf
            nearest = np.partition(np.concatenate([nearest, distances], axis=1), most - 1, axis=1)[:, :most]
        found[:, rows] = np.sort(nearest, axis=1)[:, [k - 1 for k in ks]].T
    return found


def manifold_scores(
    real_ND: Table, synthetic_MD: Table, *, k: int = PRECISION_RECALL_K, k_density: int = DENSITY_COVERAGE_K
) -> ManifoldScores:
    """Precision and recall (Kynkäänniemi et al. 2019, equations 1 to 3), density and coverage (Naeem et al. 2020, 4.1).

    Balls are closed, and a point is not its own neighbour. Precision and recall assume N = M.

    Args:
        real_ND: features of real images.
        synthetic_MD: features of synthetic images.
        k: number of neighbours for precision and recall.
        k_density: number of neighbours for density and coverage.

    Raises:
        UnsupportedClaim: there are too few images for k neighbours.
    """
    center = mean_of(real_ND)
    narrow, wide = neighbour_radii(real_ND, k, k_density, center=center)
    around = neighbour_radii(synthetic_MD, k, center=center)[0]
    inside = np.zeros(len(synthetic_MD), dtype=bool)
    recalled, covered = (np.zeros(len(real_ND), dtype=bool) for _ in range(2))
    balls = 0
    for rows, real in blocks(real_ND):
        for columns, synthetic in blocks(synthetic_MD, COLUMNS_PER_TILE):
            distances = euclidean_distances(real - center, synthetic - center)
            inside[columns] |= (distances <= narrow[rows, None]).any(axis=0)
            recalled[rows] |= (distances <= around[None, columns]).any(axis=1)
            dense = distances <= wide[rows, None]
            covered[rows] |= dense.any(axis=1)
            balls += int(dense.sum())
    return ManifoldScores(
        precision=float(inside.mean()),
        recall=float(recalled.mean()),
        density=balls / (k_density * len(synthetic_MD)),
        coverage=float(covered.mean()),
    )
