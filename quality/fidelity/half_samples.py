"""Neighbourhood scores and the Vendi score over halves of the patients, with intervals by repeated half-samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.fidelity.frechet import SMALLEST_N
from medphantom.quality.fidelity.halves import Halves, owner_half
from medphantom.quality.fidelity.manifold import ManifoldScores, manifold_scores
from medphantom.quality.fidelity.score import (
    LEAST_KEPT,
    FoldFeatures,
    ScoreStatistics,
    Statistic,
    refused,
    smallest_half,
)
from medphantom.quality.fidelity.table import Rows, Table, blocks, mean_of
from medphantom.quality.fidelity.vendi import vendi_score
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.influence import MOST_FREEDOM

LOCAL = (*ManifoldScores._fields, "vendi")
LARGEST_SET = 5_000  # images per side, because the time grows with the square; shares of 5,000 are precise to about 1 %
SHARES = ("precision", "recall", "coverage")


def half_sampled_scores(
    folds: Sequence[FoldFeatures], halves: Sequence[Sequence[Halves]], rng: np.random.Generator
) -> list[ScoreStatistics]:
    """Precision, recall, density, coverage and the Vendi score, with intervals from repeated half-samples.

    Neighbourhood scores are not differentiable, so influences are not applicable. The two halves of a draw are disjoint
    samples of half the size: a quarter of their squared difference is the variance of their mean (McCarthy 1969).
    """
    size = smallest_half(halves)
    if not all(half.disjoint for draws in halves for half in draws):
        size = min(size, len(folds[0].synthetic) // 2)
    size = min(size, LARGEST_SET)
    if size < SMALLEST_N:
        return refused(LOCAL, size, f"{size} images are too few for neighbourhoods (≥ {SMALLEST_N}): use kernel")
    synthetic, floor, rebuilt = [], [], []
    for fold, draws in zip(folds, halves, strict=True):
        trimmed = [_trimmed(half, size, len(fold.synthetic), rng) for half in draws]
        synthetic.append(
            [[_local(fold, h.second, fold.synthetic, h.for_second) for h in _ways(half)] for half in trimmed]
        )
        floor.append([[_local(fold, h.second, fold.real, h.first) for h in _ways(half)] for half in trimmed])
        if fold.rebuilt is not None:
            again = fold.rebuilt
            rebuilt.append([[_local(fold, h.second, again, h.first) for h in _ways(half)] for half in trimmed])
    return [
        ScoreStatistics(
            name=name,
            n_synthetic=size,
            n_real=size,
            synthetic=_half_sampled(synthetic, place),
            floor=_over_halves(floor, place),
            reconstruction=_over_halves(rebuilt, place) if rebuilt else None,
        )
        for place, name in enumerate(LOCAL)
    ]


def _ways(half: Halves) -> tuple[Halves, Halves]:
    return half, half.turned()


def _local(fold: FoldFeatures, rows: Array, candidates: Table, chosen: Array) -> tuple[float, ...]:
    """The scores of candidates against real images, in the order of :data:`LOCAL`."""
    real, fake = Rows(fold.real, rows), Rows(candidates, chosen)
    return (*manifold_scores(real, fake), vendi_score(Standardised.by(real, fake)))


def _trimmed(half: Halves, size: int, total_synthetic: int, rng: np.random.Generator) -> Halves:
    """The same halves with ``size`` images per side and disjoint synthetic images."""
    first, second = (rng.permutation(rows)[:size] for rows in (half.first, half.second))
    if half.disjoint:
        return Halves(first, second, half.for_first[:size], half.for_second[:size])
    order = rng.permutation(total_synthetic)
    return Halves(first, second, order[:size], order[size : 2 * size])


def manifold_intervals(
    real_ND: Table,
    synthetic_MD: Table,
    real_owners: Sequence[str] | Array,
    *,
    rng: np.random.Generator,
    splits: int = 5,
) -> dict[str, tuple[float, Interval | None]]:
    """Precision, recall, density and coverage of two whole sets, each with a 95 % interval by repeated half-samples.

    Args:
        real_ND: features of real images.
        synthetic_MD: features of synthetic images.
        real_owners: patient of each real image.
        rng: source of the random halves.
        splits: number of pairs of halves.
    """
    owners, every = np.asarray(real_owners), np.arange(len(synthetic_MD))
    pairs = []
    for _ in range(splits):
        masks = [owner_half(names, rng) for names in (owners, every)]
        pairs.append(
            [
                manifold_scores(
                    Rows(real_ND, np.flatnonzero(masks[0] == side)),
                    Rows(synthetic_MD, np.flatnonzero(masks[1] == side)),
                )
                for side in (True, False)
            ]
        )
    found = {}
    for place, (name, value) in enumerate(manifold_scores(real_ND, synthetic_MD)._asdict().items()):
        part = _half_sampled([pairs], place).model_copy(update={"value": value})
        found[name] = (value, part.interval())
    return found


Values = Sequence[Sequence[Sequence[tuple[float, ...]]]]  # fold, draw, half, score


def _over_halves(values: Values, place: int) -> Statistic:
    """Mean and range of one score over folds, draws and halves."""
    table = np.array(values)[..., place]
    return Statistic(value=float(table.mean()), draws=(float(table.min()), float(table.max())))


def _half_sampled(values: Values, place: int) -> Statistic:
    """Mean and range with a variance from pairs of halves.

    The squared differences include the random error of one draw, which is smaller for a mean over draws.
    """
    by_half = np.array(values)[..., place].mean(axis=0)  # folds of a draw share their synthetic images
    draws = len(by_half)
    once = float((np.diff(by_half, axis=1) ** 2).mean() / 4)
    random_error = float(by_half.mean(axis=1).var(ddof=1)) * (1 - 1 / draws)
    left = max(once - random_error, LEAST_KEPT * once)
    noise = once**2 / draws + random_error**2 / (draws - 1)
    facts = {
        "variance": left,
        "freedom": max(2.0, left**2 / noise) if noise > 0 else MOST_FREEDOM,
        "scale": "share" if LOCAL[place] in SHARES else "plain",
    }
    return _over_halves(values, place).model_copy(update=facts)


def _standard(table: Table) -> tuple[Array, Array]:
    center = mean_of(table)
    squares = sum((((block - center) ** 2).sum(axis=0) for _, block in blocks(table)), np.zeros_like(center))
    deviation = np.sqrt(squares / len(table))
    return center, np.where(deviation > 0, deviation, 1.0)


@dataclass(frozen=True)
class Standardised:
    """A table standardised by the mean and standard deviation of real images."""

    table: Table
    center: Array
    scale: Array

    @classmethod
    def by(cls, real: Table, table: Table) -> Standardised:
        """A table, put where ``real`` has mean 0 and deviation 1."""
        return cls(table, *_standard(real))

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, d)``."""
        return self.table.shape

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: slice) -> Array:
        found: Array = (np.asarray(self.table[rows], dtype=np.float64) - self.center) / self.scale
        return found
