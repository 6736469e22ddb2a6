"""Scores of feature networks as estimates; features are computed once per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medphantom.core.folders import work_folder
from medphantom.core.records import Array, Frozen
from medphantom.core.staging import staging
from medphantom.quality.fidelity.comparison import compare, compare_label
from medphantom.quality.fidelity.dominance import dominance_refusal
from medphantom.quality.fidelity.score import FoldFeatures, ScoreStatistics, Statistic
from medphantom.quality.networks.features import Fold, NetworkRun
from medphantom.quality.results.quality_report import NetworkFacts
from medphantom.quality.stats.estimate import Estimate

Better = Literal["lower", "higher", "near_floor"]

AT_N = "its expectation at this n"
ESTIMANDS = {
    "frechet": f"squared Fréchet distance to real test patients in feature space, {AT_N}",
    "frechet_random_halves": f"squared Fréchet distance to real test patients, unmatched label counts, {AT_N}",
    "frechet_infinite": "squared Fréchet distance to real test patients of infinitely many images, extrapolated",
    "kernel": "squared maximum mean discrepancy (cubic kernel) between all synthetic images and real test patients",
    "precision": f"share of synthetic images within the real ones' neighbourhoods (k = 3), {AT_N}",
    "recall": f"share of real test images within the synthetic ones' neighbourhoods (k = 3), {AT_N}",
    "density": f"real neighbourhoods (k = 5) per synthetic image, over k, {AT_N}",
    "coverage": f"share of real test images with a synthetic one in their neighbourhood (k = 5), {AT_N}",
    "vendi": f"effective number of distinct synthetic images (cosine similarity of standardised features), {AT_N}",
}
RATIOS = {
    "_over_floor": "synthetic images over the floor",
    "_over_reconstruction": "synthetic images over reconstructions",
    "_reconstruction_over_floor": "reconstructions over the floor",
}
BETTER: dict[str, Better] = {"frechet": "lower", "frechet_random_halves": "lower", "kernel": "lower"}
BETTER |= {"frechet_infinite": "lower"}
INFLUENCE = "influence of every patient and synthetic image"
METHODS = {
    "frechet": f"{INFLUENCE}, corrected for the second-order part, log scale",
    "kernel": "two-sample U-statistic clustered by patient, inverted test with the variance at each distance",
    "manifold": "repeated half-samples",
}


@dataclass(frozen=True)
class Shown:
    """The images with one label.

    Attributes:
        label: name of the label.
        test: mask of the test images with the label.
        synthetic: mask of the synthetic images prompted with the label.
    """

    label: str
    test: Array
    synthetic: Array


@dataclass(frozen=True)
class ImageSets:
    """Images to be compared, float32 ``(N, C, *spatial)`` in -1…1.

    Attributes:
        test: images of real test patients.
        synthetic: images of the synthetic set.
        reconstruction: reconstructed test images in the same order; ``None`` without an autoencoder.
        patients: patient of each test image.
        test_class: class of each test image if labels are exclusive, else ``None``.
        synthetic_class: prompted class of each synthetic image.
        shown: images of each label that is scored separately.
    """

    test: Array
    synthetic: Array
    reconstruction: Array | None
    patients: Sequence[str]
    test_class: Array | None
    synthetic_class: Array | None
    shown: tuple[Shown, ...] = ()


class RunScores(Frozen):
    """All scores of one network run.

    Attributes:
        facts: description of the network.
        draws: number of random halvings of the patients.
        scores: one entry per score and label.
    """

    facts: NetworkFacts
    draws: int
    scores: tuple[ScoreStatistics, ...]


def score_run(run: NetworkRun, images: ImageSets, *, draws: int, rng: np.random.Generator, work: Path) -> RunScores:
    """Score one network run; all scores are refused if a few real images dominate the features.

    Args:
        run: networks with the test images that they may score.
        images: images to be compared.
        draws: number of random halvings of the patients.
        rng: source of the random draws.
        work: private folder for memory-mapped features during the computation.
    """
    with staging(work_folder(work) / "features") as folder:
        folds = [_features(fold, images, folder / str(number)) for number, fold in enumerate(run.folds)]
        found = compare(folds, draws=draws, rng=rng)
        whys = [why for fold in folds if (why := dominance_refusal(fold.real)) is not None]
        if whys:
            nothing = {"synthetic": None, "floor": None, "reconstruction": None}
            found = [score.model_copy(update={**nothing, "refused": score.refused or whys[0]}) for score in found]
        for shown in () if whys else images.shown:
            synthetic_rows = np.flatnonzero(shown.synthetic)
            parts = [
                features.restricted(np.flatnonzero(shown.test[fold.rows]), synthetic_rows)
                for fold, features in zip(run.folds, folds, strict=True)
            ]
            found += compare_label(shown.label, parts, draws=draws, rng=rng)
    return RunScores(facts=run.facts, draws=draws, scores=tuple(found))


def _features(fold: Fold, images: ImageSets, folder: Path) -> FoldFeatures:
    folder.mkdir()

    def made(name: str, images_NC: Array) -> Array:
        shape = (len(images_NC), fold.network.num_features)
        table = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
        return fold.network.features(images_NC, table)

    matched = images.test_class is not None and images.synthetic_class is not None
    rebuilt = None
    if images.reconstruction is not None:
        rebuilt = made("rebuilt", images.reconstruction[fold.rows])
    return FoldFeatures(
        real=made("real", images.test[fold.rows]),
        synthetic=made("synthetic", images.synthetic),
        rebuilt=rebuilt,
        patients=np.asarray(images.patients)[fold.rows],
        strata=images.test_class[fold.rows] if matched and images.test_class is not None else None,
        synthetic_strata=images.synthetic_class if matched else None,
    )


def estimates_of(runs: Sequence[RunScores], *, per_seed: bool) -> list[Estimate]:
    """Scores of one kind of network as estimates, averaged over its seeds.

    Args:
        runs: runs of one network name that differ in their seed.
        per_seed: whether the estimates are details of one seed and are named with it.
    """
    facts = runs[0].facts
    network = f"{facts.name}, seed {facts.seed}" if per_seed else facts.name
    digest = facts.digest if len(runs) == 1 else None
    found: list[Estimate] = []
    for position in range(len(runs[0].scores)):
        found += _estimates([run.scores[position] for run in runs], runs[0].draws, network, digest)
    return found


def _estimates(scores: Sequence[ScoreStatistics], draws: int, network: str, digest: str | None) -> Iterator[Estimate]:
    """The score of the synthetic images, and that of the reconstructions."""
    first = scores[0]
    ratio = next((suffix for suffix in RATIOS if first.name.endswith(suffix)), None)
    estimand = ESTIMANDS.get(first.name) or (
        f"ratio of expected Fréchet distances to real test patients: {RATIOS[ratio]}" if ratio else first.name
    )
    common = Estimate(
        name=first.name,
        estimand=estimand,
        value=None,
        n_synthetic=min(score.n_synthetic for score in scores),
        n_real=min(score.n_real for score in scores),
        better="lower" if ratio else BETTER.get(first.name, "near_floor"),
        network=network,
        network_digest=digest,
        label=first.label,
    )
    refused = next((score.refused for score in scores if score.refused is not None), None)
    synthetic = _mean([score.synthetic for score in scores])
    if refused is not None or synthetic is None:
        yield common.model_copy(update={"refused": refused or "a distance of zero has no ratio"})
        return
    floor, rebuilt = (_mean([getattr(score, side) for score in scores]) for side in ("floor", "reconstruction"))
    common = common.model_copy(
        update={
            "method": _method(first.name, draws, len(scores)),
            "floor": None if floor is None else floor.value,
            "floor_interval": None if floor is None else floor.interval() or floor.draws,
        }
    )
    yield common.model_copy(update=_value(synthetic))
    if rebuilt is not None:
        words = f"{estimand}; of reconstructed real test images: no denoiser can be better"
        yield common.model_copy(update={"name": f"{first.name}_reconstruction", "estimand": words, **_value(rebuilt)})


def _value(part: Statistic) -> dict[str, object]:
    interval = part.interval()
    return {"value": part.value, "interval": interval, "spread": None if interval else part.draws}


def _method(name: str, draws: int, seeds: int) -> str:
    """The method of value and interval in words."""
    kind = "manifold" if name in ("precision", "recall", "density", "coverage") else name.split("_", maxsplit=1)[0]
    halves = "all images" if name == "kernel" else f"mean over {draws} halvings of the patients, both halves"
    networks = f"; mean over {seeds} seeds of the network, errors averaged" if seeds > 1 else ""
    return f"{halves}{networks}; interval: {METHODS.get(kind, INFLUENCE)}"


def _mean(parts: Sequence[Statistic | None]) -> Statistic | None:
    """The mean over seeds of a network; standard errors are averaged (an upper bound), since images are the same."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return None
    first = known[0]
    if len(known) == 1:
        return first
    variances = [part.variance for part in known if part.variance is not None]
    ends = [bound for part in known if part.draws for bound in part.draws]
    return first.model_copy(
        update={
            "value": float(np.mean([part.value for part in known])),
            "variance": float(np.mean(np.sqrt(variances)) ** 2) if len(variances) == len(known) else None,
            "freedom": min(part.freedom for part in known),
            "quadratic": float(np.mean(np.sqrt([part.quadratic for part in known])) ** 2),
            "draws": (min(ends), max(ends)) if ends else None,
        }
    )
