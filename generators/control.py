"""Masks for a generator that is trained already: MONAI's ControlNet beside the frozen network (Zhang et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import ControlNet
from torch import Tensor, nn
from torch.nn import functional as F

Residuals = tuple[tuple[Tensor, ...], Tensor]


class MaskControl(nn.Module):
    """What a mask adds to the skip connections and the middle of a denoiser; nothing before it has learned.

    Args:
        arguments: of the denoiser's ``DiffusionModelUNet``.
        total_values: how many values a mask may hold.
        channels: of the layers that bring masks to the latent's grid, one more than there are halvings.
    """

    def __init__(self, arguments: dict[str, Any], total_values: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.total_planes = 1 + total_values  # the first one says that there is no mask
        self.net = ControlNet(
            **{key: value for key, value in arguments.items() if key not in {"out_channels", "dropout_cattn"}},
            conditioning_embedding_in_channels=self.total_planes,
            conditioning_embedding_num_channels=tuple(channels),
        )
        self.net.num_class_embeds = 1
        self.net.class_embedding = nn.Identity()

    def begin_as(self, denoiser: nn.Module) -> None:
        """Take the weights of the denoiser that it will stand beside."""
        found = self.net.load_state_dict(denoiser.state_dict(), strict=False)
        own = ("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block.")
        assert all(name.startswith(own) for name in found.missing_keys)  # noqa: S101 - made of the same arguments

    def forward(
        self, x_t: Tensor, timesteps: Tensor, masks: Tensor, context: Tensor | None, beside_time: Tensor
    ) -> Residuals:
        """Residuals of the skip connections, and of the middle.

        Args:
            x_t: noisy latents ``(B, C, *latent)``.
            timesteps: as the denoiser takes them, ``(B,)``.
            masks: numbers ``(B, *size)`` from :func:`medphantom.conditioning.masks.mask_numbers`.
            context: tokens of the other conditions, where the denoiser attends to them.
            beside_time: what those say beside the time.
        """
        planes = F.one_hot(masks.long(), self.total_planes).movedim(-1, 1).float()
        shown = (masks != 0).flatten(1).any(dim=1).to(x_t.dtype)
        down, middle = self.net(
            x=x_t, timesteps=timesteps, controlnet_cond=planes, context=context, class_labels=beside_time
        )
        # without a mask the generator is what it was
        weights = shown.reshape(-1, *[1] * (x_t.ndim - 1))
        return tuple(weights * part for part in down), weights * middle


def embedding_channels(halvings: int) -> tuple[int, ...]:
    """Channels of the layers that bring masks to the latent's grid."""
    return tuple(min(16 * 2**level, 96) for level in range(halvings + 1))
