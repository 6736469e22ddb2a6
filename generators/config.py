"""Everything that can be set about a generator and its sampling. No torch here: recipes are read without loading it."""

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
    """Size of the autoencoder.

    Attributes:
        patch: side of the pixel blocks that become channels before the first layer; 1: none.
        channels: channels per level; each level after the first halves the resolution.
        res_blocks: residual blocks per level.
        latent_channels: channels of the latent.
        norm_groups: groups of the group normalisation; divides every entry of ``channels``.
        attention: whether each level attends to itself; empty: none does.
        middle_attention: whether the bottleneck attends to itself.
        shortcut: whether a fixed linear transform runs beside encoder and decoder.
        log_variance: log-variance of the latents that training begins with.
        window: side of the crops that it is trained on, and of the overlapping windows in which it encodes and decodes
            what is larger; null: everything is taken whole; ``auto``: windows of 96 (volumes) or 512 pixels (images)
            where an image has more than 128³ pixels. A multiple of four times the downsampling.
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
        """Side of the windows of images of spatial ``size``; ``None`` where they are taken whole."""
        if self.window is None or isinstance(self.window, int):
            return self.window
        if math.prod(size) <= WHOLE_PIXELS:
            return None
        unit = 4 * self.downsampling
        return math.ceil(USUAL_WINDOW[len(size)] / unit) * unit

    def latent_shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """Shape ``(C, *spatial)`` of the latent of an image of spatial ``size``.

        Raises:
            InputError: a side is not divisible by the downsampling, or the latent would be too small.
        """
        factor = self.downsampling
        if any(side % factor for side in size):
            fitting = tuple(math.ceil(side / factor) * factor for side in size)
            raise InputError(
                f"preprocess.size {tuple(size)} is not divisible by {factor}, the autoencoder's downsampling",
                f"set preprocess.size to {fitting}, or autoencoder.patch and autoencoder.channels for less of it",
            )
        sides = tuple(side // factor for side in size)
        if min(sides) < SMALLEST_LATENT_SIDE:
            raise InputError(
                f"preprocess.size {tuple(size)} leaves latents of {sides}: each side must be ≥ {SMALLEST_LATENT_SIDE}",
                "use larger images, or fewer autoencoder.channels",
            )
        return (self.latent_channels, *sides)


class ReconstructionConfig(Frozen):
    """What the autoencoder is fitted to.

    Attributes:
        l1: weight of the mean absolute error of pixels.
        spectrum: weight of the mean absolute error of Fourier coefficients (orthonormal), which values fine texture
            that the pixel error gives up (Jiang et al. 2021, focal frequency loss, without the focus).
        features: weight of the error in the frozen feature network (Johnson et al. 2016; Zhang et al. 2018).
        feature_network: ``labels``: a small classifier of the labels, fitted to the training split first; where there
            is nothing to classify, and with ``random``: the same network with random weights.
        kl: weight of the KL divergence to a standard normal, summed over a latent (Rombach et al. 2022, appendix G).
        adversary: weight of the patch discriminator (Isola et al. 2017; hinge loss); 0: none.
        adversary_from: share of the steps after which it begins.
        adversary_channels: channels of its first layer.
        adversary_layers: its number of layers that halve the resolution.
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
    """Size of the denoiser, and how often it learns without a condition.

    Attributes:
        channels: channels per level; each level after the first halves the latent's resolution.
        res_blocks: residual blocks per level.
        attention: whether each level attends to itself and to the condition; empty: only the last, coarsest one.
        head_channels: channels per attention head.
        norm_groups: groups of the group normalisation; divides every entry of ``channels``.
        context_dim: width of the condition tokens.
        drop_prompt: share of the training prompts that are emptied, for classifier-free guidance.
        drop_items: share of the other training prompts that lose some of their items.
        drop_kinds: where several kinds of prompt are read, how often each (labels and attributes; text; mask) is lost.
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
            latent_shape: ``(C, *spatial)``.

        Raises:
            InputError: a side is not divisible.
        """
        factor = 2 ** (len(self.channels) - 1)
        if any(side % factor for side in latent_shape[1:]):
            raise InputError(
                f"latents of {tuple(latent_shape[1:])} are not divisible by {factor}, the denoiser's downsampling",
                "use fewer denoiser.channels, or another preprocess.size",
            )


class NoiseTable(Frozen):
    """The discrete noise levels that a network was trained on (Ho et al. 2020), in the terms of diffusers' schedulers.

    Attributes:
        steps: T, number of levels.
        schedule: how the betas run from ``start`` to ``end``; ``squaredcos_cap_v2`` (Nichol & Dhariwal 2021) takes
            neither.
        start: first beta.
        end: last beta.
        prediction: what the network says: the noise, or the velocity (Salimans & Ho 2022).
    """

    steps: Annotated[int, Field(ge=2, le=10_000)] = 1000
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    start: Annotated[float, Field(gt=0, lt=1)] = 0.00085
    end: Annotated[float, Field(gt=0, lt=1)] = 0.012
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"


class Objective(Frozen):
    """A noise path, what is regressed on it, and where training looks; see :mod:`medphantom.generators.objective`.

    Attributes:
        kind: ``flow`` (rectified flow), ``v`` (velocity of the cosine path) or ``ddpm`` (a table of noise levels, as
            Stable Diffusion and MONAI's bundles have; given by the base that is fine-tuned).
        table: of ``ddpm``.
        shift: multiplies the noise-to-signal ratio sigma/alpha at every time: > 1 for larger latents, whose
            neighbouring values repeat each other (Hoogeboom et al. 2023, equation 4; Esser et al. 2024, equation 23).
        times: ``logit_normal`` prefers the middle of the path (Esser et al. 2024, equation 19), ``uniform`` does not.
        times_mean: location of the logit-normal; > 0 looks more at noisy times.
        times_std: scale of the logit-normal.
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
            raise ValueError("objective.table belongs to kind ddpm, and to no other")
        if self.table is not None and self.shift != 1:
            raise ValueError("objective.shift must be 1 for kind ddpm: its table says all")
        return self


class SamplerConfig(Frozen):
    """How images are drawn from a generator.

    Attributes:
        solver: step rule; null: the default of the generator's objective.
        steps: most calls of the denoiser per image (guidance doubles the work of each).
        guidance: scale w of classifier-free guidance; 1: none.
        guidance_interval: times (0 clean … 1 noise) between which guidance acts; null: at all.
        drift: δ of Latent Drifting: the mean of every step is moved by it, in scaled latents. It adds up over
            ``steps``, so it belongs to them and to the solver.
        micro_batch: images computed together; null: as recorded in the bundle. The same value gives the same bits.
        threads: CPU threads; null: as recorded in the bundle. The same value gives the same bits.
        device: ``auto`` takes a CUDA device where there is one.
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
            raise ValueError(f"sampler.guidance_interval must be ordered low, high; got {self.guidance_interval}")
        return self


class CounterfactualConfig(Frozen):
    """How counterfactuals of real images are made.

    Attributes:
        method: ``inversion``: the image's own noise, by exact inversion of the sampler; ``sdedit``: fresh noise up to
            ``strength`` (Meng et al. 2022); ``latent_drifting``: inversion, then prediction with a drift of the mean at
            every step (Yeganeh et al. 2024).
        steps: of the path between the image and its noise; each is a call of the denoiser.
        strength: how far the image is taken back, 0 not at all … 1 to pure noise.
        iterations: of the fixed-point inversion, per step.
        guidance: how much of the difference that the intervention makes is applied; 1: as the model says. The default
            suits findings; 2 serves quantities such as age better.
        locality: how much weaker than at its strongest place the difference between the two prompts must be for the
            image to be left as it is there; 0: it may change everywhere. Not of ``sdedit``.
        drift: δ of ``latent_drifting``, in scaled latents per step; it adds up over ``steps``, so it belongs to them.
        seed: of the noise of ``sdedit``, and of values drawn from a range.
        micro_batch: images computed together; null: as recorded in the bundle.
        threads: CPU threads; null: as recorded in the bundle.
        device: ``auto`` takes a CUDA device where there is one.
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


class FineTuning(Frozen):
    """How a base is fine-tuned.

    Attributes:
        method: ``full``: all of the denoiser; ``lora``: low-rank changes of its attention (Hu et al. 2022);
            ``attention``: its attention layers alone; what encodes new labels learns in any case. ``control``: a
            ControlNet for the cohort's masks (Zhang et al. 2023), beside the generator as it is, with its vocabulary.
        rank: of the low-rank changes.
        alpha: their scale; null: ``rank``.
        latent_scaling: what the denoiser sees of latents: ``base``: as the base saw them; ``cohort``: zero mean and
            unit variance in this cohort, measured again.
        value_range: of the images that the autoencoder of a MONAI base takes: ``unit``: 0…1, ``signed``: -1…1. Other
            bases say it themselves.
        drift: δ of Latent Drifting at fine-tuning (Yeganeh et al. 2024, arXiv 2412.20651): the noise of the forward
            path has this mean, in scaled latents; its counterpart at sampling is ``sampler.drift``.
        offset_noise: standard deviation of a constant that every channel of every latent's noise is moved by
            (Guttenberg 2023), so that means of images are learned too.
    """

    method: Literal["full", "lora", "attention", "control"] = "full"
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[int, Field(ge=1)] | None = None
    latent_scaling: Literal["base", "cohort"] = "base"
    value_range: Literal["unit", "signed"] = "unit"
    drift: Annotated[float, Field(ge=-1, le=1)] = 0.0
    offset_noise: Annotated[float, Field(ge=0, le=1)] = 0.0


class GeneratorConfig(Frozen):
    """A latent diffusion model and how it is fitted.

    Attributes:
        init_from: base to fine-tune instead of starting anew: a bundle, a folder in the layout of MONAI's bundles,
            or a folder or hub id of a Stable Diffusion pipeline. Its autoencoder stays as it is; sizes and objective
            are its own.
        tuning: how the base is fine-tuned.
        privacy: fine-tune under differential privacy; null: without any guarantee. ``denoiser_fit.batch_size`` is then
            the expected number of patients per step.
        autoencoder: size of the autoencoder.
        reconstruction: what the autoencoder is fitted to.
        denoiser: size of the denoiser.
        conditioning: which kinds of prompt it reads.
        objective: what the denoiser is fitted to.
        features_fit: fit of the feature network that judges reconstructions, where one is used.
        text_fit: fit of the embedded text encoder to what texts say, before the denoiser listens to it.
        autoencoder_fit: fit of the autoencoder.
        denoiser_fit: fit of the denoiser.
        latent_balance: between every latent channel at unit variance (0) and each as large as its reach into the image
            (1), so that coarse structure is decided before fine. Best in trials: 0.25 to 0.5.
        flip: also learn from left-right mirrored images; only where left and right do not matter.
        unconditional: accept a cohort that has neither labels nor attributes.
        micro_batch: images that generation computes together; recorded in the bundle.
        threads: CPU threads of training and generation; null: those that torch chooses; recorded in the bundle.
        intended_use: what the generator is for; recorded in the bundle.
        seed: everything random derives from it.
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
            raise ValueError("generator.tuning says how a base is fine-tuned, and generator.init_from names none")
        return self

    @model_validator(mode="after")
    def _privacy_is_possible(self) -> GeneratorConfig:
        if self.privacy is None:
            return self
        if self.init_from is None:
            raise ValueError(
                "generator.privacy needs generator.init_from: only the denoiser is fitted privately, its autoencoder "
                "must come from a public base"
            )
        if self.tuning.latent_scaling != "base":
            raise ValueError(
                "generator.privacy needs tuning.latent_scaling base: another one is measured on the images"
            )
        return self
