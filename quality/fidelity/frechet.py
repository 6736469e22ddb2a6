"""Fréchet distance between sets of features, with the influence of every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.fidelity.halves import owner_half
from medphantom.quality.fidelity.table import Rows, Table, blocks, mean_of
from medphantom.quality.stats.estimate import IMAGES_PER_FEATURE, Interval
from medphantom.quality.stats.influence import (
    Variance,
    by_owner,
    corrected,
    log_interval,
    quadratic_share,
    variance_of,
)

SMALLEST_N = 50
NEGLIGIBLE = 1e-12  # share of the largest eigenvalue below which a direction is degenerate


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian fitted to a set of features.

    Attributes:
        mean: mean vector ``(d,)``, float64.
        covariance: unbiased covariance matrix ``(d, d)``.
    """

    mean: Array
    covariance: Array

    @classmethod
    def of(cls, features_ND: Table) -> Gaussian:
        """Fit the Gaussian block by block."""
        mean = mean_of(features_ND)
        scatter = np.zeros((len(mean), len(mean)))
        for _, block in blocks(features_ND):
            centred = block - mean
            scatter += centred.T @ centred
        return cls(mean, scatter / (len(features_ND) - 1))

    @cached_property
    def _spectrum(self) -> tuple[Array, Array]:
        values, vectors = np.linalg.eigh(self.covariance)
        return np.sqrt(values.clip(0)), vectors

    @cached_property
    def root(self) -> Array:
        """Symmetric square root of the covariance."""
        values, vectors = self._spectrum
        found: Array = (vectors * values) @ vectors.T
        return found

    @cached_property
    def inverse_root(self) -> Array:
        """Pseudo-inverse of the square root of the covariance."""
        values, vectors = self._spectrum
        found: Array = (vectors * _inverse(values)) @ vectors.T
        return found


def _inverse(values: Array) -> Array:
    kept = values > np.sqrt(NEGLIGIBLE) * values.max(initial=0.0)
    return np.where(kept, 1 / np.where(kept, values, 1), 0.0)


@dataclass(frozen=True)
class Transport:
    """The optimal transport maps between two Gaussians, and their distance.

    The influence of an image follows from the derivative of the distance: if C is the covariance of a set and T the
    (symmetric) map to the other, the derivative with respect to C is ``I - T`` (Dowson and Landau 1982; Rippl, Munk,
    Sturm 2016).

    Attributes:
        value: squared Fréchet (2-Wasserstein) distance.
        from_candidate: map from the candidate to the reference, ``(d, d)``.
        from_reference: map from the reference to the candidate, ``(d, d)``.
    """

    value: float
    from_candidate: Array
    from_reference: Array


def squared_distance(candidate: Gaussian, reference: Gaussian) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson and Landau 1982), by symmetric eigenvalues."""
    product = reference.root @ candidate.covariance @ reference.root
    return _distance(candidate, reference, np.linalg.eigvalsh(product))


def _distance(candidate: Gaussian, reference: Gaussian, product_eigenvalues: Array) -> float:
    apart = float(((candidate.mean - reference.mean) ** 2).sum())
    traces = float(np.trace(candidate.covariance) + np.trace(reference.covariance))
    return apart + traces - 2 * float(np.sqrt(product_eigenvalues.clip(0)).sum())


def transport(candidate: Gaussian, reference: Gaussian) -> Transport:
    """Distance and maps between two Gaussians."""
    values, vectors = np.linalg.eigh(reference.root @ candidate.covariance @ reference.root)
    roots = np.sqrt(values.clip(0))
    forth = reference.inverse_root @ ((vectors * roots) @ vectors.T) @ reference.inverse_root
    back = reference.root @ ((vectors * _inverse(roots)) @ vectors.T) @ reference.root
    return Transport(_distance(candidate, reference, values), from_candidate=back, from_reference=forth)


@dataclass(frozen=True)
class Influenced:
    """A score with the influence of each image.

    Attributes:
        value: value of the score.
        candidate: influence of each candidate image, ``(n,)``, with sum zero.
        reference: influence of each reference image, ``(m,)``, with sum zero.
    """

    value: float
    candidate: Array
    reference: Array

    def variance(self, candidate_owners: Array, reference_owners: Array) -> Variance:
        """Variance of the score for independent patients on both sides."""
        return variance_of(by_owner(self.candidate, candidate_owners), by_owner(self.reference, reference_owners))


def frechet_distance(candidate_ND: Table, reference_MD: Table) -> float:
    """Squared Fréchet (2-Wasserstein) distance of Gaussians fitted to two sets of features (Heusel et al. 2017).

    It is biased upwards by about ``trace(covariance) / n``, so only values at equal n are comparable.

    Args:
        candidate_ND: features, one row per image.
        reference_MD: features of the other set.
    """
    return squared_distance(Gaussian.of(candidate_ND), Gaussian.of(reference_MD))


def influenced_distance(
    candidate_ND: Table, reference_MD: Table, gaussians: tuple[Gaussian, Gaussian] | None = None
) -> Influenced:
    """The Fréchet distance with the influence of every image.

    Args:
        candidate_ND: features, one row per image.
        reference_MD: features of the other set.
        gaussians: Gaussians fitted to both sets, if they are already known.
    """
    candidate, reference = gaussians or (Gaussian.of(candidate_ND), Gaussian.of(reference_MD))
    maps = transport(candidate, reference)
    apart = candidate.mean - reference.mean
    return Influenced(
        maps.value,
        _influence(candidate_ND, candidate, apart, maps.from_candidate),
        _influence(reference_MD, reference, -apart, maps.from_reference),
    )


def _influence(features_ND: Table, own: Gaussian, apart: Array, to_other: Array) -> Array:
    """``2 (x-μ)·(μ-μ') + (x-μ)ᵀ(I-T)(x-μ)``, centred, over n."""
    derivative = np.eye(len(own.mean)) - to_other
    parts = []
    for _, block in blocks(features_ND):
        centred = block - own.mean
        parts.append(2 * centred @ apart + np.einsum("nd,nd->n", centred @ derivative, centred))
    found = np.concatenate(parts)
    centred_N: Array = (found - found.mean()) / len(found)
    return centred_N


def frechet_interval(
    candidate_ND: Table,
    reference_MD: Table,
    candidate_owners: Sequence[str] | Array,
    reference_owners: Sequence[str] | Array,
    *,
    rng: np.random.Generator,
    splits: int = 2,
) -> tuple[float, Interval | None]:
    """The Fréchet distance and a 95 % interval of its expectation at this n.

    Args:
        candidate_ND: features, one row per image.
        reference_MD: features of the other set.
        candidate_owners: patient of each row; synthetic images are independent.
        reference_owners: patient of each row of the other set.
        rng: source of the random halves that estimate the second-order part.
        splits: number of pairs of halves.
    """
    sides = (candidate_ND, reference_MD)
    owners = (np.asarray(candidate_owners), np.asarray(reference_owners))
    whole = influenced_distance(*sides)
    variance = whole.variance(*owners)
    halves = []
    for _ in range(splits):
        masks = [owner_half(names, rng) for names in owners]
        for taken in (masks, [~mask for mask in masks]):
            rows = [np.flatnonzero(mask) for mask in taken]
            part = influenced_distance(Rows(sides[0], rows[0]), Rows(sides[1], rows[1]))
            halves.append(part.variance(*(names[row] for names, row in zip(owners, rows, strict=True))).value)
    found = corrected(variance, quadratic_share(variance.value, halves))
    return whole.value, log_interval(whole.value, found)


def frechet_refusal(total_images: int, num_features: int) -> str | None:
    """Reason why a Fréchet distance at this n is refused, or ``None`` if it is supported.

    A covariance of d features has d(d+1)/2 parameters; with fewer than about 2 d images its estimate is too inaccurate.
    """
    needed = max(SMALLEST_N, IMAGES_PER_FEATURE * num_features)
    if total_images >= needed:
        return None
    return f"{total_images} images cannot support a covariance of {num_features} features (≥ {needed}): use kernel"
