"""Privacy accounting against a second accountant, closed forms and refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import dp_accounting
import pytest
from dp_accounting import pld
from scipy.special import ndtr, ndtri

from medphantom.core.errors import InputError
from medphantom.learning.accounting import (
    DPParameters,
    composed,
    delta_for,
    epsilon_of,
    guarantee_of,
    noise_for,
    strongest_attack,
)
from medphantom.learning.guarantee import Mechanism, gaussian_attack

PARAMETERS = DPParameters(noise_multiplier=1.2, sample_rate=0.15, delta=1e-4, clip_norm=0.5, draws=2, total_units=900)


def steps_of(noise: float, rate: float, steps: int) -> Mechanism:
    return Mechanism(noise_multiplier=noise, sample_rate=rate, steps=steps)


def second_opinion(mechanism: Mechanism, delta: float) -> float:
    """ε by Google's accountant, from the privacy loss distribution of the same mechanism."""
    accountant = pld.PLDAccountant()
    step = dp_accounting.PoissonSampledDpEvent(
        mechanism.sample_rate, dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
    )
    accountant.compose(dp_accounting.SelfComposedDpEvent(step, mechanism.steps))
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta"),
    [(5.86, 0.0512, 977, 2e-5), (1.18, 0.0512, 977, 2e-5), (1.0, 0.1, 60, 1e-4), (3.0, 1.0, 20, 1e-3)],
)
def test_epsilon_agrees_with_a_second_accountant_within_one_percent(
    noise: float, rate: float, steps: int, delta: float
) -> None:
    mechanism = steps_of(noise, rate, steps)
    found = epsilon_of(mechanism, delta)
    assert found == pytest.approx(second_opinion(mechanism, delta), rel=0.01)
    assert found < epsilon_of(mechanism, delta, accountant="rdp") < 1.25 * found


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_the_noise_for_an_epsilon_spends_it_and_little_less(epsilon: float) -> None:
    noise = noise_for(epsilon, 1e-4, sample_rate=0.05, steps=200)
    spent = second_opinion(steps_of(noise, 0.05, 200), 1e-4)
    assert 0.985 * epsilon <= spent <= epsilon * 1.0001


def test_nothing_is_spent_by_no_mechanism() -> None:
    assert epsilon_of([], 1e-5) == 0


def test_the_guarantee_of_a_fit_has_the_numbers_of_the_accountants() -> None:
    found, mechanism = guarantee_of(PARAMETERS, 40), PARAMETERS.mechanism(40)
    assert found is not None
    assert found.parts == (mechanism,)
    assert found.epsilon == epsilon_of(mechanism, 1e-4) < epsilon_of(mechanism, 1e-4, accountant="rdp")
    assert found.epsilon_rdp == epsilon_of(mechanism, 1e-4, accountant="rdp")
    assert (found.delta, found.clip_norm, found.draws, found.own_epsilon) == (1e-4, 0.5, 2, None)
    bound = strongest_attack(mechanism)
    assert (found.attack_auroc, found.attack_tpr) == (bound.auroc, bound.tpr[0.01])


def test_nothing_is_guaranteed_without_noise_or_before_the_first_step() -> None:
    assert guarantee_of(PARAMETERS, 0) is None
    assert guarantee_of(replace(PARAMETERS, noise_multiplier=0.0), 40) is None


def test_a_guarantee_on_private_bases_is_that_of_all_steps() -> None:
    own, before = guarantee_of(PARAMETERS, 40), (steps_of(2.0, 0.1, 50), steps_of(1.5, 0.2, 10))
    assert own is not None
    assert composed((), own) is own
    found = composed(before, own)
    assert found.parts == (*before, PARAMETERS.mechanism(40))
    assert found.epsilon == epsilon_of(found.parts, 1e-4) > own.epsilon == found.own_epsilon
    assert found.epsilon_rdp == epsilon_of(found.parts, 1e-4, accountant="rdp")
    bound = strongest_attack(found.parts)
    assert (found.attack_auroc, found.attack_tpr) == (bound.auroc, bound.tpr[0.01])
    unchanged = {"delta", "unit", "noise_multiplier", "sample_rate", "steps", "clip_norm", "draws"}
    assert found.model_dump(include=unchanged) == own.model_dump(include=unchanged)


def test_delta_is_a_tenth_of_one_over_the_units_and_never_one_over_them() -> None:
    assert delta_for("auto", 200) == pytest.approx(0.0005)
    assert delta_for(1e-6, 200) == 1e-6
    with pytest.raises(InputError, match=r"privacy.delta must lie below 1 / 200.*got 0.005"):
        delta_for(0.005, 200)


def test_an_epsilon_that_cannot_be_reached_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"ε = 0.001 at δ = 1e-05 cannot be reached in 5000 steps .* 50.0%") as caught:
        noise_for(0.001, 1e-5, sample_rate=0.5, steps=5000)
    assert "\n" not in str(caught.value)


def test_the_strongest_attack_on_one_gaussian_step_is_the_likelihood_ratio_test() -> None:
    """Closed form: AUROC Φ(μ/√2) and power Φ(μ + Φ⁻¹(f)) with μ = 1/σ; a bound lies above it, and not by much."""
    bound = strongest_attack(steps_of(2.0, 1.0, 1))
    exact = 0.5 / math.sqrt(2)
    assert ndtr(exact) <= bound.auroc <= ndtr(exact) + 0.01
    for alarms, power in bound.tpr.items():
        assert ndtr(0.5 + ndtri(alarms)) * 0.999 <= power <= ndtr(0.5 + ndtri(alarms)) + 0.01


def test_many_small_steps_are_bounded_as_one_gaussian_step_of_the_same_epsilon() -> None:
    """By the central limit theorem the curve of DP-SGD is nearly that of a Gaussian mechanism."""
    noise = noise_for(3.0, 1e-5, sample_rate=0.02, steps=1000)
    bound, gaussian = strongest_attack(steps_of(noise, 0.02, 1000)), gaussian_attack(3.0, 1e-5)
    assert bound.auroc == pytest.approx(gaussian.auroc, abs=0.02)
    assert bound.tpr[0.01] == pytest.approx(gaussian.tpr[0.01], abs=0.02)
