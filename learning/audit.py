"""Privacy audit in one run: inserted canaries, membership predictions, and the ε that the predictions refute.

Steinke, Nasr & Jagielski 2023, *Privacy auditing with one (1) training run*: each of m canaries is included
independently with probability one half. An auditor who sees the output of the mechanism predicts which were included,
and may abstain. Under ε no auditor predicts better than randomised response, up to δ, so many correct predictions
refute a small ε. The result is a lower bound, which correct code keeps below the guarantee. A low bound proves nothing
by itself; a run without noise shows the power of the audit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from medphantom.core.errors import InputError

BISECTIONS = 40


def refuted(epsilon: float, delta: float, *, canaries: int, predictions: int, correct: int) -> float:
    """Return the probability that (ε, δ) differential privacy allows so many correct predictions (theorem 5.2).

    Args:
        epsilon: ε of the guarantee, at least 0.
        delta: δ of the guarantee.
        canaries: Number m of canaries, each included with probability one half.
        predictions: Number r ≤ m of predictions, fixed in advance; the auditor abstains on the other canaries.
        correct: Number of correct predictions.
    """
    accuracy = 1 / (1 + math.exp(-epsilon))  # accuracy of randomised response
    tail = float(binom.sf(correct - 1, predictions, accuracy))
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), predictions, accuracy))
    worst = float(np.max(below / np.arange(1, correct + 1))) if correct else 0.0
    return min(1.0, tail + 2 * canaries * delta * worst)


def epsilon_at_least(delta: float, *, canaries: int, predictions: int, correct: int, confidence: float = 0.95) -> float:
    """Return the largest ε that so many correct predictions refute; 0 if they refute none.

    Args:
        delta: δ of the audited guarantee.
        canaries: Number of canaries, as in :func:`refuted`.
        predictions: Number of predictions, as in :func:`refuted`.
        correct: Number of correct predictions, as in :func:`refuted`.
        confidence: Confidence level of the bound.

    Raises:
        InputError: If there are more correct predictions than predictions, or more predictions than canaries.
    """
    if not 0 <= correct <= predictions <= canaries:
        raise InputError(
            f"{correct} correct of {predictions} predictions on {canaries} canaries are impossible",
            "give correct ≤ predictions ≤ canaries",
        )

    def excluded(epsilon: float) -> bool:
        return refuted(epsilon, delta, canaries=canaries, predictions=predictions, correct=correct) < 1 - confidence

    if not excluded(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while excluded(high):
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excluded(middle) else (low, middle)
    return low


def ceiling(delta: float, *, predictions: int, confidence: float = 0.95) -> float:
    """Return the largest ε that an audit of this size can refute, which it does if all predictions are correct."""
    return epsilon_at_least(
        delta, canaries=predictions, predictions=predictions, correct=predictions, confidence=confidence
    )


def correct_predictions(scores: Sequence[float], included: Sequence[bool], predictions: int) -> int:
    """Count correct predictions: *included* for the highest scores, *not included* for the lowest, abstaining between.

    Args:
        scores: Score of each canary; higher means more likely included.
        included: Whether each canary was included.
        predictions: Number r of predictions, an even number.
    """
    order = np.argsort(np.asarray(scores), kind="stable")
    coins = np.asarray(included, dtype=bool)[order]
    half = predictions // 2
    return int((~coins[:half]).sum() + coins[len(coins) - half :].sum())
