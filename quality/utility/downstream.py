"""The downstream classifier of the utility study: a standard network, trained from scratch or from given weights.

Shapes: N images, C channels, T targets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from medphantom.core.folders import json_digest, pixel_digest
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.quality.config import ClassicalAugmentation, ClassifierConfig, DownstreamNetwork
from medphantom.quality.data.classical import varied
from medphantom.quality.networks.classifier import ClassifierLearner, fit_network, new_network, weights_digest

NUM_FEATURES = 64


class _ClassicalLearner(ClassifierLearner):
    """Trains a classifier with classical augmentation: rotation, scale, shift, mirroring, gamma and noise."""

    def __init__(
        self, network: nn.Module, exclusive: bool, config: ClassifierConfig, classical: ClassicalAugmentation
    ) -> None:
        super().__init__(network, exclusive, config)
        self.classical = classical

    def _augmented(self, images_NC: Tensor, generator: torch.Generator) -> Tensor:
        return varied(super()._augmented(images_NC, generator), self.classical, generator)[0]


def new_downstream_model(kind: DownstreamNetwork, images_NC: Array, num_targets: int, seed: int) -> nn.Module:
    """Create a network with new weights determined by the seed.

    Args:
        kind: architecture; the ResNet and DenseNet are MONAI's, in two or three dimensions.
        images_NC: images with the shape of its inputs.
        num_targets: number of network outputs.
        seed: seed of the weights.
    """
    if kind == "small":
        return new_network(images_NC, NUM_FEATURES, num_targets, seed)
    from monai.networks.nets.densenet import DenseNet121
    from monai.networks.nets.resnet import resnet18

    axes, channels = images_NC.ndim - 2, images_NC.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "classifier weights"))
        if kind == "resnet18":
            network: nn.Module = resnet18(spatial_dims=axes, n_input_channels=channels, num_classes=num_targets)
        else:
            network = DenseNet121(spatial_dims=axes, in_channels=channels, out_channels=num_targets)
    return network


def fit_downstream_model(
    network: nn.Module,
    images_NC: Array,
    values_NT: Array,
    *,
    exclusive: bool,
    config: ClassifierConfig,
    seed: int,
    work: Path,
    name: str,
    classical: ClassicalAugmentation | None = None,
    progress: Progress | None = None,
) -> None:
    """Train a network; equal inputs give equal weights, and a finished training is only loaded.

    Args:
        network: network with new or pretrained weights.
        images_NC: float32 ``(N, C, *spatial)`` in -1…1.
        values_NT: int8 labels: 1 present, 0 absent, -1 unknown (ignored).
        exclusive: whether exactly one target is present per image.
        config: settings of the training.
        seed: seed of order and augmentation.
        work: folder for checkpoints; one subfolder per distinct training.
        name: name of the training in the progress display.
        classical: classical augmentation; ``None`` for light shifts and intensity changes only.
        progress: called after every step.
    """
    facts = [pixel_digest(np.ascontiguousarray(images_NC)), pixel_digest(np.ascontiguousarray(values_NT)), exclusive]
    varied: Literal["light"] | dict[str, object] = "light" if classical is None else classical.model_dump()
    identity = json_digest([*facts, weights_digest(network), config.model_dump(), varied, seed])
    learner = ClassifierLearner(network, exclusive, config)
    if classical is not None:
        learner = _ClassicalLearner(network, exclusive, config, classical)
    fit_network(learner, images_NC, values_NT, identity, seed=seed, work=work, name=name, progress=progress)
