"""Fixed filter banks as feature networks, which are not trained on any images.

An image has 64 features: in each of four octaves the mean and standard deviation of Gabor energy at six orientations
and of the band-pass residual, then the moments of the grey values and the mean grey value of each quadrant. A volume
has 32
features of the whole volume: in each of three octaves the mean and standard deviation of the gradient along every axis
and of the band-pass residual, then the moments and the distribution of brightness over its halves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OCTAVES = 4
ORIENTATIONS = 6
KERNEL_SIDE = 9
WAVELENGTH_PX = 4.0
ENVELOPE_PX = 2.0
NUM_FEATURES = OCTAVES * (2 * ORIENTATIONS + 2) + 4 + 4
NOISE_FLOOR = 1e-3  # energy below which an 8-bit image (grey range of 2) has no texture
TYPICAL = 0.03  # energy of typical texture, so that features are centred around zero for the kernel distance
VERSION = "gabor-1"
VOLUME_VERSION = "slopes-1"
VOLUME_OCTAVES = 3
NUM_VOLUME_FEATURES = VOLUME_OCTAVES * 8 + 4 + 4


def gabor_pairs() -> Tensor:
    """Quadrature pairs of Gabor filters without response to constant grey, ``(2 * ORIENTATIONS, 1, side, side)``.

    Even filters first, odd ones after; each has unit L1 norm.
    """
    radius = KERNEL_SIDE // 2
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * ENVELOPE_PX**2))
    even, odd = [], []
    for number in range(ORIENTATIONS):
        angle = math.pi * number / ORIENTATIONS
        phase = 2 * math.pi / WAVELENGTH_PX * (x * math.cos(angle) + y * math.sin(angle))
        cosine = envelope * torch.cos(phase)
        cosine = cosine - envelope * cosine.sum() / envelope.sum()
        sine = envelope * torch.sin(phase)
        even.append(cosine / cosine.abs().sum())
        odd.append(sine / sine.abs().sum())
    return torch.stack(even + odd).unsqueeze(1).float()


class FilterBank(nn.Module):
    """Multi-scale logarithmic Gabor energies, on which contrast acts additively, and grey-value moments."""

    kernels: Tensor
    smooth: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.num_features = NUM_FEATURES
        self.register_buffer("kernels", gabor_pairs())
        binomial = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16  # Burt and Adelson 1983
        self.register_buffer("smooth", torch.outer(binomial, binomial)[None, None])

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Features ``(N, 64)`` of images in -1…1; colour is averaged."""
        grey = images_NCHW.mean(dim=1, keepdim=True)
        found = [*_moments(grey), *F.adaptive_avg_pool2d(grey, 2).flatten(1).unbind(1)]
        level = grey
        for _ in range(OCTAVES):
            found += self._octave(level)
            level = F.conv2d(F.pad(level, (2, 2, 2, 2), mode="replicate"), self.smooth)[..., ::2, ::2]
        return torch.stack(found, dim=1)

    def _octave(self, level: Tensor) -> list[Tensor]:
        margin = KERNEL_SIDE // 2
        even, odd = F.conv2d(F.pad(level, (margin,) * 4, mode="replicate"), self.kernels).chunk(2, dim=1)
        energy = torch.log((NOISE_FLOOR + torch.sqrt(even**2 + odd**2 + 1e-12)) / TYPICAL)
        smoothed = F.conv2d(F.pad(level, (2, 2, 2, 2), mode="replicate"), self.smooth)
        band = torch.log((NOISE_FLOOR + (level - smoothed).abs()) / TYPICAL).flatten(1)
        return [
            *energy.mean(dim=(2, 3)).unbind(1),
            *energy.std(dim=(2, 3), correction=0).unbind(1),
            band.mean(dim=1),
            band.std(dim=1, correction=0),
        ]


class VolumeFilterBank(nn.Module):
    """Multi-scale logarithmic gradient energies along each axis and grey-value moments of whole volumes."""

    smooth: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.num_features = NUM_VOLUME_FEATURES
        self.register_buffer("smooth", torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16)  # Burt and Adelson 1983

    def forward(self, images_NCDHW: Tensor) -> Tensor:
        """Features ``(N, 32)`` of volumes in -1…1; channels are averaged."""
        grey = images_NCDHW.mean(dim=1, keepdim=True)
        found = [*_moments(grey), *self._place(grey)]
        level = grey
        for _ in range(VOLUME_OCTAVES):
            smoothed = self._smoothed(level)
            slopes = [level.diff(dim=axis) if level.shape[axis] > 1 else torch.zeros_like(level) for axis in (2, 3, 4)]
            for part in (*slopes, level - smoothed):
                energy = torch.log((NOISE_FLOOR + part.abs()) / TYPICAL).flatten(1)
                found += [energy.mean(dim=1), energy.std(dim=1, correction=0)]
            level = smoothed[..., ::2, ::2, ::2]
        return torch.stack(found, dim=1)

    def _smoothed(self, level: Tensor) -> Tensor:
        for axis in (2, 3, 4):
            shape = [1, 1, 1, 1, 1]
            shape[axis] = len(self.smooth)
            padding = [0, 0, 0, 0, 0, 0]
            padding[2 * (4 - axis)] = padding[2 * (4 - axis) + 1] = 2
            level = F.conv3d(F.pad(level, padding, mode="replicate"), self.smooth.view(shape))
        return level

    @staticmethod
    def _place(grey: Tensor) -> list[Tensor]:
        """Mean grey value of the first half along each axis, and of the middle, minus the overall mean."""
        whole = grey.flatten(1).mean(dim=1)
        halves = [
            grey.narrow(axis, 0, max(1, grey.shape[axis] // 2)).flatten(1).mean(dim=1) - whole for axis in (2, 3, 4)
        ]
        middle = grey
        for axis in (2, 3, 4):
            side = grey.shape[axis]
            middle = middle.narrow(axis, side // 4, max(1, side // 2))
        return [*halves, middle.flatten(1).mean(dim=1) - whole]


def _moments(grey: Tensor) -> list[Tensor]:
    """Mean, logarithmic standard deviation, skewness and kurtosis of the grey values of each image."""
    values = grey.flatten(1)
    mean, deviation = values.mean(dim=1), values.std(dim=1) + NOISE_FLOOR
    standard = (values - mean[:, None]) / deviation[:, None]
    skew, tails = (standard**3).mean(dim=1), (standard**4).mean(dim=1)
    return [mean, torch.log(deviation), skew.sign() * torch.log1p(skew.abs()), torch.log1p(tails)]
