"""Scores of predicted probabilities: average precision, balanced accuracy and calibration error."""

from __future__ import annotations

import numpy as np

from medphantom.core.records import Array

CALIBRATION_BINS = 10


def average_precision(truth: Array, prediction: Array) -> float | None:
    """Area under the precision-recall curve; ``None`` without positives.

    The sum over thresholds of precision times gain of recall, as ``sklearn.metrics.average_precision_score`` has it and
    to the same bits. A bootstrap asks for it thousands of times, and there the checks of that function take a hundred
    times as long as the sum.

    Raises:
        ValueError: A prediction is not finite, which has no rank.
    """
    if not np.isfinite(prediction).all():
        raise ValueError("predictions must be finite")
    order = np.argsort(prediction, kind="mergesort")[::-1]
    ranked, hits = prediction[order], np.cumsum(truth[order] == 1, dtype=np.float64)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of the images that share a prediction
    if not hits[-1:].any():
        return None
    precision, recall = hits[last] / (1 + last), hits[last] / hits[-1]
    gained = np.diff(np.append(recall[::-1], 0.0))
    return float(max(0.0, -np.sum(gained * precision[::-1])))


def balanced_accuracy(truth: Array, prediction: Array, threshold: float) -> float | None:
    """Mean of sensitivity and specificity; ``None`` if all labels are the same."""
    positive = truth == 1
    if not positive.any() or positive.all():
        return None
    return float(((prediction[positive] >= threshold).mean() + (prediction[~positive] < threshold).mean()) / 2)


def best_threshold(truth: Array, prediction: Array) -> float:
    """The threshold with the largest balanced accuracy (Youden 1950); 0.5 if all labels are the same."""
    positive = truth == 1
    if not positive.any() or positive.all():
        return 0.5
    candidates = np.unique(prediction)
    scores = [balanced_accuracy(truth, prediction, value) or 0.0 for value in candidates]
    return float(candidates[int(np.argmax(scores))])


def calibration_error(truth: Array, prediction: Array) -> float | None:
    """Mean distance of probability and frequency over ten bins of equally many images (Naeini et al. 2015)."""
    if len(truth) < CALIBRATION_BINS:
        return None
    order = np.argsort(prediction, kind="stable")
    bins = np.array_split(order, CALIBRATION_BINS)
    return float(
        sum(len(part) * abs((truth[part] == 1).mean() - prediction[part].mean()) for part in bins) / len(truth)
    )
