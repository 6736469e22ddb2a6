"""All feature-based scores over repeated halves of the real patients, with floor, ceiling and intervals.

Every draw halves the real patients. Each half is compared with as many synthetic images (the score), with the other
half (the floor: real against real) and with the other half's reconstructions (the ceiling). A score is the mean over
all draws. Its interval is not the range over draws, which share the same patients, but is computed from the influence
of every patient and every synthetic image on that mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medphantom.quality.fidelity.draw_means import DrawMeans, Joined
from medphantom.quality.fidelity.frechet_scores import frechet_scores
from medphantom.quality.fidelity.half_samples import half_sampled_scores
from medphantom.quality.fidelity.halves import Halves
from medphantom.quality.fidelity.kernel import SMALLEST_PATIENTS, kernel_distance, kernel_refusal
from medphantom.quality.fidelity.score import FoldFeatures, ScoreStatistics, Statistic, smallest_half
from medphantom.quality.fidelity.table import Rows, Table

LARGEST_KERNEL = 10_000  # images per side, because the time grows with the square


def compare(folds: Sequence[FoldFeatures], *, draws: int, rng: np.random.Generator) -> list[ScoreStatistics]:
    """All scores of one network run.

    If labels are exclusive, halves and synthetic images are matched for label counts; otherwise random differences of
    label counts would dominate the floor and reduce the sensitivity. Unmatched halves are also reported. Neighbourhood
    scores and variety use unmatched halves, because matched halves exclude labels without synthetic images. The kernel
    distance uses all images at once, because it is unbiased at any n.

    Args:
        folds: features by fold; folds have different patients but the same synthetic images.
        draws: number of random halvings of the patients.
        rng: source of the random draws.
    """
    synthetic_seed = int(rng.integers(2**63))
    matched = folds[0].strata is not None
    halves = [fold.halves(draws, rng, synthetic_seed, matched=matched) for fold in folds]
    plain = halves
    if matched:
        plain = [fold.halves(draws, rng, synthetic_seed, matched=False) for fold in folds]
    found = list(frechet_scores("frechet", folds, halves, rng))
    if matched:
        found += frechet_scores("frechet_random_halves", folds, plain, rng)
    found += half_sampled_scores(folds, plain, rng)
    found.append(kernel_score(folds, plain, rng))
    return found


def compare_label(
    label: str, folds: Sequence[FoldFeatures], *, draws: int, rng: np.random.Generator
) -> Iterator[ScoreStatistics]:
    """The scores of images with one label: the kernel distance, and all others that their number supports.

    Args:
        label: name of the label.
        folds: features of the images with the label, by fold.
        draws: number of random halvings of the patients.
        rng: source of the random draws.
    """
    synthetic_seed = int(rng.integers(2**63))
    halves = [fold.halves(draws, rng, synthetic_seed, matched=False) for fold in folds]
    scores = [
        kernel_score(folds, halves, rng),
        *frechet_scores("frechet", folds, halves, rng),
        *half_sampled_scores(folds, halves, rng),
    ]
    for score in scores:
        if score.refused is None or score.name == "kernel":
            yield score.model_copy(update={"label": label})


def kernel_score(
    folds: Sequence[FoldFeatures], halves: Sequence[Sequence[Halves]], rng: np.random.Generator
) -> ScoreStatistics:
    """Kernel distance of all images, or of :data:`LARGEST_KERNEL` of them; its floor is the range over halves.

    Args:
        folds: features of the images, by fold.
        halves: halves by fold and draw, for the floor.
        rng: source of the random selection of images, if there are too many.
    """
    synthetic_rows = rng.permutation(len(folds[0].synthetic))[:LARGEST_KERNEL]
    counts = [min(len(fold.real), len(fold.synthetic)) for fold in folds]
    n_real, n_synthetic = min(LARGEST_KERNEL, *(len(fold.real) for fold in folds)), len(synthetic_rows)
    why = kernel_refusal(min(counts)) or kernel_refusal(smallest_half(halves))
    if why is not None or min(len(np.unique(fold.patients)) for fold in folds) < 2 * SMALLEST_PATIENTS:
        why = why or "images of too few patients; inspect the images and the label agreement instead"
        return ScoreStatistics(name="kernel", n_synthetic=n_synthetic, n_real=n_real, refused=why)
    means, quadratic = [], 0.0
    floor, rebuilt = [], []
    for fold, draws in zip(folds, halves, strict=True):
        rows = rng.permutation(len(fold.real))[:LARGEST_KERNEL]
        found = kernel_distance(Rows(fold.synthetic, synthetic_rows), Rows(fold.real, rows), None, fold.patients[rows])
        mean = DrawMeans(fold, 1)
        mean.add(0, found.value, ("synthetic", synthetic_rows, found.first), ("real", rows, found.second))
        means.append(mean)
        quadratic += found.quadratic / len(folds) ** 2
        floor += [_kernel_of_halves(fold, fold.real, half) for half in draws]
        if fold.rebuilt is not None:
            rebuilt += [_kernel_of_halves(fold, fold.rebuilt, half) for half in draws]
    part = Joined.of(means).part("kernel")
    return ScoreStatistics(
        name="kernel",
        n_synthetic=n_synthetic,
        n_real=n_real,
        synthetic=part.model_copy(update={"quadratic": quadratic, "draws": None}),
        floor=_over_draws(floor),
        reconstruction=_over_draws(rebuilt) if rebuilt else None,
    )


def _kernel_of_halves(fold: FoldFeatures, candidates: Table, half: Halves) -> float:
    """Kernel distance of one half of the (possibly reconstructed) real images to the other half."""
    first, second = half.first[:LARGEST_KERNEL], half.second[:LARGEST_KERNEL]
    return kernel_distance(
        Rows(candidates, first), Rows(fold.real, second), fold.patients[first], fold.patients[second]
    ).value


def _over_draws(values: Sequence[float]) -> Statistic:
    return Statistic(value=float(np.mean(values)), draws=(min(values), max(values)))
