"""Repeated patient-disjoint halves of real images with as many synthetic images, for scores and their floors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array


@dataclass(frozen=True)
class Halves:
    """One draw: two patient-disjoint sets of real images of equal size, with synthetic images for both, as row numbers.

    Attributes:
        first: images of one half of the patients.
        second: images of the other half.
        for_first: synthetic images to be compared with ``first``, in equal number.
        for_second: synthetic images to be compared with ``second``, disjoint from ``for_first`` if there are enough.
    """

    first: Array
    second: Array
    for_first: Array
    for_second: Array

    @property
    def disjoint(self) -> bool:
        """Whether no synthetic image occurs twice."""
        return not np.intersect1d(self.for_first, self.for_second).size

    def turned(self) -> Halves:
        """The draw with exchanged halves."""
        return Halves(self.second, self.first, self.for_second, self.for_first)


def draw_halves(
    patients: Sequence[str] | Array,
    total_synthetic: int,
    *,
    draws: int,
    rng: np.random.Generator,
    synthetic_rng: np.random.Generator,
    strata: Array | None = None,
    synthetic_strata: Array | None = None,
) -> list[Halves]:
    """Random patient-disjoint halves of real images, each with as many synthetic images.

    Args:
        patients: patient of each real image.
        total_synthetic: number of synthetic images, which are drawn without replacement within a half.
        draws: number of random halvings.
        rng: source of the random draws of patients.
        synthetic_rng: source of the random draws of synthetic images; folds with equal states can be averaged draw by
            draw.
        strata: class of each real image; if given, both halves and the synthetic images have equal class counts.
        synthetic_strata: class of each synthetic image; needed with ``strata``.

    Returns:
        The draws, reduced to the size of the smaller half and to the number of synthetic images.
    """
    names, every = np.asarray(patients), np.arange(total_synthetic)
    real_groups, synthetic_groups = [np.arange(len(names))], [every]
    if strata is not None and synthetic_strata is not None:
        values = np.unique(strata)
        real_groups = [np.flatnonzero(strata == value) for value in values]
        synthetic_groups = [np.flatnonzero(synthetic_strata == value) for value in values]
    found = []
    for _ in range(draws):
        side = owner_half(names, rng)
        parts: list[tuple[Array, Array, Array, Array]] = []
        for real, fake in zip(real_groups, synthetic_groups, strict=True):
            # Patients are assigned once per draw so that the numbers of images are balanced; single classes may not be.
            left, right = rng.permutation(real[side[real]]), rng.permutation(real[~side[real]])
            size = min(len(left), len(right), len(fake))
            order, again = synthetic_rng.permutation(fake), synthetic_rng.permutation(fake)
            other = order[size : 2 * size] if 2 * size <= len(fake) else again[:size]
            parts.append((left[:size], right[:size], order[:size], other))
        found.append(Halves(*(np.concatenate(column) for column in zip(*parts, strict=True))))
    return found


def owner_half(owners: Array, rng: np.random.Generator) -> Array:
    """Mask of the rows of a random set of patients with half of the rows, or up to one patient more."""
    names, owner, counts = np.unique(owners, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    taken = np.cumsum(counts[order]) - counts[order] < len(owners) / 2
    chosen = np.zeros(len(names), dtype=bool)
    chosen[order[taken]] = True
    sides: Array = chosen[owner]
    return sides
