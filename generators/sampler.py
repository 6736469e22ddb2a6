"""Sampling from noise to latents: a plain function over any callable, with the step rules of diffusers' solvers.

Every solver here is deterministic, so an image is a function of its noise; :func:`noise_of` draws the noise from the
image's own seed, so ``sample(seeds)[:2] == sample(seeds[:2])``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medphantom.core.errors import InputError
from medphantom.generators.config import SOLVERS, Objective, Solver
from medphantom.generators.objective import alpha_sigma, time_of

TABLE_STEPS = 1000  # resolution of diffusers' table of noise levels

# Where the few calls of a short path are spent. The libraries' grids leave a quarter of the noise to the last step, or
# spend two of Heun's three calls within a thousandth of the path. With the known denoiser of Gaussian data of spread .4
# (tests/generators/test_sampler.py), four calls gave .50 by Heun's rule and .28 by DPM-Solver++; they give .43 and .36.
DPM_POWER = 1.5  # of evenly spaced values; denser near the image
DPM_FIRST = 0.999  # at 1 there is no signal, and the log of its ratio to the noise is infinite
DPM_LAST = 0.05

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``denoise(x_t, time_B) -> output``: what the network predicts, see :func:`medphantom.generators.objective.target`."""


def noise_of(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return standard normal noise, each image from its own generator, on the CPU so that all devices agree.

    Args:
        seeds: Seeds, one per image.
        shape: Shape of one latent, ``(C, *spatial)``.

    Returns:
        (len(seeds), *shape) float32.
    """
    drawn = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn) if drawn else torch.empty((0, *shape))


def evaluations(solver: Solver, steps: int) -> int:
    """Return how often a run of ``steps`` calls the network; Heun's rule needs two calls per step except the last."""
    return 2 * max(1, (steps + 1) // 2) - 1 if solver == "heun" else steps


def check_solver(objective: Objective, solver: str) -> None:
    """Refuse a solver that is not available for the objective.

    Raises:
        InputError: If it is not; the message names the available solvers.
    """
    known = SOLVERS[objective.kind]
    if solver not in known:
        raise InputError(
            f"sampler.solver {solver!r} does not fit the objective {objective.kind!r}",
            f"choose one of {', '.join(known)}",
        )


def make_solver(objective: Objective, solver: Solver, steps: int) -> Any:
    """Return the diffusers scheduler with its noise levels set.

    Args:
        objective: Objective on which the network was trained.
        solver: Solver: ``heun`` (Heun's 2nd-order rule; Karras et al. 2022, algorithm 1), ``dpmpp_2m`` (DPM-Solver++
            2M; Lu et al. 2022), ``euler``, or ``ddim`` (Song et al. 2021: the first-order DPM-Solver++).
        steps: Largest number of network calls.

    Raises:
        InputError: If the solver is not available for the objective.
    """
    check_solver(objective, solver)
    from diffusers import (  # takes seconds to load, which what does not sample does not need
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        FlowMatchHeunDiscreteScheduler,
    )

    if solver == "euler":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=objective.shift)
        # the library's own grid spends a step on t = 1/1000, which is useless for a first-order rule: even steps to 0
        scheduler.set_timesteps(sigmas=list(np.linspace(1, 1 / steps, steps)))
    elif solver == "heun":
        scheduler = FlowMatchHeunDiscreteScheduler(shift=objective.shift)
        corners = max(1, (steps + 1) // 2)
        scheduler.set_timesteps(corners)
        sigmas = _spread(1.0, 1 / steps, corners, objective)
        _replace_grid(scheduler, torch.cat([sigmas[:1], sigmas[1:].repeat_interleave(2)]))
    elif objective.kind == "flow":
        scheduler = DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=objective.shift
        )
        scheduler.set_timesteps(steps)
        last = min(DPM_LAST, 1 / steps)
        _replace_grid(scheduler, _spread(DPM_FIRST, last, steps, objective, power=DPM_POWER))
    else:
        scheduler = DPMSolverMultistepScheduler(
            trained_betas=_betas(objective),
            prediction_type="v_prediction" if objective.table is None else objective.table.prediction,
            solver_order=1 if solver == "ddim" else 2,
        )
        scheduler.set_timesteps(steps)
    return scheduler


def _spread(first: float, last: float, total: int, objective: Objective, *, power: float = 1.0) -> Tensor:
    """Return ``total`` noise levels of the flow path from ``first`` to ``last``, whose times are evenly spaced.

    Args:
        first: First noise level sigma.
        last: Last noise level before 0.
        total: Number of levels; of a single one, ``first`` is left.
        objective: Objective, whose shift moves the levels between.
        power: Power of evenly spaced values that the times are; above 1, they are denser near the image.
    """
    ends = [time_of(objective, 1 - sigma, sigma) ** (1 / power) for sigma in (first, last)]
    times = torch.linspace(ends[0], ends[1], total) ** power
    return objective.shift * times / (1 + (objective.shift - 1) * times)


def _replace_grid(scheduler: Any, sigmas: Tensor) -> None:
    """Give a solver other noise levels, each with its call, before 0."""
    scheduler.sigmas = torch.cat([sigmas, torch.zeros(1)])
    scheduler.timesteps = sigmas * scheduler.config.num_train_timesteps


def _betas(objective: Objective) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the path as diffusers' table of betas: alpha_bar_k / alpha_bar_(k-1) = 1 - beta_k."""
    times = torch.arange(1, TABLE_STEPS + 1, dtype=torch.float64) / TABLE_STEPS
    # the last entry would have no signal at all, and an infinite noise-to-signal ratio
    if objective.table is None:
        times = times.clamp(max=1 - 0.5 / TABLE_STEPS)
    alpha_bar = alpha_sigma(objective, times)[0].numpy() ** 2
    betas: np.ndarray[Any, np.dtype[np.float64]] = 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])
    return betas


def sample(
    denoise: Denoise,
    noise: Tensor,
    *,
    objective: Objective,
    solver: Solver = "heun",
    steps: int = 20,
    drift: float = 0.0,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Integrate the probability-flow equation from noise to latents.

    Args:
        denoise: Network, with any condition and guidance, as a function of (x_t, time_B).
        noise: Standard normal noise, (B, C, *spatial).
        objective: Objective on which the network was trained.
        solver: Name of the solver, see :func:`make_solver`.
        steps: Largest number of network calls.
        drift: δ of Latent Drifting (Yeganeh et al. 2024), by which the mean of every step is shifted.
        callback: Callback, called as ``callback(calls, x_t)`` after each step.

    Returns:
        Latents (B, C, *spatial), float32, on the device of ``noise``.
    """
    scheduler = make_solver(objective, solver, steps)
    scheduler.set_begin_index(0)  # steps are counted instead of looked up, since rounded time steps may repeat
    x_t = noise.float()
    for calls, step in enumerate(scheduler.timesteps):
        level = float(scheduler.sigmas[scheduler.step_index or 0])
        time_B = torch.full((len(x_t),), _time_at(objective, level), device=x_t.device)
        x_t = scheduler.step(denoise(x_t, time_B), step, x_t, return_dict=False)[0] + drift
        if callback is not None:
            callback(calls + 1, x_t)
    return x_t


def _time_at(objective: Objective, level: float) -> float:
    """Return the time of a solver's noise level: sigma on the flow path, sigma/alpha on the cosine path."""
    if objective.kind == "flow":
        return time_of(objective, 1 - level, level)
    norm = math.hypot(1, level)
    return time_of(objective, 1 / norm, level / norm)
