"""A small regressor of continuous attributes: the classifier's body and training with a squared error.

Shapes: N images, C channels, T targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.folders import json_digest, pixel_digest
from medphantom.core.progress import Progress
from medphantom.core.records import Array
from medphantom.quality.config import ClassifierConfig
from medphantom.quality.networks.classifier import ImageLearner, SmallCNN, fit_network, new_network, outputs

SMALLEST_TRAIN = 20


@dataclass(frozen=True)
class Regressor:
    """A trained network and the scale of its outputs.

    Attributes:
        network: network with outputs in standard deviations.
        means_T: means of the training values.
        stds_T: standard deviations of the training values.
    """

    network: SmallCNN
    means_T: Array
    stds_T: Array

    def read(self, images_NC: Array, device: Literal["auto", "cpu", "cuda"]) -> Array:
        """Predictions for images in -1…1, float64 ``(N, T)``, in the units of the training values."""
        return outputs(self.network, images_NC, device).numpy() * self.stds_T + self.means_T


class _RegressorLearner(ImageLearner):
    def error(self, outputs_NT: Tensor, targets_NT: Tensor) -> Tensor:
        """Mean squared error over the known values."""
        known = ~targets_NT.isnan()
        each = (outputs_NT - targets_NT.nan_to_num()).square()
        return (each * known).sum() / known.sum().clamp_min(1)


def fit_regressor(
    images_NC: Array,
    values_NT: Array,
    *,
    num_features: int,
    config: ClassifierConfig,
    seed: int,
    work: Path,
    name: str = "regressor",
    progress: Progress | None = None,
) -> Regressor:
    """Train a :class:`SmallCNN` on continuous values; the same arguments give the same weights.

    Args:
        images_NC: float32 ``(N, C, *spatial)`` in -1…1.
        values_NT: attribute values, one column per attribute, NaN where unknown.
        num_features: length of the feature vector.
        config: settings of the training.
        seed: seed of weights, order and augmentation.
        work: folder for checkpoints; one subfolder per distinct training.
        name: name of the training in the progress display.
        progress: called after every step.

    Raises:
        UnsupportedClaim: an attribute has fewer than :data:`SMALLEST_TRAIN` known values, or only one distinct value.
    """
    known = (~np.isnan(values_NT)).sum(axis=0)
    if not values_NT.shape[1] or known.min() < SMALLEST_TRAIN:
        raise UnsupportedClaim(f"a regressor needs ≥ {SMALLEST_TRAIN} images with each of its values")
    means, stds = np.nanmean(values_NT, axis=0), np.nanstd(values_NT, axis=0)
    if stds.min() <= 0:
        raise UnsupportedClaim("a regressor needs values that differ")
    targets = ((values_NT - means) / stds).astype(np.float32)
    identity = json_digest(
        ["regressor", pixel_digest(images_NC), pixel_digest(targets), num_features, config.model_dump(), seed]
    )
    network = new_network(images_NC, num_features, values_NT.shape[1], seed)
    learner = _RegressorLearner(network, config)
    fit_network(learner, images_NC, targets, identity, seed=seed, work=work, name=name, progress=progress)
    return Regressor(network, means, stds)


def r_squared(wanted: Array, read: Array) -> float | None:
    """Coefficient of determination ``1 - Σ(read - wanted)² / Σ(wanted - mean)²``; ``None`` for constant values."""
    total = float(((wanted - wanted.mean()) ** 2).sum())
    return (
        None if total <= 1e-12 * max(1.0, float((wanted**2).sum())) else 1 - float(((read - wanted) ** 2).sum()) / total
    )
