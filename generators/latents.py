"""Latents of the training images, computed once: mean and log-variance, sampled anew whenever they are used.

Caching one sample instead would freeze its noise into the data: the denoiser would then learn that noise, and its loss
would have an unpredictable floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medphantom.core.errors import ArtifactError, MedphantomError
from medphantom.core.folders import no_space_becomes_one_line
from medphantom.core.guard import reading
from medphantom.core.progress import Progress
from medphantom.core.randomness import torch_generator
from medphantom.core.records import Array
from medphantom.generators.autoencoder import Codec
from medphantom.generators.facts import LatentScaling
from medphantom.generators.training_data import image_tensor

IMAGES_AT_ONCE = 16
REACH_IMAGES = 32
REACH_STEP = 0.1  # of a standard deviation: small enough for the decoder to be linear


@dataclass(frozen=True)
class Latents:
    """Gaussian posteriors of many images, on the CPU.

    Attributes:
        mean: Posterior means (N, L, *latent).
        log_var: Posterior log-variances of the same shape.
    """

    mean: Tensor
    log_var: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def save(self, path: Path) -> None:
        """Write the latents atomically as safetensors."""
        temporary = path.with_name(f".{path.name}.tmp")
        with no_space_becomes_one_line(path):
            save_file({"mean": self.mean.contiguous(), "log_var": self.log_var.contiguous()}, temporary)
            temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Latents | None:
        """Read what :meth:`save` wrote; ``None`` if the file is missing or damaged."""
        try:
            with reading(path):
                tensors = load_file(path)
                return cls(tensors["mean"], tensors["log_var"])
        except ArtifactError:
            return None

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (L,) of each channel over images, positions and the posteriors' variance.

        Raises:
            MedphantomError: If a channel is constant or not finite, so that it could not be scaled.
        """
        axes = [0, *range(2, self.mean.ndim)]
        mean = self.mean.double().mean(axes)
        variance = self.mean.double().var(axes, unbiased=False) + self.log_var.double().exp().mean(axes)
        std = variance.sqrt()
        if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise MedphantomError("the autoencoder's latents are not finite", "lower autoencoder_fit.learning_rate")
        return mean, std


@torch.no_grad()
def reach(autoencoder: Codec, latents: Latents, std: Tensor, generator: torch.Generator) -> Tensor:
    """Return the effect of each latent channel: change of the decoded image per standard deviation.

    Args:
        autoencoder: Autoencoder on any device.
        latents: Latents of the training split.
        std: Standard deviation (L,) of each channel, from :meth:`Latents.moments`.
        generator: CPU generator of the perturbations.

    Returns:
        (L,) root mean square over a few images, in units of the image.
    """
    device = next(autoencoder.parameters()).device
    rows = torch.linspace(0, len(latents) - 1, min(len(latents), REACH_IMAGES)).round().long()
    mean = latents.mean[rows]
    # volumes are decoded one by one, since one of them fills as much memory as a batch of images
    blocks = torch.split(mean, 1 if mean.ndim == 5 else IMAGES_AT_ONCE)
    still = [autoencoder.decode(block.to(device)).cpu() for block in blocks]
    found = []
    for channel in range(mean.shape[1]):
        moves = REACH_STEP * float(std[channel]) * torch.randn(mean[:, channel].shape, generator=generator)
        squares, total = 0.0, 0
        for block, move, before in zip(blocks, torch.split(moves, len(blocks[0])), still, strict=True):
            moved = block.clone()
            moved[:, channel] += move
            change = autoencoder.decode(moved.to(device)).cpu() - before
            squares, total = squares + float(change.double().square().sum()), total + change.numel()
        found.append(math.sqrt(squares / total) / REACH_STEP)
    return torch.tensor(found, dtype=torch.float64)


def balanced_scaling(autoencoder: Codec, latents: Latents, balance: float, seed: int) -> LatentScaling:
    """Return the scaling of the latents: zero mean, unit variance over all channels together.

    At balance 0 every channel has unit variance: noise then hides coarse and fine structure at the same time. At 1 it
    is scaled by its effect on the image, as in diffusion over pixels: the coarse structure is generated first, and the
    fine one follows from it (Dieleman 2024, "Diffusion is spectral autoregression"; Skorokhodov et al. 2025).

    Args:
        autoencoder: Autoencoder that decodes the latents.
        latents: Latents of the training split.
        balance: Exponent of the effect, 0…1.
        seed: Seed of the perturbations that measure the effect.

    Raises:
        MedphantomError: If a channel is constant or not finite.
    """
    mean, std = latents.moments()
    sizes = torch.ones_like(std)
    if balance:
        sizes = reach(autoencoder, latents, std, torch_generator(seed, "reach")).clamp_min(1e-6) ** balance
    sizes = sizes / sizes.square().mean().sqrt()
    return LatentScaling(mean=tuple(mean.tolist()), std=tuple((std / sizes).tolist()))


def draw(mean: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """Return ``mean + std · eps``: a latent from its posterior (Kingma & Welling 2014, equation 10)."""
    return mean + torch.exp(log_var / 2) * eps


def scaled(latents: Tensor, scaling: LatentScaling) -> Tensor:
    """Return latents (B, L, *latent) in the denoiser's scaling."""
    mean, std = _columns(latents, scaling)
    return (latents - mean) / std


def unscaled(latents: Tensor, scaling: LatentScaling) -> Tensor:
    """Invert :func:`scaled`."""
    mean, std = _columns(latents, scaling)
    return latents * std + mean


def _columns(latents: Tensor, scaling: LatentScaling) -> tuple[Tensor, Tensor]:
    shape = (1, -1, *[1] * (latents.ndim - 2))
    mean = torch.tensor(scaling.mean, dtype=latents.dtype, device=latents.device).reshape(shape)
    std = torch.tensor(scaling.std, dtype=latents.dtype, device=latents.device).reshape(shape)
    return mean, std


@torch.no_grad()
def encode_all(
    autoencoder: Codec, images: Array, *, flipped: bool = False, progress: Progress | None = None
) -> Latents:
    """Encode cached images in batches of one size, at full precision.

    Args:
        autoencoder: Autoencoder on any device.
        images: Images (N, C, *size) in -1…1.
        flipped: Whether to encode every image also mirrored along its last axis, after all the others.
        progress: Callback that receives the number of images done.
    """
    device = next(autoencoder.parameters()).device
    total = len(images) * (2 if flipped else 1)
    means, log_vars = [], []
    for mirror in (False, True) if flipped else (False,):
        for start in range(0, len(images), IMAGES_AT_ONCE):
            block = image_tensor(images, slice(start, start + IMAGES_AT_ONCE))
            mean, log_var = autoencoder.encode((block.flip(-1) if mirror else block).to(device))
            means.append(mean.cpu())
            log_vars.append(log_var.cpu())
            if progress is not None:
                done = (len(images) if mirror else 0) + start + len(block)
                progress(done, total, "encoding images")
    return Latents(torch.cat(means), torch.cat(log_vars))
