"""Scores of counterfactual pairs, after Monteiro et al. 2023 (Measuring axiomatic soundness of counterfactual image
models) and Melistas et al. 2024 (Benchmarking counterfactual image generation).

Composition: a null intervention leaves the image unchanged. Effectiveness: the counterfactual shows the requested
    state.
Reversibility: the inverse intervention restores the image. Minimality: nothing else changes, and the identity of the
patient is preserved. Every score has a floor from the autoencoder alone or from real images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.folders import json_digest
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.quality.config import AssessConfig
from medphantom.quality.counterfactual.effects import effectiveness, unrelated_kept
from medphantom.quality.counterfactual.readings import Readers, Reading, RealImages
from medphantom.quality.data.pairs import PairImages, read_pairs
from medphantom.quality.networks.features import FeatureNetwork
from medphantom.quality.networks.fixed_networks import filter_bank
from medphantom.quality.results.counterfactual_report import CounterfactualReport
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.stats.means import Means

CHANGED_SHARE = 0.1
UNIT_PAIRS = 500
NO_ROLE = "the pairs contain no {role} images: create them again with this version"


@dataclass(frozen=True)
class _Distances:
    """Feature distances between two arrays of images ``(N, C, *size)`` in -1…1, one value per pair."""

    network: FeatureNetwork
    scale: Array
    unit: float | None

    def features(self, first: Array, second: Array) -> Array | None:
        """Distance of standardised features, as a multiple of the mean distance between two patients."""
        if self.unit is None:
            return None
        apart = (self.network.features(first) - self.network.features(second)) / self.scale
        found: Array = np.linalg.norm(apart, axis=1) / self.unit
        return found


def assess_counterfactuals(
    real: Cohort, pairs: Cohort, config: AssessConfig, work: Path, progress: Progress | None = None
) -> CounterfactualReport:
    """Score counterfactual pairs of a real cohort.

    Args:
        real: the cohort whose images were edited.
        pairs: pairs of kind ``counterfactual``.
        config: seed, classifiers, minimum counts and bootstrap samples.
        work: folder for checkpoints of classifiers.
        progress: callback that receives the progress of the trainings.

    Raises:
        InputError: the cohorts are not a real cohort and its pairs, or there are no test images.
        CohortError: one half of a pair is missing.
    """
    if real.schema.kind != "real":
        raise InputError(f"{real.path} is no real cohort", "give the cohort of the source images, then the pairs")
    images = read_pairs(real, pairs)
    beside = RealImages.for_pairs(real, pairs)
    if not beside.rows["test"]:
        raise InputError("the real cohort has no test patients to score against", "ingest with a test split > 0")
    means = Means(config.utility.bootstrap, derive_seed(config.seed, "counterfactual intervals"))
    readings = Readers(real=beside, pairs=pairs, images=images, config=config, work=work, progress=progress).readings()
    estimates = [
        *_image_scores(images, _distances(beside, config), means),
        *effectiveness(readings, images, beside.patients["test"], means),
        *unrelated_kept(readings, images, means),
    ]
    return CounterfactualReport(
        real_digest=real.digest,
        pairs_digest=pairs.digest,
        config_digest=json_digest(config.model_dump(mode="json")),
        seed=config.seed,
        total_pairs=len(images),
        total_patients=len(np.unique(images.patients)),
        splits=dict(Counter(images.splits.tolist())),
        generation=dict(pairs.schema.generation),
        estimates=tuple(estimates),
        readers=tuple(reading.facts for reading in readings),
        warnings=tuple(_warnings(real, images, readings)),
    )


def _distances(beside: RealImages, config: AssessConfig) -> _Distances:
    """Distances by the fixed filter bank, standardised over real test images."""
    network = filter_bank(len(beside.rows["test"]), config.classifier.device).folds[0].network
    features = network.features(beside.images["test"])
    scale = np.maximum(features.std(axis=0), 1e-6)
    rng = np.random.default_rng(derive_seed(config.seed, "distance between patients"))
    first, second = rng.integers(len(features), size=(2, UNIT_PAIRS))
    others = beside.patients["test"][first] != beside.patients["test"][second]
    apart = np.linalg.norm((features[first] - features[second]) / scale, axis=1)[others]
    return _Distances(network, scale, float(apart.mean()) if len(apart) else None)


def _image_scores(images: PairImages, distances: _Distances, means: Means) -> Iterator[Estimate]:
    """Scores that require only images: composition, reversibility, minimality and identity."""
    source, made, patients = images.source, images.images, images.patients
    factual, counterfactual = made["factual"], made["counterfactual"]
    rebuilt, back = made.get("reconstruction"), made.get("reversed")
    floor = None if rebuilt is None else mean_l1(source, rebuilt)
    alone = "; floor: the autoencoder's reconstruction of the image"
    apart = "distance in the filter bank, standardised, as a multiple of that between images of two real patients"
    yield means.mean(
        "composition",
        f"mean absolute difference between image and factual image, in network values (-1…1){alone}",
        mean_l1(source, factual), patients, floor=floor,
    )  # fmt: skip
    yield means.mean(
        "composition_features",
        f"mean {apart}, between image and factual image{alone}",
        distances.features(source, factual), patients, network=distances.network,
        floor=None if rebuilt is None else distances.features(source, rebuilt), why="all test images are one patient's",
    )  # fmt: skip
    yield means.mean(
        "reversibility",
        f"mean absolute difference between image and reversed image, in network values (-1…1){alone}",
        None if back is None else mean_l1(source, back), patients, floor=floor, why=NO_ROLE.format(role="reversed"),
    )  # fmt: skip
    yield means.mean(
        "minimality",
        "mean absolute difference between factual and counterfactual image, in network values (-1…1)",
        mean_l1(factual, counterfactual), patients,
    )  # fmt: skip
    yield means.mean(
        "minimality_features",
        f"mean {apart}, between factual and counterfactual image",
        distances.features(factual, counterfactual), patients, network=distances.network,
        why="all test images are one patient's",
    )  # fmt: skip
    shares, residue = change_share(factual, counterfactual), change_share(source, factual)
    yield means.mean(
        "region_of_change",
        "share of the absolute change between factual and counterfactual image that lies in the 10 % most changed "
        "pixels (0.1 for a uniform change); floor: the same between source and factual image",
        shares[~np.isnan(shares)], patients[~np.isnan(shares)], floor=residue[~np.isnan(residue)],
        floor_patients=patients[~np.isnan(residue)], better="higher", why="nothing changed in any image",
    )  # fmt: skip
    yield means.share(
        "identity_kept",
        "share of counterfactuals whose nearest source image of the run, by normalised correlation, is their own; "
        "floor: the same of the autoencoder's reconstructions",
        own_is_nearest(source, counterfactual), patients,
        floor=None if rebuilt is None else own_is_nearest(source, rebuilt), wilson=True,
        note=f"chance: 1 of {len(images)}, {1 / len(images):.3g}",
    )  # fmt: skip


def mean_l1(first: Array, second: Array) -> Array:
    """Mean absolute difference of each pair of images, ``(N,)``."""
    found: Array = np.abs(first - second).reshape(len(first), -1).mean(axis=1, dtype=np.float64)
    return found


def change_share(before: Array, after: Array) -> Array:
    """Share of the absolute change in the 10 % most changed pixels, ``(N,)``; NaN without any change."""
    change = np.sort(np.abs(after - before).sum(axis=1).reshape(len(before), -1).astype(np.float64), axis=1)
    most = max(1, round(CHANGED_SHARE * change.shape[1]))
    total = change.sum(axis=1)
    found: Array = np.divide(change[:, -most:].sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
    return found


def own_is_nearest(source: Array, made: Array) -> Array:
    """Whether each image correlates best with its own source image (rank-1 retrieval)."""
    found: Array = (_normalised(made) @ _normalised(source).T).argmax(axis=1) == np.arange(len(source))
    return found


def _normalised(images: Array) -> Array:
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat = flat - flat.mean(axis=1, keepdims=True)
    found: Array = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    return found


def _warnings(real: Cohort, images: PairImages, readings: list[Reading]) -> Iterator[str]:
    """Warnings that a reader must know before citing a number."""
    if real.schema.patients == "per_image":
        yield "patients are unknown: images of one patient may be in several splits, and intervals are too narrow"
    known = int(np.isin(images.splits, ["train", "val"]).sum())
    if known:
        yield (
            f"{known} of {len(images)} pairs are of patients in train or val, on whom the generator was trained; "
            "they are excluded from the classifiers' scores"
        )
    for reading in readings:
        score = reading.facts.held_out_score
        if score is not None and reading.facts.kind != "continuous" and score < 0.7:
            yield f"the classifier barely recognises {reading.facts.name}: AUROC {score:.2f} on real test images"
        if score is not None and reading.facts.kind == "continuous" and score < 0.2:
            yield f"the regressor barely predicts {reading.facts.name}: R² {score:.2f} on real test images"
