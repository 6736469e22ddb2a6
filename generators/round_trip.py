"""Reconstruction error of a frozen autoencoder on a cohort before fine-tuning, and the labels that it hides.

An autoencoder trained on other data may remove the very finding of interest. So each label is classified by a linear
model of fixed features, from the images and from their reconstructions: a label is hidden if the accuracy drops.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medphantom.conditioning.encoder import MISSING, PRESENT
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.generators.autoencoder import Codec
from medphantom.generators.features import FeatureNet
from medphantom.generators.latents import IMAGES_AT_ONCE
from medphantom.generators.training_data import image_tensor

SMALLEST_SIDE = 10  # smallest number of images with and without a label, in both splits
HIDDEN = 0.05  # fall of the AUROC that causes a warning, if the label could be classified at all
TOLD_APART = 0.6
MOST_IMAGES = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundTrip:
    """Loss of information through the autoencoder.

    Attributes:
        l1: Mean absolute error of validation images, in -1…1.
        labels: For each evaluable label, AUROC on validation images before and after, and their number.
        hidden: Labels whose AUROC falls by more than :data:`HIDDEN`.
    """

    l1: float
    labels: tuple[dict[str, Any], ...]
    hidden: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON for the bundle."""
        return {"l1": self.l1, "labels": list(self.labels), "hidden": list(self.hidden)}


def round_trip(
    codec: Codec, images: dict[str, Array], states: dict[str, Array], names: Sequence[str], *, seed: int
) -> RoundTrip:
    """Reconstruct images with an autoencoder and measure the loss of information.

    Args:
        codec: Autoencoder that is evaluated.
        images: Images of ``train`` and ``val``, ``(N, C, *size)`` in -1…1; at most :data:`MOST_IMAGES` of each are
            used.
        states: Labels of the same splits, ``(N, L)``: 0 absent, 1 present, 2 missing.
        names: Names of the labels.
        seed: Seed of the fixed features.

    Returns:
        Measured loss; labels with fewer than :data:`SMALLEST_SIDE` images on a side are not evaluated.
    """
    rows = {
        split: np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_IMAGES)).astype(int))
        for split, x in images.items()
    }
    network = _features(images["train"], seed)
    before, after, errors = {}, {}, []
    for split, chosen in rows.items():
        before[split], after[split], error = _seen(codec, network, images[split], chosen)
        errors.append(error)
    found: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        labels = {split: states[split][chosen, place] for split, chosen in rows.items()}
        if min(_smaller_side(column) for column in labels.values()) < SMALLEST_SIDE:
            continue
        scores = [_auroc(features, labels) for features in (before, after)]
        observed = int((labels["val"] != MISSING).sum())
        found.append({"label": name, "before": scores[0], "after": scores[1], "n": observed})
    hidden = tuple(
        str(row["label"]) for row in found if row["before"] >= TOLD_APART and row["before"] - row["after"] > HIDDEN
    )
    if hidden:
        log.warning(
            "the base's autoencoder hides %s: classification is worse after reconstruction; "
            "use a base trained on similar images",
            ", ".join(hidden),
        )
    return RoundTrip(float(errors[-1]), tuple(found), hidden)


def _features(images: Array, seed: int) -> FeatureNet:
    """Return fixed random convolutions at four resolutions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "round trip"))
        network = FeatureNet(images.ndim - 2, images.shape[1], 1)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def _seen(codec: Codec, network: FeatureNet, images: Array, rows: Array) -> tuple[Array, Array, float]:
    """Return features of images and of their reconstructions, and the mean absolute error between them."""
    device = next(codec.parameters()).device
    before: list[Array] = []
    after: list[Array] = []
    error = 0.0
    for start in range(0, len(rows), IMAGES_AT_ONCE):
        block = image_tensor(images, torch.from_numpy(rows[start : start + IMAGES_AT_ONCE]))
        back = codec.decode(codec.encode(block.to(device))[0]).cpu().clamp(-1, 1)
        error += float((back - block).abs().flatten(1).mean(1).sum())
        for values, kept in ((block, before), (back, after)):
            maps = [level.flatten(2) for level in network.maps(values)]
            kept.append(torch.cat([part for level in maps for part in (level.mean(2), level.std(2))], dim=1).numpy())
    return np.concatenate(before), np.concatenate(after), error / len(rows)


def _smaller_side(column: Array) -> int:
    return int(min((column == 0).sum(), (column == PRESENT).sum()))


def _auroc(features: dict[str, Array], labels: dict[str, Array]) -> float:
    """Return the AUROC on ``val`` of a classifier trained on ``train``."""
    observed = {split: column != MISSING for split, column in labels.items()}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, class_weight="balanced", max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features["train"][observed["train"]], labels["train"][observed["train"]] == PRESENT)
    predictions = model.decision_function(features["val"][observed["val"]])
    return float(roc_auc_score(labels["val"][observed["val"]] == PRESENT, predictions))
