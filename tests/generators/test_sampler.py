"""For Gaussian data the best possible denoiser is known, and with it where every solver must arrive."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medphantom.core.errors import InputError
from medphantom.generators.config import SOLVERS, NoiseTable, Objective
from medphantom.generators.objective import alpha_sigma, output_for
from medphantom.generators.sampler import evaluations, noise_of, sample

MEAN, STD = 0.7, 0.5
# relative error of the standard deviation allowed at 10 and at 20 calls; first-order rules halve theirs
TOLERANCE = {
    ("flow", "heun"): (0.02, 0.01),
    ("flow", "dpmpp_2m"): (0.02, 0.005),
    ("flow", "euler"): (0.15, 0.08),
    ("v", "dpmpp_2m"): (0.05, 0.005),
    ("v", "ddim"): (0.15, 0.08),
    ("ddpm", "dpmpp_2m"): (0.2, 0.09),  # evenly spaced levels leave much noise to the last step
    ("ddpm", "ddim"): (0.25, 0.14),
}
PAIRS = [(kind, solver) for kind, solvers in SOLVERS.items() for solver in solvers]


def objective_of(kind: str) -> Objective:
    """The objective of a kind; levels as Stable Diffusion's, which end with a trace of the data."""
    return Objective(kind=kind, table=NoiseTable(prediction="v_prediction") if kind == "ddpm" else None)


def best_denoiser(objective: Objective, std: float = STD):
    """E[x0 | x_t] for x0 ~ N(MEAN, std²): the posterior mean of two Gaussians."""

    def denoise(x_t: Tensor, time_B: Tensor) -> Tensor:
        alpha, sigma = (value.reshape(-1, *[1] * (x_t.ndim - 1)) for value in alpha_sigma(objective, time_B))
        gain = std**2 * alpha / (alpha**2 * std**2 + sigma**2)
        return output_for(objective, x_t, MEAN + gain * (x_t - alpha * MEAN), time_B)

    return denoise


# Least and largest share of the spread .4 that few calls on the flow path may arrive at.
FEW_CALLS = {
    ("heun", 4): (1.0, 1.1),
    ("heun", 6): (0.98, 1.05),
    ("heun", 10): (0.99, 1.01),
    ("dpmpp_2m", 4): (0.85, 1.0),
    ("dpmpp_2m", 6): (0.98, 1.05),
    ("dpmpp_2m", 10): (0.98, 1.02),
}


def arrived(objective: Objective, solver: str, steps: int, std: float = STD) -> tuple[float, float]:
    """Mean and standard deviation of samples: the solvers are affine here, so two noises tell both exactly."""
    noise = torch.tensor([[[[-1.0]]], [[[1.0]]]])
    denoise = best_denoiser(objective, std)
    low, high = sample(denoise, noise, objective=objective, solver=solver, steps=steps).flatten()
    return float(low + high) / 2, float(high - low) / 2


def test_every_pair_has_a_tolerance() -> None:
    assert set(PAIRS) == set(TOLERANCE)


@pytest.mark.parametrize(("kind", "solver"), PAIRS)
def test_gaussian_data_comes_out(kind: str, solver: str) -> None:
    for steps, tolerance in zip((10, 20), TOLERANCE[kind, solver], strict=True):
        mean, std = arrived(objective_of(kind), solver, steps)
        # a table that ends with a trace of the data begins with noise that lacks it
        assert mean == pytest.approx(MEAN, abs=0.04 if kind == "ddpm" else 1e-3)
        assert std == pytest.approx(STD, rel=tolerance)


@pytest.mark.parametrize(("solver", "steps"), FEW_CALLS)
def test_few_calls_are_spent_where_they_count(solver: str, steps: int) -> None:
    least, largest = FEW_CALLS[solver, steps]
    assert least <= arrived(Objective(), solver, steps, std=0.4)[1] / 0.4 <= largest


@pytest.mark.parametrize(("kind", "solver"), [pair for pair in PAIRS if pair[0] != "ddpm"])
@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_gaussian_data_comes_out_of_shifted_paths_with_enough_steps(kind: str, solver: str, shift: float) -> None:
    mean, std = arrived(Objective(kind=kind, shift=shift), solver, 80)
    assert mean == pytest.approx(MEAN, abs=2e-3)
    assert std == pytest.approx(STD, rel=0.04)


def test_a_cloud_of_samples_has_the_right_moments() -> None:
    noise = noise_of(range(4000), (1, 1, 1))
    drawn = sample(best_denoiser(Objective()), noise, objective=Objective(), steps=20)
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=3 * STD / 4000**0.5)
    assert float(drawn.std()) == pytest.approx(STD, rel=0.04)


@pytest.mark.parametrize(("kind", "solver"), PAIRS)
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_calls_are_counted_and_never_exceed_the_steps(kind: str, solver: str, steps: int) -> None:
    objective, times = objective_of(kind), []

    def denoise(x_t: Tensor, time_B: Tensor) -> Tensor:
        times.append(float(time_B[0]))
        return best_denoiser(objective)(x_t, time_B)

    sample(denoise, torch.zeros(1, 1, 2, 2), objective=objective, solver=solver, steps=steps)
    assert len(times) == evaluations(solver, steps) <= steps
    assert times[0] > 0.99
    assert all(0 < time <= 1 for time in times)
    assert sorted(times, reverse=True) == times


def test_noise_belongs_to_its_seed() -> None:
    seeds = [5, 9, 5, 2**62]
    noise = noise_of(seeds, (4, 3, 3))
    assert torch.equal(noise[:2], noise_of(seeds[:2], (4, 3, 3)))
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert noise_of([], (4, 3)).shape == (0, 4, 3)


def test_samples_belong_to_their_noise() -> None:
    noise = noise_of([1, 2, 3], (1, 4, 4))
    whole = sample(best_denoiser(Objective()), noise, objective=Objective(), steps=6)
    assert torch.equal(whole[:2], sample(best_denoiser(Objective()), noise[:2], objective=Objective(), steps=6))


def test_a_solver_of_another_objective_is_refused() -> None:
    with pytest.raises(InputError, match=r"'ddim' does not fit the objective 'flow'; choose one of heun"):
        sample(best_denoiser(Objective()), torch.zeros(1, 1, 1, 1), objective=Objective(), solver="ddim")


def test_a_drift_moves_the_mean_of_every_step() -> None:
    """Latent Drifting: a network that says nothing leaves noise and as many drifts as there are steps."""
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = sample(lambda x, _: torch.zeros_like(x), noise, objective=Objective(), solver="euler", steps=7, drift=0.05)
    torch.testing.assert_close(drawn, noise + 7 * 0.05)
