"""What a reader of an assessment must know before quoting a number, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medphantom.cohorts.overview import left_out_sentence
from medphantom.quality.data.evaluation_data import EvaluationData
from medphantom.quality.results.quality_report import NetworkFacts

MIX_TOLERANCE = 0.1
BARELY_LEARNED = 0.6


def cautions(data: EvaluationData, networks: Sequence[NetworkFacts]) -> Iterator[str]:
    """What a reader must know before quoting a number.

    Args:
        data: what was compared.
        networks: that scored.
    """
    targets = data.targets
    if data.real.schema.patients == "per_image":
        yield "the source named no patients: images of one may lie in several splits, which flatters every score"
    if (left_out := left_out_sentence(data.real)) is not None:
        yield left_out
    if targets.source != "labels":
        yield f"no labels: feature networks learned {targets.source}, and there is no label agreement or utility"
    if data.hooks.reconstruct is None:
        yield "no autoencoder was given: distances have no ceiling, and the copy search has no positive control"
    if data.real.schema.spatial_dims == 3:
        yield "volumes were scored by their three middle slices (volume_filters, copies and diversity: whole volumes)"
    if data.reading.rule in {"full range", "stated"}:
        yield f"synthetic images are stored otherwise than real ones; they were read {data.reading.sentence}"
    for network in networks:
        score = network.held_out_score
        if score is not None and network.held_out_measure == "mean AUROC" and score < BARELY_LEARNED:
            yield f"feature network {network.name} (seed {network.seed}) barely learned: mean AUROC {score:.2f}"
    mixed = _mixed_otherwise(data)
    if mixed:
        yield f"{', '.join(mixed)}: asked for in another share than real patients have; read the distances per label"
    test_class, asked = targets.classes("test"), data.asked_class
    if test_class is not None and asked is not None:
        missing = [name for place, name in enumerate(targets.names) if place in test_class and place not in asked]
        if missing:
            yield f"no synthetic image of {', '.join(missing)}: distances at equal label counts leave these out"
        total = len(targets.names)
        mix = [
            np.bincount(part[part >= 0], minlength=total) / max(1, (part >= 0).sum()) for part in (test_class, asked)
        ]
        if np.abs(mix[0] - mix[1]).sum() / 2 > MIX_TOLERANCE:
            yield "synthetic labels are mixed otherwise than real ones: read the label-matched distances"


def _mixed_otherwise(data: EvaluationData) -> list[str]:
    """Labels that do not exclude each other, and are far more or less frequent than in real test images."""
    targets = data.targets
    if targets.source != "labels" or targets.exclusive:
        return []
    found = []
    for place, name in enumerate(targets.names):
        sides = [column[column >= 0] for column in (targets.values["test"][:, place], data.asked[:, place])]
        if min(map(len, sides)) and abs(sides[0].mean() - sides[1].mean()) > 2 * MIX_TOLERANCE:
            found.append(name)
    return found
