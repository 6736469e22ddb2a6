"""Detection of features dominated by a few images, whose distances would describe only these images."""

from __future__ import annotations

import numpy as np

from medphantom.quality.fidelity.table import Table, blocks, mean_of

SHARE_OF_IMAGES = 1 / 20
LARGEST_SHARE = 0.5  # measured on 300 chest radiographs, MedNIST images or blood cells: .12 to .22 of the whole


def dominant_share(features_ND: Table) -> float:
    """Share of the trace of the covariance that is due to the 5 % of images farthest from the mean.

    Args:
        features_ND: feature vectors, one row per image.

    Returns:
        A share in 0…1, 0 for equal rows; slightly above 0.05 for normal features of many dimensions, 0.28 for one.
    """
    mean = mean_of(features_ND)
    squared = np.concatenate([((block - mean) ** 2).sum(axis=1) for _, block in blocks(features_ND)])
    few = max(1, int(len(squared) * SHARE_OF_IMAGES))
    total = float(squared.sum())
    return float(np.sort(squared)[-few:].sum()) / total if total > 0 else 0.0


def dominance_refusal(real_ND: Table) -> str | None:
    """Reason why scores of these features are refused, or ``None`` if they are not dominated by a few images.

    Args:
        real_ND: features of real images, one row per image.
    """
    few, share = max(1, int(len(real_ND) * SHARE_OF_IMAGES)), dominant_share(real_ND)
    if share <= LARGEST_SHARE:
        return None
    return (
        f"{few} of {len(real_ND)} real images account for {share:.2f} of the variance of these features (at most "
        f"{LARGEST_SHARE:g}): exclude them if they are blank or corrupt, or choose another network"
    )
