"""Feature networks without training: fixed filters, radiomics and pretrained encoders."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from medphantom.core.errors import InputError
from medphantom.core.folders import json_digest
from medphantom.core.records import Array
from medphantom.quality.networks.classifier import middle_slices, weights_digest
from medphantom.quality.networks.features import ModuleNetwork, NetworkRun, everything
from medphantom.quality.networks.filters import VERSION, VOLUME_VERSION, FilterBank, VolumeFilterBank
from medphantom.quality.networks.radiomics import Radiomics


class _OfViews(nn.Module):
    """Averages a 2-D network over the 2-D views of an image or volume."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NC: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.network(view) for view in middle_slices(images_NC)]).mean(dim=0)


def filter_bank(total_test: int, device: Literal["auto", "cpu", "cuda"]) -> NetworkRun:
    """The fixed filter bank, which was not trained on any images."""
    bank = FilterBank()
    digest = json_digest([VERSION, weights_digest(bank)])
    wrapped = ModuleNetwork("filters", digest, bank.num_features, _OfViews(bank), device)
    return everything(wrapped, total_test, "no images (fixed filter bank)", None)


def volume_filters(total_test: int, dims: int, device: Literal["auto", "cpu", "cuda"]) -> NetworkRun:
    """The fixed filter bank of whole volumes, which was not trained on any images.

    Raises:
        InputError: the images are not volumes.
    """
    if dims != 3:
        raise InputError("feature network volume_filters accepts volumes only", "use networks: [cross_fitted, filters]")
    bank = VolumeFilterBank()
    wrapped = ModuleNetwork(
        "volume_filters", json_digest([VOLUME_VERSION, weights_digest(bank)]), bank.num_features, bank, device
    )
    return everything(wrapped, total_test, "no images (fixed filter bank of volumes)", None)


def radiomics(train_NC: Array, total_test: int) -> NetworkRun:
    """Radiomic features, scaled by training images.

    Raises:
        UnsupportedClaim: there are too few training images.
    """
    return everything(
        Radiomics(train_NC), total_test, "no images (scaled by the mean and standard deviation of train)", None
    )


def encoder(source: str, total_test: int, device: Literal["auto", "cpu", "cuda"]) -> NetworkRun:
    """A pretrained image encoder by hub id or local folder, or ``inception``; never replaced by another.

    Raises:
        InputError: the encoder is not available; the message says which files are needed.
    """
    from medphantom.quality.networks.encoders import load_encoder, load_inception

    module, num_features, name = load_inception() if source == "inception" else load_encoder(source)
    wrapped = ModuleNetwork(name, weights_digest(module), num_features, _OfViews(module), device)
    return everything(wrapped, total_test, "images of its publisher, possibly including test images", None)
