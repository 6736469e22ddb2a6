"""The audit: its arithmetic against the paper's, and a run of it with the noise of a budget and without any."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.dp_audit import audit
from medphantom.core.errors import InputError
from medphantom.learning.audit import ceiling, correct_predictions, epsilon_at_least, refuted


def test_without_delta_the_probability_is_that_of_randomised_response() -> None:
    assert refuted(0.0, 0.0, canaries=40, predictions=20, correct=15) == pytest.approx(binom.sf(14, 20, 0.5))
    assert refuted(np.log(3), 0.0, canaries=40, predictions=20, correct=15) == pytest.approx(binom.sf(14, 20, 0.75))
    assert refuted(1.0, 1e-3, canaries=40, predictions=20, correct=20) > refuted(
        1.0, 0.0, canaries=40, predictions=20, correct=20
    )


@pytest.mark.parametrize(("predictions", "epsilon"), [(10, 1), (62, 3), (8932, 8)])
def test_so_many_perfect_predictions_are_needed_to_exceed_an_epsilon(predictions: int, epsilon: float) -> None:
    """Why larger budgets are not audited: ε = 8 takes thousands of certain predictions."""
    assert ceiling(0.0, predictions=predictions) >= epsilon
    assert ceiling(0.0, predictions=predictions - 1) < epsilon


def test_the_bound_holds_for_randomised_response_itself() -> None:
    """The mechanism that reaches ε exactly: its audited bound exceeds ε in no more than one run of twenty."""
    rng, epsilon, total = np.random.default_rng(0), 1.0, 1000
    exceeded = 0
    for _ in range(200):
        correct = int(rng.binomial(total, 1 / (1 + np.exp(-epsilon))))
        found = epsilon_at_least(0.0, canaries=total, predictions=total, correct=correct)
        exceeded += found > epsilon
        assert found > 0.6
    assert exceeded <= binom.ppf(0.999, 200, 0.05)


def test_predictions_are_the_ends_of_the_order() -> None:
    scores, coins = [5.0, -5.0, 4.0, 0.1, -4.0, 0.0], [True, False, False, True, False, True]
    assert correct_predictions(scores, coins, 4) == 3
    with pytest.raises(InputError, match="5 correct of 4 predictions on 6 canaries are impossible"):
        epsilon_at_least(0.0, canaries=6, predictions=4, correct=5)


def test_private_steps_keep_what_they_promise_and_the_audit_sees_when_they_do_not() -> None:
    """A thousand canaries at ε = 1: with the noise the bound stays below 1, without it it lies far above."""
    for seed in range(2):
        kept = audit(1000, 1.0, steps=10, share=0.5, seed=seed)
        assert kept["promised_epsilon"] <= 1
        assert kept["epsilon_at_least"] <= 1
    broken = audit(1000, None, steps=10, share=0.5, seed=0)
    assert broken["epsilon_at_least"] > 3
    assert broken["correct"] >= 0.99 * broken["guesses"]
