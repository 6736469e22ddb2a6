"""What the training stages share: settings, the images in network values, and how a finished fit is found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from medphantom.cohorts.preprocess import Preprocess
from medphantom.core.folders import json_digest, work_folder
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.generators.autoencoder import Autoencoder, build_autoencoder
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.features import FeatureLearner, FeatureNet
from medphantom.generators.latents import Latents, encode_all
from medphantom.generators.networks import AnyAutoencoder
from medphantom.generators.reconstruction import MOST_VALIDATION_IMAGES, AutoencoderLearner, build_adversary
from medphantom.generators.training_data import image_tensor
from medphantom.learning.batches import StreamBatches
from medphantom.learning.devices import resolve_device
from medphantom.learning.fit import FitResult, Grids, fit
from medphantom.learning.fit_config import FitConfig
from medphantom.learning.private_steps import Private

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Fitting:
    """One training run.

    Attributes:
        config: Configuration of the generator.
        preprocess: Preprocessing of the images.
        images: Images of each split from :func:`medphantom.generators.training_data.cached_images`.
        data_key: Digest of everything on which every stage depends.
        work: Folder for checkpoints and caches.
        progress: Callback that receives the progress of each stage.
        grids: Callback that is told the step and the file of each sample grid.
    """

    config: GeneratorConfig
    preprocess: Preprocess
    images: dict[Split, Array]
    data_key: str
    work: Path
    progress: Progress | None
    grids: Grids | None = None

    def fit(
        self, name: str, learner: Any, batches: Any, config: FitConfig, key: str, *, private: Private | None = None
    ) -> FitResult:
        """Fit a learner in a folder named by the digest of everything on which the result depends."""
        seeded = config.model_copy(update={"seed": derive_seed(self.config.seed, name, config.seed)})
        folder = self.work / f"{name}-{key[:16]}"
        return fit(
            learner,
            batches,
            seeded,
            work=folder,
            identity=key,
            name=name,
            progress=self.progress,
            private=private,
            grids=self.grids,
        )

    def monitored_rows(self) -> dict[Split, Any]:
        """Return evenly spaced positions of monitored validation images, and of as many training images."""
        wanted = min(len(self.images["val"]), MOST_VALIDATION_IMAGES)
        return {
            split: np.unique(np.linspace(0, len(self.images[split]) - 1, wanted).round().astype(np.int64))
            for split in SPLITS
        }


def fit_features(fitting: Fitting, labels: Tensor, *, exclusive: bool) -> FeatureNet | None:
    """Train the feature network that evaluates reconstructions, on the labels if there are any; ``None`` if unused.

    Args:
        fitting: Training run of the generator.
        labels: Labels of the training images, ``(N, L)`` as in :class:`medphantom.conditioning.encoder.Conditions`.
        exclusive: Whether exactly one label is present per image.
    """
    config = fitting.config
    if not config.reconstruction.features:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "features"))
        network = FeatureNet(len(fitting.preprocess.size), fitting.preprocess.channels, max(1, labels.shape[1]))
    if config.reconstruction.feature_network == "labels" and labels.shape[1]:
        read = _with_images(fitting.images["train"], {"labels": labels}, flipped=False)
        fitting.fit(
            "features",
            FeatureLearner(network, exclusive=exclusive and labels.shape[1] > 1),
            StreamBatches(len(labels), read),
            config.features_fit,
            json_digest([fitting.data_key, "features"]),
        )
    device = resolve_device(config.autoencoder_fit.device)
    return network.to(device).eval().requires_grad_(False)


def fit_autoencoder(fitting: Fitting, features: FeatureNet | None) -> tuple[Autoencoder, str, FitResult]:
    """Train a new autoencoder; return it with the digest of everything on which it depends, and the fit result."""
    config, images = fitting.config, fitting.images
    size, channels = fitting.preprocess.size, fitting.preprocess.channels
    network = build_autoencoder(
        config.autoencoder,
        spatial_dims=len(size),
        image_channels=channels,
        seed=derive_seed(config.seed, "autoencoder weights"),
        window=config.autoencoder.window_for(size),
    )
    adversary = None
    if config.reconstruction.adversary:
        adversary = build_adversary(
            config.reconstruction,
            spatial_dims=len(size),
            image_channels=channels,
            seed=derive_seed(config.seed, "adversary weights"),
        )
    learner = AutoencoderLearner(
        network,
        config.reconstruction,
        steps=config.autoencoder_fit.steps,
        features=features,
        adversary=adversary,
        monitored={split: images[split][rows] for split, rows in fitting.monitored_rows().items()},
    )
    total = len(images["train"]) * (2 if config.flip else 1)
    batches = StreamBatches(total, _with_images(images["train"], {}, flipped=config.flip))
    parts: list[Any] = [fitting.data_key, config.autoencoder.model_dump(mode="json")]
    parts += [config.reconstruction.model_dump(mode="json"), config.flip]
    if features is not None:
        parts.append(config.features_fit.consequential())
    key = json_digest([*parts, config.autoencoder_fit.consequential()])
    return network, key, fitting.fit("autoencoder", learner, batches, config.autoencoder_fit, key)


def encode_images(fitting: Fitting, autoencoder: AnyAutoencoder, key: str) -> dict[Split, Latents]:
    """Return latents of the images, cached under the digest of their autoencoder."""
    folder = fitting.work / f"latents-{key[:16]}"
    work_folder(folder)
    found: dict[Split, Latents] = {}
    for split in SPLITS:
        path, images = folder / f"{split}.safetensors", fitting.images[split]
        latents = Latents.load(path)
        flipped = fitting.config.flip and split == "train"
        if latents is None or len(latents) != len(images) * (2 if flipped else 1):
            latents = encode_all(autoencoder, images, flipped=flipped, progress=fitting.progress)
            latents.save(path)
        found[split] = latents
    return found


def _with_images(images: Array, others: dict[str, Tensor], *, flipped: bool) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return a reader of cached images and tensors of the same rows; rows beyond the last are mirrored images."""

    def read(rows: Tensor) -> dict[str, Tensor]:
        block = image_tensor(images, rows % len(images))
        if flipped:
            mirrored = (rows >= len(images)).reshape(-1, *[1] * (block.ndim - 1))
            block = torch.where(mirrored, block.flip(-1), block)
        return {"image": block, **{name: tensor[rows] for name, tensor in others.items()}}

    return read
