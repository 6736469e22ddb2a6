"""Similarity transforms of images and volumes: their application, their registration, and the resulting agreement.

A transform is a ``(d+1, d+1)`` matrix over centred pixel coordinates, x first (the last axis of the array), that maps
positions of the result to positions of the source. Registration is the inverse compositional Gauss-Newton method of
Baker & Matthews 2004 for similarities (shift, rotation, scale), on band-passed images with a free gain, as in the
enhanced correlation coefficient of Evangelidis & Psarakis 2008.

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

FINE, COARSE = (
    1 / 64,
    5 / 64,
)  # of the shortest side; details between these scales identify a patient
ITERATIONS = 8
CELLS = 7  # local windows along an axis
TRIMMED = 0.6  # share of the best-agreeing windows that is used, so that a local edit does not hide a copy
FLOOR = 1e-6
LARGEST = 1 - 1e-4  # correlation beyond which 8-bit grey values carry no more information
LARGEST_STEP = 4.0  # pixels


def half_sides(spatial: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """Half of each side in pixels, x first, ``(d,)``."""
    return torch.tensor([side / 2 for side in reversed(spatial)], device=device)


def similarity(
    spatial: tuple[int, ...],
    *,
    shift: Tensor | None = None,
    turn: Tensor | None = None,
    scale: Tensor | None = None,
    mirror: bool = False,
) -> Tensor:
    """Similarity transforms ``(P, d+1, d+1)`` of images.

    Args:
        spatial: lengths of the spatial axes ``(*)``.
        shift: displacement of the content in pixels, ``(P, d)``, x first.
        turn: rotation angle in radians in the plane of the last two axes, ``(P,)``.
        scale: magnification of the content, ``(P,)``.
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
    # F.affine_grid does the same in 13 times the time: it multiplies matrices of 3 columns one by one
    points = normalised[:, :-1].flatten(0, 1) @ _places(spatial).to(matrix)
    grid = points.reshape(len(matrix), len(spatial), *spatial).movedim(1, -1)
    grid = grid.expand(len(images_P), *grid.shape[1:])  # a single transform is computed once for all images
    return F.grid_sample(images_P, grid, padding_mode=padding, align_corners=False)


@cache
def _places(spatial: tuple[int, ...]) -> Tensor:
    """Homogeneous coordinates of all positions, -1…1 between the outer edges, x first: ``(d+1, voxels)``."""
    axes = [(2 * torch.arange(side) + 1) / side - 1 for side in spatial]
    places = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([*(part.flatten() for part in reversed(places)), torch.ones(places[0].numel())])


def smoothed(images_P: Tensor, sigma: float) -> Tensor:
    """Gaussian blur along every spatial axis, with replicated edges."""
    for axis in range(2, images_P.ndim):
        blur = _blur(images_P.shape[axis], sigma).to(images_P)
        images_P = torch.matmul(images_P.movedim(axis, -1), blur).movedim(-1, axis)
    return images_P


@cache
def _blur(side: int, sigma: float) -> Tensor:
    """Gaussian blur along an axis as a matrix ``(side, side)``, which is faster than a convolution for short axes."""
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
    """Grey images ``(P, 1, *)`` for registration: band-passed, with locally normalised contrast."""
    grey = images_P.mean(dim=1, keepdim=True)
    side = min(grey.shape[2:])
    coarse = max(COARSE * side, 1.5)
    band = smoothed(grey, max(FINE * side, 0.5)) - smoothed(grey, coarse)
    return band / (smoothed(band.square(), coarse).clamp_min(0).sqrt() + 0.02)


@dataclass(frozen=True)
class Agreement:
    """Agreement of moved images with fixed ones, as Fisher's z of correlations (each ``(P,)``).

    Attributes:
        whole: agreement over all positions that both images cover.
        best: mean agreement of the best local windows, so that a local edit has no effect.
        matrix: transforms found, ``(P, d+1, d+1)``.
    """

    whole: Tensor
    best: Tensor
    matrix: Tensor

    @property
    def score(self) -> Tensor:
        """Mean of the whole and the best agreement."""
        return (self.whole + self.best) / 2


@torch.no_grad()
def register(moving_P: Tensor, fixed_P: Tensor, start: Tensor, iterations: int = ITERATIONS) -> Agreement:
    """Find the similarity transform under which moving images agree best with fixed ones, from an initial estimate.

    Args:
        moving_P: moving images ``(P, 1, *)`` from :func:`detail`.
        fixed_P: fixed images ``(P, 1, *)`` from :func:`detail`.
        start: initial transforms ``(P, d+1, d+1)``; mirror images are found only from a mirrored start.
        iterations: number of Gauss-Newton iterations.
    """
    covered_P = torch.cat([moving_P, torch.ones_like(moving_P)], dim=1)
    step = _Step(fixed_P) if iterations else None
    matrix, best = start, start
    moved, seen = _moved(covered_P, start)
    best_whole = _correlation(moved, fixed_P.flatten(1), seen)
    if step is not None:
        for _ in range(iterations):
            matrix = step(matrix, moved, seen)
            moved, seen = _moved(covered_P, matrix)
            whole = _correlation(moved, fixed_P.flatten(1), seen)
            better = whole > best_whole
            best = torch.where(better.reshape(-1, 1, 1), matrix, best)
            best_whole = torch.where(better, whole, best_whole)
        moved, seen = _moved(covered_P, best)
    return Agreement(_fisher(best_whole), _fisher(_best_windows(moved, seen, fixed_P)), best)


class _Step:
    """A Gauss-Newton step; quantities that do not change between steps are computed once."""

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
        along = error.unsqueeze(1) @ self.descent.mT  # (P, 1, K); as matrix times vector it takes eight times as long
        change = (self.inverse @ along.mT).squeeze(-1).clamp(-LARGEST_STEP, LARGEST_STEP)
        moves = torch.einsum("pk,kij->pij", change, self.generators)
        return matrix @ torch.linalg.matrix_exp(-moves)


def _moved(covered_P: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Moved images, and the share (0…1) of each position that they cover, both ``(P, voxels)``.

    Args:
        covered_P: moving images with a second channel of ones.
        matrix: transforms ``(P, d+1, d+1)``.
    """
    both = warp(covered_P, matrix, padding="zeros").flatten(2)
    return both[:, 0], both[:, 1]


def _correlation(moved: Tensor, fixed: Tensor, seen: Tensor) -> Tensor:
    """Correlation over all positions that both images cover; -1 if these are fewer than half."""
    powers = (moved.square() * seen).sum(1) * (fixed.square() * seen).sum(1)
    found = (moved * fixed * seen).sum(1) / powers.sqrt().clamp_min(FLOOR)
    return torch.where(seen.mean(1) > 0.5, found, -1.0)


def _fisher(correlation: Tensor) -> Tensor:
    return torch.atanh(correlation.clamp(-LARGEST, LARGEST))


def _best_windows(moved: Tensor, seen: Tensor, fixed_P: Tensor) -> Tensor:
    """Mean correlation of the best-agreeing local windows, of two cells along each axis."""
    spatial = fixed_P.shape[2:]
    moved, seen = moved.reshape(fixed_P.shape), seen.reshape(fixed_P.shape)
    cell = [max(1, side // (CELLS + 1)) for side in spatial]
    pool: Any = F.avg_pool2d if len(spatial) == 2 else F.avg_pool3d
    products = [moved, fixed_P, moved * fixed_P, moved.square(), fixed_P.square(), torch.ones_like(seen)]
    cells = pool(torch.cat(products, dim=1) * seen, cell)  # each position once: windows overlap by half
    pooled = pool(cells, [min(2, side) for side in cells.shape[2:]], 1)
    first, second, cross, one, other = (pooled[:, :5] / pooled[:, 5:].clamp_min(FLOOR)).unbind(dim=1)
    variances = (one - first.square()) * (other - second.square())
    local = ((cross - first * second) / variances.clamp_min(1e-4).sqrt()).flatten(1)
    kept = max(1, int(TRIMMED * local.shape[1]))
    return local.sort(dim=1, descending=True).values[:, :kept].mean(dim=1)


def _generators(spatial: tuple[int, ...]) -> Tensor:
    """Generators of similarities ``(K, d+1, d+1)``: shifts, scale and rotations that move the edge by about a pixel."""
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
