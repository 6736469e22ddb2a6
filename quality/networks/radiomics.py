"""Radiomics as feature network: grey-value statistics, co-occurrence and local binary patterns, scaled by real images.

After the Fréchet radiomic distance of Konz et al. 2024 (arXiv 2412.01496): features of the radiomics
literature, each put to mean 0 and deviation 1 over reference images, then compared like those of any network. Nothing
is trained.

A nearly blank image has an angular second moment two hundred deviations off, a kurtosis three thousand: squared, one
such image outweighs a thousand others. So mean and deviation are those of the middle of the reference, and no image
stands further off than :data:`FARTHEST`.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.folders import json_digest, pixel_digest
from medphantom.core.records import Array
from medphantom.quality.networks.classifier import middle_slices

VERSION = "radiomics-2"
LEVELS = 32  # grey levels of co-occurrence matrices, over the full range of -1…1
DISTANCES = (1, 4)
ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
CO_OCCURRENCE = ("contrast", "homogeneity", "ASM", "correlation", "entropy")  # Haralick et al. 1973
NEIGHBOURS = 8
FIRST_ORDER = 10
NUM_FEATURES = FIRST_ORDER + 3 + len(DISTANCES) * len(CO_OCCURRENCE) + NEIGHBOURS + 1
LEAST_REFERENCE = 20
MOST_REFERENCE = 500
MIDDLE = (1, 99)  # percentiles that reference values are held within
FARTHEST = 8.0  # deviations that a feature is held within; 6 of 300 chest radiographs reach it in any, of MedNIST none


class Radiomics:
    """Radiomic features of images, scaled by reference images.

    Args:
        reference_NC: real images ``(N, C, *spatial)`` in -1…1 that no score is taken on.

    Raises:
        UnsupportedClaim: fewer than 20 reference images.
    """

    name = "radiomics"
    num_features = NUM_FEATURES

    def __init__(self, reference_NC: Array) -> None:
        if len(reference_NC) < LEAST_REFERENCE:
            raise UnsupportedClaim(
                f"radiomics are scaled by training images, and {len(reference_NC)} are too few (≥ {LEAST_REFERENCE})",
                "use networks: [cross_fitted, filters]",
            )
        whole = raw_features(reference_NC[:MOST_REFERENCE])
        found = whole.clip(*np.percentile(whole, MIDDLE, axis=0))
        self.center = found.mean(axis=0)
        deviation = found.std(axis=0)
        self.scale = np.where(deviation > 1e-9, deviation, 1.0)
        self.digest = json_digest([VERSION, pixel_digest(np.stack([self.center, self.scale]))])

    def features(self, images_NC: Array, into: Array | None = None) -> Array:
        """Features float32 ``(N, d)`` of float32 images ``(N, C, *spatial)`` in -1…1; volumes by middle slices."""
        found: Array = np.empty((len(images_NC), NUM_FEATURES), dtype=np.float32) if into is None else into
        found[:] = ((raw_features(images_NC) - self.center) / self.scale).clip(-FARTHEST, FARTHEST)
        return found


def raw_features(images_NC: Array) -> Array:
    """Features ``(N, d)`` before scaling: of each channel and view, averaged."""
    found = np.zeros((len(images_NC), NUM_FEATURES))
    for row in range(len(images_NC)):
        views = middle_slices(torch.from_numpy(np.asarray(images_NC[row : row + 1])))
        planes = [plane for view in views for plane in view[0].numpy()]
        found[row] = np.mean([_of_plane(plane) for plane in planes], axis=0)
    return found


def _of_plane(plane_HW: Array) -> Array:
    grey = np.clip(np.rint((plane_HW + 1) / 2 * 255), 0, 255).astype(np.uint8)
    return np.concatenate([_first_order(grey / 255.0), _edges(grey / 255.0), _co_occurrence(grey), _patterns(grey)])


def _first_order(values: Array) -> Array:
    """Mean, deviation, skewness, kurtosis, mean absolute deviation, three percentiles, entropy, uniformity."""
    mean, deviation = values.mean(), values.std()
    standard = (values - mean) / max(deviation, 1e-6)
    counts = np.bincount((values * (LEVELS - 1)).round().astype(int).ravel(), minlength=LEVELS) / values.size
    known = counts[counts > 0]
    return np.array(
        [
            mean, deviation, (standard**3).mean(), (standard**4).mean(), np.abs(values - mean).mean(),
            *np.percentile(values, [10, 50, 90]), -(known * np.log2(known)).sum(), (counts**2).sum(),
        ]
    )  # fmt: skip


def _edges(values: Array) -> Array:
    """Mean and deviation of the gradient, and deviation of the second difference: what a blur takes first."""
    down, right = np.gradient(values)
    steep = np.hypot(down, right)
    bend = values[1:-1, 1:-1] * 4 - values[:-2, 1:-1] - values[2:, 1:-1] - values[1:-1, :-2] - values[1:-1, 2:]
    return np.array([steep.mean(), steep.std(), bend.std()])


def _co_occurrence(grey: Array) -> Array:
    """Haralick's figures at two distances, averaged over four directions."""
    levels = (grey.astype(np.int64) * LEVELS // 256).astype(np.uint8)
    matrix = graycomatrix(levels, DISTANCES, ANGLES, levels=LEVELS, symmetric=True, normed=True)
    return np.concatenate([graycoprops(matrix, name).mean(axis=1) for name in CO_OCCURRENCE])


def _patterns(grey: Array) -> Array:
    """Shares of the uniform local binary patterns (Ojala et al. 2002), the last one left out: they sum to one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-image warns of images that are not integers
        codes = local_binary_pattern(grey, NEIGHBOURS, 1, method="uniform").astype(int)
    shares: Array = np.bincount(codes.ravel(), minlength=NEIGHBOURS + 2)[:-1] / codes.size
    return shares
