"""Classifier-free guidance: a denoiser that amplifies the effect of the prompt."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medphantom.conditioning.encoder import Conditions
from medphantom.core.errors import InputError

ConditionalDenoiser = Callable[[Tensor, Tensor, Conditions], Tensor]
Denoiser = Callable[[Tensor, Tensor], Tensor]


def guided(
    denoise: ConditionalDenoiser,
    conditions: Conditions,
    *,
    scale: float,
    interval: tuple[float, float] | None = None,
) -> Denoiser:
    """Return a denoiser with its conditions bound and guided by ``scale``.

    ``D_w(x, t) = D(x, t, null) + w · (D(x, t, c) - D(x, t, null))`` (Ho & Salimans 2022, equation 6, with w = 1 + their
    w). It holds for any prediction that is linear in the network's output: noise, v, velocity, or the clean image.

    Args:
        denoise: Function ``(x_B…, t_B, conditions) → prediction_B…``.
        conditions: Conditions of each of the B images.
        scale: Guidance scale w; 1 is the conditional model in one pass; 0 the unconditional model in one pass; above 1
            the condition is amplified, with both halves in one call of twice the batch.
        interval: Times ``(low, high)``, both included, between which to guide; elsewhere w = 1 (Kynkäänniemi et al.
            2024: guidance at high noise reduces diversity, and at low noise it has no effect). ``None`` means at all
            times.

    Returns:
        Function ``(x_B…, t_B) → prediction_B…``.

    Raises:
        InputError: If the scale is negative, or the interval is not ordered.
    """
    if not scale >= 0:
        raise InputError(f"sampler.guidance must be ≥ 0, got {scale}")
    if interval is not None and not interval[0] <= interval[1]:
        raise InputError(f"sampler.guidance_interval must be in the order low, high, got {interval}")
    null = conditions.all_missing()
    both = conditions.joined(null)

    def guided_denoise(x: Tensor, t: Tensor) -> Tensor:
        if len(t) != len(x) or len(x) != len(conditions):
            raise InputError(
                f"guidance needs one time and one prompt per image, got {len(x)}, {len(t)}, {len(conditions)}"
            )
        if interval is None:  # known without a look at tensors, for which an accelerator would have to be waited for
            weights, ones, zeros = torch.full_like(t, scale, dtype=x.dtype), scale == 1, scale == 0
        else:
            inside = (t >= interval[0]) & (t <= interval[1])
            weights = torch.where(inside, scale, 1.0).to(x.dtype)
            ones, zeros = bool((weights == 1).all()), bool((weights == 0).all())
        if ones:
            return denoise(x, t, conditions)
        if zeros:
            return denoise(x, t, null)
        shown, empty = denoise(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return empty + weights.reshape(-1, *[1] * (x.ndim - 1)) * (shown - empty)

    return guided_denoise
