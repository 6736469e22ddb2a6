"""Settings of scoring. This module does not import torch, so that recipes can be read without it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from medphantom.core.extras import require
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
"""Kinds of copies that can be planted: made by the generator, or altered (``quality/privacy/alterations.py``)."""
CORE_KINDS = KINDS[:7]
OWN_NETWORKS = ("cross_fitted", "simulated", "filters", "volume_filters", "radiomics", "inception")
"""Names of ``assess.networks`` that are no hub id or folder of an image encoder for transformers."""


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
    """Training of small classifiers, for feature networks, label agreement and utility.

    Attributes:
        steps: Number of optimiser steps, the same in every arm of the utility check.
        batch_size: Number of images per step.
        learning_rate: Peak of AdamW's cosine schedule.
        weight_decay: Weight decay of kernels and weight matrices.
        ema_decay: Decay of the exponential moving average of the weights; null for no average.
        shift_fraction: Largest random shift, as a fraction of the side.
        intensity: Standard deviation of random gain, and twice that of random offset; images lie in -1…1.
        precision: Numerical precision as in the fit loop; float32 is most reproducible on other machines.
        device: Device as in the fit loop.
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
        """The settings of the fit loop."""
        return short_fit(self, seed, weight_decay=self.weight_decay, ema_decay=self.ema_decay)


class SegmenterConfig(Frozen):
    """Training of the segmenter that finds masks in synthetic images.

    Attributes:
        steps: Number of optimiser steps.
        batch_size: Number of images per step.
        learning_rate: Peak of AdamW's cosine schedule.
        intensity: Standard deviation of random gain, and twice that of random offset; images lie in -1…1.
        mirror: Whether training includes left-right mirrored images; use it only if laterality does not matter.
        precision: Numerical precision as in the fit loop.
        device: Device as in the fit loop.
    """

    steps: Annotated[int, Field(ge=1)] = 300
    batch_size: Annotated[int, Field(ge=2)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    intensity: Annotated[float, Field(ge=0, le=1)] = 0.1
    mirror: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def fit_config(self, seed: int) -> FitConfig:
        """The settings of the fit loop."""
        return short_fit(self, seed, weight_decay=0.01, ema_decay=0.98)


class CopyConfig(Frozen):
    """Settings of the search for copies of training images.

    Attributes:
        side: Side length of thumbnails in pixels; null for 32 (images) or 16 (volumes).
        mirror: Whether mirror images (left and right exchanged) are also compared.
        repeats: Number of random subsets of training patients, of the size of ``holdout``, for the DCR share.
        kinds: Kinds of copies that are planted as positive controls. If a default core kind is missing, the verdict is
            *inconclusive* at best.
        core: Kinds that must be covered; otherwise the verdict is *inconclusive*. The default kinds are always
            required; others may be added.
        controls: Number of planted copies of each kind. A recall of 0.95 is shown by 59 found of 59, 92 of 93 or 122
            of 124; with 100 copies, a single miss is not decisive.
        least_recall: Smallest 95 % lower bound of the recall at which a kind is covered. A more lenient value than the
            default, here and in the next two settings, does not screen a set.
        flag_level: False-positive rate at which single images are flagged; at 0.01, ten of 1,000 images are flagged
            by chance.
        significance: False-positive rate at which a set fails, over all tests together. A false positive costs a new
            run, whereas a published copy cannot be recalled.
        pairs: Number of nearest pairs in the report.
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
    """Settings of membership and attribute inference.

    Attributes:
        enabled: Whether membership and attribute inference are tested; otherwise no set is screened.
        images: Largest number of images of each split; fewer than the default do not screen a set.
        weights: Whether the weights of the generator are also attacked, by its loss and by proximal initialization; use
            it if the weights are to be shared.
        limit: AUROC that the whole interval of a successful attack exceeds, unless a guarantee allows more. The default
            of 0.5 detects any statistically significant leak; with thousands of patients, a larger value may be
            tolerated and is then documented.
    """

    enabled: bool = True
    images: Annotated[int, Field(ge=50)] = 2000
    weights: bool = False
    limit: Annotated[float, Field(ge=0.5, lt=1)] = 0.5


class UtilityConfig(Frozen):
    """Settings of the train-on-synthetic-test-on-real check.

    Attributes:
        enabled: Whether the check is done.
        bootstrap: Number of bootstrap samples of test patients for each interval.
        least_train: Smallest number of positive training patients for which a label is scored.
        least_test: Smallest number of positive test patients for which a label is scored.
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
    """Settings of classical augmentation, with which synthetic images are compared.

    Attributes:
        turn_degrees: Largest rotation about every axis in degrees.
        scale: Largest change of scale, as a fraction.
        shift: Largest additional shift, as a fraction of the side.
        mirror: Whether left and right are also exchanged; use it only if laterality does not matter.
        gamma: Standard deviation of the logarithm of the gamma exponent.
        noise: Standard deviation of the noise, for images in -1…1.
    """

    turn_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    mirror: bool = False
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.15
    noise: Annotated[float, Field(ge=0, le=1)] = 0.03


class StudyConfig(Frozen):
    """Settings of the utility study.

    Attributes:
        seed: Seed from which all randomness derives.
        task: Task of the downstream models: ``classification`` of labels, or ``segmentation`` of structures in masks.
        segmenter: Training of segmenters, with the same number of steps in every arm.
        arms: Training arms of the downstream models.
        network: Classifier architecture: ``small`` (that of the feature networks), or MONAI's ``resnet18``,
            ``densenet121``.
        classifier: Training of the classifier, with the same number of steps in every arm.
        classifier_seeds: Number of trainings of every arm.
        ratios: Numbers of synthetic images per real image, for the mixing arms.
        primary: Labels of interest, over which (with their mean, all arms and ratios) Holm's correction is done; empty
            for all labels.
        oversample_to: Number of images of each primary label in the arm ``oversampled``; null for the number of the
            most frequent label.
        classical: Augmentation in the arms ``classical`` and ``classical_and_synthetic``.
        bootstrap: Number of bootstrap samples for the intervals of average precision and calibration error.
        least_train: Smallest number of positive training patients for which a label is scored.
        least_test: Smallest number of positive test patients for which a label is scored, also in subgroups.
        significance: Significance level of the p values after Holm's correction over labels, arms and ratios.
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
            raise ValueError("arms must be different and include 'real', with which the others are compared")
        return arms


class AssessConfig(Frozen):
    """Settings of the assessment.

    Attributes:
        seed: Seed from which all randomness derives.
        networks: Feature networks: ``cross_fitted``, ``simulated``, ``filters``, ``volume_filters``, ``radiomics``,
            ``inception``, or the hub id or local folder of a transformers image encoder. If empty: cross_fitted (or
            simulated for a cohort without labels and attributes), filters, volume_filters for volumes, and radiomics
            if there are enough training images to scale them.
        network_seeds: Number of trainings of each trained feature network, for the range over its seeds.
        draws: Number of random halvings of the test patients for every score and floor.
        classifier: Training of small classifiers.
        diversity_pairs: Largest number of image pairs for each diversity score.
        copies: Settings of the copy search.
        membership: Settings of membership and attribute inference.
        utility: Settings of the utility check.
        segmenter: Training of the segmenter, if both cohorts have masks.
        synthetic_range: Real source values, such as Hounsfield units, that the smallest and largest number of the
            synthetic images' format stand for (0 and 255 of 8 bits, 0 and 65535 of 16, -32768 and 32767 of signed 16;
            of floats, 0 and 1). Set it only if this is not known from elsewhere; null to determine it.
        text_encoder: Hub id or local folder of transformers image and text encoders (CLIP, SigLIP) that measure the
            similarity of images to their texts; null for none.
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

    def require_packages(self) -> None:
        """Refuse settings that need a package that is not installed.

        Raises:
            InputError: one is absent; the line names field, package and extra.
        """
        outside = [name for name in self.networks if name not in OWN_NETWORKS]
        if outside:
            require("pretrained", f"assess.networks: {outside[0]}")
        if self.text_encoder is not None:
            require("pretrained", f"assess.text_encoder: {self.text_encoder}")

    @classmethod
    def quick(cls, **overrides: object) -> AssessConfig:
        """Settings of a quick assessment: one seed, short trainings, no utility check; scores are noisier."""
        chosen: dict[str, object] = {
            "network_seeds": 1,
            "draws": 10,
            "classifier": ClassifierConfig(steps=120),
            "utility": UtilityConfig(enabled=False),
        }
        return cls.model_validate({**chosen, **overrides})
