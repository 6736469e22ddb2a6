"""Feature networks, which map images to feature vectors, and the images that each may score.

**A network never scores patients on whom it was fitted.** Every network is therefore combined with the rows that it may
score (:class:`Fold`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from medphantom.cohorts.preprocess import Preprocess, fit_to_size
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.core.folders import json_digest
from medphantom.core.progress import Progress, stage
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.learning.devices import resolve_device
from medphantom.phantoms.population import simulate
from medphantom.phantoms.render import render
from medphantom.quality.config import ClassifierConfig
from medphantom.quality.data.targets import Targets, held_out_score
from medphantom.quality.networks.classifier import SmallCNN, fit_classifier, predict, weights_digest
from medphantom.quality.results.quality_report import NetworkFacts
from medphantom.quality.stats.estimate import IMAGES_PER_FEATURE

IMAGES_PER_PASS = 128
FEATURE_CHOICES = (64, 48, 32, 16)
SIMULATED_SEED = 20_000
SIMULATED_PATIENTS = 600


class FeatureNetwork(Protocol):
    """A network that maps images to feature vectors."""

    @property
    def name(self) -> str:
        """Short name for tables."""

    @property
    def digest(self) -> str:
        """Digest of weights or definition."""

    @property
    def num_features(self) -> int:
        """Length d of a feature vector."""

    def features(self, images_NC: Array, into: Array | None = None) -> Array:
        """Features float32 ``(N, d)`` of float32 images ``(N, C, *spatial)`` in -1…1.

        Volumes are represented by their three middle slices (2.5-D), over which features are averaged. Features are
        written to ``into``, such as a memory map, if it is given.
        """


@dataclass(frozen=True)
class ModuleNetwork:
    """A torch module as :class:`FeatureNetwork`.

    Attributes:
        name: short name for tables.
        digest: digest of weights or definition.
        num_features: length d of a feature vector.
        module: module that maps images or volumes ``(N, C, *spatial)`` to ``(N, d)``.
        device: device of the computation.
    """

    name: str
    digest: str
    num_features: int
    module: nn.Module
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def features(self, images_NC: Array, into: Array | None = None) -> Array:
        """As :meth:`FeatureNetwork.features`."""
        where = resolve_device(self.device)
        self.module.to(where).eval()
        found = np.empty((len(images_NC), self.num_features), dtype=np.float32) if into is None else into
        with torch.inference_mode():
            for start in range(0, len(images_NC), IMAGES_PER_PASS):
                batch = torch.from_numpy(images_NC[start : start + IMAGES_PER_PASS]).to(where)
                found[start : start + len(batch)] = self.module(batch).float().cpu().numpy()
        self.module.cpu()
        return found


@dataclass(frozen=True)
class Fold:
    """A feature network and the test images that it may score.

    Attributes:
        network: network that scores the rows.
        rows: positions of test images whose patients were not used to train the network.
    """

    network: FeatureNetwork
    rows: Array


@dataclass(frozen=True)
class NetworkRun:
    """All folds of one kind of network and one seed; together they score every test image at most once.

    Attributes:
        facts: description of the network for the report; the digests of its folds are combined.
        folds: networks with the rows that they may score.
    """

    facts: NetworkFacts
    folds: tuple[Fold, ...]


class _Penultimate(nn.Module):
    def __init__(self, network: SmallCNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NC: torch.Tensor) -> torch.Tensor:
        return self.network.features(images_NC)


def features_that_fit(smallest_half: int) -> int:
    """The longest feature vector whose covariance a half of this size supports; 16 if there is none."""
    for choice in FEATURE_CHOICES:
        if IMAGES_PER_FEATURE * choice <= smallest_half:
            return choice
    return FEATURE_CHOICES[-1]


def patient_folds(patients: Sequence[str], strata: Array | None, rng: np.random.Generator) -> tuple[Array, Array]:
    """Two patient-disjoint folds of about equal size, balanced over strata as far as possible.

    Args:
        patients: patient of each image.
        strata: class of each image, or ``None``.
        rng: source of the random order.

    Returns:
        Row numbers of both folds, ascending.
    """
    names, owner, counts = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    kind = np.zeros(len(names), dtype=np.int64)
    if strata is not None:
        kind[owner] = strata  # one of the classes of the patient
    order = rng.permutation(len(names))
    order = order[np.argsort(kind[order], kind="stable")]
    load = [0, 0]
    side = np.zeros(len(names), dtype=np.int64)
    for patient in order:
        lighter = int(load[1] < load[0])
        side[patient] = lighter
        load[lighter] += int(counts[patient])
    return np.flatnonzero(side[owner] == 0), np.flatnonzero(side[owner] == 1)


def cross_fitted(
    images: dict[str, Array],
    patients: dict[str, list[str]],
    targets: Targets,
    *,
    total_synthetic: int,
    seed: int,
    config: ClassifierConfig,
    work: Path,
    progress: Progress | None = None,
) -> NetworkRun:
    """Train two classifiers, each on ``val`` and one half of the ``test`` patients, to score the other half.

    Args:
        images: network images of ``val`` and ``test``.
        patients: patient of each image, by split.
        targets: targets of the training, with rows by split.
        total_synthetic: number of synthetic images to be scored, which limits the number of features.
        seed: seed of folds, weights and order.
        config: settings of the training.
        work: private folder for checkpoints.
        progress: callback that receives the progress of each training.

    Raises:
        UnsupportedClaim: there are no targets, fewer than two test patients, or patients shared between splits.
    """
    strata = targets.classes("test")
    folds = patient_folds(patients["test"], strata, np.random.default_rng(derive_seed(seed, "feature folds")))
    if not all(len(fold) for fold in folds):
        raise UnsupportedClaim("cross-fitting needs at least two test patients", "use networks: [simulated, filters]")
    num_features = features_that_fit(min(min(len(fold) for fold in folds) // 2, total_synthetic))
    made, scores = [], []
    for number, fold in enumerate(folds):
        other = folds[1 - number]
        fitted_on = {*patients["val"], *(patients["test"][i] for i in fold)}
        if fitted_on & {patients["test"][i] for i in other}:
            raise UnsupportedClaim("val and test share patients, so no network can be cross-fitted", "ingest again")
        network = fit_classifier(
            np.concatenate([images["val"], images["test"][fold]]),
            np.concatenate([targets.values["val"], targets.values["test"][fold]]),
            exclusive=targets.exclusive,
            num_features=num_features,
            config=config,
            seed=derive_seed(seed, "feature network", number),
            work=work,
            name=f"feature network {number + 1}/2 of seed {seed}",
            progress=stage(progress, number, 2),
        )
        predictions = predict(network, images["test"][other], exclusive=targets.exclusive, device=config.device)
        scores.append(held_out_score(predictions, targets.values["test"][other], exclusive=targets.exclusive))
        wrapped = ModuleNetwork(
            "cross_fitted", weights_digest(network), num_features, _Penultimate(network), config.device
        )
        made.append(Fold(wrapped, other))
    known = [score for score in scores if score is not None]
    facts = NetworkFacts(
        name="cross_fitted",
        digest=json_digest([fold.network.digest for fold in made]),
        num_features=num_features,
        seed=seed,
        fitted_on="val and one half of the test patients",
        scores="the other half of the test patients",
        held_out_score=float(np.mean(known)) if known else None,
        held_out_measure=("accuracy" if targets.exclusive else "mean AUROC") if known else None,
    )
    return NetworkRun(facts, tuple(made))


def simulated(
    preprocess: Preprocess,
    total_test: int,
    *,
    total_synthetic: int,
    seed: int,
    config: ClassifierConfig,
    work: Path,
    progress: Progress | None = None,
) -> NetworkRun:
    """A classifier of findings trained on simulated patients only, so that it may score all real patients."""
    images, labels = _simulated_images(preprocess, stage(progress, 0, 2))
    num_features = features_that_fit(min(total_test // 2, total_synthetic))
    network = fit_classifier(
        images,
        labels,
        exclusive=False,
        num_features=num_features,
        config=config,
        seed=derive_seed(seed, "simulated network"),
        work=work,
        name=f"simulated-patient network of seed {seed}",
        progress=stage(progress, 1, 2),
    )
    wrapped = ModuleNetwork("simulated", weights_digest(network), num_features, _Penultimate(network), config.device)
    return everything(wrapped, total_test, f"{SIMULATED_PATIENTS} simulated patients, seed {SIMULATED_SEED}", seed)


def _simulated_images(preprocess: Preprocess, progress: Progress | None) -> tuple[Array, Array]:
    """Simulated images on the network's grid and their findings."""
    dims: Literal[2, 3] = 2 if len(preprocess.size) == 2 else 3
    side = max(32, *preprocess.size)
    size = side if dims == 2 else (side, side, side)
    images, labels = [], []
    for number, patient in enumerate(simulate(SIMULATED_PATIENTS, SIMULATED_SEED, spatial_dims=dims)):
        for factors in patient.images[:1] if dims == 3 else patient.images:
            drawn = render(factors, size).astype(np.float32)
            unit = drawn / 65535 if dims == 2 else np.clip((drawn + 1000) / 2000, 0, 1)
            plane = fit_to_size(2 * unit - 1, preprocess.size, "stretch", border=-1.0)
            images.append(np.repeat(plane[None].astype(np.float32), preprocess.channels, axis=0))
            labels.append([int(present) for present in factors.labels.values()])
        if progress is not None:
            progress(number + 1, SIMULATED_PATIENTS, "simulated patients")
    return np.stack(images), np.array(labels, dtype=np.int8)


def everything(network: FeatureNetwork, total_test: int, fitted_on: str, seed: int | None) -> NetworkRun:
    """A run of one network that may score every test image."""
    facts = NetworkFacts(
        name=network.name,
        digest=network.digest,
        num_features=network.num_features,
        seed=seed,
        fitted_on=fitted_on,
        scores="all test patients",
    )
    return NetworkRun(facts, (Fold(network, np.arange(total_test)),))


def check_names(names: Sequence[str]) -> None:
    """Refuse empty or repeated network names.

    Raises:
        InputError: there is no name, or one occurs twice.
    """
    if not names or len(set(names)) != len(names):
        raise InputError(
            f"assess.networks must name different networks, got {list(names)}", "e.g. [cross_fitted, filters]"
        )
