"""All that can be set about scoring. No torch here: recipes are read, and unchanged reruns skipped, without it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from medphantom.core.records import Frozen
from medphantom.learning.fit_config import FitConfig

RECONSTRUCTED, EDITED = "reconstructed", "edited"
KINDS = (
    "as it is",
    RECONSTRUCTED,
    "mirrored",
    "shifted",
    "scaled",
    "contrast",
    "blurred",
    EDITED,
    "turned",
    "cropped",
    "noised",
    "patched",
)
"""Kinds of copies that can be planted: drawn by the generator, or altered (``quality/privacy/alterations.py``)."""
CORE_KINDS = KINDS[:7]


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
        batch_size: number of images per step.
        learning_rate: peak of AdamW's cosine schedule.
        weight_decay: weight decay of kernels and weight matrices.
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
        steps: number of optimiser steps.
        batch_size: number of images per step.
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
        side: thumbnails have this many pixels a side; null: 32 for images, 16 for volumes.
        mirror: also try the mirror image (left and right exchanged).
        repeats: random subsets of training patients, as many images as ``holdout`` has, behind the share in train.
        kinds: copies that are planted as positive controls. Without each of the default core kinds the verdict is
            *inconclusive* at best.
        core: kinds that must be covered, else the verdict is *inconclusive*. The default ones always must: what every
            generator that copies does (its own reconstruction), and what costs nothing to try. Others may be added.
        controls: planted copies of each kind. A recall of .95 is shown by 59 found of 59, 92 of 93, 122 of 124; with a
            hundred, one that is missed by chance does not decide.
        least_recall: smallest 95 % lower bound of a kind's recall at which it is called covered. A laxer one than the
            default, here as in the next two, screens no set.
        flag_level: chance with which an honest image may be flagged. At one in a hundred a reader looks through ten
            false flags in a thousand images.
        significance: chance with which an honest set may fail, over all tests together. A set of which one in fifty
            is lost costs a new run; copies that pass cannot be called back.
        pairs: nearest pairs that the report lists.
    """

    side: Annotated[int, Field(ge=8, le=128)] | None = None
    mirror: bool = True
    repeats: Annotated[int, Field(ge=20)] = 100
    kinds: tuple[str, ...] = KINDS
    core: tuple[str, ...] = CORE_KINDS
    controls: Annotated[int, Field(ge=0)] = 100
    least_recall: Annotated[float, Field(gt=0, lt=1)] = 0.95
    flag_level: Annotated[float, Field(gt=0, lt=0.2)] = 0.01
    significance: Annotated[float, Field(gt=0, lt=0.2)] = 0.02
    pairs: Annotated[int, Field(ge=0)] = 24

    @field_validator("kinds", "core")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in KINDS:
                raise ValueError(f"{name!r} is no kind of copy; there are {', '.join(KINDS)}")
        return tuple(dict.fromkeys(names))


class MembershipConfig(Frozen):
    """How membership and disclosure are tested.

    Attributes:
        enabled: whether they are; without, no set is screened.
        images: images at most of each split; fewer than by default screen no set.
        weights: also attack the weights of the generator, by its loss and by proximal initialization: where they are to
            be shared.
        limit: area under the ROC curve above which the whole interval of an attack must lie for it to have succeeded,
            unless a guarantee allows more. One half, by default: anything that is not luck. With thousands of patients
            that is a leak too small to tell anyone by, and more may be tolerated, in writing.
    """

    enabled: bool = True
    images: Annotated[int, Field(ge=50)] = 2000
    weights: bool = False
    limit: Annotated[float, Field(ge=0.5, lt=1)] = 0.5


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


DownstreamNetwork = Literal["small", "resnet18", "densenet121"]
StudyArm = Literal[
    "real", "synthetic", "real_and_synthetic", "pretrained", "classical", "oversampled", "classical_and_synthetic"
]


class ClassicalAugmentation(Frozen):
    """How images are varied in the arm that synthetic images have to beat.

    Attributes:
        turn_degrees: largest turn, about every axis.
        scale: largest change of size, as a fraction.
        shift: largest further shift, as a fraction of the side.
        mirror: also exchange left and right; only where they do not matter.
        gamma: standard deviation of the logarithm of the power that grey values are raised to.
        noise: standard deviation of noise; images lie in -1…1.
    """

    turn_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    mirror: bool = False
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.15
    noise: Annotated[float, Field(ge=0, le=1)] = 0.03


class StudyConfig(Frozen):
    """How the utility study is done.

    Attributes:
        seed: everything random derives from it.
        task: ``classification`` of labels, or ``segmentation`` of the structures that masks hold.
        segmenter: how segmenters are trained; every arm takes the same number of steps.
        arms: training arms of the downstream models.
        network: the classifier: ``small`` (that of the feature networks), or MONAI's ``resnet18``, ``densenet121``.
        classifier: how it is trained; every arm takes the same number of steps.
        classifier_seeds: number of trainings of every arm.
        ratios: synthetic images per real one, for the arms that mix them.
        primary: labels that the question is about; Holm's correction goes over these and their mean, over all arms and
            ratios. Empty: all.
        oversample_to: images of each primary label in the arm ``oversampled``; null: every label as often as the most
            frequent one.
        classical: how images are varied in the arms ``classical`` and ``classical_and_synthetic``.
        bootstrap: samples behind the intervals of what has no formula (average precision, calibration).
        least_train: positive training patients below which a label is refused.
        least_test: positive test patients below which a label is refused, also in a subgroup.
        significance: significance level of the p values after Holm's correction over labels, arms and ratios.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    task: Literal["classification", "segmentation"] = "classification"
    segmenter: SegmenterConfig = SegmenterConfig()
    arms: Annotated[tuple[StudyArm, ...], Field(min_length=2)] = (
        "real",
        "synthetic",
        "real_and_synthetic",
        "pretrained",
        "classical",
    )
    network: DownstreamNetwork = "small"
    classifier: ClassifierConfig = ClassifierConfig(steps=600)
    classifier_seeds: Annotated[int, Field(ge=2, le=50)] = 5
    ratios: Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], Field(min_length=1)] = (0.5, 1.0, 2.0, 4.0)
    primary: tuple[str, ...] = ()
    oversample_to: Annotated[int, Field(ge=1)] | None = None
    classical: ClassicalAugmentation = ClassicalAugmentation()
    bootstrap: Annotated[int, Field(ge=100)] = 200
    least_train: Annotated[int, Field(ge=1)] = 20
    least_test: Annotated[int, Field(ge=1)] = 30
    significance: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    @field_validator("arms")
    @classmethod
    def _with_real(cls, arms: tuple[StudyArm, ...]) -> tuple[StudyArm, ...]:
        if "real" not in arms or len(set(arms)) != len(arms):
            raise ValueError("arms must be different and hold 'real', which the others are compared with")
        return arms


class AssessConfig(Frozen):
    """How images are scored.

    Attributes:
        seed: everything random derives from it.
        networks: feature networks: ``cross_fitted``, ``simulated``, ``filters``, ``volume_filters``, ``radiomics``,
            ``inception``, or the hub id or local folder of a transformers image encoder; empty: cross_fitted (simulated
            where a cohort has neither labels nor attributes), filters, volume_filters for volumes, and radiomics
            where there are training images to scale them by.
        network_seeds: how often a trained feature network is trained anew, for the range over its seeds.
        draws: how often the test patients are halved at random, behind every score and floor.
        classifier: how small classifiers are trained.
        diversity_pairs: image pairs at most behind each diversity score.
        copies: settings of the copy search.
        membership: settings of membership and attribute inference.
        utility: settings of the utility check.
        segmenter: the segmenter that looks for masks, where both cohorts have them.
        synthetic_range: real source values, such as Hounsfield units, that the smallest and largest number of the
            synthetic images' format stand for (0 and 255 of 8 bits, 0 and 65535 of 16, -32768 and 32767 of signed 16;
            of floats, 0 and 1): only where that is not known otherwise. Null: found out, or refused.
        text_encoder: hub id or local folder of a transformers pair of image and text encoders (CLIP, SigLIP) that says
            how alike images are to their texts; null: none.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    networks: tuple[str, ...] = ()
    network_seeds: Annotated[int, Field(ge=1, le=20)] = 3
    draws: Annotated[int, Field(ge=2)] = 20
    classifier: ClassifierConfig = ClassifierConfig()
    diversity_pairs: Annotated[int, Field(ge=10)] = 200
    copies: CopyConfig = CopyConfig()
    membership: MembershipConfig = MembershipConfig()
    utility: UtilityConfig = UtilityConfig()
    segmenter: SegmenterConfig = SegmenterConfig()
    synthetic_range: tuple[float, float] | None = None
    text_encoder: str | None = None

    @field_validator("synthetic_range")
    @classmethod
    def _ordered(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1]):
            raise ValueError(f"synthetic_range must be two finite numbers, low < high, got {ends[0]:g}, {ends[1]:g}")
        return ends

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
