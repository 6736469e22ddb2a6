"""Label agreement: does a classifier trained on real images recognise the prompted labels in synthetic images?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.data.targets import LabelPredictions, present_class
from medphantom.quality.results.quality_report import LabelAgreement
from medphantom.quality.stats.auroc import AUROC_METHOD
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.intervals import proportion_interval

SMALLEST_SIDE = 10
NAME = "label_agreement"


def agreement(
    labels: Sequence[str],
    *,
    exclusive: bool,
    requested: LabelPredictions,
    real: LabelPredictions,
) -> LabelAgreement:
    """Label agreement of synthetic images, and of held-out real images by the same classifier as the floor.

    Exclusive labels are scored by accuracy with Wilson's interval and a confusion matrix, other labels by the AUROC of
    images prompted with the label against images prompted without it.

    Args:
        labels: names of the labels.
        exclusive: whether exactly one label is present per image.
        requested: prompted labels of synthetic images, and the predictions of the classifier.
        real: labels of held-out real images, and the predictions; none of these patients was used for training.
    """
    if exclusive:
        return _by_accuracy(labels, requested, real)
    found = [_one_auroc(label, requested.observed(i), real.observed(i)) for i, label in enumerate(labels)]
    return LabelAgreement(per_label=(_mean(found), *found), labels=tuple(labels))


def _by_accuracy(labels: Sequence[str], requested: LabelPredictions, real: LabelPredictions) -> LabelAgreement:
    wanted, shown = present_class(requested.values_NT), present_class(real.values_NT)
    seen = requested.predictions_NT.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (wanted[wanted >= 0], seen[wanted >= 0]), 1)
    right, real_right = requested.right(), real.right()
    found = [_accuracy(right, real_right, None)]
    for number, label in enumerate(labels):
        mine, theirs = wanted[wanted >= 0] == number, shown[shown >= 0] == number
        found.append(_accuracy(right[mine], real_right[theirs], label))
    counts = tuple(tuple(int(n) for n in row) for row in confusion)
    return LabelAgreement(per_label=tuple(found), labels=tuple(labels), confusion=counts)


def _accuracy(right: Array, real_right: Array, label: str | None) -> Estimate:
    total, real_total = len(right), len(real_right)
    return Estimate(
        name=NAME,
        estimand="share of synthetic images in which a classifier trained on real train patients predicts the prompted "
        "class; floor: its accuracy on real test patients",
        value=float(right.mean()) if total else None,
        interval=proportion_interval(int(right.sum()), total) if total else None,
        method="Wilson",
        n_synthetic=total,
        n_real=real_total,
        floor=float(real_right.mean()) if real_total else None,
        floor_interval=proportion_interval(int(real_right.sum()), real_total) if real_total else None,
        better="higher",
        label=label,
        refused=None if total else "no synthetic image was prompted with this label",
    )


def _one_auroc(label: str, requested: LabelPredictions, real: LabelPredictions) -> Estimate:
    value, interval = _auroc(requested)
    floor, floor_interval = _auroc(real)
    shown = int((requested.values_NT == 1).sum())
    return Estimate(
        name=NAME,
        estimand="AUROC of a classifier trained on real train patients, for images prompted with the label against "
        "images prompted without it; floor: its AUROC on real test patients",
        value=value,
        interval=interval,
        method=f"{AUROC_METHOD} (real images by patient)",
        n_synthetic=len(requested.values_NT),
        n_real=len(real.values_NT),
        floor=floor,
        floor_interval=floor_interval,
        better="near_floor",
        label=label,
        refused=None
        if value is not None
        else f"{shown} images were prompted with it and {len(requested.values_NT) - shown} without it (≥ "
        f"{SMALLEST_SIDE} each)",
    )


def _auroc(predicted: LabelPredictions) -> tuple[float | None, Interval | None]:
    """AUROC and its interval; ``None`` if there are too few images with or without the label."""
    if min((predicted.values_NT == 0).sum(), (predicted.values_NT == 1).sum()) < SMALLEST_SIDE:
        return None, None
    return predicted.auroc()


def _mean(found: Sequence[Estimate]) -> Estimate:
    pairs = [(e.value, e.floor) for e in found if e.value is not None and e.floor is not None]
    return Estimate(
        name=NAME,
        estimand="mean AUROC over the labels that can be scored on both sides; floor: the same on real test patients",
        value=float(np.mean([value for value, _ in pairs])) if pairs else None,
        method=f"mean of {len(pairs)} of {len(found)} labels; no interval, because labels are not independent",
        floor=float(np.mean([floor for _, floor in pairs])) if pairs else None,
        better="near_floor",
        refused=None if pairs else f"no label has at least {SMALLEST_SIDE} images prompted with it and without it",
    )
