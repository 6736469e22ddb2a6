"""The Fréchet distance over halves of the patients, with floor, ceiling, their ratios and its extrapolation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.fidelity.draw_means import DrawMeans, Influences, Joined
from medphantom.quality.fidelity.frechet import Gaussian, Influenced, frechet_refusal, influenced_distance
from medphantom.quality.fidelity.halves import Halves, owner_half
from medphantom.quality.fidelity.score import FoldFeatures, ScoreStatistics, refused, smallest_half
from medphantom.quality.fidelity.table import Rows
from medphantom.quality.stats.influence import quadratic_share


@dataclass
class _FrechetMeans:
    synthetic: DrawMeans
    smaller: DrawMeans
    floor: DrawMeans
    rebuilt: DrawMeans


def frechet_scores(
    name: str, folds: Sequence[FoldFeatures], halves: Sequence[Sequence[Halves]], rng: np.random.Generator
) -> Iterator[ScoreStatistics]:
    """The distance, its extrapolation, and its ratios to floor and ceiling."""
    size = smallest_half(halves)
    why = frechet_refusal(size, folds[0].real.shape[1])
    if why is not None:
        yield from refused([name], size, why)
        return
    means, shares = [], []
    for fold, draws in zip(folds, halves, strict=True):
        made, share = _frechet_fold(fold, draws, rng)
        means.append(made)
        shares.append(share)
    synthetic = Joined.of([mean.synthetic for mean in means])
    floor = Joined.of([mean.floor for mean in means]).halved()
    rebuilt = None if folds[0].rebuilt is None else Joined.of([mean.rebuilt for mean in means])
    share = float(np.mean(shares))
    yield ScoreStatistics(
        name=name,
        n_synthetic=size,
        n_real=size,
        synthetic=synthetic.part(
            "log", (share / (2 - share)) ** 1.5
        ),  # averaging over draws leaves less of the second order
        floor=floor.part("log"),
        reconstruction=None if rebuilt is None else rebuilt.part("log"),
    )
    for suffix, above, below in (
        ("over_floor", synthetic, floor),
        ("over_reconstruction", synthetic, rebuilt),
        ("reconstruction_over_floor", rebuilt, floor),
    ):
        if above is not None and below is not None:
            yield ScoreStatistics(name=f"{name}_{suffix}", n_synthetic=size, n_real=size, synthetic=above.over(below))
    if name == "frechet":
        infinite = synthetic.less(Joined.of([mean.smaller for mean in means]), 2.0)
        yield ScoreStatistics(name="frechet_infinite", n_synthetic=size, n_real=size, synthetic=infinite.part("plain"))


def _frechet_fold(fold: FoldFeatures, draws: Sequence[Halves], rng: np.random.Generator) -> tuple[_FrechetMeans, float]:
    """Means over draws, and the share of the second-order part in the variance of one comparison."""
    means = _FrechetMeans(*(DrawMeans(fold, len(draws)) for _ in range(4)))
    whole, parts = [], []
    own = np.arange(len(fold.synthetic))
    for number, draw in enumerate(draws):
        first, second = (Gaussian.of(Rows(fold.real, rows)) for rows in (draw.first, draw.second))
        for half, other, reference in ((draw, first, second), (draw.turned(), second, first)):
            real, fake = Rows(fold.real, half.second), Rows(fold.synthetic, half.for_second)
            made = influenced_distance(fake, real, (Gaussian.of(fake), reference))
            means.synthetic.add(number, made.value, *_influences(fold, made, half.for_second, half.second))
            whole.append(made.variance(own[half.for_second], fold.patients[half.second]).value)
            for rows, synthetic_rows in _quarters(fold, half, rng):
                less = influenced_distance(Rows(fold.synthetic, synthetic_rows), Rows(fold.real, rows))
                means.smaller.add(number, less.value, *_influences(fold, less, synthetic_rows, rows))
                parts.append(less.variance(own[synthetic_rows], fold.patients[rows]).value)
            if fold.rebuilt is not None:
                again = influenced_distance(Rows(fold.rebuilt, half.first), real, None)
                means.rebuilt.add(number, again.value, *_pair(fold, again, half))
            if half is draw:  # the distance is symmetric
                same = influenced_distance(Rows(fold.real, half.first), real, (other, reference))
                means.floor.add(number, same.value, *_pair(fold, same, half))
    return means, quadratic_share(float(np.mean(whole)), parts)


def _quarters(fold: FoldFeatures, half: Halves, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """Rows of two quarters of the real images in a half, with rows of their synthetic images."""
    side = owner_half(fold.patients[half.second], rng)
    size = min(int(side.sum()), int((~side).sum()))
    order = rng.permutation(half.for_second)
    yield half.second[side][:size], order[:size]
    yield half.second[~side][:size], order[size : 2 * size]


def _influences(fold: FoldFeatures, made: Influenced, synthetic_rows: Array, rows: Array) -> tuple[Influences, ...]:
    """Influences of synthetic and real images, within classes if halves are matched for class counts."""
    candidate, reference = made.candidate, made.reference
    if fold.strata is not None and fold.synthetic_strata is not None:
        candidate = _within(candidate, fold.synthetic_strata[synthetic_rows])
        reference = _within(reference, fold.strata[rows])
    return ("synthetic", synthetic_rows, candidate), ("real", rows, reference)


def _pair(fold: FoldFeatures, made: Influenced, half: Halves) -> tuple[Influences, ...]:
    """Influences of two halves of the real images."""
    candidate, reference = made.candidate, made.reference
    if fold.strata is not None:
        candidate = _within(candidate, fold.strata[half.first])
        reference = _within(reference, fold.strata[half.second])
    return ("real", half.first, candidate), ("real", half.second, reference)


def _within(influence: Array, strata: Array) -> Array:
    """Influences minus their class mean, because matched class counts remove differences between classes."""
    _, group = np.unique(strata, return_inverse=True)
    found: Array = influence - (np.bincount(group, weights=influence) / np.bincount(group))[group]
    return found
