"""Distances and manifold scores of synthetic images to test patients, with floor and autoencoder ceiling at equal n."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cohorts.records import Array, Frozen
from quality.estimate import Estimate, Interval
from quality.features import NetworkRun
from quality.frechet import (
    SMALLEST_N,
    Halves,
    draw_halves,
    frechet_distance,
    frechet_refusal,
    kernel_distance,
    kernel_refusal,
)
from quality.manifold import manifold_scores
from quality.quality_report import NetworkFacts

Better = Literal["lower", "higher", "near_floor"]
Measure = Callable[[Array, Array], dict[str, float]]

ESTIMANDS = {
    "frechet": "squared Fréchet distance to real test patients in feature space",
    "frechet_random_halves": "squared Fréchet distance to real test patients, label counts of halves left to chance",
    "kernel": "squared maximum mean discrepancy (cubic kernel, unbiased) to real test patients in feature space",
    "precision": "share of synthetic images within the real ones' neighbourhoods (k = 3)",
    "recall": "share of real test images within the synthetic ones' neighbourhoods (k = 3)",
    "density": "real neighbourhoods (k = 5) per synthetic image, over k",
    "coverage": "share of real test images with a synthetic one in their neighbourhood (k = 5)",
}
BETTER: dict[str, Better] = {"frechet": "lower", "frechet_random_halves": "lower", "kernel": "lower"}


class Draws(Frozen):
    """One score over all draws and folds of one network run.

    Attributes:
        name: as in :data:`ESTIMANDS`.
        n: images a side, the smallest over draws.
        floor: real half against the other real half, per draw.
        synthetic: synthetic images against that other half.
        reconstruction: the first half through the autoencoder against it; empty without an autoencoder.
        refused: why there are none.
    """

    name: str
    n: int
    floor: tuple[float, ...] = ()
    synthetic: tuple[float, ...] = ()
    reconstruction: tuple[float, ...] = ()
    refused: str | None = None


class RunScores(Frozen):
    """All scores of one network run.

    Attributes:
        facts: the network.
        draws: one entry per score.
    """

    facts: NetworkFacts
    draws: tuple[Draws, ...]


@dataclass(frozen=True)
class ImageSets:
    """What is compared, float32 ``(N, C, *spatial)`` in -1…1.

    Attributes:
        test: real test images.
        synthetic: synthetic images.
        reconstruction: the test images through the autoencoder, in the same order; ``None`` without one.
        patients: patient of each test image.
        test_class: class of each test image where labels exclude each other, else ``None``.
        synthetic_class: class that each synthetic image was asked to show.
    """

    test: Array
    synthetic: Array
    reconstruction: Array | None
    patients: Sequence[str]
    test_class: Array | None
    synthetic_class: Array | None


def score_run(run: NetworkRun, images: ImageSets, *, draws: int, rng: np.random.Generator) -> RunScores:
    """Score one network run: features once per image, then everything from features.

    Where labels exclude each other, halves and synthetic images have equal counts of every label: otherwise the luck of
    label counts is most of the floor, and hides a blur. The plain halves are reported beside it. The kernel distance
    always uses plain halves: it is unbiased for independent samples only, and matched ones are not independent.
    """
    matched = images.test_class is not None and images.synthetic_class is not None
    collected: dict[str, list[Draws]] = {}
    for fold in run.folds:
        real = fold.network.features(images.test[fold.rows])
        synthetic = fold.network.features(images.synthetic)
        rebuilt = None
        if images.reconstruction is not None:
            rebuilt = fold.network.features(images.reconstruction[fold.rows])
        patients = [images.patients[row] for row in fold.rows]
        strata = images.test_class[fold.rows] if matched and images.test_class is not None else None
        every = np.arange(len(synthetic))
        plain = halves = draw_halves(patients, every, draws=draws, rng=rng)
        if matched:
            halves = draw_halves(
                patients, every, draws=draws, rng=rng, strata=strata, synthetic_strata=images.synthetic_class
            )
        found = _scores({"frechet": _frechet, "manifold": _manifold}, halves, real, synthetic, rebuilt)
        beside: dict[str, Measure] = {"frechet_random_halves": _frechet} if matched else {}
        found += _scores({"kernel": _kernel, **beside}, plain, real, synthetic, rebuilt)
        for scores in found:
            collected.setdefault(scores.name, []).append(scores)
    return RunScores(facts=run.facts, draws=tuple(_joined(parts) for parts in collected.values()))


def _frechet(reference: Array, candidate: Array) -> dict[str, float]:
    return {"": frechet_distance(candidate, reference)}


def _kernel(reference: Array, candidate: Array) -> dict[str, float]:
    return {"": kernel_distance(candidate, reference)}


def _manifold(reference: Array, candidate: Array) -> dict[str, float]:
    return manifold_scores(reference, candidate)._asdict()


MANIFOLD = ("precision", "recall", "density", "coverage")


def _refusal(measure: Measure, size: int, num_features: int) -> str | None:
    if measure is _frechet:
        return frechet_refusal(size, num_features)
    if measure is _kernel:
        return kernel_refusal(size)
    return None if size >= SMALLEST_N else f"{size} images are too few for neighbourhoods (≥ {SMALLEST_N}): read kernel"


def _scores(
    measures: dict[str, Measure], halves: Sequence[Halves], real: Array, synthetic: Array, rebuilt: Array | None
) -> list[Draws]:
    """Each measure over all draws; a measure that gives several scores gives several entries."""
    size = min(len(half.first) for half in halves)
    found = []
    for name, measure in measures.items():
        names = MANIFOLD if measure is _manifold else (name,)
        refused = _refusal(measure, size, real.shape[1])
        if refused is not None:
            found += [Draws(name=each, n=size, refused=refused) for each in names]
            continue
        floor = [measure(real[half.second], real[half.first]) for half in halves]
        fake = [measure(real[half.second], synthetic[half.synthetic]) for half in halves]
        ceiling = [] if rebuilt is None else [measure(real[half.second], rebuilt[half.first]) for half in halves]
        for each, key in zip(names, floor[0], strict=True):
            found.append(
                Draws(
                    name=each,
                    n=size,
                    floor=tuple(value[key] for value in floor),
                    synthetic=tuple(value[key] for value in fake),
                    reconstruction=tuple(value[key] for value in ceiling),
                )
            )
    return found


def _joined(parts: Sequence[Draws]) -> Draws:
    """The draws of all folds together; one refused fold refuses all."""
    for part in parts:
        if part.refused is not None:
            return part
    return Draws(
        name=parts[0].name,
        n=min(part.n for part in parts),
        floor=tuple(value for part in parts for value in part.floor),
        synthetic=tuple(value for part in parts for value in part.synthetic),
        reconstruction=tuple(value for part in parts for value in part.reconstruction),
    )


def estimates_of(runs: Sequence[RunScores], *, per_seed: bool) -> list[Estimate]:
    """Scores of one kind of network as estimates: means over draws, folds and seeds, with their ranges.

    Args:
        runs: runs of one network name that differ in their seed.
        per_seed: whether this is one seed's detail, named with its seed.
    """
    facts = runs[0].facts
    network = f"{facts.name}, seed {facts.seed}" if per_seed else facts.name
    found = []
    for position, first in enumerate(runs[0].draws):
        draws = [run.draws[position] for run in runs]
        found += _one_score(draws, first.name, network, facts if len(runs) == 1 else None)
    return found


def _one_score(draws: Sequence[Draws], name: str, network: str, facts: NetworkFacts | None) -> list[Estimate]:
    """The score of the synthetic images, that of the reconstructions, and for distances their ratios."""
    n = min(part.n for part in draws)
    refused = next((part.refused for part in draws if part.refused is not None), None)
    common = {
        "n_synthetic": n,
        "n_real": n,
        "network": network,
        "network_digest": None if facts is None else facts.digest,
        "better": BETTER.get(name, "near_floor"),
    }
    if refused is not None:
        return [Estimate(name=name, estimand=ESTIMANDS[name], value=None, refused=refused, **common)]
    total, seeds = sum(len(part.floor) for part in draws), len(draws)
    method = f"mean of {total} draws ({seeds} network seed{'s' if seeds > 1 else ''}), range over draws"
    floor = [value for part in draws for value in part.floor]
    common |= {"floor": float(np.mean(floor)), "floor_interval": _range(floor), "method": method}
    synthetic = [value for part in draws for value in part.synthetic]
    rebuilt = [value for part in draws for value in part.reconstruction]
    found = [
        Estimate(
            name=name, estimand=ESTIMANDS[name], value=float(np.mean(synthetic)), spread=_range(synthetic), **common
        )
    ]
    if rebuilt:
        estimand = f"{ESTIMANDS[name]}, of real test images through the autoencoder: no denoiser can be better"
        value = float(np.mean(rebuilt))
        found.append(
            Estimate(name=f"{name}_reconstruction", estimand=estimand, value=value, spread=_range(rebuilt), **common)
        )
    if name.startswith("frechet"):
        found += _ratios(draws, name, common)
    return found


def _ratios(draws: Sequence[Draws], name: str, common: dict[str, object]) -> list[Estimate]:
    """Ratios of mean distances, per seed, then their mean and range over seeds."""
    facts = {key: common[key] for key in ("n_synthetic", "n_real", "network", "network_digest")}
    pairs = [("over_floor", "synthetic images over the floor", "synthetic", "floor")]
    if draws[0].reconstruction:
        pairs.append(("over_reconstruction", "synthetic images over reconstructions", "synthetic", "reconstruction"))
        pairs.append(("reconstruction_over_floor", "reconstructions over the floor", "reconstruction", "floor"))
    found = []
    for suffix, words, above, below in pairs:
        ratios = [float(np.mean(getattr(part, above)) / np.mean(getattr(part, below))) for part in draws]
        found.append(
            Estimate(
                name=f"{name}_{suffix}",
                estimand=f"ratio of mean Fréchet distances to real test patients: {words}",
                value=float(np.mean(ratios)),
                spread=_range(ratios) if len(ratios) > 1 else None,
                method=f"mean and range over {len(ratios)} network seeds" if len(ratios) > 1 else "one network",
                better="lower",
                **facts,
            )
        )
    return found


def _range(values: Sequence[float]) -> Interval:
    return float(min(values)), float(max(values))
