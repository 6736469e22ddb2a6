"""How often 95 % intervals hold what they name: Fréchet and kernel distance, halves, AUROCs and their differences.

Every repeat draws fresh patients (one to three images each, correlated within a patient) and fresh synthetic images.
The estimand of the Fréchet distance is its expectation at that n: the mean over the repeats. A percentile bootstrap of
images is compared with it, on the first repeats. Run by hand::

    python -m benchmarks.interval_coverage --repeats 1000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.measuring import write_result
from medphantom.core.records import Array
from medphantom.quality.fidelity.comparison import compare
from medphantom.quality.fidelity.frechet import frechet_distance, frechet_interval
from medphantom.quality.fidelity.kernel import kernel_distance, kernel_interval
from medphantom.quality.fidelity.score import FoldFeatures
from medphantom.quality.stats.auroc import auroc_difference, auroc_with_influence
from medphantom.quality.stats.estimate import Interval
from medphantom.quality.stats.influence import by_owner, variance_of
from medphantom.quality.stats.intervals import proportion_interval

FACTORS = 10
RESAMPLES = 200
HALVED = ("frechet", "frechet_over_floor", "frechet_infinite", "precision", "recall", "coverage", "vendi")


@dataclass(frozen=True)
class Case:
    """One distribution of features.

    Attributes:
        n: real and synthetic images.
        d: features.
        shift: of the synthetic images' hidden factors, and half of it their further scale.
        heavy: rectified features instead of Gaussian ones.
    """

    n: int
    d: int
    shift: float
    heavy: bool

    @property
    def words(self) -> str:
        """For tables."""
        apart = f"shifted by {self.shift:g}" if self.shift else "null"
        return f"n = {self.n}, d = {self.d}, {'rectified' if self.heavy else 'Gaussian'}, {apart}"


def real_features(case: Case, rng: np.random.Generator) -> tuple[Array, Array]:
    """Features and patients of real images."""
    sizes = rng.integers(1, 4, case.n)
    owner = np.repeat(np.arange(case.n), sizes)[: case.n]
    factors = 0.8 * rng.standard_normal((case.n, FACTORS))[owner] + 0.6 * rng.standard_normal((case.n, FACTORS))
    return _mixed(case, factors, rng), owner


def synthetic_features(case: Case, rng: np.random.Generator) -> Array:
    """Features of synthetic images."""
    return _mixed(case, rng.standard_normal((case.n, FACTORS)) * (1 + case.shift / 2) + case.shift, rng)


def _mixed(case: Case, factors: Array, rng: np.random.Generator) -> Array:
    mixing = np.random.default_rng(5).standard_normal((FACTORS, case.d))
    found = factors @ mixing + 0.5 * rng.standard_normal((len(factors), case.d))
    return np.maximum(found, 0) if case.heavy else found


Repeat = tuple[float, Interval]


def frechet(case: Case, seed: int) -> Repeat | None:
    """All images against all images."""
    rng = np.random.default_rng(seed)
    real, owner = real_features(case, rng)
    value, interval = frechet_interval(synthetic_features(case, rng), real, np.arange(case.n), owner, rng=rng)
    return None if interval is None else (value, interval)


def frechet_bootstrap(case: Case, seed: int) -> Repeat:
    """The same with a percentile bootstrap of images."""
    rng = np.random.default_rng(seed)
    real, _ = real_features(case, rng)
    fake = synthetic_features(case, rng)
    drawn = [
        frechet_distance(fake[rng.integers(case.n, size=case.n)], real[rng.integers(case.n, size=case.n)])
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return frechet_distance(fake, real), (float(low), float(high))


def kernel(case: Case, seed: int) -> Repeat:
    """All images against all images, patients as units."""
    rng = np.random.default_rng(seed)
    real, owner = real_features(case, rng)
    found = kernel_distance(synthetic_features(case, rng), real, second_owners=owner)
    variance = variance_of(found.first, by_owner(found.second, owner))
    return found.value, kernel_interval(found.value, variance, found.quadratic)


def halves(case: Case, seed: int) -> dict[str, Repeat]:
    """As the report does it: means over 20 halvings of the patients, by the name of the score."""
    rng = np.random.default_rng(seed)
    real, owner = real_features(case, rng)
    fold = FoldFeatures(real, synthetic_features(case, rng), None, owner)
    found = {}
    for score in compare([fold], draws=20, rng=rng):
        interval = score.synthetic and score.synthetic.interval()
        if score.synthetic and interval and score.name in HALVED:
            found[score.name] = (score.synthetic.value, interval)
    return found


def simulated_images(patients: int, gap: float, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Findings of images, the scores of two classifiers, and the patients."""
    owner = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    n = len(owner)
    severity = 0.7 * rng.standard_normal(patients)[owner] + 0.7 * rng.standard_normal(n)
    shows = (severity > 1.0).astype(int)
    shared = shows + 0.6 * rng.standard_normal(patients)[owner] + 0.8 * rng.standard_normal(n)
    first, second = (shared - gap * down * shows + 0.5 * rng.standard_normal(n) for down in (0, 1))
    return shows, first, second, owner


def difference(patients: int, gap: float, seed: int) -> Repeat:
    """Two classifiers on the same test patients."""
    shows, first, second, owner = simulated_images(patients, gap, np.random.default_rng(seed))
    parts = [auroc_with_influence(shows, score) for score in (first, second)]
    if parts[0] is None or parts[1] is None:
        raise ValueError("no image shows it")
    return auroc_difference(parts[0], parts[1], owner)


def area(positives: int, negatives: int, gap: float, seed: int) -> Repeat | None:
    """One AUROC of normal scores, one image per patient."""
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(gap, 1, positives), rng.normal(0, 1, negatives)])
    found = auroc_with_influence(np.repeat([1, 0], [positives, negatives]), scores)
    interval = None if found is None else found.interval(np.arange(positives + negatives))
    return None if found is None or interval is None else (found.value, interval)


Repeats = Callable[[int, Callable[[int], Any]], list[Any]]
"""Runs a function of the number of the repeat so many times, and drops what could not be computed."""


def _distances(repeats: int, repeat: Repeats) -> Iterator[dict[str, Any]]:
    single = [Case(200, 16, shift, heavy) for heavy in (False, True) for shift in (0.0, 0.1, 0.3)]
    single.append(Case(600, 64, 0.1, heavy=True))
    for case in single:
        found = repeat(repeats, partial(frechet, case))
        truth = float(np.mean([value for value, _ in found]))
        yield _row("Fréchet distance", case.words, found, truth)
        if case in (single[0], single[2]):
            few = repeat(min(repeats, 200), partial(frechet_bootstrap, case))
            yield _row("… percentile bootstrap", case.words, few, truth)
    for case in single:
        found = repeat(repeats, partial(kernel, case))
        truth = 0.0 if case.shift == 0 else float(np.mean([value for value, _ in found]))
        yield _row("kernel distance", case.words, found, truth)


def _halvings(repeats: int, repeat: Repeats) -> Iterator[dict[str, Any]]:
    for case in (Case(400, 16, shift, heavy=True) for shift in (0.0, 0.1, 0.3)):
        every = repeat(repeats, partial(halves, case))
        for name in HALVED:
            found = [one[name] for one in every if name in one]
            yield _row(f"{name}, 20 halvings", case.words, found, float(np.mean([value for value, _ in found])))


def _differences(repeats: int, repeat: Repeats) -> Iterator[dict[str, Any]]:
    for patients, gap in ((200, 0.0), (200, 0.3), (600, 0.2)):
        shows, first, second, _ = simulated_images(300_000, gap, np.random.default_rng(10**6))
        areas = [auroc_with_influence(shows, score) for score in (first, second)]
        truth = sum(sign * area.value for sign, area in zip((1, -1), areas, strict=True) if area is not None)
        words = f"{patients} patients, difference {truth:.3f}"
        yield _row("difference of AUROCs", words, repeat(repeats, partial(difference, patients, gap)), truth)


def _areas(repeats: int, repeat: Repeats) -> Iterator[dict[str, Any]]:
    for positives, negatives, gap in ((10, 40, 1.0), (12, 40, 2.5), (30, 90, 0.0), (30, 90, 1.0), (100, 300, 1.5)):
        truth = float(norm.cdf(gap / np.sqrt(2)))
        words = f"{positives} + {negatives} patients, AUROC {truth:.3f}"
        yield _row("AUROC", words, repeat(repeats, partial(area, positives, negatives, gap)), truth)


FAMILIES = {"distances": _distances, "halvings": _halvings, "differences": _differences, "areas": _areas}


def trials(repeats: int, families: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All cases of these families."""
    with ProcessPoolExecutor() as pool:

        def repeat(total: int, once: Callable[[int], Any]) -> list[Any]:
            return [found for found in pool.map(once, range(total), chunksize=4) if found is not None]

        for family in families:
            yield from FAMILIES[family](repeats, repeat)


def _row(what: str, case: str, found: list[Repeat], truth: float) -> dict[str, Any]:
    held = sum(low <= truth <= high for _, (low, high) in found)
    low, high = proportion_interval(held, len(found), "exact")
    row = {
        "what": what,
        "case": case,
        "repeats": len(found),
        "truth": truth,
        "held": held / len(found),
        "held_interval": [low, high],
        "too_low": sum(upper < truth for _, (_, upper) in found) / len(found),
        "too_high": sum(lower > truth for _, (lower, _) in found) / len(found),
    }
    print(f"{what:34} {case:44} held {row['held']:.3f} [{low:.3f}, {high:.3f}]", flush=True)
    return row


def main() -> None:
    """All trials, a line each, into a result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--only", choices=FAMILIES, action="append", help="one family of scores; may be repeated")
    arguments = parser.parse_args()
    families = arguments.only or list(FAMILIES)
    name = "_".join(["interval_coverage", *(arguments.only or ())])
    found = list(trials(arguments.repeats, families))
    write_result(name, {"arguments": vars(arguments), "trials": found})


if __name__ == "__main__":
    main()
