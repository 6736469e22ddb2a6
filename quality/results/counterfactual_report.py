"""The scores of counterfactual pairs as one frozen value, without pixels, ids or paths."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from medphantom.core.records import Frozen
from medphantom.quality.stats.estimate import Estimate


class ReaderFacts(Frozen):
    """A label or attribute that a network trained on real training patients predicts.

    Attributes:
        name: name of a label, ``attribute = category``, or a continuous attribute.
        kind: kind of the target.
        digest: digest of the network's weights.
        train_images: number of real training images with a known value.
        threshold: probability at or above which the target counts as present, chosen by balanced accuracy on ``val``.
        held_out_score: AUROC on real ``test`` images, or R² of a continuous attribute.
        refused: reason why the target cannot be predicted.
    """

    name: str
    kind: Literal["label", "category", "continuous"]
    digest: str = ""
    train_images: int = 0
    threshold: float | None = None
    held_out_score: float | None = None
    refused: str | None = None


class CounterfactualReport(Frozen):
    """The scores of counterfactual pairs.

    Attributes:
        real_digest: digest of the real cohort.
        pairs_digest: digest of the pairs.
        config_digest: digest of the settings of the assessment.
        seed: seed from which all randomness derives.
        total_pairs: number of images with a counterfactual.
        total_patients: number of patients of these images.
        splits: number of pairs by split.
        generation: how the pairs were made: method, its settings, intervention, preprocess.
        estimates: scores, unique by name, label and network.
        readers: networks that predict labels and attributes.
        warnings: warnings that a reader must know before citing a number.
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
