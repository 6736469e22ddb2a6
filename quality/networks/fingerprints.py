"""Whitened thumbnails: similarity of images in the details that distinguish patients.

A thumbnail is a grey image of few pixels. The plain correlation of thumbnails is dominated by structures that all
images share. Principal components scaled to equal variance weight all details equally, so that a copy is distinguished
from a similar image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medphantom.core.records import Array

COMPONENTS = 128
IMAGES_PER_COMPONENT = 4
SHRINKAGE = 0.03  # share of the largest standard deviation below which a component is mostly noise
DEFAULT_SIDE = {2: 32, 3: 16}
IMAGES_AT_ONCE = 256


def thumbnails(images_NC: Tensor, side: int) -> Tensor:
    """Grey thumbnails ``(N, pixels)`` of zero mean and unit norm; an axis shorter than ``side`` keeps its length."""
    return _unit(shrunk(images_NC, side))


def shrunk(images_NC: Tensor, side: int) -> Tensor:
    """Grey images ``(N, 1, *)`` of few pixels; an axis shorter than ``side`` keeps its length."""
    grey = images_NC.mean(dim=1, keepdim=True)
    sides: Any = tuple(min(side, length) for length in grey.shape[2:])
    return F.adaptive_avg_pool2d(grey, sides) if grey.ndim == 4 else F.adaptive_avg_pool3d(grey, sides)


def _unit(shrunk_N1: Tensor) -> Tensor:
    flat = shrunk_N1.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


@dataclass(frozen=True)
class Fingerprints:
    """Maps images to unit vectors whose inner product is their similarity, -1…1.

    Attributes:
        side: side length of the thumbnails in pixels.
        mean: mean of all thumbnails.
        projection: scaled principal components, ``(pixels, k)``.
    """

    side: int
    mean: Tensor
    projection: Tensor

    @classmethod
    def fit(cls, images_NC: Array, side: int) -> Fingerprints:
        """Fit the components; training and holdout images must be among these images with equal probability."""
        thumbs = thumbnails(torch.from_numpy(images_NC), side).double()
        mean = thumbs.mean(dim=0)
        count = int(np.clip(len(thumbs) // IMAGES_PER_COMPONENT, 1, min(COMPONENTS, thumbs.shape[1])))
        _, deviations, directions = torch.linalg.svd(thumbs - mean, full_matrices=False)
        scale = deviations[:count] + SHRINKAGE * deviations[0] + 1e-12
        return cls(side, mean.float(), (directions[:count].T / scale).float())

    def of(self, images_NC: Tensor) -> Tensor:
        """Unit vectors ``(N, k)``."""
        return self.of_shrunk(shrunk(images_NC, self.side))

    def of_all(self, images_NC: Array) -> Tensor:
        """Unit vectors ``(N, k)`` of many images, which may be memory-mapped."""
        parts = [
            self.of(torch.from_numpy(np.ascontiguousarray(images_NC[start : start + IMAGES_AT_ONCE])))
            for start in range(0, len(images_NC), IMAGES_AT_ONCE)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, self.projection.shape[1])

    def of_shrunk(self, shrunk_N1: Tensor) -> Tensor:
        """Unit vectors ``(N, k)`` of images from :func:`shrunk`."""
        return F.normalize((_unit(shrunk_N1) - self.mean) @ self.projection, dim=1)
