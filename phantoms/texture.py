"""Fine structure: fractal tissue texture and the branching tree of lung vessels, both fast to draw at any size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from medphantom.core.randomness import stream
from medphantom.core.records import Array

TILE_SIDE = 1024
TILE_MM = 0.5
TREE_TRUNKS = 15
TREE_LEVELS = 4
POINTS_PER_BRANCH = 14


@lru_cache(maxsize=1)
def _tile() -> Array:
    """Return a periodic 512 mm tile of noise with amplitude ∝ 1/frequency^1.25, mean 0 and standard deviation 1."""
    rng = stream(0, "texture tile")
    spectrum = np.fft.rfft2(rng.standard_normal((TILE_SIDE, TILE_SIDE), dtype=np.float32))
    per_mm_y = np.fft.fftfreq(TILE_SIDE, TILE_MM)[:, None]
    per_mm_x = np.fft.rfftfreq(TILE_SIDE, TILE_MM)[None]
    frequency = np.hypot(per_mm_x, per_mm_y)
    spectrum *= np.maximum(frequency, 1 / 120) ** -1.25 * np.exp(-((frequency / 0.22) ** 2)) * (frequency > 0)
    tile = np.fft.irfft2(spectrum, s=(TILE_SIDE, TILE_SIDE))
    return np.ascontiguousarray((tile / tile.std()).ravel(), dtype=np.float32)


def fractal(x_mm: Array, y_mm: Array, seed: int, stretch: float = 1.0) -> Array:
    """Return fractal texture at body coordinates: mean 0, standard deviation about 1, fixed to the anatomy.

    Args:
        x_mm: Coordinates along x, of any shape.
        y_mm: Coordinates along y, of the same shape.
        seed: Seed that selects the part of the tile.
        stretch: Size of the structures relative to the tile's.
    """
    across, down = (float(v) for v in stream(seed, "texture offset").integers(4 * TILE_SIDE, 5 * TILE_SIDE, 2))
    per_mm = 1 / (TILE_MM * stretch)
    column = (x_mm * per_mm + across).astype(np.int32)  # nearest sample: the tile holds nothing finer than 4 mm
    row = (y_mm * per_mm + down).astype(np.int32)
    return np.asarray(_tile()[(row & (TILE_SIDE - 1)) * TILE_SIDE + (column & (TILE_SIDE - 1))])


@lru_cache(maxsize=256)
def vessel_tree(seed: int, sign: int) -> tuple[Array, Array]:
    """Return the vessels of one lung from the hilum outwards, in units of the distance from hilum to lung border.

    Branches halve at every level by Murray's law (radius of a child = parent / 2^(1/3)).

    Args:
        seed: Vessel seed of the patient.
        sign: Side of the lung, +1 for left and -1 for right.

    Returns:
        Points ``(n, 4)``: outward and downward share of the way to the lung's border, the sine of the angle at which
        the vessel leaves the hilum, and a front-to-back position -1…1; radius ``(n,)`` in mm at unit body scale. Thick
        vessels come first.
    """
    rng = stream(seed, "vessels", sign)
    angle = np.linspace(-1.45, 1.35, TREE_TRUNKS) + rng.normal(0, 0.08, TREE_TRUNKS)
    place = np.zeros(TREE_TRUNKS)
    start = np.full(TREE_TRUNKS, 0.05)
    toward = rng.normal(0, 0.35, TREE_TRUNKS)
    radius = rng.uniform(2.0, 3.9, TREE_TRUNKS)
    along = np.linspace(0, 1, POINTS_PER_BRANCH)
    points, radii = [], []
    for level in range(TREE_LEVELS):
        length = rng.uniform(0.20, 0.34, len(angle)) * (1.0 if level else 1.25)
        spread = rng.normal(0, (0.10, 0.26, 0.34, 0.36)[level], len(angle))
        theta = angle[:, None] + spread[:, None] * along
        away = start[:, None] + length[:, None] * along
        depth = place[:, None] + (toward * length)[:, None] * along
        taper = radius[:, None] * (1 - 0.2 * along)
        sine = np.sin(theta)
        points.append(np.stack([part.ravel() for part in (np.cos(theta) * away, sine * away, sine, depth)], axis=1))
        radii.append(taper.ravel())
        angle = np.repeat(theta[:, -1], 2) + np.tile([-0.13, 0.13], len(angle))
        start = np.repeat(away[:, -1], 2)
        place = np.repeat(depth[:, -1], 2)
        toward = np.repeat(toward, 2) + rng.normal(0, 0.5, len(angle))
        radius = np.repeat(radius, 2) * 0.8 / 2 ** (1 / 3) * 1.18
    order = np.argsort(-np.concatenate(radii), kind="stable")
    return np.concatenate(points)[order].astype(np.float32), np.concatenate(radii)[order].astype(np.float32)


def splat(at: Sequence[Array], weights: Array, shape: Sequence[int]) -> Array:
    """Sum weights at continuous positions, shared linearly among the nearest pixels (or voxels).

    Args:
        at: Positions along each axis, ``(n,)`` each, with pixel centres at integers.
        weights: Weights to add, ``(n,)``.
        shape: Shape of the result.

    Returns:
        float32 array of ``shape``; weights outside it are dropped.
    """
    low = [np.floor(position) for position in at]
    rest = [position - floor for position, floor in zip(at, low, strict=True)]
    total = np.zeros(int(np.prod(shape)))
    for corner in product((0, 1), repeat=len(shape)):
        share = np.array(weights)
        index = np.zeros(len(share), dtype=np.int64)
        inside = np.ones(len(share), dtype=bool)
        for floor, part, step, length in zip(low, rest, corner, shape, strict=True):
            place = floor.astype(np.int64) + step
            share *= part if step else 1 - part
            inside &= (place >= 0) & (place < length)
            index = index * length + place
        total += np.bincount(index[inside], weights=share[inside], minlength=len(total))
    return total.reshape(shape).astype(np.float32)
