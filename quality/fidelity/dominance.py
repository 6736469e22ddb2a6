"""Features that a few images dominate: a distance of those tells about these images, and not about the others."""

from __future__ import annotations

import numpy as np

from medphantom.quality.fidelity.table import Table, blocks, mean_of

SHARE_OF_IMAGES = 1 / 20
MOST_CARRIED = 0.5  # measured on 300 chest radiographs, MedNIST images or blood cells: .12 to .22 of the whole


def carried(features_ND: Table) -> float:
    """Share of the trace of the covariance that a twentieth of the images carries, those farthest from the mean.

    Args:
        features_ND: one row per image.

    Returns:
        0…1; of equal rows 0. Normal features of many dimensions have .05 and a little, of one dimension .28.
    """
    mean = mean_of(features_ND)
    squared = np.concatenate([((block - mean) ** 2).sum(axis=1) for _, block in blocks(features_ND)])
    few = max(1, int(len(squared) * SHARE_OF_IMAGES))
    total = float(squared.sum())
    return float(np.sort(squared)[-few:].sum()) / total if total > 0 else 0.0


def dominance_refusal(real_ND: Table) -> str | None:
    """Why no score of these features is given, ``None`` when no few images dominate them.

    Args:
        real_ND: features of real images, one row per image: what real images have among themselves is the floor.
    """
    few, share = max(1, int(len(real_ND) * SHARE_OF_IMAGES)), carried(real_ND)
    if share <= MOST_CARRIED:
        return None
    return (
        f"{few} of {len(real_ND)} real images carry {share:.2f} of all variance of these features (at most "
        f"{MOST_CARRIED:g}): look whether they are blank or broken and leave them out, or choose another network"
    )
