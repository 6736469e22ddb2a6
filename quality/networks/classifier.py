"""A small convolutional network, used as feature network and as classifier of label agreement and utility.

Volumes are represented by their three middle slices (2.5-D): the same 2-D network is applied to each, and features are
averaged.
Shapes: N images, C channels, T targets, d features.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.folders import json_digest, pixel_digest
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.learning.batches import TensorBatches
from medphantom.learning.devices import resolve_device
from medphantom.learning.fit import fit
from medphantom.learning.learner import Learner
from medphantom.quality.config import ClassifierConfig

WIDTHS = (16, 32, 48)
GROUPS = 8
FINEST_SIDE = 64  # blocks of pixels of larger images become channels, so that the cost does not grow with size
IMAGES_PER_PASS = 128


def middle_slices(images_NC: Tensor) -> list[Tensor]:
    """The 2-D views of images: the images themselves, or the middle slice of a volume along each axis."""
    if images_NC.ndim == 4:
        return [images_NC]
    return [images_NC.select(axis, images_NC.shape[axis] // 2) for axis in (2, 3, 4)]


class SmallCNN(nn.Module):
    """Four convolution blocks with group norm, mean-pooled features and a linear head.

    Args:
        channels: number of image channels.
        num_features: length of the feature vector.
        num_targets: number of outputs of the head.
        smallest_side: shortest side of the images' 2-D views.
    """

    def __init__(self, channels: int, num_features: int, num_targets: int, smallest_side: int) -> None:
        super().__init__()
        self.fold = max(1, smallest_side // FINEST_SIDE)
        self.num_features = num_features
        width_in = channels * self.fold**2
        blocks: list[nn.Module] = []
        for number, width in enumerate((*WIDTHS, num_features)):
            blocks.append(nn.Conv2d(width_in, width, 3, padding=1))
            if number < len(WIDTHS) and smallest_side // self.fold >= 2 ** (number + 3):
                blocks.append(nn.MaxPool2d(2))  # pooling before the norm saves a third of the (memory-bound) time
            blocks += [nn.GroupNorm(GROUPS, width), nn.SiLU()]
            width_in = width
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(num_features, num_targets)
        self.body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    def features(self, images_NC: Tensor) -> Tensor:
        """Features ``(N, d)`` of images or volumes in -1…1."""
        return torch.stack([self._pooled(view) for view in middle_slices(images_NC)]).mean(dim=0)

    def forward(self, images_NC: Tensor) -> Tensor:
        """Logits ``(N, T)``."""
        return self.head(self.features(images_NC))

    def _pooled(self, view_NCHW: Tensor) -> Tensor:
        height, width = (side - side % self.fold for side in view_NCHW.shape[2:])
        view = view_NCHW[..., :height, :width]
        if self.fold > 1:
            view = F.pixel_unshuffle(view, self.fold)
        return self.body(view.contiguous(memory_format=torch.channels_last)).float().mean(dim=(2, 3))


class ImageLearner(Learner):
    """Trains a :class:`SmallCNN` with light augmentation; subclasses define the loss.

    Args:
        network: network to be trained.
        config: settings of the training.
    """

    def __init__(self, network: nn.Module, config: ClassifierConfig) -> None:
        super().__init__(network)
        self.config = config

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of one batch."""
        return {"loss": self.error(self.network(self._augmented(batch["images"], generator)).float(), batch["targets"])}

    @abstractmethod
    def error(self, outputs_NT: Tensor, targets_NT: Tensor) -> Tensor:
        """The loss of the head's outputs, a scalar."""

    def _augmented(self, images_NC: Tensor, generator: torch.Generator) -> Tensor:
        """Images with a random shift per batch and a random gain and offset per image; sharpness is not affected."""
        spatial = images_NC.ndim - 2
        reach = [int(side * self.config.shift_fraction) for side in images_NC.shape[2:]]
        padding = [pixels for pixels in reversed(reach) for _ in (0, 1)]
        images = F.pad(images_NC, padding, mode="replicate")
        for axis, pixels in enumerate(reach, start=2):
            offset = int(torch.randint(0, 2 * pixels + 1, (1,), generator=generator))
            images = images.narrow(axis, offset, images_NC.shape[axis])
        shape = (len(images), *(1,) * (spatial + 1))
        gain = 1 + self.config.intensity * torch.randn(shape, generator=generator)
        offset_grey = self.config.intensity / 2 * torch.randn(shape, generator=generator)
        return images * gain.to(images.device) + offset_grey.to(images.device)


class ClassifierLearner(ImageLearner):
    """Trains a classifier of exclusive labels or of any number of labels.

    Args:
        network: network to be trained, with one output per target.
        exclusive: whether exactly one target is present per image.
        config: settings of the training.
    """

    def __init__(self, network: nn.Module, exclusive: bool, config: ClassifierConfig) -> None:
        super().__init__(network, config)
        self.exclusive = exclusive

    def error(self, outputs_NT: Tensor, targets_NT: Tensor) -> Tensor:
        """Cross-entropy of the present label, or binary cross-entropy over the known labels."""
        if self.exclusive:
            classes = torch.where((targets_NT == 1).any(dim=1), (targets_NT == 1).int().argmax(dim=1), -1).long()
            total = F.cross_entropy(outputs_NT, classes, ignore_index=-1, reduction="sum")
            return total / (classes >= 0).sum().clamp_min(1)
        known = (targets_NT >= 0).float()
        each = F.binary_cross_entropy_with_logits(outputs_NT, (targets_NT == 1).float(), reduction="none")
        return (each * known).sum() / known.sum().clamp_min(1)


def fit_classifier(
    images_NC: Array,
    targets_NT: Array,
    *,
    exclusive: bool,
    num_features: int,
    config: ClassifierConfig,
    seed: int,
    work: Path,
    name: str = "classifier",
    progress: Progress | None = None,
) -> SmallCNN:
    """Train a :class:`SmallCNN`; the same arguments give the same weights, and a finished one is only loaded.

    Args:
        images_NC: float32 ``(N, C, *spatial)`` in -1…1.
        targets_NT: int8 targets: 1 present, 0 absent, -1 unknown (ignored).
        exclusive: whether exactly one target is present per image (cross-entropy) instead of any number (binary
            cross-entropy).
        num_features: length of the feature vector.
        config: settings of the training.
        seed: seed of weights, order and augmentation.
        work: folder for checkpoints; one subfolder per distinct training.
        name: name of the training in the progress display.
        progress: called after every step.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        UnsupportedClaim: there are no images or no known targets.
    """
    if not len(images_NC) or not targets_NT.shape[1] or not (targets_NT >= 0).any():
        raise UnsupportedClaim("a classifier needs images with at least one known label", "choose other networks")
    identity = json_digest(
        [pixel_digest(images_NC), pixel_digest(targets_NT), exclusive, num_features, config.model_dump(), seed]
    )
    network = new_network(images_NC, num_features, targets_NT.shape[1], seed)
    learner = ClassifierLearner(network, exclusive, config)
    fit_network(learner, images_NC, targets_NT, identity, seed=seed, work=work, name=name, progress=progress)
    return network


def new_network(images_NC: Array, num_features: int, num_targets: int, seed: int) -> SmallCNN:
    """A network for such images, with weights determined by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "classifier weights"))
        return SmallCNN(images_NC.shape[1], num_features, num_targets, min(images_NC.shape[2:]))


def fit_network(
    learner: ImageLearner,
    images_NC: Array,
    targets_NT: Array,
    identity: str,
    *,
    seed: int,
    work: Path,
    name: str,
    progress: Progress | None,
) -> None:
    """Train a learner's network and move it to the CPU; ``identity`` is the digest of everything that determines it."""
    fit(
        learner,
        TensorBatches({"images": torch.from_numpy(images_NC), "targets": torch.from_numpy(targets_NT)}),
        learner.config.fit_config(derive_seed(seed, "classifier fit")),
        work=work / identity[:16],
        identity=identity,
        name=name,
        progress=progress,
    )
    learner.network.cpu()


@torch.inference_mode()
def outputs(network: nn.Module, images_NC: Array, device: Literal["auto", "cpu", "cuda"]) -> Tensor:
    """Outputs of the head ``(N, T)``, float64, on the CPU."""
    where = resolve_device(device)
    network.to(where).eval()
    found = [
        network(torch.from_numpy(images_NC[start : start + IMAGES_PER_PASS]).to(where)).double().cpu()
        for start in range(0, len(images_NC), IMAGES_PER_PASS)
    ]
    network.cpu()
    return torch.cat(found) if found else torch.zeros((0, outputs_of(network)), dtype=torch.float64)


def predict(network: nn.Module, images_NC: Array, *, exclusive: bool, device: Literal["auto", "cpu", "cuda"]) -> Array:
    """Probabilities ``(N, T)`` float64: softmax over exclusive targets, sigmoid of each otherwise."""
    logits = outputs(network, images_NC, device)
    return (logits.softmax(dim=1) if exclusive else logits.sigmoid()).numpy()


def outputs_of(network: nn.Module) -> int:
    """Number of a network's outputs: the length of its last linear layer."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1].out_features


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of the names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(pixel_digest(np.asarray(value.detach().cpu().numpy())).encode())
    return digest.hexdigest()
