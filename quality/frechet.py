"""Fréchet and kernel distance between sets of features, and the repeated real halves that give every score its floor.

Features are computed once per image and handed to torchmetrics in float64, through a module that returns its input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from cohorts.errors import UnsupportedClaim
from cohorts.records import Array

SMALLEST_N = 50
IMAGES_PER_FEATURE = 2

Distance = Callable[[Array, Array], float]


class _Features(nn.Module):
    """A feature network whose images are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features_ND: Tensor) -> Tensor:
        return features_ND


def frechet_distance(first_ND: Array, second_MD: Array) -> float:
    """Squared Fréchet (2-Wasserstein) distance of the Gaussians that fit two sets of features (Heusel et al. 2017).

    Biased upwards by about ``trace(covariance) / n``: compare only values at equal n.

    Args:
        first_ND: features, one row per image.
        second_MD: features of the other set.
    """
    center = np.asarray(second_MD, dtype=np.float64).mean(axis=0)  # the distance is invariant; sums of squares are not
    metric = FrechetInceptionDistance(feature=_Features(center.size), normalize=True)
    metric.update(torch.from_numpy(second_MD - center), real=True)
    metric.update(torch.from_numpy(first_ND - center), real=False)
    return float(metric.compute())


def kernel_distance(first_ND: Array, second_ND: Array) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel ``(x·y/d + 1)³`` (Bińkowski et al. 2018).

    Its mean is 0 for two sets of one distribution, so single values may be negative.

    Args:
        first_ND: features, one row per image.
        second_ND: as many features of the other set.

    Raises:
        UnsupportedClaim: the sets differ in size, or hold fewer than two images.
    """
    if len(first_ND) != len(second_ND) or len(first_ND) < 2:
        raise UnsupportedClaim(
            f"the kernel distance needs equal sets of ≥ 2 images, got {len(first_ND)} and {len(second_ND)}"
        )
    first, second = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in (first_ND, second_ND))
    return float(poly_mmd(second, first))


def frechet_refusal(total_images: int, num_features: int) -> str | None:
    """Why a Fréchet distance at this n is refused, ``None`` when it is supported.

    A covariance of d features has d(d+1)/2 numbers; below about 2 d images it is too poor to be compared.
    """
    needed = max(SMALLEST_N, IMAGES_PER_FEATURE * num_features)
    if total_images >= needed:
        return None
    return f"{total_images} images cannot support a covariance of {num_features} features (≥ {needed}): read kernel"


def kernel_refusal(total_images: int) -> str | None:
    """Why a kernel distance at this n is refused, ``None`` when it is supported."""
    if total_images >= SMALLEST_N // 2:
        return None
    return (
        f"{total_images} images are too few (≥ {SMALLEST_N // 2}); look at the images and the label agreement instead"
    )


@dataclass(frozen=True)
class Halves:
    """One draw: two patient-disjoint sets of equally many images, as row numbers.

    Attributes:
        first: images that stand in for a generator (and are reconstructed).
        second: images that everything is measured against.
        synthetic: as many synthetic images.
    """

    first: Array
    second: Array
    synthetic: Array


def draw_halves(
    patients: Sequence[str],
    synthetic_rows: Array,
    *,
    draws: int,
    rng: np.random.Generator,
    strata: Array | None = None,
    synthetic_strata: Array | None = None,
) -> list[Halves]:
    """Random patient-disjoint halves of real images, each with as many synthetic images.

    Args:
        patients: patient of each real image.
        synthetic_rows: synthetic images to draw from, without replacement.
        draws: how many.
        rng: source of the draws.
        strata: class of each real image; then each class is halved on its own, both halves keep equal class counts and
            so do the synthetic images. Without it, chance decides the class counts of a half.
        synthetic_strata: class of each entry of ``synthetic_rows``; needed with ``strata``.

    Returns:
        The draws; sizes are trimmed to what the smaller half and the synthetic images allow.
    """
    names = np.asarray(patients)
    real_groups = [np.arange(len(names))]
    synthetic_groups = [np.asarray(synthetic_rows)]
    if strata is not None and synthetic_strata is not None:
        values = np.unique(strata)
        real_groups = [np.flatnonzero(strata == value) for value in values]
        synthetic_groups = [np.asarray(synthetic_rows)[synthetic_strata == value] for value in values]
    found = []
    for _ in range(draws):
        side = _sides(names, rng)
        first, second, synthetic = [], [], []
        for real, fake in zip(real_groups, synthetic_groups, strict=True):
            # Patients get a side once per draw, in an order that balances images; a class can lean to one side.
            left, right = rng.permutation(real[side[real]]), rng.permutation(real[~side[real]])
            size = min(len(left), len(right), len(fake))
            first.append(left[:size])
            second.append(right[:size])
            synthetic.append(rng.permutation(fake)[:size])
        found.append(Halves(np.concatenate(first), np.concatenate(second), np.concatenate(synthetic)))
    return found


def _sides(names: Array, rng: np.random.Generator) -> Array:
    """True for the images of a random set of patients that holds half of the images, or one patient more."""
    patients, owner, counts = np.unique(names, return_inverse=True, return_counts=True)
    order = rng.permutation(len(patients))
    taken = np.cumsum(counts[order]) - counts[order] < len(names) / 2
    chosen = np.zeros(len(patients), dtype=bool)
    chosen[order[taken]] = True
    sides: Array = chosen[owner]
    return sides
