"""An audit of private steps in one run: planted units, guesses of which were there, and the ε that the guesses refute.

Steinke, Nasr & Jagielski 2023, *Privacy auditing with one (1) training run*: m canaries are each included by a coin of
their own; an auditor who sees what the mechanism publishes guesses the coins, and may abstain. Under ε no auditor
guesses better than randomised response, up to δ. So many right guesses refute small ε: a lower bound, which correct
code keeps below what was promised. A bound that is low proves nothing by itself; the run without noise shows what the
audit can see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from medphantom.core.errors import InputError

BISECTIONS = 40


def refuted(epsilon: float, delta: float, *, canaries: int, guesses: int, correct: int) -> float:
    """Probability that (ε, δ) differential privacy lets an auditor guess so well (theorem 5.2).

    Args:
        epsilon: ε ≥ 0.
        delta: δ.
        canaries: m, each included with probability one half.
        guesses: r ≤ m, whose number was fixed beforehand; the auditor abstains from the others.
        correct: right guesses.
    """
    accuracy = 1 / (1 + math.exp(-epsilon))  # of randomised response
    chance = float(binom.sf(correct - 1, guesses, accuracy))
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, accuracy))
    worst = float(np.max(below / np.arange(1, correct + 1))) if correct else 0.0
    return min(1.0, chance + 2 * canaries * delta * worst)


def epsilon_at_least(delta: float, *, canaries: int, guesses: int, correct: int, confidence: float = 0.95) -> float:
    """The largest ε that so many right guesses refute; 0 where they refute none.

    Args:
        delta: δ of the promise under audit.
        canaries: as in :func:`refuted`.
        guesses: as in :func:`refuted`.
        correct: as in :func:`refuted`.
        confidence: of the bound.

    Raises:
        InputError: more right guesses than guesses, or more guesses than canaries.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise InputError(f"{correct} right guesses of {guesses} about {canaries} canaries cannot be")

    def excluded(epsilon: float) -> bool:
        return refuted(epsilon, delta, canaries=canaries, guesses=guesses, correct=correct) < 1 - confidence

    if not excluded(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while excluded(high):
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excluded(middle) else (low, middle)
    return low


def ceiling(delta: float, *, guesses: int, confidence: float = 0.95) -> float:
    """The largest ε that so many guesses could refute if all of them were right: no audit of this size says more."""
    return epsilon_at_least(delta, canaries=guesses, guesses=guesses, correct=guesses, confidence=confidence)


def correct_predictions(scores: Sequence[float], included: Sequence[bool], guesses: int) -> int:
    """Guess *included* for the highest scores and *not* for the lowest, abstain between; how many guesses are right.

    Args:
        scores: of each canary; the higher, the likelier it was there.
        included: what the coins said.
        guesses: r, an even number.
    """
    order = np.argsort(np.asarray(scores), kind="stable")
    coins = np.asarray(included, dtype=bool)[order]
    half = guesses // 2
    return int((~coins[:half]).sum() + coins[len(coins) - half :].sum())
