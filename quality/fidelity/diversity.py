"""Diversity: MS-SSIM of random pairs of synthetic images, compared with pairs of different patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.stats.intervals import mean_interval

PAPER_BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik 2003
KERNEL_SIZE = 11
SMALLEST_PAIRS = 10
PAIRS_PER_BATCH = 128


def scales_that_fit(spatial: Sequence[int]) -> tuple[float, ...]:
    """The paper's exponents for as many scales as an image allows, normalised to sum one.

    Each scale halves the image, and the 11-pixel window must fit into the last one: 5 scales from 176 pixels on, 3 at
    64, 2 at 36. MS-SSIM with fewer scales is another measure: compare only values at equal size.

    Raises:
        UnsupportedClaim: the image is too small for one scale.
    """
    fitting = sum(1 for scale in range(len(PAPER_BETAS)) if min(spatial) // max(1, scale) ** 2 > KERNEL_SIZE - 1)
    fitting = sum(1 for scale in range(fitting) if min(spatial) // 2**scale >= KERNEL_SIZE)
    if fitting == 0:
        raise UnsupportedClaim(f"images of {min(spatial)} pixels are too small for SSIM's {KERNEL_SIZE}-pixel window")
    chosen = PAPER_BETAS[:fitting]
    return tuple(beta / sum(chosen) for beta in chosen)


def pair_similarities(images_NC: Array, first: Array, second: Array) -> Array:
    """MS-SSIM of image pairs, 0 (nothing shared) to 1 (equal).

    Args:
        images_NC: float ``(N, C, *spatial)`` in -1…1.
        first: row numbers of the first images.
        second: row numbers of the second images.
    """
    betas = scales_that_fit(images_NC.shape[2:])
    values = []
    for start in range(0, len(first), PAIRS_PER_BATCH):
        batch = slice(start, start + PAIRS_PER_BATCH)
        left, right = (torch.from_numpy((images_NC[rows[batch]] + 1) / 2) for rows in (first, second))
        values.append(
            multiscale_structural_similarity_index_measure(
                left, right, reduction="none", data_range=1.0, betas=betas, normalize="relu"
            ).numpy()
        )
    return np.concatenate(values) if values else np.zeros(0)


def disjoint_pairs(owners: Sequence[str] | Array, total: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Random pairs of images of different owners in which no owner occurs twice, so that pairs are independent.

    Args:
        owners: patient of each image.
        total: number of pairs, reduced if there are fewer than twice as many owners.
        rng: source of the random draw.
    """
    names = np.asarray(owners)
    shuffled = rng.permutation(len(names))
    _, firsts = np.unique(names[shuffled], return_index=True)  # one random image per owner
    chosen = rng.permutation(shuffled[firsts])
    pairs = min(total, len(chosen) // 2)
    return chosen[:pairs], chosen[pairs : 2 * pairs]


def diversity(
    synthetic_NC: Array,
    real_NC: Array,
    real_patients: Sequence[str] | Array,
    *,
    pairs: int,
    rng: np.random.Generator,
    label: str | None = None,
) -> Estimate:
    """Mean MS-SSIM of random synthetic pairs; the floor is that of real pairs of different patients.

    Args:
        synthetic_NC: synthetic images, float ``(N, C, *spatial)`` in -1…1.
        real_NC: real images of the same shape.
        real_patients: patient of each real image.
        pairs: largest number of pairs on both sides.
        rng: source of the random draws.
        label: the label that all of them show, for the estimate's name.
    """
    mine = disjoint_pairs([str(i) for i in range(len(synthetic_NC))], pairs, rng)
    theirs = disjoint_pairs(real_patients, pairs, rng)
    facts = {
        "name": "ms_ssim",
        "estimand": "mean MS-SSIM of two random synthetic images; floor: of two real test images of different patients",
        "n_synthetic": 2 * len(mine[0]),
        "n_real": 2 * len(theirs[0]),
        "better": "near_floor",
        "label": label,
    }
    if min(len(mine[0]), len(theirs[0])) < SMALLEST_PAIRS:
        found = min(len(mine[0]), len(theirs[0]))
        refused = f"{found} independent pairs are too few (≥ {SMALLEST_PAIRS}); read recall and coverage instead"
        return Estimate(**facts, value=None, refused=refused)
    try:
        scales = len(scales_that_fit(real_NC.shape[2:]))
    except UnsupportedClaim as error:
        return Estimate(**facts, value=None, refused=str(error))
    synthetic, real = pair_similarities(synthetic_NC, *mine), pair_similarities(real_NC, *theirs)
    return Estimate(
        **facts,
        value=float(synthetic.mean()),
        interval=mean_interval(synthetic),
        floor=float(real.mean()),
        floor_interval=mean_interval(real),
        method=f"{len(mine[0])} independent pairs, t interval; {scales} scales, {KERNEL_SIZE}-pixel Gaussian window",
    )
