"""Radiomics as feature network: grey-value statistics, co-occurrence and local binary patterns.

After the Fréchet radiomic distance of Konz et al. 2024 (arXiv 2412.01496): features of the radiomics literature are
standardised over reference images and then compared like those of any network. No training is involved.

The angular second moment of a nearly blank image is two hundred standard deviations from the mean, its kurtosis three
thousand, so that one such image would outweigh a thousand others in a squared distance. Therefore mean and standard
deviation are computed on clipped values, and standardised features are clipped at :data:`FARTHEST`.
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
MIDDLE = (1, 99)  # percentiles at which reference values are clipped
FARTHEST = 8.0  # standard deviations at which features are clipped (reached by 6 of 300 chest radiographs)


class Radiomics:
    """Radiomic features of images, scaled by reference images.

    Args:
        reference_NC: real images ``(N, C, *spatial)`` in -1…1 that are not scored.

    Raises:
        UnsupportedClaim: there are fewer than 20 reference images.
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
    """Features ``(N, d)`` before scaling, averaged over channels and views."""
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
    """Mean, standard deviation, skewness, kurtosis, mean absolute deviation, percentiles, entropy and uniformity."""
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
    """Mean and standard deviation of the gradient, and standard deviation of the Laplacian, sensitive to blur."""
    down, right = np.gradient(values)
    steep = np.hypot(down, right)
    laplacian = values[1:-1, 1:-1] * 4 - values[:-2, 1:-1] - values[2:, 1:-1] - values[1:-1, :-2] - values[1:-1, 2:]
    return np.array([steep.mean(), steep.std(), laplacian.std()])


def _co_occurrence(grey: Array) -> Array:
    """Haralick's texture features at two distances, averaged over four directions."""
    levels = (grey.astype(np.int64) * LEVELS // 256).astype(np.uint8)
    matrix = graycomatrix(levels, DISTANCES, ANGLES, levels=LEVELS, symmetric=True, normed=True)
    return np.concatenate([graycoprops(matrix, name).mean(axis=1) for name in CO_OCCURRENCE])


def _patterns(grey: Array) -> Array:
    """Shares of the uniform local binary patterns (Ojala et al. 2002) without the redundant last one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-image warns of images that are not integers
        codes = local_binary_pattern(grey, NEIGHBOURS, 1, method="uniform").astype(int)
    shares: Array = np.bincount(codes.ravel(), minlength=NEIGHBOURS + 2)[:-1] / codes.size
    return shares
