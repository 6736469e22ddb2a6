"""Training objectives: noise schedules, regression targets and the choice of training times, as pure functions.

All objectives mix a clean latent ``x0`` and noise ``eps`` as ``x_t = alpha(t) x0 + sigma(t) eps`` for t in (0, 1]:

==============  ===================  ====================  =========================================================
objective       alpha, sigma         target                source
==============  ===================  ====================  =========================================================
``flow``        1 - t, t             eps - x0              Lipman et al. 2023; Liu et al. 2023; Esser et al. 2024
``v``           cos, sin of pi t/2   alpha eps - sigma x0  Salimans & Ho 2022, appendix D; Nichol & Dhariwal 2021
``ddpm``        a table's            eps, or that of v     Ho et al. 2020, equation 4; Rombach et al. 2022
==============  ===================  ====================  =========================================================

``flow`` is the default: its paths are straight, so that few solver steps suffice (rectified flow), its target has the
same scale at all times, so that no loss weight needs tuning, and logit-normal times spend the training on the middle of
the path, where the error is (Esser et al. 2024, section 3.1 and table 1: best of 61 formulations).

A table of T levels has level k = 0 … T - 1 at time (k + 1) / T; between them log(alpha / sigma) is interpolated, so
that networks trained on levels can be followed along a path.

Shapes: B batch, ``*`` any further axes. ``time_B`` is in (0, 1]; 1 is pure noise.
"""

from __future__ import annotations

import bisect
import math
from functools import lru_cache

import torch
from torch import Tensor

from medphantom.generators.config import NoiseTable, Objective

SMALLEST_TIME = 1e-4  # below it, x_t differs from x0 by less than float32 rounding of the targets
LARGEST_COSINE_TIME = 0.9999  # alpha stays > 0, so that sigma/alpha stays finite
LEVEL_ROUNDING = 1e-3  # a float32 time of a level is this close to it


def alpha_sigma(objective: Objective, time_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of data and noise at the given times.

    Args:
        objective: Objective that defines the path.
        time_B: Times (B,) in (0, 1].

    Returns:
        Alpha (B,), sigma (B,), both in [0, 1].
    """
    if objective.kind == "flow":
        # Esser et al. 2024, equation 23: t' = s t / (1 + (s - 1) t), which multiplies t / (1 - t) by s
        sigma = objective.shift * time_B / (1 + (objective.shift - 1) * time_B)
        return 1 - sigma, sigma
    if objective.table is not None:
        return _of_table(objective.table, time_B)
    angle = math.pi / 2 * time_B.clamp(max=LARGEST_COSINE_TIME)
    angle = torch.atan(objective.shift * torch.tan(angle))
    return torch.cos(angle), torch.sin(angle)


def time_of(objective: Objective, alpha: float, sigma: float) -> float:
    """Invert :func:`alpha_sigma`: return the time at which the path has this noise-to-signal ratio."""
    if objective.kind == "flow":
        noise = sigma / (alpha + sigma)
        return noise / (objective.shift - (objective.shift - 1) * noise)
    if objective.table is not None:
        return _time_in_table(objective.table, alpha, sigma)
    return math.atan2(sigma, alpha * objective.shift) * 2 / math.pi


@lru_cache(maxsize=8)
def _log_ratios(table: NoiseTable) -> Tensor:
    """Return log(alpha / sigma) of each level, descending; (T,) float64."""
    from diffusers import DDPMScheduler  # takes seconds to load, which most fits do not need

    scheduler = DDPMScheduler(
        num_train_timesteps=table.steps, beta_schedule=table.schedule, beta_start=table.start, beta_end=table.end
    )
    alpha_bar = scheduler.alphas_cumprod.double()
    return 0.5 * torch.log(alpha_bar / (1 - alpha_bar))


def level_of(steps: int, time_B: Tensor) -> Tensor:
    """Return the level in a table of ``steps`` at the given times, as networks take it: from 0, rounded if near one."""
    return _levels(steps, time_B).clamp_min(0).to(time_B.dtype)


def _levels(steps: int, time_B: Tensor) -> Tensor:
    levels = steps * time_B.double() - 1
    return torch.where((levels - levels.round()).abs() < LEVEL_ROUNDING, levels.round(), levels)


def _of_table(table: NoiseTable, time_B: Tensor) -> tuple[Tensor, Tensor]:
    ratios = _log_ratios(table).to(time_B.device)
    levels = _levels(table.steps, time_B)
    below = levels.floor().clamp(0, table.steps - 2).long()
    ratio = torch.lerp(ratios[below], ratios[below + 1], (levels - below).clamp(0, 1))
    alpha, sigma = torch.sigmoid(2 * ratio).sqrt(), torch.sigmoid(-2 * ratio).sqrt()
    # before the first level the noise falls to nothing, so that a path can end at the data
    early = levels < 0
    sigma = torch.where(early, sigma * (levels + 1).clamp_min(0), sigma)
    alpha = torch.where(early, (1 - sigma.square()).sqrt(), alpha)
    return alpha.to(time_B.dtype), sigma.to(time_B.dtype)


def _time_in_table(table: NoiseTable, alpha: float, sigma: float) -> float:
    ratios = _log_ratios(table).tolist()
    first = math.sqrt(1 / (1 + math.exp(2 * ratios[0])))
    if sigma <= first:
        return sigma / first / table.steps
    ratio = math.log(alpha / sigma)
    above = min(bisect.bisect_left(ratios, -ratio, key=lambda value: -value), table.steps - 1)
    before, after = ratios[above - 1], ratios[above]
    level = above - 1 + (before - max(ratio, after)) / (before - after)
    return (level + 1) / table.steps


def _predicts_noise(objective: Objective) -> bool:
    return objective.table is not None and objective.table.prediction == "epsilon"


def _expand(values_B: Tensor, like: Tensor) -> Tensor:
    return values_B.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)


def add_noise(objective: Objective, x0: Tensor, eps: Tensor, time_B: Tensor) -> Tensor:
    """Return ``x_t = alpha x0 + sigma eps``; tensors (B, *)."""
    alpha, sigma = alpha_sigma(objective, time_B)
    return _expand(alpha, x0) * x0 + _expand(sigma, x0) * eps


def target(objective: Objective, x0: Tensor, eps: Tensor, time_B: Tensor) -> Tensor:
    """Return the regression target for ``x_t``; tensors (B, *)."""
    if objective.kind == "flow":
        return eps - x0
    if _predicts_noise(objective):
        return eps
    alpha, sigma = alpha_sigma(objective, time_B)
    return _expand(alpha, x0) * eps - _expand(sigma, x0) * x0


def denoised(objective: Objective, x_t: Tensor, output: Tensor, time_B: Tensor) -> Tensor:
    """Return the estimate of ``x0`` that corresponds to a network output; tensors (B, *)."""
    alpha, sigma = alpha_sigma(objective, time_B)
    if objective.kind == "flow":
        return x_t - _expand(sigma, x_t) * output
    if _predicts_noise(objective):
        return (x_t - _expand(sigma, x_t) * output) / _expand(alpha, x_t)
    return _expand(alpha, x_t) * x_t - _expand(sigma, x_t) * output


def output_for(objective: Objective, x_t: Tensor, x0: Tensor, time_B: Tensor) -> Tensor:
    """Invert :func:`denoised`: return the output that corresponds to the estimate ``x0``; tensors (B, *)."""
    alpha, sigma = alpha_sigma(objective, time_B)
    eps = (x_t - _expand(alpha, x_t) * x0) / _expand(sigma, x_t)
    return target(objective, x0, eps, time_B)


def training_times(objective: Objective, total: int, generator: torch.Generator) -> Tensor:
    """Return times for one batch, stratified over the distribution (Kingma et al. 2021, appendix I.1) for a stable
    loss.

    Args:
        objective: Objective that defines the distribution.
        total: Number of times, the batch size.
        generator: Random generator on the CPU.

    Returns:
        (total,) float32 in (0, 1), in random order.
    """
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    uniform = (torch.arange(total, dtype=torch.float64) / total + offset) % 1
    uniform = uniform[torch.randperm(total, generator=generator)]
    return _quantile(objective, uniform)


def validation_times(objective: Objective, total: int) -> Tensor:
    """Return fixed times at the quantiles (i + 1/2) / total of the training distribution; (total,) float32."""
    return _quantile(objective, (torch.arange(total, dtype=torch.float64) + 0.5) / total)


def _quantile(objective: Objective, uniform: Tensor) -> Tensor:
    if objective.times == "uniform":
        times = uniform
    else:
        normal = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))
        times = torch.sigmoid(objective.times_mean + objective.times_std * normal)
    if objective.table is not None:
        return ((times * objective.table.steps).ceil().clamp_min(1) / objective.table.steps).float()
    return times.clamp(SMALLEST_TIME, 1 - SMALLEST_TIME).float()


def velocity_loss(output: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error per image: (B, *) and (B, *) give (B,)."""
    return (output.float() - wanted.float()).square().flatten(1).mean(1)
