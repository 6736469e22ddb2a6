"""The autoencoder: MONAI's AutoencoderKL with a space-to-depth front end, in 2-D and 3-D.

The front end folds each ``patch``^n block of pixels into channels, so that no convolution runs at full resolution,
which takes most of the time of a small autoencoder with the same number of parameters. A fixed linear shortcut (the
cosine transform of the reduced image, which carries most of the image) runs in parallel to the network, which only
learns the remainder; compare the residual autoencoding of Chen et al. 2024 (DC-AE, section 3.1). On MedNIST at 64
pixels, 600 steps with it have a smaller reconstruction error than 1,200 without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from monai.networks.nets import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from medphantom.generators.config import AutoencoderConfig

WINDOW_OVERLAP = 0.25


class Codec(Protocol):
    """A model that encodes images to latents, decodes them, and has weights on some device."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the latents of images, float32."""

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents, float32, not clipped."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights of the model."""


def space_to_depth(x: Tensor, patch: int) -> Tensor:
    """Fold blocks of pixels into channels: (B, C, H, W) → (B, C·p², H/p, W/p), likewise in 3-D."""
    if patch == 1:
        return x
    dims = x.ndim - 2
    split = x.reshape(*x.shape[:2], *(n for side in x.shape[2:] for n in (side // patch, patch)))
    blocks = [2 + 2 * axis for axis in range(dims)]
    within = [3 + 2 * axis for axis in range(dims)]
    folded = split.permute(0, 1, *within, *blocks)
    return folded.reshape(x.shape[0], -1, *(side // patch for side in x.shape[2:]))


def depth_to_space(x: Tensor, patch: int) -> Tensor:
    """Invert :func:`space_to_depth`."""
    if patch == 1:
        return x
    dims = x.ndim - 2
    channels = x.shape[1] // patch**dims
    split = x.reshape(x.shape[0], channels, *[patch] * dims, *x.shape[2:])
    order = [place for axis in range(dims) for place in (2 + dims + axis, 2 + axis)]
    return split.permute(0, 1, *order).reshape(x.shape[0], channels, *(side * patch for side in x.shape[2:]))


def fast_layout(x: Tensor) -> Tensor:
    """Use channels-last memory for 2-D convolutions (about 1.5 to 2 times as fast on CPU), contiguous otherwise."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()


def network_arguments(config: AutoencoderConfig, *, spatial_dims: int, image_channels: int) -> dict[str, Any]:
    """Return keyword arguments of MONAI's ``AutoencoderKL`` as JSON values; they are stored in bundles."""
    folded = image_channels * config.patch**spatial_dims
    return {
        "spatial_dims": spatial_dims,
        "in_channels": folded,
        "out_channels": folded,
        "channels": list(config.channels),
        "num_res_blocks": config.res_blocks,
        "attention_levels": list(config.attention) or [False] * len(config.channels),
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.norm_groups,
        "with_encoder_nonlocal_attn": config.middle_attention,
        "with_decoder_nonlocal_attn": config.middle_attention,
    }


def cosine_matrix(dims: int, block: int) -> tuple[Tensor, Tensor]:
    """Return the orthonormal cosine transform (DCT-II) of blocks of ``block``^dims pixels, coarse rows first.

    Returns:
        ``(block^dims, block^dims)``, a row per coefficient, and the summed frequency of each row, 0 for the average.
        For ``block = 2`` it is the Haar transform.
    """
    k, x = torch.arange(block, dtype=torch.float64)[:, None], torch.arange(block, dtype=torch.float64)
    line = torch.cos(math.pi * (2 * x + 1) * k / (2 * block)) * math.sqrt(2 / block)
    line[0] /= math.sqrt(2)
    matrix, frequency = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    for _ in range(dims):
        matrix = torch.kron(matrix, line)
        frequency = (frequency[:, None] + torch.arange(block)).flatten()
    order = torch.argsort(frequency, stable=True)
    return matrix[order].float(), frequency[order]


class LinearShortcut(nn.Module):
    """Encodes and decodes images by means and a cosine transform of small blocks, without trained parameters.

    The block is the smallest that has a coefficient for every latent channel; the image is first reduced by means so
    that one block becomes one position of the latent.

    Args:
        spatial_dims: Number of spatial dimensions, 2 or 3.
        image_channels: Number C of image channels.
        latent_channels: Number L of latent channels; the coarsest coefficients come first, surplus channels are zero.
        downsampling: Image side divided by latent side, a power of two.
    """

    matrix: Tensor
    gain: Tensor

    def __init__(self, spatial_dims: int, image_channels: int, latent_channels: int, downsampling: int) -> None:
        super().__init__()
        self.block = 1
        while self.block < downsampling and image_channels * self.block**spatial_dims < latent_channels:
            self.block *= 2
        self.pool = downsampling // self.block
        self.image_channels = image_channels
        self.latent_channels = latent_channels
        matrix, frequency = cosine_matrix(spatial_dims, self.block)
        # Brings coefficients of images in -1…1 near a standard deviation of 1: amplitudes of images of any kind fall
        # about as one over frequency (Field 1987).
        gain = 1.6 * self.block ** (-spatial_dims / 2) * (4.0 * frequency).clamp_min(1)
        gain = gain.repeat_interleave(image_channels)
        self.used = min(latent_channels, len(gain))
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("gain", gain.reshape(1, -1, *[1] * spatial_dims), persistent=False)

    def down(self, images: Tensor) -> Tensor:
        """Encode images (B, C, *size) to latents (B, L, *size / downsampling)."""
        pooled = _mean_pool(images.float(), self.pool)
        blocks = _split_channels(space_to_depth(pooled, self.block), self.image_channels)  # B, C, pixels of a block, *
        coefficients = torch.einsum("rk,bck...->brc...", self.matrix, blocks).flatten(1, 2) * self.gain
        missing = self.latent_channels - self.used
        padding = coefficients.new_zeros(len(images), missing, *coefficients.shape[2:])
        return torch.cat([coefficients[:, : self.used], padding], dim=1)

    def up(self, latents: Tensor) -> Tensor:
        """Decode latents (B, L, *) to the smooth images (B, C, * · downsampling) that :meth:`down` maps to them."""
        total = self.gain.shape[1]
        missing = latents.new_zeros(len(latents), total - self.used, *latents.shape[2:]).float()
        coefficients = torch.cat([latents[:, : self.used].float(), missing], dim=1) / self.gain
        coefficients = _split_channels(coefficients, total // self.image_channels)  # B, coefficients, C, *
        blocks = torch.einsum("rk,brc...->bck...", self.matrix, coefficients).flatten(1, 2)
        pooled = depth_to_space(blocks, self.block)
        if self.pool == 1:
            return pooled
        mode = "bilinear" if latents.ndim == 4 else "trilinear"
        return F.interpolate(pooled, scale_factor=float(self.pool), mode=mode, align_corners=False)


def _split_channels(x: Tensor, outer: int) -> Tensor:
    return x.reshape(x.shape[0], outer, -1, *x.shape[2:])


def _mean_pool(x: Tensor, factor: int) -> Tensor:
    return _split_channels(space_to_depth(x, factor), x.shape[1]).mean(2) if factor > 1 else x


class Autoencoder(nn.Module):
    """Images (B, C, *size) in -1…1 to a Gaussian over latents (B, L, *size / downsampling), and back.

    Args:
        arguments: Keyword arguments of MONAI's ``AutoencoderKL``.
        patch: Block side of the space-to-depth front end.
        shortcut: Whether the fixed linear transform runs in parallel to the network.
        unit_range: Whether the network itself expects images in 0…1.
        window: Side of the windows in which larger images are processed; ``None`` processes them whole.
    """

    def __init__(
        self,
        arguments: dict[str, Any],
        *,
        patch: int,
        shortcut: bool,
        unit_range: bool = False,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.arguments, self.patch, self.unit_range, self.window = arguments, patch, unit_range, window
        self.downsampling = patch * 2 ** (len(arguments["channels"]) - 1)
        self.net = AutoencoderKL(**arguments)
        self.shortcut: LinearShortcut | None = None
        dims = arguments["spatial_dims"]
        if shortcut:
            image_channels = arguments["in_channels"] // patch**dims
            self.shortcut = LinearShortcut(dims, image_channels, arguments["latent_channels"], self.downsampling)
        if dims == 2:
            self.net = self.net.to(memory_format=torch.channels_last)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the latents, float32."""
        mean, log_var = self._by_windows(images, self.window, self._encoded)
        return mean if self.shortcut is None else mean + self.shortcut.down(images), log_var

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents, float32, not clipped."""
        window = None if self.window is None else self.window // self.downsampling
        images = self._by_windows(latents, window, self._decoded)
        return images if self.shortcut is None else images + self.shortcut.up(latents)

    def _encoded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        taken = (images + 1) / 2 if self.unit_range else images
        mean, std = self.net.encode(fast_layout(space_to_depth(taken, self.patch)))
        return mean.float().contiguous(), 2 * std.float().clamp_min(1e-12).log().contiguous()

    def _decoded(self, latents: Tensor) -> Tensor:
        images = depth_to_space(self.net.decode(fast_layout(latents)), self.patch).float().contiguous()
        return 2 * images - 1 if self.unit_range else images

    @staticmethod
    def _by_windows(x: Tensor, window: int | None, through: Callable[[Tensor], Any]) -> Any:
        """Process an image whole if it fits a window, else by windows that are blended where they overlap."""
        sides = x.shape[2:]
        if window is None or max(sides) <= window:
            return through(x)
        from monai.inferers.utils import sliding_window_inference

        roi = [min(side, window) for side in sides]
        return sliding_window_inference(x, roi, len(x), through, overlap=WINDOW_OVERLAP, mode="gaussian")

    def forward(self, images: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, mean and log-variance.

        Args:
            images: Images (B, C, *size).
            eps: Standard normal noise of the latents' shape; ``None`` decodes the mean.
        """
        mean, log_var = self.encode(images)
        latents = mean if eps is None else mean + torch.exp(log_var / 2) * eps.to(mean)
        return self.decode(latents), mean, log_var


def build_autoencoder(
    config: AutoencoderConfig, *, spatial_dims: int, image_channels: int, seed: int, window: int | None = None
) -> Autoencoder:
    """Return a new autoencoder with weights drawn from ``seed``; ``window`` as in :class:`Autoencoder`.

    With a shortcut it is initialised near zero, so that training starts from the shortcut's reconstruction.
    """
    arguments = network_arguments(config, spatial_dims=spatial_dims, image_channels=image_channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Autoencoder(arguments, patch=config.patch, shortcut=config.shortcut, window=window)
    with torch.no_grad():
        network.net.quant_conv_log_sigma.conv.bias.fill_(config.log_variance)
        if config.shortcut:
            network.net.quant_conv_mu.conv.weight.mul_(0.3)
            network.net.quant_conv_mu.conv.bias.zero_()
            last = network.net.decoder.blocks[-1].conv
            last.weight.mul_(0.1)
            last.bias.zero_()
    return network
