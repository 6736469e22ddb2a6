from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from medphantom.generators.config import NoiseTable, Objective
from medphantom.generators.objective import (
    add_noise,
    alpha_sigma,
    denoised,
    output_for,
    target,
    time_of,
    training_times,
    validation_times,
)

OBJECTIVES = [
    Objective(kind="flow"),
    Objective(kind="flow", shift=3.0),
    Objective(kind="v", times="uniform"),
    Objective(kind="v", shift=0.5),
    Objective(kind="ddpm", table=NoiseTable(), times="uniform"),
    Objective(kind="ddpm", table=NoiseTable(schedule="linear", start=1e-4, end=0.02, prediction="v_prediction")),
]
TIMES = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_paths_run_from_data_to_noise_and_know_their_time(objective: Objective) -> None:
    alpha, sigma = alpha_sigma(objective, TIMES)
    assert bool((alpha.diff() < 0).all() and (sigma.diff() > 0).all())
    if objective.kind == "flow":
        torch.testing.assert_close(alpha + sigma, torch.ones_like(alpha))
    else:
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    found = [time_of(objective, float(a), float(s)) for a, s in zip(alpha, sigma, strict=True)]
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), TIMES)


@pytest.mark.parametrize("kind", ["flow", "v"])
def test_shift_multiplies_the_noise_to_signal_ratio(kind: str) -> None:
    alpha, sigma = alpha_sigma(Objective(kind=kind), TIMES)
    shifted_alpha, shifted_sigma = alpha_sigma(Objective(kind=kind, shift=3.0), TIMES)
    torch.testing.assert_close(shifted_sigma / shifted_alpha, 3 * sigma / alpha)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_a_perfect_output_gives_back_the_data(objective: Objective) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 50, 3, 4, dtype=torch.float64, generator=generator)
    x_t = add_noise(objective, x0, eps, TIMES)
    output = target(objective, x0, eps, TIMES)
    torch.testing.assert_close(denoised(objective, x_t, output, TIMES), x0)
    torch.testing.assert_close(output_for(objective, x_t, x0, TIMES), output)


def test_targets_are_those_of_the_papers() -> None:
    x0, eps, time = torch.tensor([[2.0]]), torch.tensor([[0.5]]), torch.tensor([1 / 3])
    # Liu et al. 2023: the straight path's velocity; Salimans & Ho 2022: v = alpha eps - sigma x0 at 30 degrees
    assert target(Objective(kind="flow"), x0, eps, time).item() == pytest.approx(-1.5)
    assert target(Objective(kind="v"), x0, eps, time).item() == pytest.approx(0.75**0.5 * 0.5 - 0.5 * 2.0)


def test_logit_normal_times_have_the_given_location_and_scale() -> None:
    objective = Objective(times="logit_normal", times_mean=0.4, times_std=0.8)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([training_times(objective, 64, generator) for _ in range(200)])
    logits = torch.logit(drawn.double())
    assert float(logits.mean()) == pytest.approx(0.4, abs=0.01)
    assert float(logits.std()) == pytest.approx(0.8, abs=0.01)


def test_times_of_a_batch_cover_the_distribution_evenly_in_random_order() -> None:
    objective = Objective(times="uniform")
    first = training_times(objective, 16, torch.Generator().manual_seed(1))
    gaps = first.sort().values.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 16), atol=1e-5, rtol=0)
    assert not torch.equal(first, first.sort().values)
    assert torch.equal(first, training_times(objective, 16, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, training_times(objective, 16, torch.Generator().manual_seed(2)))


def test_validation_times_are_quantiles() -> None:
    uniform = validation_times(Objective(times="uniform"), 4)
    torch.testing.assert_close(uniform, torch.tensor([0.125, 0.375, 0.625, 0.875]))
    assert validation_times(Objective(), 3)[1].item() == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_levels_of_a_table_are_those_of_diffusers(schedule: str) -> None:
    table = NoiseTable(steps=400, schedule=schedule, start=0.001, end=0.02)
    theirs = DDPMScheduler(num_train_timesteps=400, beta_schedule=schedule, beta_start=0.001, beta_end=0.02)
    times = (torch.arange(400) + 1) / 400
    alpha, sigma = alpha_sigma(Objective(kind="ddpm", table=table), times)
    torch.testing.assert_close(alpha, theirs.alphas_cumprod.sqrt(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sigma, (1 - theirs.alphas_cumprod).sqrt(), atol=1e-5, rtol=1e-5)
    end_alpha, end_sigma = alpha_sigma(Objective(kind="ddpm", table=table), torch.zeros(1))
    assert (float(end_alpha), float(end_sigma)) == (1.0, 0.0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_training_on_a_table_looks_at_its_levels_and_regresses_what_diffusers_does(prediction: str) -> None:
    objective = Objective(kind="ddpm", table=NoiseTable(prediction=prediction), times="uniform")
    times = training_times(objective, 64, torch.Generator().manual_seed(0))
    levels = (times * 1000).round().long() - 1
    torch.testing.assert_close(times, (levels + 1) / 1000)
    assert int(levels.min()) >= 0
    assert int(levels.max()) <= 999
    x0, eps = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(1))
    theirs = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    torch.testing.assert_close(
        add_noise(objective, x0, eps, times), theirs.add_noise(x0, eps, levels), atol=1e-5, rtol=1e-4
    )
    wanted = eps if prediction == "epsilon" else theirs.get_velocity(x0, eps, levels)
    torch.testing.assert_close(target(objective, x0, eps, times), wanted, atol=1e-5, rtol=1e-4)


def test_a_table_belongs_to_its_kind() -> None:
    with pytest.raises(ValueError, match="table is required for kind ddpm"):
        Objective(kind="ddpm")
    with pytest.raises(ValueError, match="table is required for kind ddpm"):
        Objective(table=NoiseTable())
    with pytest.raises(ValueError, match="shift must be 1"):
        Objective(kind="ddpm", table=NoiseTable(), shift=2.0)
