"""Inversion against closed forms: data from one Gaussian, for which the best denoiser is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medphantom.core.errors import InputError
from medphantom.generators.config import Objective
from medphantom.generators.inversion import Denoise, ddim_step, follow, invert, time_grid
from medphantom.generators.objective import alpha_sigma, output_for

MEAN, STD = 0.7, 0.5
OBJECTIVES = [Objective(), Objective(shift=2.0), Objective(kind="v")]


def gaussian(objective: Objective) -> Denoise:
    """The best output for data from N(MEAN, STD²)."""

    def denoise(x_t: Tensor, time_B: Tensor) -> Tensor:
        alpha, sigma = (part.reshape(-1, *[1] * (x_t.ndim - 1)) for part in alpha_sigma(objective, time_B))
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * MEAN)
        return output_for(objective, x_t, x0, time_B)

    return denoise


def data(seed: int = 0) -> Tensor:
    return MEAN + STD * torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_there_and_back_is_exact_where_plain_inversion_is_not(objective: Objective) -> None:
    step, times, x = ddim_step(gaussian(objective), objective), time_grid(20, 0.9), data().float()
    exact = follow(step, invert(step, x, times, iterations=20), times)
    plain = follow(step, invert(step, x, times, iterations=1), times)
    assert float((exact - x).abs().max()) < 1e-4
    assert float((plain - x).abs().max()) > 1e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_iteration_gains(objective: Objective) -> None:
    step, times, x = ddim_step(gaussian(objective), objective), time_grid(20, 0.9), data().float()
    errors = [
        float((follow(step, invert(step, x, times, iterations=count), times) - x).abs().max()) for count in (1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 50


def test_many_steps_take_data_to_standard_normal_noise() -> None:
    """On the Gaussian path the flow is affine: z ↦ (x - MEAN) / STD is where the exact equation ends."""
    objective = Objective()
    step, times, x = ddim_step(gaussian(objective), objective), time_grid(400), data().float()
    noise = invert(step, x, times, iterations=4)
    assert float((noise - (x - MEAN) / STD).abs().max()) < 0.05


def test_drift_moves_the_end_of_the_path_and_no_drift_does_not() -> None:
    objective = Objective()
    times, x = time_grid(10, 0.8), data().float()
    plain = follow(ddim_step(gaussian(objective), objective), x, times)
    still = follow(ddim_step(gaussian(objective), objective, drift=0.0), x, times)
    moved = follow(ddim_step(gaussian(objective), objective, drift=0.05), x, times)
    assert torch.equal(plain, still)
    assert bool((moved > plain).all())


def test_the_grid_of_times() -> None:
    assert time_grid(4, 0.8) == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    for steps, strength in ((0, 0.5), (4, 0.0), (4, 1.1)):
        with pytest.raises(InputError, match="a path needs"):
            time_grid(steps, strength)
    with pytest.raises(InputError, match="iterations ≥ 1"):
        invert(lambda x, t, s: x, torch.zeros(1, 1), [1.0, 0.0], iterations=0)
