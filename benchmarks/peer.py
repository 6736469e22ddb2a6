"""The same trained networks behind the interfaces that MONAI's latent-diffusion loop expects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medphantom.conditioning.encoder import Conditions
from medphantom.generators.autoencoder import Autoencoder, space_to_depth
from medphantom.generators.denoiser import Denoiser
from medphantom.generators.facts import LatentScaling
from medphantom.generators.latents import scaled, unscaled


class PeerAutoencoder(nn.Module):
    """Our autoencoder as ``LatentDiffusionInferer`` calls it, in torch's default memory layout.

    Scaling is done here, so the inferer's ``scale_factor`` stays 1.
    """

    def __init__(self, autoencoder: Autoencoder, scaling: LatentScaling) -> None:
        super().__init__()
        self.autoencoder, self.scaling = autoencoder.to(memory_format=torch.contiguous_format), scaling

    def encode_stage_2_inputs(self, images: Tensor) -> Tensor:
        """A drawn latent."""
        mean, std = self.autoencoder.net.encode(space_to_depth(images, self.autoencoder.patch))
        if self.autoencoder.shortcut is not None:
            mean = mean + self.autoencoder.shortcut.down(images)
        return scaled(mean + std * torch.randn_like(mean), self.scaling)

    def decode_stage_2_outputs(self, latents: Tensor) -> Tensor:
        """Images."""
        return self.autoencoder.decode(unscaled(latents, self.scaling))


class PeerDenoiser(nn.Module):
    """Our denoiser in torch's default memory layout, conditioned by ``context``: (B, T, D) tokens.

    Args:
        denoiser: trained on the straight path ``x = (1 - t) x0 + t eps``.
        alpha_bar: table of MONAI's scheduler; its inputs ``sqrt(ab) x0 + sqrt(1 - ab) eps`` are brought to the straight
            path by their noise-to-signal ratio, and the answer is turned into the noise that the scheduler expects.
            ``None``: times and outputs are used as they are (training speed does not depend on them).
    """

    def __init__(self, denoiser: Denoiser, alpha_bar: Tensor | None = None) -> None:
        super().__init__()
        self.denoiser, self.alpha_bar = denoiser.to(memory_format=torch.contiguous_format), alpha_bar

    def tokens(self, conditions: Conditions) -> Tensor:
        """What MONAI's loop passes on as ``context``."""
        context: Tensor = self.denoiser.conditioning["encoder"](conditions)[0]
        return context

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """As ``DiffusionModelUNet``."""
        if self.alpha_bar is None:
            return self._answer(x, timesteps / 1000, context)
        alpha_bar = self.alpha_bar[timesteps.long()].reshape(-1, *[1] * (x.ndim - 1))
        ratio = torch.sqrt((1 - alpha_bar) / alpha_bar)
        time = ratio / (1 + ratio)
        straight = x * (1 - time) / torch.sqrt(alpha_bar)
        velocity = self._answer(straight, time.flatten().expand(len(x)), context)
        return straight + (1 - time) * velocity  # eps = x0 + velocity, x0 = straight - time * velocity

    def _answer(self, x: Tensor, time_B: Tensor, context: Tensor) -> Tensor:
        parts = self.denoiser.conditioning
        pooled = parts["to_time"](parts["encoder"].pool(context.mean(dim=1)))
        output: Tensor = self.denoiser.net(x, timesteps=1000 * time_B, context=context, class_labels=pooled)
        return output
