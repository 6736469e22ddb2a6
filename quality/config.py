"""All that can be set about scoring. No torch here: recipes are read, and unchanged reruns skipped, without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cohorts.records import Frozen
from learning.fit_config import FitConfig


def short_fit(config: ClassifierConfig | SegmenterConfig, seed: int, **more: float | None) -> FitConfig:
    """A small network's settings for the fit loop: no validation, no tracker, one checkpoint at the end."""
    return FitConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=min(50, config.steps // 10),
        validate_every=0,
        checkpoint_every=config.steps,
        log_every=max(1, config.steps // 10),
        tracker="none",
        precision=config.precision,
        device=config.device,
        seed=seed,
        **more,
    )


class ClassifierConfig(Frozen):
    """How small classifiers are trained; the same for feature networks, label agreement and utility.

    Attributes:
        steps: optimiser steps; every arm of the utility check takes as many.
        batch_size: images per step.
        learning_rate: peak of AdamW's cosine schedule.
        weight_decay: of kernels.
        ema_decay: decay of the moving average of the weights that is kept; null: no average.
        shift_fraction: largest random shift, as a fraction of the side.
        intensity: standard deviation of random gain, and twice that of random offset; images lie in -1…1.
        precision: as in the fit loop; float32 gives scores that other machines reproduce best.
        device: as in the fit loop.
    """

    steps: Annotated[int, Field(ge=1)] = 300
    batch_size: Annotated[int, Field(ge=2)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = 0.98
    shift_fraction: Annotated[float, Field(ge=0, le=0.25)] = 0.05
    intensity: Annotated[float, Field(ge=0, le=1)] = 0.05
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def fit_config(self, seed: int) -> FitConfig:
        """The same for the fit loop."""
        return short_fit(self, seed, weight_decay=self.weight_decay, ema_decay=self.ema_decay)


class SegmenterConfig(Frozen):
    """How the segmenter is trained that looks for masks in synthetic images.

    Attributes:
        steps: optimiser steps.
        batch_size: images per step.
        learning_rate: peak of AdamW's cosine schedule.
        intensity: standard deviation of random gain, and twice that of random offset; images lie in -1…1.
        mirror: also learn from left-right mirrored images; only where left and right do not matter.
        precision: as in the fit loop.
        device: as in the fit loop.
    """

    steps: Annotated[int, Field(ge=1)] = 300
    batch_size: Annotated[int, Field(ge=2)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    intensity: Annotated[float, Field(ge=0, le=1)] = 0.1
    mirror: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def fit_config(self, seed: int) -> FitConfig:
        """The same for the fit loop."""
        return short_fit(self, seed, weight_decay=0.01, ema_decay=0.98)


class CopyConfig(Frozen):
    """How copies of training images are searched for.

    Attributes:
        side: images are compared at this many pixels a side; null: 32 for images, 16 for volumes.
        max_shift: shifts tried in each direction along each axis, in pixels at that side.
        mirror: also try the mirror image (left and right exchanged).
        repeats: random subsets of training patients, as many images as ``gate`` has, behind the share in train.
        planted: training images that are sent through the autoencoder as positive control.
        false_flags: share of held-out real images that the rule for single images may flag.
        least_recall: smallest lower bound of the control's recall at which an empty search means anything.
        pairs: nearest pairs that the report lists.
    """

    side: Annotated[int, Field(ge=8, le=128)] | None = None
    max_shift: Annotated[int, Field(ge=0, le=8)] = 2
    mirror: bool = True
    repeats: Annotated[int, Field(ge=20)] = 100
    planted: Annotated[int, Field(ge=0)] = 60
    false_flags: Annotated[float, Field(gt=0, lt=0.2)] = 0.02
    least_recall: Annotated[float, Field(gt=0, lt=1)] = 0.5
    pairs: Annotated[int, Field(ge=0)] = 24


class UtilityConfig(Frozen):
    """How the first train-on-synthetic-test-on-real check is done.

    Attributes:
        enabled: whether it is done.
        bootstrap: bootstrap samples of test patients behind each interval.
        least_train: positive training patients below which a label is refused (labels that exclude each other: images
            per class).
        least_test: positive test patients below which a label is refused.
    """

    enabled: bool = True
    bootstrap: Annotated[int, Field(ge=100)] = 500
    least_train: Annotated[int, Field(ge=1)] = 20
    least_test: Annotated[int, Field(ge=1)] = 30


class AssessConfig(Frozen):
    """How images are scored.

    Attributes:
        seed: everything random derives from it.
        networks: feature networks: ``cross_fitted``, ``simulated``, ``filters``, ``inception``, or the hub id or local
            folder of a transformers image encoder; empty: cross_fitted (simulated where a cohort has neither labels nor
            attributes) and filters.
        network_seeds: how often a trained feature network is trained anew, for the range over its seeds.
        draws: random patient-disjoint halves of the test patients behind every floor.
        classifier: how small classifiers are trained.
        diversity_pairs: image pairs at most behind each diversity score.
        copies: the copy search.
        utility: the utility check.
        segmenter: the segmenter that looks for masks, where both cohorts have them.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    networks: tuple[str, ...] = ()
    network_seeds: Annotated[int, Field(ge=1, le=20)] = 3
    draws: Annotated[int, Field(ge=2)] = 20
    classifier: ClassifierConfig = ClassifierConfig()
    diversity_pairs: Annotated[int, Field(ge=10)] = 200
    copies: CopyConfig = CopyConfig()
    utility: UtilityConfig = UtilityConfig()
    segmenter: SegmenterConfig = SegmenterConfig()

    @classmethod
    def quick(cls, **overrides: object) -> AssessConfig:
        """For a first look: one seed, short trainings, no utility check. Scores are noisier, verdicts the same."""
        chosen: dict[str, object] = {
            "network_seeds": 1,
            "draws": 10,
            "classifier": ClassifierConfig(steps=120),
            "utility": UtilityConfig(enabled=False),
        }
        return cls.model_validate({**chosen, **overrides})
