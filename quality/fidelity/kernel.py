"""Kernel distance between sets of features: unbiased at every n, with intervals clustered by patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.fidelity.frechet import SMALLEST_N
from medphantom.quality.fidelity.table import Rows, Table, release
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.influence import Variance, student_quantile

ROWS_PER_TILE = 1024
SMALLEST_PATIENTS = 3


@dataclass(frozen=True)
class KernelDistance:
    """A squared maximum mean discrepancy.

    Attributes:
        value: unbiased estimate with mean 0 for equal distributions, so that single values may be negative.
        first: influence of each image of the first set, ``(n,)``.
        second: the same of the second set.
        quadratic: variance of the second-order part, which is the whole variance for equal distributions.
    """

    value: float
    first: Array
    second: Array
    quadratic: float


def kernel_interval(value: float, linear: Variance, quadratic: float) -> Interval:
    """95 % interval of the distance of two distributions from a :class:`KernelDistance`.

    The variance grows with the distance θ as ``Q + c θ``, with ``quadratic`` as Q. As in Wilson's interval for
    proportions, the interval contains the distances that are compatible with the value under *their own* variance;
    with the variance at the value, one interval in five would be too low for small distances. The slope c is estimated
    from the sets and shrunk towards its largest possible value ``(8 Q)½`` if the distance is small relative to noise.

    Args:
        value: unbiased estimate of the distance.
        linear: variance from the patients' influences, which counts the second-order part twice.
        quadratic: variance of the second-order part.
    """
    noise = float(np.sqrt(quadratic))
    shown = max(linear.value - 2 * quadratic, 0.0)
    slope = (shown + np.sqrt(8) * quadratic) / (max(value, 0.0) + noise) if noise > 0 else 0.0
    quantile = student_quantile(linear)
    middle = value + quantile**2 * slope / 2
    half = quantile * np.sqrt(max(quadratic + slope * value, 0.0) + (quantile * slope / 2) ** 2)
    return min(float(middle - half), value), float(middle + half)  # both are equal for values far below 0


def kernel_distance(
    first_ND: Table,
    second_MD: Table,
    first_owners: Sequence[str] | Array | None = None,
    second_owners: Sequence[str] | Array | None = None,
) -> KernelDistance:
    """Unbiased squared maximum mean discrepancy with the kernel ``(x·y/d + 1)³`` (Bińkowski et al. 2018).

    Images of one patient are not compared with each other, because their similarity would bias the distance. The
    variance is that of a two-sample U-statistic: the first-order part from the influence of each patient, without the
    second-order part that it counts twice (Gretton et al. 2012, section 4; Sutherland and Deka 2019).

    Args:
        first_ND: features, one row per image.
        second_MD: features of the other set; the sets may differ in size.
        first_owners: patient of each row; ``None`` if all rows are independent.
        second_owners: patient of each row of the other set.

    Raises:
        UnsupportedClaim: a set holds images of fewer than three patients.
    """
    first, second = _Side.of(first_ND, first_owners), _Side.of(second_MD, second_owners)
    for side in (first, second):
        if len(side.starts) < SMALLEST_PATIENTS:
            raise UnsupportedClaim(
                f"the kernel distance needs images of {SMALLEST_PATIENTS} patients a side, got {len(side.starts)}"
            )
    within = [side.within() for side in (first, second)]
    across_rows, across_columns = _across_sums(first, second)
    n, m = len(first), len(second)
    across = across_rows.sum() / (n * m)
    influences = []
    for (mean, rows, pairs), side, cross in zip(within, (first, second), (across_rows, across_columns), strict=True):
        own = 2 * (rows - mean * side.others()) / pairs
        other = 2 * (cross / (n * m) - across / len(side))
        influences.append(side.in_order(own - other))
    value = within[0][0] + within[1][0] - 2 * across
    second_order = sum(
        2 * side.squares(rows / side.others(), mean) / pairs**2
        for (mean, rows, pairs), side in zip(within, (first, second), strict=True)
    )
    second_order += 4 * _across_squares(first, second, across_rows / m, across_columns / n, across) / (n * m) ** 2
    return KernelDistance(float(value), influences[0], influences[1], float(second_order))


@dataclass(frozen=True)
class _Side:
    """Features sorted by patient.

    Attributes:
        features: feature vectors, ``(n, d)``.
        owner: number of each row's patient, ascending.
        starts: first row of each patient.
        order: original position of each row.
    """

    features: Table
    owner: Array
    starts: Array
    order: Array

    @classmethod
    def of(cls, features_ND: Table, owners: Sequence[str] | Array | None) -> _Side:
        total = len(features_ND)
        if owners is None:
            return cls(features_ND, np.arange(total), np.arange(total), np.arange(total))
        _, owner = np.unique(np.asarray(owners), return_inverse=True)
        order = np.argsort(owner, kind="stable")
        owner = owner[order]
        return cls(Rows(features_ND, order), owner, np.flatnonzero(np.diff(owner, prepend=-1)), order)

    def __len__(self) -> int:
        return len(self.owner)

    def in_order(self, values: Array) -> Array:
        """One value per row, in the original order of the rows."""
        found = np.empty_like(values)
        found[self.order] = values
        return found

    def others(self) -> Array:
        """Number of images of other patients for each row, ``(n,)``."""
        found: Array = len(self) - np.bincount(self.owner)[self.owner]
        return found

    def tiles(self) -> Iterator[slice]:
        """Rows of whole patients, about :data:`ROWS_PER_TILE` at a time."""
        ends = [*self.starts[1:], len(self)]
        start = 0
        for end, following in zip(ends, [*ends[1:], None], strict=True):
            if following is None or following - start > ROWS_PER_TILE:
                yield slice(start, int(end))
                start = int(end)

    def block(self, rows: slice) -> Array:
        """Features of some rows, float64."""
        found = np.asarray(self.features[rows], dtype=np.float64)
        release(self.features)
        return found

    def within(self) -> tuple[float, Array, float]:
        """Mean kernel over pairs of different patients, its sum by row, and the number of pairs."""
        sums = np.zeros(len(self))
        for left in self.tiles():
            for right in self.tiles():
                kernel = _kernel(self.block(left), self.block(right))
                if left == right:
                    kernel[self.owner[left][:, None] == self.owner[right][None, :]] = 0.0
                sums[left] += kernel.sum(axis=1)
        pairs = float(self.others().sum())
        return float(sums.sum() / pairs), sums, pairs

    def squares(self, means: Array, mean: float) -> float:
        """Sum over pairs of different patients of the squared sum of their doubly centred kernel."""
        total = 0.0
        for left in self.tiles():
            for right in self.tiles():
                kernel = _kernel(self.block(left), self.block(right))
                kernel += mean - means[left][:, None] - means[right][None, :]
                sums = self.patient_sums(self.patient_sums(kernel, left, 0), right, 1)
                if left == right:
                    np.fill_diagonal(sums, 0.0)
                total += float((sums**2).sum())
        return total

    def patient_sums(self, kernel: Array, rows: slice, axis: int) -> Array:
        """Sums of a tile's rows or columns by patient."""
        inside = self.starts[(self.starts >= rows.start) & (self.starts < rows.stop)] - rows.start
        found: Array = np.add.reduceat(kernel, inside, axis=axis)
        return found


def _kernel(first: Array, second: Array) -> Array:
    found: Array = first @ second.T / first.shape[1] + 1
    return found * found * found


def _across_sums(first: _Side, second: _Side) -> tuple[Array, Array]:
    rows, columns = np.zeros(len(first)), np.zeros(len(second))
    for left in first.tiles():
        for right in second.tiles():
            kernel = _kernel(first.block(left), second.block(right))
            rows[left] += kernel.sum(axis=1)
            columns[right] += kernel.sum(axis=0)
    return rows, columns


def _across_squares(first: _Side, second: _Side, rows: Array, columns: Array, mean: float) -> float:
    total = 0.0
    for left in first.tiles():
        for right in second.tiles():
            kernel = _kernel(first.block(left), second.block(right))
            kernel += mean - rows[left][:, None] - columns[right][None, :]
            sums = second.patient_sums(first.patient_sums(kernel, left, 0), right, 1)
            total += float((sums**2).sum())
    return total


def kernel_refusal(total_images: int) -> str | None:
    """Reason why a kernel distance at this n is refused, or ``None`` if it is supported."""
    if total_images >= SMALLEST_N // 2:
        return None
    return (
        f"{total_images} images are too few (≥ {SMALLEST_N // 2}); inspect the images and the label agreement instead"
    )
