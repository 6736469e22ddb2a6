"""All that was measured of counterfactual pairs, as one frozen value: numbers only, no pixel, id or path."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from medphantom.core.records import Frozen
from medphantom.quality.stats.estimate import Estimate


class ReaderFacts(Frozen):
    """One thing that a network fitted on real training patients reads off images.

    Attributes:
        name: label, ``attribute = category``, or continuous attribute.
        kind: what is read.
        digest: digest of the network's weights.
        train_images: real training images that state it.
        threshold: probability from which on it is read as present: best balanced accuracy on ``val``.
        held_out_score: on real ``test`` images: AUROC, or R² of a continuous attribute.
        refused: why nothing can be read.
    """

    name: str
    kind: Literal["label", "category", "continuous"]
    digest: str = ""
    train_images: int = 0
    threshold: float | None = None
    held_out_score: float | None = None
    refused: str | None = None


class CounterfactualReport(Frozen):
    """What was measured of counterfactual pairs.

    Attributes:
        real_digest: digest of the real cohort.
        pairs_digest: digest of the pairs.
        config_digest: digest of the settings of the assessment.
        seed: everything random derives from it.
        total_pairs: images with a counterfactual.
        total_patients: their patients.
        splits: split → pairs.
        generation: how the pairs were made: method, its settings, intervention, preprocess.
        estimates: the scores; unique by name, label and network.
        readers: the networks that read labels and attributes.
        warnings: what to know before quoting a number.
    """

    real_digest: str
    pairs_digest: str
    config_digest: str
    seed: int
    total_pairs: int
    total_patients: int
    splits: dict[str, int]
    generation: dict[str, Any] = Field(default_factory=dict)
    estimates: tuple[Estimate, ...]
    readers: tuple[ReaderFacts, ...] = ()
    warnings: tuple[str, ...] = ()

    def estimate(self, name: str, label: str | None = None) -> Estimate:
        """One score; raises ``KeyError`` when there is none of that name and label."""
        for found in self.estimates:
            if (found.name, found.label) == (name, label):
                return found
        raise KeyError((name, label))
