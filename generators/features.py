"""A small frozen feature network that measures how different two images look; trained on the labels, or random.

It needs no download: published perceptual losses use networks trained on photographs (Zhang et al. 2018), but a
classifier of the images at hand, even one with random weights, ranks distortions too.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medphantom.conditioning.encoder import MISSING, PRESENT
from medphantom.learning.learner import Learner

CHANNELS = (16, 32, 64, 64)
GROUPS = 4


class FeatureNet(nn.Module):
    """Features at four resolutions of images (B, C, *size), and from the last one a logit for each label.

    Args:
        spatial_dims: Number of spatial dimensions, 2 or 3.
        image_channels: Number C of image channels.
        total_labels: Number of labels, and hence of logits.
    """

    def __init__(self, spatial_dims: int, image_channels: int, total_labels: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        widths = (image_channels, *CHANNELS)
        # the first layer keeps the resolution: a network that begins by striding is nearly blind to blur
        strides = (1, *[2] * (len(CHANNELS) - 1))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                convolution(before, after, 3, stride=stride, padding=1), nn.GroupNorm(GROUPS, after), nn.ReLU()
            )
            for (before, after), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.head = nn.Linear(CHANNELS[-1], total_labels)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the features after each block."""
        found = []
        for block in self.blocks:
            images = block(images)
            found.append(images)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, total_labels)."""
        logits: Tensor = self.head(self.maps(images)[-1].flatten(2).mean(2))
        return logits


def feature_error(network: FeatureNet, images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the absolute difference of features relative to their mean size, averaged over resolutions; a scalar."""
    with torch.no_grad():
        wanted = network.maps(images)
    terms = [
        (got.float() - want.float()).abs().mean() / (want.float().abs().mean() + 1e-3)
        for got, want in zip(network.maps(reconstructions), wanted, strict=True)
    ]
    return torch.stack(terms).mean()


class FeatureLearner(Learner):
    """Trains a :class:`FeatureNet` on labels, with batches of ``image`` and ``labels`` (0 absent, 1 present, 2
    missing).

    Args:
        network: Feature network to train.
        exclusive: Whether exactly one label is present (a class).
    """

    network: FeatureNet

    def __init__(self, network: FeatureNet, *, exclusive: bool) -> None:
        super().__init__(network)
        self.exclusive = exclusive

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the cross-entropy over observed labels, on images of varied contrast and noise; see
        :meth:`Learner.loss`.
        """
        images, labels = batch["image"], batch["labels"]
        ones = [1] * (images.ndim - 1)
        gain = 1 + 0.1 * torch.randn(len(images), *ones, generator=generator)
        noise = 0.05 * torch.randn(len(images), *ones, generator=generator)
        logits = self.network(images * gain.to(images) + noise.to(images)).float()
        if self.exclusive:
            return {"loss": F.cross_entropy(logits, (labels == PRESENT).long().argmax(1))}
        observed = (labels != MISSING).float()
        errors = F.binary_cross_entropy_with_logits(logits, (labels == PRESENT).float(), reduction="none")
        return {"loss": (errors * observed).sum() / observed.sum().clamp_min(1)}
