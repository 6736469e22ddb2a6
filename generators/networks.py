"""Networks of a generator, and the interface of a pretrained one that is fine-tuned. Nothing here touches the disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from medphantom.conditioning.conditioner import Conditioner
from medphantom.conditioning.config import EncoderSizes
from medphantom.core.errors import InputError
from medphantom.generators.autoencoder import Autoencoder
from medphantom.generators.config import Objective
from medphantom.generators.denoiser import Denoiser
from medphantom.generators.facts import LatentScaling
from medphantom.generators.lineage import Lineage

if TYPE_CHECKING:  # loads diffusers' networks, which only a Stable Diffusion base needs
    from medphantom.generators.stable import StableAutoencoder, StableDenoiser

AnyAutoencoder: TypeAlias = "Autoencoder | StableAutoencoder"
AnyDenoiser: TypeAlias = "Denoiser | StableDenoiser"


class Base(Protocol):
    """A pretrained latent diffusion model to fine-tune."""

    @property
    def kind(self) -> Literal["bundle", "monai", "stable_diffusion"]:
        """Kind of the base."""

    @property
    def source(self) -> str:
        """Folder or hub id as given by the user."""

    @property
    def files(self) -> tuple[str, ...]:
        """Files from which weights were read, for networks that may have several."""

    @property
    def digest(self) -> str:
        """Digest of weights and configuration."""

    @property
    def lineage(self) -> Lineage | None:
        """Training data of its weights; ``None`` if the base does not declare it."""

    @property
    def objective(self) -> Objective:
        """Objective on which its denoiser was trained."""

    @property
    def scaling(self) -> LatentScaling:
        """Scaling between its autoencoder's latents and its denoiser's."""

    @property
    def pipeline(self) -> str | None:
        """Pipeline whose text encoder reads the texts; ``None`` if any conditioner is suitable."""

    @property
    def context_dim(self) -> int:
        """Width of the context tokens."""

    def latent_shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return ``(L, *latent)`` for an image of spatial ``size``; raise InputError if the networks cannot take it."""

    def autoencoder(self, image_channels: int) -> AnyAutoencoder:
        """Return the frozen autoencoder for this number of image channels; raise InputError if it does not match."""

    def denoiser(self, conditioner: Conditioner, sizes: EncoderSizes, seed: int) -> AnyDenoiser:
        """Return the denoiser for another vocabulary; new parameters are drawn from ``seed``."""

    def as_it_is(self) -> AnyDenoiser:
        """Return the denoiser with its own vocabulary."""


@dataclass(frozen=True, eq=False)
class NetworkBase:
    """Networks of MONAI to fine-tune: those of a bundle of this project, or of a MONAI model.

    Attributes:
        kind: Kind of the base.
        source: Folder of the base.
        digest: Digest of weights and configuration.
        objective: Objective on which the denoiser was trained.
        scaling: Scaling between the autoencoder's latents and the denoiser's.
        codec: Autoencoder of the base.
        old: Denoiser with its own vocabulary.
        lineage: Training data of its weights; ``None`` if the base does not declare it.
    """

    kind: Literal["bundle", "monai"]
    source: str
    digest: str
    objective: Objective
    scaling: LatentScaling
    codec: Autoencoder
    old: Denoiser
    lineage: Lineage | None = None
    pipeline: None = None
    files: tuple[str, ...] = ()

    @property
    def context_dim(self) -> int:
        """Width of the context tokens, see :attr:`Base.context_dim`."""
        return self.old.sizes.dim

    def latent_shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the latent shape, see :meth:`Base.latent_shape`."""
        dims, arguments = self.codec.arguments["spatial_dims"], self.codec.arguments
        if len(size) != dims:
            raise InputError(
                f"the base generates {dims}-D images, but preprocess.size has {len(size)} sides", "choose another base"
            )
        factor = self.codec.downsampling
        whole = factor * 2 ** (len(self.old.arguments["channels"]) - 1)
        if any(side % whole for side in size):
            raise InputError(
                f"preprocess.size {tuple(size)} is not divisible by {whole}, the base's downsampling",
                f"set preprocess.size to {tuple(math.ceil(side / whole) * whole for side in size)}",
            )
        return (int(arguments["latent_channels"]), *(side // factor for side in size))

    def autoencoder(self, image_channels: int) -> Autoencoder:
        """Return the frozen autoencoder, see :meth:`Base.autoencoder`."""
        takes = self.codec.arguments["in_channels"] // self.codec.patch ** self.codec.arguments["spatial_dims"]
        if image_channels != takes:
            raise InputError(
                f"the base expects images of {takes} channels, but those of this cohort have {image_channels}",
                f"set preprocess.channels to {takes}",
            )
        return self.codec.eval().requires_grad_(False)

    def as_it_is(self) -> Denoiser:
        """Return the denoiser with its own vocabulary, see :meth:`Base.as_it_is`."""
        return self.old

    def denoiser(self, conditioner: Conditioner, sizes: EncoderSizes, seed: int) -> Denoiser:
        """Return the denoiser for a vocabulary; it keeps known entries, and features of a new mask start with no
        effect.
        """
        old = self.old
        inputs = old.arguments["in_channels"] - old.sizes.mask_channels + sizes.mask_channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            new = Denoiser({**old.arguments, "in_channels": inputs}, conditioner, sizes, levels=old.levels)
        new.net.load_state_dict(_widened(dict(old.net.state_dict()), old.arguments["in_channels"], inputs))
        schemas = conditioner.schema, old.conditioner.schema
        _part(new, "encoder").adopt(_part(old, "encoder"), *schemas)
        _part(new, "to_time").load_state_dict(_part(old, "to_time").state_dict())
        if new.control is not None:
            new.control.begin_as(new.net)
        if "mask" in new.conditioning and schemas[0].mask == schemas[1].mask and sizes == old.sizes:
            _part(new, "mask").load_state_dict(_part(old, "mask").state_dict())
        return new


def _part(denoiser: Denoiser, name: str) -> Any:
    return denoiser.conditioning[name]


def _widened(state: dict[str, Tensor], before: int, after: int) -> dict[str, Tensor]:
    """Adapt the first convolution to more input channels, which start with zero weights, or to fewer."""
    name = "conv_in.conv.weight"
    if after != before:
        weight = state[name]
        wide = weight.new_zeros(weight.shape[0], after, *weight.shape[2:])
        kept = min(before, after)
        wide[:, :kept] = weight[:, :kept]
        state[name] = wide
    return state
