"""Segmentations as a condition: numbers that a network can take, the layers that take them, and plausible new ones."""

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
    """Masks as a network takes them: 0 for *no mask*, else 1 + the place of the value in the schema.

    Args:
        schema: what the integers mean.
        masks: integers ``(*size)``, or ``None``.

    Returns:
        uint8 ``(N, *size)``.

    Raises:
        PromptError: a mask of another shape, or with a value that the generator never saw.
    """
    values = sorted(schema.values)
    numbers = np.zeros((len(masks), *schema.size), dtype=np.uint8)
    for place, mask in enumerate(masks):
        if mask is None:
            continue
        if tuple(mask.shape) != tuple(schema.size):
            shown, wanted = ("x".join(str(side) for side in shape) for shape in (mask.shape, schema.size))
            raise PromptError(f"a mask is {shown}, this generator draws {wanted}", "bring the mask to that grid")
        unknown = np.setdiff1d(mask, values)
        if len(unknown):
            known = ", ".join(f"{value} ({name})" for value, name in sorted(schema.values.items()))
            raise PromptError(f"a mask holds the value {unknown[0]}, which this generator never saw", f"known: {known}")
        numbers[place] = 1 + np.searchsorted(values, mask)
    return torch.from_numpy(numbers)


class MaskEncoder(nn.Module):
    """Features of masks on the latent's grid: one-hot planes, halved by strided convolutions.

    The first plane says *no mask*, so that a missing mask is a learned condition of its own and not an empty one.

    Args:
        total_values: how many values a mask may hold.
        sizes: channels and number of halvings.
        spatial_dims: 2 or 3.
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
        """Numbers ``(B, *size)`` from :func:`mask_numbers` to features ``(B, C, *latent)``."""
        planes = F.one_hot(masks.long(), self.total_planes).movedim(-1, 1).float()
        features: Tensor = self.layers(planes)
        return features


def deformed(mask: Array, rng: np.random.Generator, strength: float) -> Array:
    """Another plausible mask: turned, scaled, shifted and bent by a smooth random field, nearest neighbour.

    Args:
        mask: integers ``(*size)``; outside the frame it goes on as 0.
        rng: draws the deformation.
        strength: 0: the mask as it is; 1: turned by up to 15 degrees (standard deviation 5), scaled by 8 %, shifted by
            4 % and bent by 4 % of a side (standard deviations).

    Returns:
        Of the shape and type of ``mask``.
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
    bent: Array = ndimage.map_coordinates(mask, moved, order=0, mode="constant", cval=0)
    return bent


def masks_by_digest(masks: Mapping[str, Array], wanted: Sequence[str | None]) -> list[Array | None]:
    """The masks that prompts name.

    Raises:
        InputError: one is not there.
    """
    found: list[Array | None] = []
    for digest in wanted:
        if digest is not None and digest not in masks:
            raise InputError(
                f"the plan names mask {digest[:12]} but does not hold it", "keep the plan's files together"
            )
        found.append(None if digest is None else masks[digest])
    return found
