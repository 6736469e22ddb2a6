"""Exact and near duplicates: pixel digests for the first, small high-pass thumbnails for the second.

Thresholds were set on 1,605 chest radiographs (1,281 patients): no pair of different patients correlates above .948,
while recompressed (JPEG quality 30), resized, brightened, blurred or noisy copies stay above .974.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from medphantom.cohorts.readers.common import luminance
from medphantom.core.records import Array

CELLS = {2: (16, 16), 3: (8, 8, 8)}
HIGH_PASS_SIGMA = 2.0
NEAR_CORRELATION = 0.96
HASH_BITS = 256
# Charikar 2002: a bit of a random-projection hash differs with probability angle / pi. At a correlation of .96 that is
# .090, so 37 of 256 bits lie three standard deviations above the mean: 1 in 1000 near duplicates is missed.
MOST_DIFFERENT_BITS = 37
MOST_NEIGHBOURS = 64  # of one image: a thousand pictures of one scene must not become a million pairs


def thumbnail(pixels: Array, channels: int = 1, *, inverted: bool = False) -> Array:
    """Return a small signature of an image that does not depend on size, brightness, contrast or photometric direction.

    Args:
        pixels: Pixels, ``(H, W)``, ``(H, W, 3)`` or ``(D, H, W)``.
        channels: Number of channels, 1 or 3.
        inverted: Whether small values are bright.

    Returns:
        int8 vector of zero mean and fixed length for the number of axes; all zero if there is no structure.
    """
    grey = luminance(pixels) if channels == 3 else pixels
    cells = _cell_means(grey, CELLS[grey.ndim])
    smooth = cells
    for axis, side in enumerate(cells.shape):
        smooth = np.moveaxis(np.tensordot(_low_pass(side), smooth, axes=(1, axis)), 0, axis)
    detail = cells - smooth
    detail = (detail - detail.mean()) * (-1 if inverted else 1)
    largest = np.abs(detail).max()
    if not np.isfinite(largest) or largest <= 1e-9 * max(1.0, float(np.abs(cells).max())):
        return np.zeros(cells.size, dtype=np.int8)
    scaled: Array = np.rint(detail.ravel() * (127 / largest)).astype(np.int8)
    return scaled


def similarity(one: Array, others: Array) -> Array:
    """Return Pearson correlations of one thumbnail ``(d,)`` with many ``(n, d)``; 0 if either has no structure."""
    a, b = one.astype(np.float64), others.astype(np.float64)
    a, b = a - a.mean(), b - b.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(a) * np.linalg.norm(b, axis=1)
    correlation: Array = np.divide(b @ a, norm, out=np.zeros(len(b)), where=norm > 0)
    return correlation


class NearDuplicates:
    """Finds, for each image in turn, the earlier images of which it is a near duplicate.

    It stores 290 bytes per image (a thumbnail and its hash); a search compares hashes, then correlates the candidates.
    """

    def __init__(self, spatial_dims: int) -> None:
        self._length = int(np.prod(CELLS[spatial_dims]))
        self._thumbnails = np.empty((1024, self._length), dtype=np.int8)
        self._hashes = np.empty((HASH_BITS // 64, 1024), dtype=np.uint64)
        self._total = 0

    def add(self, thumb: Array) -> None:
        """Add the next image.

        Args:
            thumb: Signature of the image from :func:`thumbnail`.
        """
        if self._total == len(self._thumbnails):
            self._thumbnails = np.concatenate([self._thumbnails, np.empty_like(self._thumbnails)])
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)], axis=1)
        self._thumbnails[self._total] = thumb
        self._hashes[:, self._total] = _hash(thumb)
        self._total += 1

    def similar(self, thumb: Array) -> list[int]:
        """Return the numbers of earlier images of which an image is a near duplicate, the most similar first."""
        if not thumb.any():
            return []
        differing = np.zeros(self._total, dtype=np.uint16)
        for word, mine in zip(self._hashes, _hash(thumb), strict=True):
            differing += np.bitwise_count(word[: self._total] ^ mine)
        candidates = np.flatnonzero(differing <= MOST_DIFFERENT_BITS)
        if not candidates.size:
            return []
        correlation = similarity(thumb, self._thumbnails[candidates])
        order = np.argsort(-correlation, kind="stable")
        return [int(candidates[place]) for place in order[:MOST_NEIGHBOURS] if correlation[place] >= NEAR_CORRELATION]


@cache
def _low_pass(side: int) -> Array:
    """Return a Gaussian filter along an axis of ``side`` cells as a matrix, which is faster with the same result."""
    matrix: Array = ndimage.gaussian_filter1d(np.eye(side), HIGH_PASS_SIGMA, axis=0)
    return matrix


@cache
def _projection(length: int) -> Array:
    """Return fixed directions, so that a thumbnail has the same hash on every machine."""
    return np.random.Generator(np.random.PCG64(length)).standard_normal((length, HASH_BITS)).astype(np.float32)


def _hash(thumb: Array) -> Array:
    bits = (thumb.astype(np.float32) @ _projection(len(thumb))) > 0
    packed: Array = np.packbits(bits).view(np.uint64)
    return packed


def _cell_means(values: Array, cells: tuple[int, ...]) -> Array:
    """Return means over a grid of cells; if a side has fewer pixels than cells, pixels are repeated."""
    means: Array = values
    for axis, count in reversed(list(enumerate(cells))):  # the axis that runs fastest in memory first
        side = means.shape[axis]
        starts = np.arange(count) * side // count
        sums = np.add.reduceat(means, starts, axis=axis, dtype=np.float64)
        widths = np.maximum(np.diff(np.append(starts, side)), 1)
        shape = [1] * means.ndim
        shape[axis] = count
        means = sums / widths.reshape(shape)
    return means
