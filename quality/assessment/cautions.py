"""Warnings about an assessment that a reader must know before citing a number, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medphantom.cohorts.overview import left_out_sentence
from medphantom.quality.data.evaluation_data import EvaluationData
from medphantom.quality.results.quality_report import NetworkFacts

MIX_TOLERANCE = 0.1
BARELY_LEARNED = 0.6


def cautions(data: EvaluationData, networks: Sequence[NetworkFacts]) -> Iterator[str]:
    """Warnings that a reader must know before citing a number.

    Args:
        data: images and labels that were compared.
        networks: feature networks that computed the scores.
    """
    targets = data.targets
    if data.real.schema.patients == "per_image":
        yield (
            "patients are unknown: images of one patient may be in several splits, which makes every score too "
            "optimistic"
        )
    if (left_out := left_out_sentence(data.real)) is not None:
        yield left_out
    if targets.source != "labels":
        yield (
            f"there are no labels: feature networks were trained on {targets.source}, and label agreement and utility "
            "cannot be scored"
        )
    if data.hooks.reconstruct is None:
        yield "no autoencoder was given: distances have no ceiling, and the copy search has no positive controls"
    if data.real.schema.spatial_dims == 3:
        yield (
            "volumes were scored by their three middle slices, except in volume_filters, the copy search and "
            "diversity, which use whole volumes"
        )
    if data.reading.rule in {"full range", "stated"}:
        yield f"synthetic images are stored differently from real images; they were read {data.reading.sentence}"
    for network in networks:
        score = network.held_out_score
        if score is not None and network.held_out_measure == "mean AUROC" and score < BARELY_LEARNED:
            yield (
                f"feature network {network.name} (seed {network.seed}) is barely better than chance: mean AUROC "
                f"{score:.2f}"
            )
    shifted = _shifted_labels(data)
    if shifted:
        yield (
            f"{', '.join(shifted)}: prompted at a different prevalence than in real patients; use the per-label "
            "distances"
        )
    test_class, requested = targets.classes("test"), data.requested_class
    if test_class is not None and requested is not None:
        missing = [name for place, name in enumerate(targets.names) if place in test_class and place not in requested]
        if missing:
            yield f"there is no synthetic image of {', '.join(missing)}: label-matched distances exclude these labels"
        total = len(targets.names)
        mix = [
            np.bincount(part[part >= 0], minlength=total) / max(1, (part >= 0).sum())
            for part in (test_class, requested)
        ]
        if np.abs(mix[0] - mix[1]).sum() / 2 > MIX_TOLERANCE:
            yield (
                "the label distribution of synthetic images differs from that of real images: use the label-matched "
                "distances"
            )


def _shifted_labels(data: EvaluationData) -> list[str]:
    """Non-exclusive labels whose prevalence differs greatly from that in real test images."""
    targets = data.targets
    if targets.source != "labels" or targets.exclusive:
        return []
    found = []
    for place, name in enumerate(targets.names):
        sides = [column[column >= 0] for column in (targets.values["test"][:, place], data.requested[:, place])]
        if min(map(len, sides)) and abs(sides[0].mean() - sides[1].mean()) > 2 * MIX_TOLERANCE:
            found.append(name)
    return found
