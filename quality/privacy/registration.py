"""Similarity transforms between images and volumes: applied, found by registration, and how well two images then agree.

A transform is a ``(d+1, d+1)`` matrix over centred pixel coordinates, x first (the last axis of the array), that sends
places of the result to places of the source. Registration is the inverse compositional Gauss-Newton method of Baker &
Matthews 2004 for similarities (shift, turn, scale), on band-passed images with a free gain, as in the enhanced
correlation coefficient of Evangelidis & Psarakis 2008.

Shapes: P pairs, d spatial axes, ``*`` the spatial axes themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

FINE, COARSE = 1 / 64, 5 / 64  # of the shortest side: what lies between identifies a patient, and survives a mild blur
ITERATIONS = 8
CELLS = 7  # local windows along an axis
TRIMMED = 0.6  # share of the windows that agree best: an edit that covers the others does not hide a copy
FLOOR = 1e-6
LARGEST = 1 - 1e-4  # correlation: beyond it 8-bit grey values tell no more
LARGEST_STEP = 4.0  # pixels


def half_sides(spatial: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """Half of each side in pixels, x first: ``(d,)``."""
    return torch.tensor([side / 2 for side in reversed(spatial)], device=device)


def similarity(
    spatial: tuple[int, ...],
    *,
    shift: Tensor | None = None,
    turn: Tensor | None = None,
    scale: Tensor | None = None,
    mirror: bool = False,
) -> Tensor:
    """Transforms ``(P, d+1, d+1)`` of images.

    Args:
        spatial: ``(*)``.
        shift: ``(P, d)`` pixels, x first, by which what is shown moves.
        turn: ``(P,)`` radians in the plane of the last two axes.
        scale: ``(P,)`` by which what is shown grows.
        mirror: whether the last axis is reversed.
    """
    dims = len(spatial)
    given = next((t for t in (shift, turn, scale) if t is not None), torch.zeros(1))
    total = len(given)
    matrix = torch.eye(dims + 1).repeat(total, 1, 1)
    if turn is not None:
        cos, sin = torch.cos(turn), torch.sin(turn)
        matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = cos, sin, -sin, cos
    if scale is not None:
        matrix[:, :dims, :dims] /= scale.reshape(-1, 1, 1)
    if shift is not None:
        matrix[:, :dims, dims] = -(matrix[:, :dims, :dims] @ shift.unsqueeze(-1)).squeeze(-1)
    if mirror:
        matrix[:, 0] = -matrix[:, 0]
    return matrix


def warp(images_P: Tensor, matrix: Tensor, *, padding: str = "border") -> Tensor:
    """Images ``(P, C, *)`` under transforms ``(P or 1, d+1, d+1)``, interpolated linearly."""
    spatial = tuple(images_P.shape[2:])
    half = torch.cat([half_sides(spatial, images_P.device), torch.ones(1, device=images_P.device)])
    normalised = matrix * half / half.unsqueeze(-1)
    grid = F.affine_grid(normalised[:, :-1], [len(matrix), 1, *spatial], align_corners=False)
    grid = grid.expand(len(images_P), *grid.shape[1:])  # one transform for all is laid out once
    return F.grid_sample(images_P, grid, padding_mode=padding, align_corners=False)


def smoothed(images_P: Tensor, sigma: float) -> Tensor:
    """Gaussian blur along every spatial axis, edges repeated."""
    for axis in range(2, images_P.ndim):
        blur = _blur(images_P.shape[axis], sigma).to(images_P)
        images_P = torch.matmul(images_P.movedim(axis, -1), blur).movedim(-1, axis)
    return images_P


@cache
def _blur(side: int, sigma: float) -> Tensor:
    """Gaussian blur along an axis as a matrix ``(side, side)``: for short axes far faster than a convolution."""
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    matrix = torch.zeros(side, side)
    for offset, weight in zip(offsets.tolist(), kernel.tolist(), strict=True):
        sources = (torch.arange(side) + offset).clamp(0, side - 1)
        matrix[sources, torch.arange(side)] += weight
    return matrix


def detail(images_P: Tensor) -> Tensor:
    """Grey images ``(P, 1, *)`` as registration sees them: band-passed, with even contrast everywhere."""
    grey = images_P.mean(dim=1, keepdim=True)
    side = min(grey.shape[2:])
    coarse = max(COARSE * side, 1.5)
    band = smoothed(grey, max(FINE * side, 0.5)) - smoothed(grey, coarse)
    return band / (smoothed(band.square(), coarse).clamp_min(0).sqrt() + 0.02)


@dataclass(frozen=True)
class Agreement:
    """How well moved images agree with fixed ones, as Fisher's z of correlations (each ``(P,)``).

    Attributes:
        whole: of all places that both show.
        best: mean over the local windows that agree best, so that an edit elsewhere does not matter.
        matrix: the transforms ``(P, d+1, d+1)``.
    """

    whole: Tensor
    best: Tensor
    matrix: Tensor

    @property
    def score(self) -> Tensor:
        """The mean of both."""
        return (self.whole + self.best) / 2


@torch.no_grad()
def register(moving_P: Tensor, fixed_P: Tensor, start: Tensor, iterations: int = ITERATIONS) -> Agreement:
    """Find the similarity under which moving images agree best with fixed ones, from a rough start.

    Args:
        moving_P: ``(P, 1, *)`` from :func:`detail`.
        fixed_P: likewise.
        start: ``(P, d+1, d+1)``; a mirror image is found only from a mirrored start.
        iterations: of Gauss and Newton.
    """
    step = _Step(fixed_P) if iterations else None
    matrix, best = start, start
    best_whole = torch.full((len(start),), -2.0)
    for done in range(iterations + 1):
        moved, seen = _moved(moving_P, matrix)
        whole = _correlation(moved, fixed_P.flatten(1), seen)
        better = whole > best_whole
        best = torch.where(better.reshape(-1, 1, 1), matrix, best)
        best_whole = torch.where(better, whole, best_whole)
        if step is not None and done < iterations:
            matrix = step(matrix, moved, seen)
    return Agreement(_fisher(best_whole), _fisher(_best_windows(moving_P, fixed_P, best)), best)


class _Step:
    """One step of Gauss and Newton; what does not change from step to step is computed once."""

    def __init__(self, fixed_P: Tensor) -> None:
        self.fixed = fixed_P.flatten(1)
        self.generators = _generators(tuple(fixed_P.shape[2:]))
        self.descent = _steepest_descent(fixed_P, self.generators)  # (P, K, V)
        hessian = self.descent @ self.descent.mT
        damping = 1e-3 * hessian.diagonal(dim1=1, dim2=2).mean(dim=1).reshape(-1, 1, 1) + FLOOR
        self.inverse = torch.linalg.inv(hessian + damping * torch.eye(len(self.generators)))

    def __call__(self, matrix: Tensor, moved: Tensor, seen: Tensor) -> Tensor:
        gain = (moved * self.fixed * seen).sum(1) / (moved.square() * seen).sum(1).clamp_min(FLOOR)
        error = (gain.unsqueeze(1) * moved - self.fixed) * seen
        change = (self.inverse @ (self.descent @ error.unsqueeze(-1))).squeeze(-1).clamp(-LARGEST_STEP, LARGEST_STEP)
        moves = torch.einsum("pk,kij->pij", change, self.generators)
        return matrix @ torch.linalg.matrix_exp(-moves)


def _moved(moving_P: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Moved images, and what of each place they show (0…1), both ``(P, voxels)``."""
    both = warp(torch.cat([moving_P, torch.ones_like(moving_P)], dim=1), matrix, padding="zeros").flatten(2)
    return both[:, 0], both[:, 1]


def _correlation(moved: Tensor, fixed: Tensor, seen: Tensor) -> Tensor:
    """Of all places that both show; -1 where that is less than half of them."""
    powers = (moved.square() * seen).sum(1) * (fixed.square() * seen).sum(1)
    found = (moved * fixed * seen).sum(1) / powers.sqrt().clamp_min(FLOOR)
    return torch.where(seen.mean(1) > 0.5, found, -1.0)


def _fisher(correlation: Tensor) -> Tensor:
    return torch.atanh(correlation.clamp(-LARGEST, LARGEST))


def _best_windows(moving_P: Tensor, fixed_P: Tensor, matrix: Tensor) -> Tensor:
    """Mean correlation of the local windows that agree best."""
    spatial = fixed_P.shape[2:]
    moved, seen = (part.reshape(fixed_P.shape) for part in _moved(moving_P, matrix))
    stride = [max(1, side // (CELLS + 1)) for side in spatial]
    window = [min(2 * step, side) for step, side in zip(stride, spatial, strict=True)]
    pool: Any = F.avg_pool2d if len(spatial) == 2 else F.avg_pool3d
    products = [moved, fixed_P, moved * fixed_P, moved.square(), fixed_P.square(), torch.ones_like(seen)]
    pooled = pool(torch.cat(products, dim=1) * seen, window, stride)
    first, second, cross, one, other = (pooled[:, :5] / pooled[:, 5:].clamp_min(FLOOR)).unbind(dim=1)
    variances = (one - first.square()) * (other - second.square())
    local = ((cross - first * second) / variances.clamp_min(1e-4).sqrt()).flatten(1)
    kept = max(1, int(TRIMMED * local.shape[1]))
    return local.sort(dim=1, descending=True).values[:, :kept].mean(dim=1)


def _generators(spatial: tuple[int, ...]) -> Tensor:
    """Directions of a similarity ``(K, d+1, d+1)``: shifts, scale and turns, each moving the edge by about a pixel."""
    dims, reach = len(spatial), float(half_sides(spatial).mean())
    found = []
    for axis in range(dims):
        shift = torch.zeros(dims + 1, dims + 1)
        shift[axis, dims] = 1
        found.append(shift)
    scale = torch.zeros(dims + 1, dims + 1)
    scale[:dims, :dims] = torch.eye(dims) / reach
    found.append(scale)
    for one, other in combinations(range(dims), 2):
        turn = torch.zeros(dims + 1, dims + 1)
        turn[one, other], turn[other, one] = -1 / reach, 1 / reach
        found.append(turn)
    return torch.stack(found)


def _steepest_descent(fixed_P: Tensor, generators: Tensor) -> Tensor:
    """Change of the fixed images along each generator, ``(P, K, voxels)``."""
    spatial = tuple(fixed_P.shape[2:])
    dims = len(spatial)
    slopes = torch.gradient(fixed_P[:, 0], dim=tuple(range(1, dims + 1)))
    slope = torch.stack([part.flatten(1) for part in reversed(slopes)], dim=1)  # x first: (P, d, V)
    axes = [torch.arange(side, dtype=fixed_P.dtype) + 0.5 - side / 2 for side in spatial]
    places = torch.meshgrid(*axes, indexing="ij")
    points = torch.stack([*(part.flatten() for part in reversed(places)), torch.ones(places[0].numel())])
    moves = generators[:, :dims] @ points  # (K, d, V)
    return torch.einsum("pdv,kdv->pkv", slope, moves)
