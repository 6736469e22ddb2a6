"""Configuration of a generator and its sampling. It does not import torch, so recipes are read without loading it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medphantom.conditioning.config import ConditioningConfig
from medphantom.core.errors import InputError
from medphantom.core.records import Frozen
from medphantom.generators.privacy_config import PrivacyConfig
from medphantom.learning.fit_config import FitConfig

SMALLEST_LATENT_SIDE = 2
WHOLE_PIXELS = 128**3
USUAL_WINDOW = {2: 512, 3: 96}

Solver = Literal["heun", "dpmpp_2m", "euler", "ddim"]
SOLVERS: dict[str, tuple[Solver, ...]] = {
    "flow": ("heun", "dpmpp_2m", "euler"),
    "v": ("dpmpp_2m", "ddim"),
    "ddpm": ("dpmpp_2m", "ddim"),
}
"""Solvers of each objective, the default first."""

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


def _check_levels(name: str, channels: Sequence[int], norm_groups: int, attention: Sequence[bool]) -> None:
    if not channels:
        raise ValueError(f"{name}.channels must name at least one level")
    unfit = [count for count in channels if count % norm_groups]
    if unfit:
        raise ValueError(f"{name}.channels must be multiples of norm_groups = {norm_groups}, got {unfit[0]}")
    if attention and len(attention) != len(channels):
        raise ValueError(f"{name}.attention must be empty or have {len(channels)} entries, got {len(attention)}")


class AutoencoderConfig(Frozen):
    """Size of the autoencoder network.

    Attributes:
        patch: Side of the pixel blocks that become channels before the first layer; 1 means none.
        channels: Channels per level; each level after the first halves the resolution.
        res_blocks: Number of residual blocks per level.
        latent_channels: Number of channels of the latent.
        norm_groups: Number of groups of the group normalisation; it divides every entry of ``channels``.
        attention: Whether each level has self-attention; empty means that none has.
        middle_attention: Whether the bottleneck has self-attention.
        shortcut: Whether a fixed linear transform runs in parallel to encoder and decoder.
        log_variance: Initial log-variance of the latents at the start of training.
        window: Side of the crops on which it is trained, and of the overlapping windows in which larger images are
            encoded and decoded; null processes everything whole; ``auto`` uses windows of 96 (volumes) or 512 pixels
            (images) if an image has more than 128³ pixels. It must be a multiple of four times the downsampling.
    """

    patch: Annotated[int, Field(ge=1, le=8)] = 2
    channels: tuple[Positive, ...] = (32, 64)
    res_blocks: Annotated[int, Field(ge=1, le=8)] = 1
    latent_channels: Annotated[int, Field(ge=1, le=64)] = 4
    norm_groups: Positive = 16
    attention: tuple[bool, ...] = ()
    middle_attention: bool = False
    shortcut: bool = True
    log_variance: Annotated[float, Field(ge=-20, le=0)] = -5.0
    window: Positive | Literal["auto"] | None = "auto"

    @model_validator(mode="after")
    def _levels_fit(self) -> AutoencoderConfig:
        _check_levels("autoencoder", self.channels, self.norm_groups, self.attention)
        if self.shortcut and self.downsampling & (self.downsampling - 1):
            raise ValueError(f"autoencoder.shortcut needs patch to be a power of two, got {self.patch}")
        if isinstance(self.window, int) and self.window % (4 * self.downsampling):
            raise ValueError(f"autoencoder.window must be a multiple of {4 * self.downsampling}, got {self.window}")
        return self

    @property
    def downsampling(self) -> int:
        """Image side divided by latent side."""
        return int(self.patch * 2 ** (len(self.channels) - 1))

    def window_for(self, size: Sequence[int]) -> int | None:
        """Return the side of the windows for images of spatial ``size``; ``None`` if they are processed whole."""
        if self.window is None or isinstance(self.window, int):
            return self.window
        if math.prod(size) <= WHOLE_PIXELS:
            return None
        unit = 4 * self.downsampling
        return math.ceil(USUAL_WINDOW[len(size)] / unit) * unit

    def latent_shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the shape ``(C, *spatial)`` of the latent of an image of spatial ``size``.

        Raises:
            InputError: If a side is not divisible by the downsampling, or the latent would be too small.
        """
        factor = self.downsampling
        if any(side % factor for side in size):
            fitting = tuple(math.ceil(side / factor) * factor for side in size)
            raise InputError(
                f"preprocess.size {tuple(size)} is not divisible by {factor}, the autoencoder's downsampling",
                f"set preprocess.size to {fitting}, or reduce autoencoder.patch or autoencoder.channels",
            )
        sides = tuple(side // factor for side in size)
        if min(sides) < SMALLEST_LATENT_SIDE:
            raise InputError(
                f"preprocess.size {tuple(size)} gives latents of {sides}: each side must be ≥ {SMALLEST_LATENT_SIDE}",
                "use larger images, or fewer autoencoder.channels",
            )
        return (self.latent_channels, *sides)


class ReconstructionConfig(Frozen):
    """Loss terms of the autoencoder.

    Attributes:
        l1: Weight of the mean absolute error of pixels.
        spectrum: Weight of the mean absolute error of Fourier coefficients (orthonormal), which preserves fine texture
            that the pixel error neglects (Jiang et al. 2021, focal frequency loss, without the focus).
        features: Weight of the error in the frozen feature network (Johnson et al. 2016; Zhang et al. 2018).
        feature_network: Feature network of that error: ``labels`` is a small classifier of the labels, trained on the
            training split first; if there is nothing to classify, and with ``random``, the same network has random
            weights.
        kl: Weight of the KL divergence to a standard normal, summed over a latent (Rombach et al. 2022, appendix G).
        adversary: Weight of the patch discriminator (Isola et al. 2017; hinge loss); 0 means none.
        adversary_from: Share of the steps after which the discriminator is used.
        adversary_channels: Number of channels of the discriminator's first layer.
        adversary_layers: Number of layers of the discriminator that halve the resolution.
    """

    l1: Weight = 1.0
    spectrum: Weight = 0.5
    features: Weight = 0.0
    feature_network: Literal["labels", "random"] = "labels"
    kl: Weight = 1e-6
    adversary: Weight = 0.0
    adversary_from: Share = 0.66
    adversary_channels: Positive = 32
    adversary_layers: Positive = 2


class DenoiserConfig(Frozen):
    """Size of the denoiser, and how often it is trained without a condition.

    Attributes:
        channels: Channels per level; each level after the first halves the latent's resolution.
        res_blocks: Number of residual blocks per level.
        attention: Whether each level attends to itself and to the condition; empty means only the last, coarsest one.
        head_channels: Number of channels per attention head.
        norm_groups: Number of groups of the group normalisation; it divides every entry of ``channels``.
        context_dim: Width of the condition tokens.
        drop_prompt: Share of the training prompts that are emptied, for classifier-free guidance.
        drop_items: Share of the other training prompts that lose some of their items.
        drop_kinds: If several kinds of prompt are read, how often each (labels and attributes; text; mask) is dropped.
    """

    channels: tuple[Positive, ...] = (64, 128, 128)
    res_blocks: Annotated[int, Field(ge=1, le=8)] = 1
    attention: tuple[bool, ...] = ()
    head_channels: Positive = 32
    norm_groups: Positive = 16
    context_dim: Positive = 64
    drop_prompt: Share = 0.1
    drop_items: Share = 0.2
    drop_kinds: Share = 0.3

    @model_validator(mode="after")
    def _levels_fit(self) -> DenoiserConfig:
        _check_levels("denoiser", self.channels, self.norm_groups, self.attention)
        heads = [count for count in self.channels if count % self.head_channels]
        if heads:
            raise ValueError(
                f"denoiser.channels must be multiples of head_channels = {self.head_channels}, got {heads[0]}"
            )
        return self

    def check_latent(self, latent_shape: Sequence[int]) -> None:
        """Refuse latents that cannot be halved once per level.

        Args:
            latent_shape: Shape ``(C, *latent)`` of the latents.

        Raises:
            InputError: If a side is not divisible.
        """
        factor = 2 ** (len(self.channels) - 1)
        if any(side % factor for side in latent_shape[1:]):
            raise InputError(
                f"latents of {tuple(latent_shape[1:])} are not divisible by {factor}, the denoiser's downsampling",
                "use fewer denoiser.channels, or another preprocess.size",
            )


class NoiseTable(Frozen):
    """The discrete noise levels on which a network was trained (Ho et al. 2020), in the terms of diffusers' schedulers.

    Attributes:
        steps: Number T of levels.
        schedule: Course of the betas from ``start`` to ``end``; ``squaredcos_cap_v2`` (Nichol & Dhariwal 2021) ignores
            both.
        start: First beta of the schedule.
        end: Last beta of the schedule.
        prediction: What the network predicts: the noise, or the velocity (Salimans & Ho 2022).
    """

    steps: Annotated[int, Field(ge=2, le=10_000)] = 1000
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    start: Annotated[float, Field(gt=0, lt=1)] = 0.00085
    end: Annotated[float, Field(gt=0, lt=1)] = 0.012
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"


class Objective(Frozen):
    """Noise path, regression target and training times; see :mod:`medphantom.generators.objective`.

    Attributes:
        kind: Kind of objective: ``flow`` (rectified flow), ``v`` (velocity of the cosine path) or ``ddpm`` (a table of
            noise levels, as in Stable Diffusion and MONAI's bundles; given by the base that is fine-tuned).
        table: Table of noise levels, for ``ddpm`` only.
        shift: Factor on the noise-to-signal ratio sigma/alpha at every time: > 1 for larger latents, whose neighbouring
            values are redundant (Hoogeboom et al. 2023, equation 4; Esser et al. 2024, equation 23).
        times: Distribution of training times: ``logit_normal`` prefers the middle of the path (Esser et al. 2024,
            equation 19), ``uniform`` does not.
        times_mean: Location of the logit-normal distribution; > 0 gives noisy times more weight.
        times_std: Scale of the logit-normal distribution.
    """

    kind: Literal["flow", "v", "ddpm"] = "flow"
    table: NoiseTable | None = None
    shift: Annotated[float, Field(gt=0, le=100)] = 1.0
    times: Literal["logit_normal", "uniform"] = "logit_normal"
    times_mean: Annotated[float, Field(ge=-5, le=5)] = 0.0
    times_std: Annotated[float, Field(gt=0, le=5)] = 1.0

    @model_validator(mode="after")
    def _table_belongs_to_ddpm(self) -> Objective:
        if (self.kind == "ddpm") != (self.table is not None):
            raise ValueError("objective.table is required for kind ddpm, and for no other kind")
        if self.table is not None and self.shift != 1:
            raise ValueError("objective.shift must be 1 for kind ddpm, whose table defines all levels")
        return self


class SamplerConfig(Frozen):
    """Configuration of how images are sampled from a generator.

    Attributes:
        solver: Step rule; null means the default of the generator's objective.
        steps: Largest number of denoiser calls per image (guidance doubles the cost of each).
        guidance: Scale w of classifier-free guidance; 1 means none.
        guidance_interval: Times (0 clean … 1 noise) between which guidance acts; null means always.
        drift: Shift δ of the mean of every step by Latent Drifting, in scaled latents. It accumulates over
            ``steps``, so it is specific to their number and to the solver.
        micro_batch: Number of images computed together; null means as recorded in the bundle. Equal values give equal
            bits.
        threads: Number of CPU threads; null means as recorded in the bundle. Equal values give equal bits.
        device: Device of the computation: ``auto`` selects a CUDA device if there is one.
    """

    solver: Solver | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] = 20
    guidance: Annotated[float, Field(ge=0, le=100)] = 1.5
    guidance_interval: tuple[Share, Share] | None = None
    drift: Annotated[float, Field(ge=-1, le=1)] = 0.0
    micro_batch: Annotated[int, Field(ge=1, le=4096)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _ordered(self) -> SamplerConfig:
        if self.guidance_interval is not None and self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError(f"sampler.guidance_interval must be in the order low, high, got {self.guidance_interval}")
        return self


class CounterfactualConfig(Frozen):
    """Configuration of how counterfactuals of real images are generated.

    Attributes:
        method: Counterfactual method: ``inversion`` recovers the image's own noise by exact inversion of the sampler;
            ``sdedit`` adds new noise up to ``strength`` (Meng et al. 2022); ``latent_drifting`` is inversion followed
            by prediction with a drift of the mean at every step (Yeganeh et al. 2024).
        steps: Number of steps of the path between the image and its noise; each is a call of the denoiser.
        strength: How far the image is taken back towards noise, from 0 (not at all) to 1 (pure noise).
        iterations: Number of iterations of the fixed-point inversion per step.
        guidance: Factor on the difference that the intervention makes; 1 means as predicted by the model. The default
            suits findings; 2 is better for quantities such as age.
        locality: Threshold, relative to its maximum, of the difference between the two prompts, below which the image
            is left unchanged; 0 means that it may change everywhere. ``sdedit`` does not use it and refuses another
            value than the default, as of ``iterations``.
        drift: Shift δ of ``latent_drifting``, in scaled latents per step; it accumulates over ``steps``, so it is
            specific to their number.
        seed: Seed of the noise of ``sdedit``, and of values drawn from a range.
        micro_batch: Number of images computed together; null means as recorded in the bundle.
        threads: Number of CPU threads; null means as recorded in the bundle.
        device: Device of the computation: ``auto`` selects a CUDA device if there is one.
    """

    method: Literal["inversion", "sdedit", "latent_drifting"] = "inversion"
    steps: Annotated[int, Field(ge=1, le=1000)] = 30
    strength: Annotated[float, Field(gt=0, le=1)] = 0.8
    iterations: Annotated[int, Field(ge=1, le=50)] = 4
    guidance: Annotated[float, Field(ge=0, le=100)] = 3.0
    locality: Annotated[float, Field(ge=0, le=0.5)] = 0.17
    drift: Annotated[float, Field(ge=-1, le=1)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    micro_batch: Annotated[int, Field(ge=1, le=4096)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _every_field_has_an_effect(self) -> CounterfactualConfig:
        if self.drift and self.method != "latent_drifting":
            raise ValueError(f"drift has an effect with method latent_drifting only, and method is {self.method}")
        for name in ("locality", "iterations"):  # a stored configuration names its defaults too
            if self.method == "sdedit" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} has an effect with methods inversion and latent_drifting only, and method is sdedit"
                )
        return self


class FineTuning(Frozen):
    """Configuration of how a base is fine-tuned.

    Attributes:
        method: Fine-tuning method: ``full`` trains all of the denoiser; ``lora`` low-rank changes of its attention (Hu
            et al. 2022); ``attention`` only its attention layers; the encoder of new labels is always trained.
            ``control`` trains a ControlNet for the cohort's masks (Zhang et al. 2023), added to the unchanged generator
            with its vocabulary.
        rank: Rank of the low-rank changes.
        alpha: Scale of the low-rank changes; null means ``rank``.
        latent_scaling: Scaling of the denoiser's latents: ``base`` keeps that of the base; ``cohort`` gives zero mean
            and unit variance in this cohort, measured again.
        value_range: Value range of images that the autoencoder of a MONAI base expects: ``unit`` is 0…1, ``signed`` is
            -1…1. Other bases define it themselves.
        drift: Mean δ of the noise of the forward path in Latent Drifting at fine-tuning (Yeganeh et al. 2024, arXiv
            2412.20651), in scaled latents; its counterpart at sampling is ``sampler.drift``.
        offset_noise: Standard deviation of a constant that is added to the noise of every channel of every latent
            (Guttenberg 2023), so that means of images are learned too.
    """

    method: Literal["full", "lora", "attention", "control"] = "full"
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[int, Field(ge=1)] | None = None
    latent_scaling: Literal["base", "cohort"] = "base"
    value_range: Literal["unit", "signed"] = "unit"
    drift: Annotated[float, Field(ge=-1, le=1)] = 0.0
    offset_noise: Annotated[float, Field(ge=0, le=1)] = 0.0


class Distillation(Frozen):
    """How the trained denoiser becomes one that draws in a few calls; see :mod:`medphantom.generators.distillation`.

    Attributes:
        calls: Number of calls in which an image is drawn afterwards; guidance costs no further ones.
        images: Number of images that the trained denoiser draws to learn from, for prompts of training patients.
        guidance: Scale of the classifier-free guidance of these images, which the distilled network has learned.
        fit: Fit of the distilled network; without validation, since no real image is looked at.
    """

    calls: Annotated[int, Field(ge=1, le=16)] = 4
    images: Annotated[int, Field(ge=16, le=1_000_000)] = 2000
    guidance: Annotated[float, Field(ge=0, le=100)] = 1.5
    fit: FitConfig = FitConfig(
        steps=1000, batch_size=64, learning_rate=1e-3, ema_decay=0.99, weight_decay=0.0, validate_every=0,
        tracker="none",
    )  # fmt: skip


def check_few_calls(sampler: SamplerConfig, calls: int, guidance: float) -> None:
    """Refuse sampler settings that a distilled generator cannot follow; those that were not given do not count.

    Args:
        sampler: Sampling configuration.
        calls: Number of calls for which the generator was distilled.
        guidance: Scale of the guidance that it has learned.

    Raises:
        InputError: If a setting asks for something else.
    """
    possible: dict[str, tuple[object, ...]] = {
        "solver": (None, "euler"), "steps": (calls,), "guidance": (guidance,), "guidance_interval": (None,),
        "drift": (0.0,),
    }  # fmt: skip
    for name, values in possible.items():
        given = getattr(sampler, name)
        if name in sampler.model_fields_set and given not in values:
            raise InputError(
                f"sampler.{name} cannot be {given}: the generator was distilled to draw in {calls} calls of the Euler "
                f"solver, with guidance {guidance:g} built in",
                f"leave out sampler.{name}, or use a generator that was trained without generator.distillation",
            )


class GeneratorConfig(Frozen):
    """A latent diffusion model and how it is trained.

    Attributes:
        init_from: Base to fine-tune instead of training from scratch: a bundle, a folder in the layout of MONAI's
            bundles, or a folder or hub id of a Stable Diffusion pipeline. Its autoencoder is not changed; sizes and
            objective are those of the base.
        tuning: Configuration of the fine-tuning of the base.
        privacy: Fine-tuning under differential privacy; null means without any guarantee. With it,
            ``denoiser_fit.batch_size`` is the expected number of patients per step.
        autoencoder: Size of the autoencoder network.
        reconstruction: Loss terms of the autoencoder.
        denoiser: Size of the denoiser network.
        conditioning: Kinds of prompt that the generator reads.
        objective: Training objective of the denoiser.
        features_fit: Fit of the feature network that evaluates reconstructions, if one is used.
        text_fit: Fit of the embedded text encoder to the content of the texts, before the denoiser uses it.
        autoencoder_fit: Fit of the autoencoder.
        denoiser_fit: Fit of the denoiser.
        distillation: Distillation of the trained denoiser into one that draws in a few calls, for quick and cheap
            generation; null means none. A distilled generator draws no counterfactuals and is no base.
        latent_balance: Balance between unit variance of every latent channel (0) and scaling each by its effect on the
            image (1), so that coarse structure is generated before fine structure. Best in trials: 0.25 to 0.5.
        flip: Whether to train on left-right mirrored images too; only useful if left and right do not matter.
        unconditional: Whether to accept a cohort that has neither labels nor attributes.
        micro_batch: Number of images that generation computes together; recorded in the bundle.
        threads: Number of CPU threads of training and generation; null means torch's choice; recorded in the bundle.
        intended_use: Intended use of the generator; recorded in the bundle.
        seed: Seed from which all randomness derives.
    """

    init_from: Annotated[str, Field(min_length=1)] | None = None
    tuning: FineTuning = FineTuning()
    privacy: PrivacyConfig | None = None
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    conditioning: ConditioningConfig = ConditioningConfig()
    objective: Objective = Objective()
    features_fit: FitConfig = FitConfig(
        steps=300, batch_size=32, learning_rate=2e-3, ema_decay=None, validate_every=0, tracker="none"
    )
    text_fit: FitConfig = FitConfig(
        steps=600, batch_size=64, learning_rate=1e-3, ema_decay=None, validate_every=0, tracker="none"
    )
    autoencoder_fit: FitConfig = FitConfig(
        steps=1200, batch_size=16, learning_rate=2e-3, ema_decay=0.995, weight_decay=1e-4
    )
    denoiser_fit: FitConfig = FitConfig(steps=1500, batch_size=64, learning_rate=1.5e-3, ema_decay=0.995)
    distillation: Distillation | None = None
    latent_balance: Share = 0.4
    flip: bool = False
    unconditional: bool = False
    micro_batch: Annotated[int, Field(ge=1, le=4096)] = 16
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    intended_use: str = "Research on methods. Not for diagnosis, and not as evidence about any patient."
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _tuning_needs_a_base(self) -> GeneratorConfig:
        if self.init_from is None and self.tuning != FineTuning():
            raise ValueError(
                "generator.tuning configures the fine-tuning of a base, but generator.init_from names none"
            )
        return self

    @model_validator(mode="after")
    def _distillation_is_possible(self) -> GeneratorConfig:
        if self.distillation is None:
            return self
        if self.privacy is not None:
            raise ValueError(
                "generator.distillation needs prompts of training patients, which generator.privacy does not cover"
            )
        if self.tuning.method != "full":
            raise ValueError(
                f"generator.distillation trains all weights, and generator.tuning.method is {self.tuning.method}"
            )
        return self

    @model_validator(mode="after")
    def _privacy_is_possible(self) -> GeneratorConfig:
        if self.privacy is None:
            return self
        if self.init_from is None:
            raise ValueError(
                "generator.privacy needs generator.init_from: only the denoiser is trained privately, and its "
                "autoencoder must come from a public base"
            )
        if self.tuning.latent_scaling != "base":
            raise ValueError(
                "generator.privacy needs tuning.latent_scaling base: any other scaling is measured on the images"
            )
        return self
