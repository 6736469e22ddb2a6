"""Masks for an already trained generator: MONAI's ControlNet added to the frozen network (Zhang et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import ControlNet
from torch import Tensor, nn
from torch.nn import functional as F

Residuals = tuple[tuple[Tensor, ...], Tensor]


class MaskControl(nn.Module):
    """Residuals that a mask adds to the skip connections and the middle block of a denoiser; zero before training.

    Args:
        arguments: Keyword arguments of the denoiser's ``DiffusionModelUNet``.
        total_values: Number of values that a mask may have.
        channels: Channels of the layers that reduce masks to the latent's grid, one more than there are halvings.
    """

    def __init__(self, arguments: dict[str, Any], total_values: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.total_planes = 1 + total_values  # the first one marks a missing mask
        self.net = ControlNet(
            **{key: value for key, value in arguments.items() if key not in {"out_channels", "dropout_cattn"}},
            conditioning_embedding_in_channels=self.total_planes,
            conditioning_embedding_num_channels=tuple(channels),
        )
        self.net.num_class_embeds = 1
        self.net.class_embedding = nn.Identity()

    def begin_as(self, denoiser: nn.Module) -> None:
        """Copy the weights of the denoiser to which it will be added."""
        found = self.net.load_state_dict(denoiser.state_dict(), strict=False)
        own = ("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block.")
        assert all(name.startswith(own) for name in found.missing_keys)  # noqa: S101 - made of the same arguments

    def forward(
        self, x_t: Tensor, timesteps: Tensor, masks: Tensor, context: Tensor | None, beside_time: Tensor
    ) -> Residuals:
        """Return residuals of the skip connections and of the middle block.

        Args:
            x_t: Noisy latents ``(B, C, *latent)``.
            timesteps: Times in the denoiser's units, ``(B,)``.
            masks: Mask numbers ``(B, *size)`` from :func:`medphantom.conditioning.masks.mask_numbers`.
            context: Tokens of the other conditions, if the denoiser attends to them.
            beside_time: Pooled embedding of those conditions, which is added to the time embedding.
        """
        planes = F.one_hot(masks.long(), self.total_planes).movedim(-1, 1).float()
        shown = (masks != 0).flatten(1).any(dim=1).to(x_t.dtype)
        down, middle = self.net(
            x=x_t, timesteps=timesteps, controlnet_cond=planes, context=context, class_labels=beside_time
        )
        # without a mask the generator is unchanged
        weights = shown.reshape(-1, *[1] * (x_t.ndim - 1))
        return tuple(weights * part for part in down), weights * middle


def embedding_channels(halvings: int) -> tuple[int, ...]:
    """Return the channels of the layers that reduce masks to the latent's grid."""
    return tuple(min(16 * 2**level, 96) for level in range(halvings + 1))
