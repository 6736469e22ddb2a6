"""Classical augmentation of images and masks: rotation, scale, shift, mirroring, gamma and noise.

Shapes: N images, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from medphantom.quality.config import ClassicalAugmentation


def varied(
    images_NC: Tensor, how: ClassicalAugmentation, generator: torch.Generator, masks_N1: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Augment images, and transform their masks in the same way.

    Args:
        images_NC: images with values in -1…1.
        how: strength of the augmentation.
        generator: source of the random draws.
        masks_N1: masks as integers ``(N, 1, *spatial)``; ``None`` if there are none.
    """
    placed = _placements(images_NC, how, generator)
    grid = F.affine_grid(placed, list(images_NC.shape), align_corners=False).to(images_NC)
    moved = F.grid_sample(images_NC, grid, padding_mode="border", align_corners=False)
    noise = torch.randn(moved.shape, generator=generator).to(moved)
    power = torch.exp(how.gamma * torch.randn((len(moved), *(1,) * (moved.ndim - 1)), generator=generator))
    bright = ((moved.clamp(-1, 1) + 1) / 2).clamp_min(1e-4) ** power.to(moved)
    found = 2 * bright - 1 + how.noise * noise
    if masks_N1 is None:
        return found, None
    values = masks_N1.to(images_NC.dtype)
    turned = F.grid_sample(values, grid, mode="nearest", padding_mode="border", align_corners=False)
    return found, turned.round().to(masks_N1.dtype)


def _placements(images_NC: Tensor, how: ClassicalAugmentation, generator: torch.Generator) -> Tensor:
    """Affine maps ``(N, D, D + 1)`` of normalised coordinates."""
    total, axes = len(images_NC), images_NC.ndim - 2

    def spread(reach: float, *shape: int) -> Tensor:
        return reach * (2 * torch.rand((total, *shape), generator=generator) - 1)

    matrix = torch.eye(axes).repeat(total, 1, 1)
    for first in range(axes):
        for second in range(first + 1, axes):
            angle = spread(math.radians(how.turn_degrees))
            turn = torch.eye(axes).repeat(total, 1, 1)
            turn[:, first, first] = turn[:, second, second] = angle.cos()
            turn[:, first, second], turn[:, second, first] = -angle.sin(), angle.sin()
            matrix = matrix @ turn
    matrix = matrix * (1 + spread(how.scale))[:, None, None]
    if how.mirror:
        flipped = torch.rand(total, generator=generator) < 0.5
        matrix[flipped, :, 0] *= -1  # the first normalised coordinate is the last axis: left and right
    return torch.cat([matrix, spread(2 * how.shift, axes)[:, :, None]], dim=2)
