"""A segmenter: a small U-Net trained on images with masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
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
from medphantom.quality.config import ClassicalAugmentation, SegmenterConfig
from medphantom.quality.data.classical import varied
from medphantom.quality.data.masked import Masked
from medphantom.quality.networks.classifier import weights_digest

CHANNELS = (16, 32, 64)
FACTOR = 2 ** (len(CHANNELS) - 1)
SMALLEST_TRAIN = 10


class _SegmenterLearner(Learner):
    def __init__(
        self, network: nn.Module, config: SegmenterConfig, classical: ClassicalAugmentation | None = None
    ) -> None:
        super().__init__(network)
        self.config = config
        self.classical = classical
        self.criterion = DiceCELoss(to_onehot_y=True, softmax=True, include_background=True)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Dice and cross-entropy loss (Isensee et al. 2021) with random gain, offset and mirroring."""
        images, masks = batch["images"], batch["masks"].long().unsqueeze(1)
        shape = (len(images), *(1,) * (images.ndim - 1))
        gain = 1 + self.config.intensity * torch.randn(shape, generator=generator)
        offset = self.config.intensity / 2 * torch.randn(shape, generator=generator)
        images = images * gain.to(images) + offset.to(images)
        if self.config.mirror and bool(torch.rand((), generator=generator) < 0.5):
            images, masks = images.flip(-1), masks.flip(-1)
        if self.classical is not None:
            images, moved = varied(images, self.classical, generator, masks)
            masks = masks if moved is None else moved
        return {"loss": self.criterion(_logits(self.network, images), masks)}


def new_segmenter(images_NC: Array, total_values: int, seed: int) -> nn.Module:
    """MONAI's residual U-Net (Kerfoot et al. 2018) with new weights determined by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "segmenter weights"))
        network: nn.Module = UNet(
            spatial_dims=images_NC.ndim - 2,
            in_channels=images_NC.shape[1],
            out_channels=total_values,
            channels=CHANNELS,
            strides=(2,) * (len(CHANNELS) - 1),
            num_res_units=1,
            norm=("instance", {"affine": True}),
        )
    return network


def fit_segmenter(
    real: Masked,
    total_values: int,
    config: SegmenterConfig,
    *,
    seed: int,
    work: Path,
    progress: Progress | None = None,
    network: nn.Module | None = None,
    classical: ClassicalAugmentation | None = None,
    name: str = "segmenter",
) -> nn.Module:
    """Train a segmenter on images and their masks.

    Args:
        real: training images with masks.
        total_values: number of mask values, including the background.
        config: settings of the training.
        seed: seed of weights, order and augmentation.
        work: folder for checkpoints; one subfolder per distinct training.
        progress: called after every step.
        network: pretrained segmenter to be trained further; a new one by default.
        classical: classical augmentation beyond gain and offset.
        name: name of the training in the progress display.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        UnsupportedClaim: there are too few images with masks.
    """
    if len(real) < SMALLEST_TRAIN:
        raise UnsupportedClaim(f"a segmenter needs ≥ {SMALLEST_TRAIN} training images with masks, got {len(real)}")
    learned = network or new_segmenter(real.images_NC, total_values, seed)
    facts: list[object] = [pixel_digest(real.images_NC), pixel_digest(real.masks_N), config.model_dump(), seed]
    if network is not None:
        facts.append(weights_digest(network))
    if classical is not None:
        facts.append(classical.model_dump())
    identity = json_digest(facts)
    fit(
        _SegmenterLearner(learned, config, classical),
        TensorBatches({"images": torch.from_numpy(real.images_NC), "masks": torch.from_numpy(real.masks_N)}),
        config.fit_config(derive_seed(seed, "segmenter fit")),
        work=work / f"segmenter-{identity[:16]}",
        identity=identity,
        name=name,
        progress=progress,
    )
    return learned.cpu().eval()


@torch.inference_mode()
def segment(network: nn.Module, images_NC: Array, config: SegmenterConfig) -> Array:
    """Predicted masks, uint8 ``(N, *size)``."""
    device = resolve_device(config.device)
    network.to(device)
    found = np.empty((len(images_NC), *images_NC.shape[2:]), dtype=np.uint8)
    for start in range(0, len(images_NC), config.batch_size):
        block = torch.from_numpy(images_NC[start : start + config.batch_size]).to(device)
        found[start : start + len(block)] = _logits(network, block).argmax(dim=1).cpu().numpy()
    network.cpu()
    return found


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    """Logits on the grid of the images, which are padded to a multiple of the network's downsampling factor."""
    padding = [pixels for side in reversed(images.shape[2:]) for pixels in (0, -side % FACTOR)]
    logits: Tensor = network(F.pad(images, padding, value=-1.0)).float()
    for axis, side in enumerate(images.shape[2:], start=2):
        logits = logits.narrow(axis, 0, side)
    return logits
