"""Scores of predicted probabilities equal those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from medphantom.quality.stats.classification import average_precision, balanced_accuracy


@pytest.mark.parametrize("levels", [None, 1, 5])
def test_scores_equal_those_of_scikit_learn(levels: int | None) -> None:
    """Also where images share a prediction, and for as few images as a label has in a bootstrap sample."""
    rng = np.random.default_rng(0)
    compared = 0
    for total in [*range(1, 12), *range(20, 200, 20)]:
        for share in (0.1, 0.5, 1.0):
            truth = (rng.random(total) < share).astype(float)
            prediction = rng.random(total) if levels is None else rng.integers(levels, size=total) / levels
            if not truth.any():
                assert average_precision(truth, prediction) is None
                continue
            compared += 1
            assert average_precision(truth, prediction) == average_precision_score(truth == 1, prediction)
            if truth.all():
                assert balanced_accuracy(truth, prediction, 0.5) is None
            else:
                wanted = balanced_accuracy_score(truth == 1, prediction >= 0.5)
                assert balanced_accuracy(truth, prediction, 0.5) == pytest.approx(wanted)
    assert compared > 40


def test_a_prediction_without_a_rank_is_no_score() -> None:
    with pytest.raises(ValueError, match="predictions must be finite"):
        average_precision(np.array([1.0, 0.0]), np.array([np.nan, 0.5]))
