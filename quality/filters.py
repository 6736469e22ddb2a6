"""A fixed filter bank as feature network: nothing is trained, so nobody's images are in it.

64 numbers an image: on each of four octaves the mean and spread of Gabor energy at six orientations and two figures of
the band-pass residual, then the moments of the grey values and the mean grey of each quadrant.
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
NOISE_FLOOR = 1e-3  # of a grey range of 2: energies below it are no texture that an 8-bit image could hold
TYPICAL = 0.03  # energy of ordinary texture: features lie around zero, as the kernel distance likes them
VERSION = "gabor-1"


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
    """Multi-scale Gabor energies and grey-value moments; log energies, so that contrast acts additively."""

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
        found = [*self._moments(grey), *F.adaptive_avg_pool2d(grey, 2).flatten(1).unbind(1)]
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

    @staticmethod
    def _moments(grey: Tensor) -> list[Tensor]:
        values = grey.flatten(1)
        mean, deviation = values.mean(dim=1), values.std(dim=1) + NOISE_FLOOR
        standard = (values - mean[:, None]) / deviation[:, None]
        skew, tails = (standard**3).mean(dim=1), (standard**4).mean(dim=1)
        return [mean, torch.log(deviation), skew.sign() * torch.log1p(skew.abs()), torch.log1p(tails)]
