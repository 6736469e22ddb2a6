"""The denoiser: MONAI's DiffusionModelUNet in 2-D and 3-D, conditioned by a condition encoder; and its learner."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from medphantom.conditioning.conditioner import Conditioner
from medphantom.conditioning.config import EncoderSizes
from medphantom.conditioning.encoder import ConditionEncoder, Conditions
from medphantom.conditioning.guidance import guided
from medphantom.conditioning.masks import MaskEncoder
from medphantom.core.randomness import derive_seed, torch_generator
from medphantom.generators.autoencoder import fast_layout
from medphantom.generators.config import DenoiserConfig, Objective
from medphantom.generators.control import MaskControl
from medphantom.generators.facts import LatentScaling
from medphantom.generators.latents import Latents, draw, scaled
from medphantom.generators.objective import (
    add_noise,
    level_of,
    target,
    training_times,
    validation_times,
    velocity_loss,
)
from medphantom.generators.sampler import noise_of, sample
from medphantom.learning.learner import RowLearner
from medphantom.learning.memorization import SampleLosses

TIME_SCALE = 1000.0  # the network's sinusoidal time embedding is made for steps 0…1000
FEW_TOKENS = 256
MONITORED_LATENTS = 256
VALIDATION_BATCH = 64
GRID_IMAGES = 12
GRID_STEPS = 12
GRID_GUIDANCE = 1.5


def network_arguments(config: DenoiserConfig, latent_shape: tuple[int, ...], mask_channels: int = 0) -> dict[str, Any]:
    """Return keyword arguments of MONAI's ``DiffusionModelUNet`` as JSON values; they are stored in bundles.

    Args:
        config: Size of the denoiser.
        latent_shape: Shape ``(C, *latent)`` of the latents.
        mask_channels: Number of mask features that are concatenated with the latent at the input.
    """
    levels = len(config.channels)
    attention = list(config.attention) or [level == levels - 1 for level in range(levels)]
    tokens = [math.prod(latent_shape[1:]) // 2 ** (level * (len(latent_shape) - 1)) for level in range(levels)]
    most_tokens = max((count for count, attends in zip(tokens, attention, strict=True) if attends), default=0)
    return {
        "spatial_dims": len(latent_shape) - 1,
        "in_channels": latent_shape[0] + mask_channels,
        "out_channels": latent_shape[0],
        "num_res_blocks": config.res_blocks,
        "channels": list(config.channels),
        "attention_levels": attention,
        "norm_num_groups": config.norm_groups,
        "num_head_channels": config.head_channels,
        "with_conditioning": True,
        "cross_attention_dim": config.context_dim,
        # torch's scaled_dot_product_attention saves memory, but on CPU its backward pass takes longer on few tokens
        "use_flash_attention": most_tokens > FEW_TOKENS,
    }


class Denoiser(nn.Module):
    """``denoiser(x_t, time_B, conditions) -> output`` over scaled latents.

    The condition enters twice: as tokens for cross-attention, and pooled, added to the time in every residual block.
    The second way uses MONAI's class embedding, which is replaced by the identity, so that the network's own state dict
    remains that of MONAI. A mask is concatenated with the noisy latent at the network's input, as features, or acts
    through a ControlNet.

    Args:
        arguments: Keyword arguments of MONAI's ``DiffusionModelUNet``.
        conditioner: Conditioner that defines the prompts.
        sizes: Sizes of the layers that encode conditions.
        levels: Number T of levels of the noise table for which the network was trained, which it takes as times; with
            ``None`` it takes 1000 times the time.
    """

    def __init__(
        self, arguments: dict[str, Any], conditioner: Conditioner, sizes: EncoderSizes, *, levels: int | None = None
    ) -> None:
        super().__init__()
        self.arguments, self.conditioner, self.sizes, self.levels = arguments, conditioner, sizes, levels
        self.net = DiffusionModelUNet(**arguments)
        self.net.num_class_embeds = 1
        self.net.class_embedding = nn.Identity()
        schema = conditioner.schema
        parts: dict[str, nn.Module] = {
            "encoder": ConditionEncoder(schema, sizes, conditioner.bank),
            "to_time": nn.Linear(sizes.dim, 4 * arguments["channels"][0]),
        }
        self.control: MaskControl | None = None
        if schema.mask is not None and sizes.mask_control:
            self.control = MaskControl(arguments, len(schema.mask.values), sizes.mask_control)
        elif schema.mask is not None:
            parts["mask"] = MaskEncoder(len(schema.mask.values), sizes, arguments["spatial_dims"])
        self.conditioning = nn.ModuleDict(parts)
        if arguments["spatial_dims"] == 2:
            self.net = self.net.to(memory_format=torch.channels_last)

    def forward(self, x_t: Tensor, time_B: Tensor, conditions: Conditions) -> Tensor:
        """Return the output defined by :func:`medphantom.generators.objective.target`, float32, of the shape of
        ``x_t``.

        Args:
            x_t: Noisy latents (B, C, *latent).
            time_B: Times (B,) in (0, 1].
            conditions: Conditions from its conditioner.
        """
        context, pooled = self.conditioning["encoder"](conditions)
        if conditions.mask is not None and self.control is None:
            x_t = torch.cat([x_t, self.conditioning["mask"](conditions.mask)], dim=1)
        x_t = fast_layout(x_t)
        times = TIME_SCALE * time_B if self.levels is None else level_of(self.levels, time_B)
        context = context if self.arguments["with_conditioning"] else None
        beside_time = self.conditioning["to_time"](pooled)
        down, middle = None, None
        if conditions.mask is not None and self.control is not None:
            down, middle = self.control(x_t, times, conditions.mask, context, beside_time)
        output = self.net(
            x_t,
            timesteps=times,
            context=context,
            class_labels=beside_time,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        )
        return output.float().contiguous()


def build_denoiser(
    config: DenoiserConfig,
    conditioner: Conditioner,
    latent_shape: tuple[int, ...],
    *,
    seed: int,
    sizes: EncoderSizes | None = None,
) -> Denoiser:
    """Return a new denoiser with weights drawn from ``seed``.

    Args:
        config: Size of the denoiser.
        conditioner: Conditioner that defines the prompts.
        latent_shape: Shape ``(C, *latent)`` of the latents.
        seed: Seed of the weights.
        sizes: Sizes of the layers that encode conditions; by default those of labels and attributes alone.

    Raises:
        InputError: If the latents cannot be halved once per level.
    """
    config.check_latent(latent_shape)
    sizes = sizes or EncoderSizes(dim=config.context_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Denoiser(network_arguments(config, latent_shape, sizes.mask_channels), conditioner, sizes)


class DenoiserLearner(RowLearner):
    """Trains a denoiser on batches of ``mean``, ``log_var`` (B, L, *latent) and the tensors of :class:`Conditions`.

    Args:
        network: Denoiser, ``(x_t, time_B, conditions) -> output``.
        config: Configuration of how conditions are dropped.
        objective: Training objective of the denoiser.
        scaling: Scaling of the latents.
        monitored: Latents and conditions of ``val`` and of an equally large part of ``train``.
        seed: Seed of the fixed noise of validation.
        decode: Function from scaled latents to images (B, C, *size) in -1…1, for the grid.
        drift: Mean of the noise (Latent Drifting at fine-tuning).
        offset_noise: Standard deviation of a constant that is added to each channel's noise in training.
    """

    grid_shows_real_images = False

    def __init__(
        self,
        network: nn.Module,
        config: DenoiserConfig,
        *,
        objective: Objective,
        scaling: LatentScaling,
        monitored: dict[Literal["val", "train"], tuple[Latents, Conditions]],
        seed: int,
        decode: Callable[[Tensor], Tensor],
        drift: float = 0.0,
        offset_noise: float = 0.0,
    ) -> None:
        super().__init__(network)
        self.drift, self.offset_noise = drift, offset_noise
        self.config, self.objective, self.scaling = config, objective, scaling
        self.monitored, self.seed, self.decode = monitored, seed, decode
        self._rows: dict[str, SampleLosses] = {}

    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Draw latents, noise and times, and drop some conditions, see :meth:`RowLearner.prepare`."""
        mean = batch["mean"]
        conditions = Conditions.from_tensors(batch).one_paraphrase(generator)
        conditions = conditions.drop(
            generator,
            whole=self.config.drop_prompt,
            partial=self.config.drop_items,
            kinds=self.config.drop_kinds,
        )
        latents = draw(mean, batch["log_var"], torch.randn(mean.shape, generator=generator).to(mean))
        eps = torch.randn(mean.shape, generator=generator).to(mean) + self.drift
        if self.offset_noise:
            constants = torch.randn(*mean.shape[:2], *[1] * (mean.ndim - 2), generator=generator)
            eps = eps + self.offset_noise * constants.to(mean)
        time_B = training_times(self.objective, len(mean), generator).to(mean.device)
        return {"latents": latents, "eps": eps, "time": time_B, **conditions.tensors()}

    def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
        """Return the squared error at the given times, see :meth:`RowLearner.row_losses`."""
        conditions = Conditions.from_tensors(prepared)
        return self._errors(self.network, prepared["latents"], prepared["eps"], prepared["time"], conditions)

    def validate(self, network: nn.Module, split: Literal["val", "train"]) -> dict[str, float]:
        """Return the squared error at noise and times fixed for both splits, see :meth:`Learner.validate`."""
        latents, conditions = self.monitored[split]
        conditions = conditions.one_paraphrase(torch_generator(self.seed, "wording"))
        device = next(network.parameters()).device
        total = max(len(latents), MONITORED_LATENTS)  # with few images, each is used at several times
        rows = torch.arange(total) % len(latents)
        generator = torch_generator(self.seed, "validation")
        times = validation_times(self.objective, total)[torch.randperm(total, generator=generator)]
        shape = (total, *latents.mean.shape[1:])
        posterior, eps = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator) + self.drift
        found = []
        for start in range(0, total, VALIDATION_BATCH):
            part = slice(start, start + VALIDATION_BATCH)
            drawn = draw(latents.mean[rows[part]], latents.log_var[rows[part]], posterior[part])
            errors = self._errors(
                network,
                drawn.to(device),
                eps[part].to(device),
                times[part].to(device),
                conditions[rows[part]].to(device),
            )
            found.append(errors.cpu())
        seen = SampleLosses(torch.cat(found), rows)
        self._rows[split] = seen
        return {"loss": float(seen.errors.double().mean())}

    def per_sample_losses(self, split: Literal["val", "train"]) -> SampleLosses | None:
        """Return the last losses, see :meth:`Learner.per_sample_losses`."""
        return self._rows.get(split)

    def grid(self, network: nn.Module) -> Tensor:
        """Return images for the conditions of a few validation images at fixed seeds (in 3-D: their middle slices)."""
        latents, conditions = self.monitored["val"]
        conditions = conditions.one_paraphrase(torch_generator(self.seed, "wording"))
        device = next(network.parameters()).device
        rows = torch.arange(GRID_IMAGES) * max(1, len(latents) // GRID_IMAGES) % len(latents)
        noise = noise_of([derive_seed(self.seed, "grid", i) for i in range(GRID_IMAGES)], latents.mean.shape[1:])
        denoise = guided(network, conditions[rows].to(device), scale=GRID_GUIDANCE)
        drawn = sample(denoise, noise.to(device), objective=self.objective, solver="dpmpp_2m", steps=GRID_STEPS)
        images = self.decode(drawn)
        middle = images if images.ndim == 4 else images[:, :, images.shape[2] // 2]
        return (middle.clamp(-1, 1) + 1) / 2

    def _errors(
        self, network: nn.Module, latents: Tensor, eps: Tensor, time_B: Tensor, conditions: Conditions
    ) -> Tensor:
        x0 = scaled(latents, self.scaling)
        output = network(add_noise(self.objective, x0, eps, time_B), time_B, conditions)
        return velocity_loss(output, target(self.objective, x0, eps, time_B))
