"""Loss terms of a reconstruction, and the learner that trains an autoencoder with them."""

from __future__ import annotations

from typing import Literal

import torch
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn
from torch.nn import functional as F

from medphantom.core.records import Array
from medphantom.generators.autoencoder import Autoencoder
from medphantom.generators.config import ReconstructionConfig
from medphantom.generators.features import FeatureNet, feature_error
from medphantom.generators.training_data import image_tensor
from medphantom.learning.learner import Learner

MOST_VALIDATION_IMAGES = 256
VALIDATION_BATCH = 32
GRID_IMAGES = 8
ADVERSARY_RAMP = 100  # steps over which the adversary's weight rises, so that the decoder is not destabilised


def spectrum_error(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the mean absolute difference of orthonormal Fourier coefficients over the spatial axes; (B, C, *size)."""
    axes = tuple(range(2, images.ndim))
    difference = torch.fft.rfftn(reconstructions.float() - images.float(), dim=axes, norm="ortho")
    return difference.abs().mean()


def kl_divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_var)) || N(0, 1)), summed over a latent, averaged over the batch (Kingma & Welling)."""
    return 0.5 * (mean.square() + log_var.exp() - log_var - 1).flatten(1).sum(1).mean()


def hinge_adversary(real: Tensor, fake: Tensor) -> Tensor:
    """Return a discriminator's loss from its outputs on real and generated patches (Lim & Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def build_adversary(config: ReconstructionConfig, *, spatial_dims: int, image_channels: int, seed: int) -> nn.Module:
    """Return MONAI's patch discriminator with group normalisation, so that each output depends on one image only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = PatchDiscriminator(
            spatial_dims=spatial_dims,
            channels=config.adversary_channels,
            in_channels=image_channels,
            out_channels=1,
            num_layers_d=config.adversary_layers,
            norm=("GROUP", {"num_groups": min(8, config.adversary_channels)}),
        )
    return network


class AutoencoderLearner(Learner):
    """Trains an autoencoder on batches of ``image`` (B, C, *size) in -1…1.

    Args:
        network: Autoencoder that is trained.
        config: Weights of the loss terms.
        steps: Number of steps of the whole fit; the adversary starts at a share of them.
        features: Frozen feature network, if the configuration uses one.
        adversary: Discriminator, if the configuration uses one.
        monitored: Cached images of ``val`` and of an equally large part of ``train``.
    """

    network: Autoencoder

    def __init__(
        self,
        network: Autoencoder,
        config: ReconstructionConfig,
        *,
        steps: int,
        features: FeatureNet | None,
        adversary: nn.Module | None,
        monitored: dict[Literal["val", "train"], Array],
    ) -> None:
        super().__init__(network, adversary)
        self.config = config
        self.features = features
        self.adversary_starts = round(config.adversary_from * steps)
        self.monitored = monitored
        self._fakes: list[tuple[Tensor, Tensor]] = []

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Return every loss term by name, and their weighted sum, see :meth:`Learner.loss`."""
        images = random_crop(batch["image"], self.network.window, generator)
        mean, log_var = self.network.encode(images)
        eps = torch.randn(mean.shape, generator=generator).to(mean.device)
        reconstructions = self.network.decode(mean + torch.exp(log_var / 2) * eps)
        terms = self._errors(images, reconstructions)
        terms["kl"] = kl_divergence(mean, log_var)
        total = self._weighted(terms) + self.config.kl * terms["kl"]
        if self.adversary is not None and self.step >= self.adversary_starts:
            ramp = min(1.0, (self.step - self.adversary_starts + 1) / ADVERSARY_RAMP)
            terms["fooling"] = -self.adversary(reconstructions)[-1].float().mean()
            total = total + self.config.adversary * ramp * terms["fooling"]
            self._fakes.append((images, reconstructions.detach()))
        return {"loss": total, **{name: value.detach() for name, value in terms.items()}}

    def adversary_loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the discriminator's loss on this step's images and reconstructions, see
        :meth:`Learner.adversary_loss`.
        """
        del batch, generator
        if self.adversary is None or not self._fakes:
            return {}
        real, fake = self.adversary(torch.cat(self._fakes.pop(0)))[-1].float().chunk(2)
        return {"loss": hinge_adversary(real, fake)}

    def validate(self, network: nn.Module, split: Literal["val", "train"]) -> dict[str, float]:
        """Return the weighted error of reconstructions from the posterior mean, see :meth:`Learner.validate`."""
        images = self.monitored[split]
        sums: dict[str, float] = {}
        for start in range(0, len(images), VALIDATION_BATCH):
            block = image_tensor(images, slice(start, start + VALIDATION_BATCH)).to(_device(network))
            terms = self._errors(block, network(block)[0])
            terms["loss"] = self._weighted(terms)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(block)
        return {name: value / len(images) for name, value in sums.items()}

    def grid(self, network: nn.Module) -> Tensor:
        """Return validation images, each above its reconstruction (in 3-D: their middle slices)."""
        images = image_tensor(self.monitored["val"], slice(0, GRID_IMAGES)).to(_device(network))
        pairs = torch.stack([images, network(images)[0].to(images)], dim=1).flatten(0, 1)
        return (middle_slice(pairs).clamp(-1, 1) + 1) / 2

    def _errors(self, images: Tensor, reconstructions: Tensor) -> dict[str, Tensor]:
        terms = {"l1": F.l1_loss(reconstructions.float(), images.float())}
        if self.config.spectrum:
            terms["spectrum"] = spectrum_error(images, reconstructions)
        if self.features is not None:
            terms["features"] = feature_error(self.features, images, reconstructions)
        return terms

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        total = self.config.l1 * terms["l1"]
        for name, weight in (("spectrum", self.config.spectrum), ("features", self.config.features)):
            if name in terms:
                total = total + weight * terms[name]
        return total


def random_crop(images: Tensor, window: int | None, generator: torch.Generator) -> Tensor:
    """Return a randomly placed window of each image; images that fit the window are returned whole."""
    sides = images.shape[2:]
    if window is None or max(sides) <= window:
        return images
    found = []
    for image in images:
        crop = image
        for axis, side in enumerate(sides, start=1):
            taken = min(side, window)
            crop = crop.narrow(axis, int(torch.randint(0, side - taken + 1, (1,), generator=generator)), taken)
        found.append(crop)
    return torch.stack(found)


def middle_slice(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) unchanged, and of volumes (N, C, D, H, W) the middle slice along the first axis."""
    return images if images.ndim == 4 else images[:, :, images.shape[2] // 2]


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
