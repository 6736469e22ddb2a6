"""Segmentation masks as a condition: their numbers, the layers that encode them, and elastic deformation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from medphantom.conditioning.config import EncoderSizes
from medphantom.conditioning.prompt import MaskSchema
from medphantom.core.errors import InputError, PromptError
from medphantom.core.records import Array

MISSING_PLANE = 0


def mask_numbers(schema: MaskSchema, masks: Sequence[Array | None]) -> Tensor:
    """Return masks as network input: 0 for *no mask*, else 1 + the position of the value in the schema.

    Args:
        schema: Schema that defines the meaning of the integers.
        masks: Integer masks ``(*size)``, or ``None``.

    Returns:
        uint8 array ``(N, *size)``.

    Raises:
        PromptError: If a mask has another shape, or a value that the generator was not trained on.
    """
    values = sorted(schema.values)
    numbers = np.zeros((len(masks), *schema.size), dtype=np.uint8)
    for place, mask in enumerate(masks):
        if mask is None:
            continue
        if tuple(mask.shape) != tuple(schema.size):
            shown, wanted = ("x".join(str(side) for side in shape) for shape in (mask.shape, schema.size))
            raise PromptError(
                f"a mask has the shape {shown}, but this generator draws {wanted}", "resample the mask to that grid"
            )
        unknown = np.setdiff1d(mask, values)
        if len(unknown):
            known = ", ".join(f"{value} ({name})" for value, name in sorted(schema.values.items()))
            raise PromptError(
                f"a mask contains the value {unknown[0]}, which this generator was not trained on", f"known: {known}"
            )
        numbers[place] = 1 + np.searchsorted(values, mask)
    return torch.from_numpy(numbers)


class MaskEncoder(nn.Module):
    """Encodes masks as features on the latent's grid: one-hot planes, halved by strided convolutions.

    The first plane marks a missing mask, so that it is a learned condition of its own instead of an empty mask.

    Args:
        total_values: Number of values that a mask may have.
        sizes: Channels and number of halvings.
        spatial_dims: Number of spatial dimensions, 2 or 3.
    """

    def __init__(self, total_values: int, sizes: EncoderSizes, spatial_dims: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.total_planes = 1 + total_values
        width = 4 * sizes.mask_channels
        layers: list[nn.Module] = [convolution(self.total_planes, width, 3, padding=1), nn.SiLU()]
        for _ in range(sizes.mask_halvings):
            layers += [convolution(width, width, 4, stride=2, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers, convolution(width, sizes.mask_channels, 3, padding=1))

    def forward(self, masks: Tensor) -> Tensor:
        """Map numbers ``(B, *size)`` from :func:`mask_numbers` to features ``(B, C, *latent)``."""
        planes = F.one_hot(masks.long(), self.total_planes).movedim(-1, 1).float()
        features: Tensor = self.layers(planes)
        return features


def deformed(mask: Array, rng: np.random.Generator, strength: float) -> Array:
    """Return another plausible mask: rotated, scaled, shifted and elastically deformed, with nearest-neighbour
    sampling.

    Args:
        mask: Integer mask ``(*size)``; it is 0 outside the frame.
        rng: Random generator of the deformation.
        strength: Strength of the deformation: 0 returns the mask unchanged; 1 rotates by up to 15 degrees (standard
            deviation 5), scales by 8 %, shifts by 4 % and elastically deforms by 4 % of a side (standard deviations).

    Returns:
        Mask of the shape and type of ``mask``.
    """
    if strength <= 0:
        return mask
    dims, sides = mask.ndim, np.array(mask.shape, dtype=float)
    centre = (sides - 1) / 2
    matrix = np.eye(dims)
    for first in range(dims):
        for second in range(first + 1, dims):
            angle = np.deg2rad(float(np.clip(rng.normal(0, 5), -15, 15)) * strength)
            turn = np.eye(dims)
            turn[[first, first, second, second], [first, second, first, second]] = (
                np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
            )  # fmt: skip
            matrix = matrix @ turn
    matrix = matrix * np.exp(rng.normal(0, 0.08 * strength, dims))
    shift = rng.normal(0, 0.04 * strength, dims) * sides
    grid = np.stack(np.meshgrid(*[np.arange(side) for side in mask.shape], indexing="ij")).astype(float)
    offset = (grid.reshape(dims, -1).T - centre) @ matrix.T + centre + shift
    moved = offset.T.reshape(grid.shape)
    sigma = sides / 8
    for axis in range(dims):
        field = ndimage.gaussian_filter(rng.standard_normal(mask.shape), sigma, mode="nearest")
        moved[axis] += field / max(float(field.std()), 1e-12) * 0.04 * strength * sides[axis]
    elastic: Array = ndimage.map_coordinates(mask, moved, order=0, mode="constant", cval=0)
    return elastic


def masks_by_digest(masks: Mapping[str, Array], wanted: Sequence[str | None]) -> list[Array | None]:
    """Return the masks that prompts name.

    Raises:
        InputError: If one is missing.
    """
    found: list[Array | None] = []
    for digest in wanted:
        if digest is not None and digest not in masks:
            raise InputError(
                f"the plan names mask {digest[:12]} but does not contain it", "keep the plan's files together"
            )
        found.append(None if digest is None else masks[digest])
    return found
