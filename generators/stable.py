"""Stable Diffusion's networks (Rombach et al. 2022) behind the common interface: grey images, cached texts.

A base is a folder or hub id in diffusers' layout (``unet/ vae/ text_encoder/ tokenizer/ scheduler/``), of the 1.x and
2.x class: 4-channel latents, one text encoder, noise or velocity predicted. Weights are read from safetensors only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from medphantom.conditioning.conditioner import Conditioner
from medphantom.conditioning.config import EncoderSizes
from medphantom.conditioning.encoder import Conditions
from medphantom.conditioning.pretrained_text import PipelineReader
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.conditioning.weights import load_whole
from medphantom.core.errors import InputError
from medphantom.core.folders import canonical_json, pixel_digest
from medphantom.generators.config import Objective
from medphantom.generators.facts import LatentScaling
from medphantom.generators.lineage import Lineage
from medphantom.generators.noise_tables import table_of
from medphantom.generators.objective import level_of

RGB = 3
FITTING = "use a text-to-image model of the Stable Diffusion 1.x or 2.x class"
STEM = "diffusion_pytorch_model"  # of diffusers' files of weights

TEXT_ALONE = (
    "a Stable Diffusion base reads text only",
    "set conditioning.labels to false and conditioning.text.written_by to templates or cohort",
)


class StableAutoencoder(nn.Module):
    """diffusers' AutoencoderKL for images of one or three channels.

    A grey image is passed as three equal channels and returned as their mean, so that there is no colour cast, and no
    value is rounded, so that 16-bit images have no banding.

    Args:
        net: Autoencoder of the pipeline.
        image_channels: Number of image channels, 1 or 3.
    """

    patch = 1
    shortcut = None
    unit_range = False
    window = None

    def __init__(self, net: AutoencoderKL, image_channels: int) -> None:
        super().__init__()
        self.net, self.image_channels = net, image_channels

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance ``(B, L, *latent)`` of images ``(B, C, H, W)`` in -1…1, float32."""
        found = self.net.encode(images.expand(-1, RGB, -1, -1)).latent_dist
        return found.mean.float().contiguous(), found.logvar.float().contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents, float32, not clipped."""
        images: Tensor = self.net.decode(latents).sample.float()
        return images.mean(dim=1, keepdim=True) if self.image_channels == 1 else images


class StableDenoiser(nn.Module):
    """diffusers' UNet2DConditionModel as ``denoiser(x_t, time_B, conditions) -> output`` over scaled latents.

    Args:
        net: UNet of the pipeline.
        conditioner: Conditioner that reads texts with the pipeline's own encoder.
        steps: Number T of levels of the noise table.

    Raises:
        InputError: If the conditioner reads anything except texts of that encoder.
    """

    empty: Tensor

    def __init__(self, net: UNet2DConditionModel, conditioner: Conditioner, steps: int) -> None:
        super().__init__()
        reader = conditioner.reader
        if not isinstance(reader, PipelineReader) or conditioner.schema.reads != ("text",):
            raise InputError(*TEXT_ALONE)
        self.net, self.conditioner, self.bank, self.steps = net, conditioner, reader.bank, steps
        self.register_buffer("empty", reader.features(""), persistent=False)

    def forward(self, x_t: Tensor, time_B: Tensor, conditions: Conditions) -> Tensor:
        """Return the output, see :meth:`medphantom.generators.denoiser.Denoiser.forward`; a missing text is read as
        empty.
        """
        if conditions.text_BT is None:
            raise InputError("the conditions have no text, but this denoiser reads texts")
        ids = conditions.text_BT[:, 0]
        features = self.bank.look_up(ids)[0].to(x_t.device)
        context = torch.where((ids > 0).reshape(-1, 1, 1), features, self.empty)
        output: Tensor = self.net(x_t, level_of(self.steps, time_B), encoder_hidden_states=context).sample
        return output.float()


class StableBase:
    """A Stable Diffusion pipeline to fine-tune.

    Args:
        source: Folder or hub id.

    Attributes:
        files: Files from which weights were read; full precision is preferred to ``fp16`` variants.

    Raises:
        InputError: If it is not available, contains only pickled weights, lacks a weight, or is of another class.
    """

    kind: Literal["stable_diffusion"] = "stable_diffusion"
    lineage = Lineage(unknown=("its Stable Diffusion base",))

    def __init__(self, source: str) -> None:
        self.source = source
        self.files: tuple[str, ...] = ()
        self.unet: Any = self._part("unet", UNet2DConditionModel)
        self.vae: Any = self._part("vae", AutoencoderKL)
        self.reader = PipelineReader(source)
        self.files = (*self.files, f"text_encoder/{self.reader.file}")
        self.objective = self._objective()
        self._check()
        self.digest = self._digest()  # before anything of it learns

    @property
    def pipeline(self) -> str:
        """Source of the text encoder that reads the texts."""
        return self.source

    def _digest(self) -> str:
        """Return the SHA-256 of configurations and tensors of UNet, autoencoder, text encoder and noise table."""
        digest = hashlib.sha256(canonical_json([self.objective.model_dump(mode="json"), self.reader.digest]).encode())
        for module in (self.unet, self.vae):
            config = {key: value for key, value in sorted(module.config.items()) if not key.startswith("_")}
            digest.update(canonical_json(config).encode())
            for name, tensor in sorted(module.state_dict().items()):
                digest.update(f"{name}\0{pixel_digest(tensor.detach().cpu().numpy())}".encode())
        return digest.hexdigest()

    @property
    def scaling(self) -> LatentScaling:
        """Scaling between the autoencoder's latents and the denoiser's."""
        channels = int(self.vae.config.latent_channels)
        shift = float(getattr(self.vae.config, "shift_factor", None) or 0.0)
        return LatentScaling(mean=(shift,) * channels, std=(1 / float(self.vae.config.scaling_factor),) * channels)

    def latent_shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the latent of an image of spatial ``size``.

        Raises:
            InputError: For volumes, or a side that the networks cannot halve.
        """
        if len(size) != 2:
            raise InputError(
                "a Stable Diffusion base generates 2-D images, but those of the cohort are volumes",
                "choose another base",
            )
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        whole = factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if any(side % whole for side in size):
            raise InputError(
                f"preprocess.size {tuple(size)} is not divisible by {whole}, the base's downsampling",
                f"set preprocess.size to {tuple(-(-side // whole) * whole for side in size)}",
            )
        return (int(self.vae.config.latent_channels), *(side // factor for side in size))

    def autoencoder(self, image_channels: int) -> StableAutoencoder:
        """Return the frozen autoencoder."""
        return StableAutoencoder(self.vae.eval().requires_grad_(False), image_channels)

    @property
    def context_dim(self) -> int:
        """Number of features of a token."""
        return self.reader.width

    def denoiser(self, conditioner: Conditioner, sizes: EncoderSizes, seed: int) -> StableDenoiser:
        """Return the denoiser for a conditioner that uses this pipeline's text encoder; it has no new parameters."""
        del sizes, seed
        assert self.objective.table is not None  # noqa: S101 - of every pipeline
        return StableDenoiser(self.unet, conditioner, self.objective.table.steps)

    def as_it_is(self) -> StableDenoiser:
        """Return the denoiser, conditioned on texts."""
        schema = ConditionSchema(reads=("text",), text=self.reader.schema())
        return self.denoiser(Conditioner(schema, self.reader), EncoderSizes(dim=self.context_dim), seed=0)

    def _part(self, name: str, kind: Any) -> Any:
        def read(variant: str | None) -> tuple[Any, dict[str, Any]]:
            found: tuple[Any, dict[str, Any]] = kind.from_pretrained(
                self.source,
                subfolder=name,
                use_safetensors=True,
                torch_dtype=torch.float32,
                variant=variant,
                output_loading_info=True,
            )
            return found

        network, file = load_whole(self.source, name, STEM, f"{name} of base {self.source}", read)
        self.files = (*self.files, f"{name}/{file}")
        return network

    def _objective(self) -> Objective:
        try:
            config: Mapping[str, Any] = DDPMScheduler.load_config(self.source, subfolder="scheduler")
        except (OSError, ValueError, KeyError, TypeError):
            remedy = "give a folder in diffusers' layout with safetensors, or connect to the hub"
            if Path(self.source).is_dir():
                remedy = "provide scheduler/scheduler_config.json of this base"
            raise InputError(f"scheduler of base {self.source} is not available", remedy) from None
        return Objective(kind="ddpm", table=table_of(config, self.source), times="uniform")

    def _check(self) -> None:
        """Refuse networks whose channels do not match."""
        unet, vae = self.unet.config, self.vae.config
        latent = int(vae.latent_channels)
        if (unet.in_channels, unet.out_channels) != (latent, latent):
            raise InputError(
                f"base {self.source}: the denoiser takes {unet.in_channels} and gives {unet.out_channels} channels, "
                f"but the autoencoder's latents have {latent}",
                FITTING,
            )
        if (vae.in_channels, vae.out_channels) != (RGB, RGB):
            raise InputError(f"base {self.source}: the autoencoder expects {vae.in_channels} channels, not 3", FITTING)
        if unet.cross_attention_dim != self.reader.width:
            raise InputError(
                f"base {self.source}: the denoiser expects {unet.cross_attention_dim} features of a token, "
                f"but the text encoder gives {self.reader.width}",
                FITTING,
            )
        if unet.addition_embed_type is not None or unet.class_embed_type is not None:
            raise InputError(f"base {self.source} is conditioned on more than a text", FITTING)
