"""Measure how fast this machine trains the networks of a recipe, by one or two real steps of each on random pixels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from medphantom.conditioning.conditioner import Conditioner
from medphantom.conditioning.config import EMBEDDED, EncoderSizes
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.flows.process.facts import machine, memory_bytes
from medphantom.generators.autoencoder import build_autoencoder
from medphantom.generators.base import open_base
from medphantom.generators.config import GeneratorConfig, Objective, SamplerConfig
from medphantom.generators.denoiser import DenoiserLearner, build_denoiser
from medphantom.generators.distillation import STEPS_PER_WINDOW
from medphantom.generators.facts import LatentScaling
from medphantom.generators.features import FeatureNet
from medphantom.generators.methods import make_trainable
from medphantom.generators.networks import AnyDenoiser, Base
from medphantom.generators.reconstruction import AutoencoderLearner, build_adversary
from medphantom.learning.devices import resolve_device, resolve_precision
from medphantom.learning.fit_config import FitConfig
from medphantom.learning.learner import Learner
from medphantom.quality.config import AssessConfig
from medphantom.quality.networks.classifier import SmallCNN

LONG_STEP_S = 2.0
REPEATS = 3
PART_OF_A_BATCH = 8
LARGEST_PART = 64  # images; a larger first part may not fit into memory, which is to be found out
FORWARD_SHARE = 1 / 3  # of a training step: the backward pass costs about two forward passes
ASSESS_FIXED_S = 8.0
ASSESS_PER_IMAGE_S = 0.015  # reading, features
COPY_SEARCH_S = 0.018  # per image that is searched for, planted ones too
VOCABULARY = ConditionSchema(labels=tuple(f"label {number}" for number in range(8)))  # the real one is not read yet


class Costly(Protocol):
    """The sections that decide what training and drawing cost; a recipe has them all."""

    @property
    def preprocess(self) -> Seen:
        """What the networks see of an image."""

    @property
    def generator(self) -> GeneratorConfig:
        """The generator and how it is fitted."""

    @property
    def sampler(self) -> SamplerConfig:
        """How images are sampled."""

    @property
    def assess(self) -> AssessConfig:
        """How images are scored."""


class Seen(Protocol):
    """The size of what the networks see."""

    @property
    def size(self) -> tuple[int, ...]:
        """Sides in pixels."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def stored_dtype(self) -> str | None:
        """Type of the values of generated images."""


@dataclass(frozen=True)
class Measured:
    """The measured times and the counted sizes of a recipe.

    Attributes:
        train_s: The time in seconds of all steps of all fits.
        classifier_step_s: The time in seconds of one step of a small classifier.
        sample_s: The time in seconds of one image, decoding included.
        assess_s: The time in seconds of all scores.
        memory_bytes: The peak memory of the process during training.
        weight_bytes: The size of the weights of all networks in float32.
        cache_bytes: The size of the training images as the network sees them, and of their latents.
        image_bytes: The size of one generated image.
        assumption: The assumptions behind the numbers, in words.
    """

    train_s: float
    classifier_step_s: float
    sample_s: float
    assess_s: float
    memory_bytes: float
    weight_bytes: float
    cache_bytes: float
    image_bytes: float
    assumption: str


def calibrate(recipe: Costly, images: int) -> Measured:
    """Time the training steps of a recipe, which takes some seconds.

    Args:
        recipe: The recipe to calibrate, or the sections of it that a verb reads.
        images: The expected number of training images.

    Raises:
        InputError: The networks cannot halve the size, or the base cannot be had or does not take it.
    """
    config, size = recipe.generator, recipe.preprocess.size
    base = None if config.init_from is None else open_base(config.init_from, config.tuning)
    shape = config.autoencoder.latent_shape(size) if base is None else base.latent_shape(size)
    if base is None:
        config.denoiser.check_latent(shape)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads or threads)
    try:
        autoencoder, autoencoder_bytes = _autoencoder_step(recipe, base)
        denoiser, denoiser_bytes = _denoiser_step(recipe, base)
        steps = (autoencoder, denoiser, _classifier_step(recipe))
    finally:
        torch.set_num_threads(threads)
    autoencoder_s, denoiser_s, classifier_step_s = (step.seconds for step in steps)
    features_s = autoencoder_s / 8 * config.features_fit.steps if config.reconstruction.features else 0.0
    text = config.conditioning.text
    learns_to_read = text is not None and text.encoder == EMBEDDED and (base is None or base.pipeline is None)
    text_s = denoiser_s / 4 * config.text_fit.steps if learns_to_read else 0.0
    train_s = (
        config.autoencoder_fit.steps * autoencoder_s + text_s + config.denoiser_fit.steps * denoiser_s + features_s
    )
    few = config.distillation
    if few is None:
        passes = recipe.sampler.steps * (1 if recipe.sampler.guidance == 1 else 2)
    else:
        passes = few.calls
        along = 2 * STEPS_PER_WINDOW * few.calls * (1 if few.guidance == 1 else 2)
        image_s = denoiser_s / config.denoiser_fit.batch_size
        train_s += image_s * (along * FORWARD_SHARE * few.images + few.fit.steps * few.fit.batch_size)
    sample_s = passes * denoiser_s * FORWARD_SHARE / config.denoiser_fit.batch_size
    window = config.autoencoder.window_for(size) or max(size)
    windows = math.prod(size) / math.prod(min(side, window) for side in size)
    sample_s += windows * autoencoder_s * FORWARD_SHARE / 2 / config.autoencoder_fit.batch_size
    pixels = recipe.preprocess.channels * math.prod(size)
    latent = math.prod(shape)
    return Measured(
        train_s=train_s,
        classifier_step_s=classifier_step_s,
        sample_s=sample_s,
        assess_s=_classifier_steps(recipe) * classifier_step_s
        + ASSESS_FIXED_S
        + ASSESS_PER_IMAGE_S * images
        + COPY_SEARCH_S * _searched(recipe, images),
        memory_bytes=max(step.memory_bytes for step in steps),
        weight_bytes=autoencoder_bytes + denoiser_bytes,
        cache_bytes=images * (pixels + 2 * latent) * 4.0,
        image_bytes=float(pixels * (4 if recipe.preprocess.stored_dtype == "float32" else 2)),
        assumption=f"from timed training steps on {_where(config)}",
    )


def _where(config: GeneratorConfig) -> str:
    facts = machine()
    if resolve_device(config.denoiser_fit.device) == "cuda":
        return str(facts.get("gpu", "the accelerator"))
    return f"{facts['cores']} cores"


def _autoencoder_step(recipe: Costly, base: Base | None) -> tuple[StepCost, float]:
    if base is not None:  # it does not learn; what it costs to encode and decode is a share of the denoiser's steps
        return StepCost(0.0, 0.0), _bytes_of(base.autoencoder(recipe.preprocess.channels))
    config, dims, channels = recipe.generator, len(recipe.preprocess.size), recipe.preprocess.channels
    window = config.autoencoder.window_for(recipe.preprocess.size)
    network = build_autoencoder(config.autoencoder, spatial_dims=dims, image_channels=channels, seed=0, window=window)
    reconstruction = config.reconstruction
    device = resolve_device(config.autoencoder_fit.device)
    adversary = (
        build_adversary(reconstruction, spatial_dims=dims, image_channels=channels, seed=0)
        if reconstruction.adversary
        else None
    )
    learner = AutoencoderLearner(
        network,
        reconstruction,
        steps=config.autoencoder_fit.steps,
        features=FeatureNet(dims, channels, 1).to(device).requires_grad_(False) if reconstruction.features else None,
        adversary=adversary,
        monitored={},
    )

    def batch(images: int) -> dict[str, Tensor]:
        return {"image": torch.rand(images, channels, *recipe.preprocess.size) * 2 - 1}

    cost = step_cost(learner, batch, config.autoencoder_fit)
    if adversary is not None:
        learner.step = config.autoencoder_fit.steps - 1
        late, share = step_cost(learner, batch, config.autoencoder_fit), reconstruction.adversary_from
        seconds = share * cost.seconds + (1 - share) * late.seconds
        cost = StepCost(seconds, max(cost.memory_bytes, late.memory_bytes))
    return cost, _bytes_of(network) + (0.0 if adversary is None else _bytes_of(adversary))


def _denoiser_step(recipe: Costly, base: Base | None) -> tuple[StepCost, float]:
    config = recipe.generator
    shape, network, objective = _new_denoiser(recipe) if base is None else _tuned_denoiser(recipe, base)
    learner = DenoiserLearner(
        network,
        config.denoiser,
        objective=objective,
        scaling=LatentScaling(mean=(0.0,) * shape[0], std=(1.0,) * shape[0]),
        monitored={},
        seed=0,
        decode=lambda latents: latents,
    )
    prompt = Prompt(labels={VOCABULARY.labels[0]: True}) if base is None or base.pipeline is None else Prompt(text="x")

    def batch(images: int) -> dict[str, Tensor]:
        conditions = network.conditioner.of_prompts([prompt] * images).tensors()
        return {"mean": torch.randn(images, *shape), "log_var": torch.full((images, *shape), -5.0), **conditions}

    together = None if config.privacy is None else config.privacy.rows_at_once
    return step_cost(learner, batch, config.denoiser_fit, together), _bytes_of(network)


def _new_denoiser(recipe: Costly) -> tuple[tuple[int, ...], AnyDenoiser, Objective]:
    config = recipe.generator
    shape = config.autoencoder.latent_shape(recipe.preprocess.size)
    return shape, build_denoiser(config.denoiser, Conditioner(VOCABULARY), shape, seed=0), config.objective


def _tuned_denoiser(recipe: Costly, base: Base) -> tuple[tuple[int, ...], AnyDenoiser, Objective]:
    if base.pipeline is None:
        conditioner = Conditioner(VOCABULARY)
    else:
        from medphantom.conditioning.pretrained_text import PipelineReader  # loads transformers

        reader = PipelineReader(base.pipeline)
        conditioner = Conditioner(ConditionSchema(reads=("text",), text=reader.schema()), reader)
    network = base.denoiser(conditioner, EncoderSizes(dim=base.context_dim), seed=0)
    if recipe.generator.tuning.method != "control":  # the network itself is what is timed then
        make_trainable(network, recipe.generator.tuning)
    return base.latent_shape(recipe.preprocess.size), network, base.objective


class _Classifying(Learner):
    """A stand-in for the small classifiers of the scores."""

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        return {"loss": self.network(batch["image"]).square().mean()}


def _searched(recipe: Costly, images: int) -> int:
    """Return the number of searched images: synthetic ones, about half as many as real ones, and planted copies."""
    copies = recipe.assess.copies
    return images // 2 + len(copies.kinds) * copies.controls


def _classifier_steps(recipe: Costly) -> int:
    """Return the number of steps of all small classifiers of an assessment.

    These are two folds per seed of a trained feature network, one for label agreement, and two downstream models.
    """
    config = recipe.assess
    trained = [name for name in config.networks or ("cross_fitted",) if name in {"cross_fitted", "simulated"}]
    return (
        2 * config.network_seeds * len(trained) + 1 + (2 if config.utility.enabled else 0)
    ) * config.classifier.steps


def _classifier_step(recipe: Costly) -> StepCost:
    """Return the cost of one step of a small classifier."""
    config, size, channels = recipe.assess, recipe.preprocess.size, recipe.preprocess.channels

    def batch(images: int) -> dict[str, Tensor]:
        return {"image": torch.rand(images, channels, *size) * 2 - 1}

    learner = _Classifying(SmallCNN(channels, 64, len(VOCABULARY.labels), min(size)))
    return step_cost(learner, batch, config.classifier.fit_config(0))


@dataclass(frozen=True)
class StepCost:
    """The cost of one optimiser step.

    Attributes:
        seconds: The time in seconds.
        memory_bytes: The peak memory of the process, or of the accelerator, during the step; scaled up with the time.
    """

    seconds: float
    memory_bytes: float


def step_cost(
    learner: Learner, batch: Callable[[int], dict[str, Tensor]], config: FitConfig, together: int | None = None
) -> StepCost:
    """Return the cost of one optimiser step; of a long step, a part of the batch is made and scaled up.

    Args:
        learner: Network and losses.
        batch: Function from a number of images to a batch of as many.
        config: Configuration of the fit.
        together: Number of images that pass through the network together; by default a pass of the fit.
    """
    device = resolve_device(config.device)
    learner.network.to(device)
    parts = [learner.network]
    if learner.adversary is not None:
        parts.append(learner.adversary.to(device))
    optimizers = [torch.optim.AdamW([p for p in part.parameters() if p.requires_grad], lr=1e-6) for part in parts]
    low_precision = resolve_precision(config.precision, device) == "bf16"

    def timed(images: int) -> float:
        started = time.perf_counter()
        data = {name: tensor.to(device) for name, tensor in batch(images).items()}
        generator = torch.Generator().manual_seed(0)
        losses = [learner.loss, learner.adversary_loss] if learner.adversary is not None else [learner.loss]
        for loss, optimizer in zip(losses, optimizers, strict=True):
            with torch.autocast(device, dtype=torch.bfloat16, enabled=low_precision):
                terms = loss(data, generator)
            if "loss" in terms:
                optimizer.zero_grad()
                terms["loss"].backward()  # type: ignore[no-untyped-call]  # torch does not type it
                optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    started = time.perf_counter()
    rows = min(config.batch_size, together or max(1, config.batch_size // config.accumulate))
    images = max(1, min(rows // PART_OF_A_BATCH, LARGEST_PART))
    with _PeakMemory() as first:
        timed(images)  # kernels are chosen and memory is fetched at the first call
    projected = first.before + (first.bytes - first.before) * rows / images
    with _PeakMemory() as then:
        best = timed(images)
        if best * rows / images < LONG_STEP_S and projected < (memory_bytes()[0] or math.inf):
            images, best = rows, timed(rows)
        for _ in range(REPEATS):  # the shortest is least disturbed by whatever else runs
            if time.perf_counter() - started > LONG_STEP_S:
                break
            best = min(best, timed(images))
    used = max(first.bytes, then.bytes, projected if images < rows else 0.0)
    return StepCost(best * config.batch_size / images, used)


def _bytes_of(network: nn.Module) -> float:
    return 4.0 * sum(parameter.numel() for parameter in network.parameters())


class _PeakMemory:
    """The memory of the process before a block and its peak in it, or that of the accelerator if one is used."""

    before: float = 0.0
    bytes: float = 0.0

    def __enter__(self) -> Self:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets the high-water mark
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.before = self._read("VmRSS", torch.cuda.memory_allocated)
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = max(self.before, self._read("VmHWM", torch.cuda.max_memory_allocated))

    @staticmethod
    def _read(field: str, of_accelerator: Callable[[], int]) -> float:
        found = 0.0
        with suppress(OSError, StopIteration, ValueError):
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            found = float(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
        return max(found, float(of_accelerator())) if torch.cuda.is_available() else found
