"""Label agreement: does a classifier trained on real images see in a synthetic image what its prompt asked for?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.data.targets import LabelPredictions, present_class
from medphantom.quality.results.quality_report import LabelAgreement
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.intervals import patient_bootstrap, proportion_interval

SMALLEST_SIDE = 10
NAME = "label_agreement"


def agreement(
    labels: Sequence[str],
    *,
    exclusive: bool,
    asked: LabelPredictions,
    real: LabelPredictions,
    bootstrap: int,
    rng: np.random.Generator,
) -> LabelAgreement:
    """Label agreement of synthetic images beside the same classifier's figure on held-out real ones.

    Labels that exclude each other: accuracy with Wilson's interval and the confusion table. Others: AUROC per label of
    images asked to show it against images asked not to.

    Args:
        labels: label names.
        exclusive: exactly one is present per image.
        asked: what synthetic images were asked to show, and what the classifier sees.
        real: what held-out real images show, and what it sees; none of these patients was in its training.
        bootstrap: samples behind each AUROC's interval.
        rng: source of the samples.
    """
    if exclusive:
        return _by_accuracy(labels, asked, real)
    found = [_one_auroc(label, asked.observed(i), real.observed(i), bootstrap, rng) for i, label in enumerate(labels)]
    return LabelAgreement(per_label=(_mean(found), *found), labels=tuple(labels))


def _by_accuracy(labels: Sequence[str], asked: LabelPredictions, real: LabelPredictions) -> LabelAgreement:
    wanted, shown = present_class(asked.values_NT), present_class(real.values_NT)
    seen = asked.predictions_NT.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (wanted[wanted >= 0], seen[wanted >= 0]), 1)
    right, real_right = asked.right(), real.right()
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
        estimand="share of synthetic images in which a classifier trained on real train patients sees the class asked "
        "for; floor: its accuracy on real test patients",
        value=float(right.mean()) if total else None,
        interval=proportion_interval(int(right.sum()), total) if total else None,
        method="Wilson",
        n_synthetic=total,
        n_real=real_total,
        floor=float(real_right.mean()) if real_total else None,
        floor_interval=proportion_interval(int(real_right.sum()), real_total) if real_total else None,
        better="higher",
        label=label,
        refused=None if total else "no synthetic image was asked to show it",
    )


def _one_auroc(
    label: str, asked: LabelPredictions, real: LabelPredictions, bootstrap: int, rng: np.random.Generator
) -> Estimate:
    value, interval = _auroc(asked, bootstrap, rng)
    floor, floor_interval = _auroc(real, bootstrap, rng)
    shown = int((asked.values_NT == 1).sum())
    return Estimate(
        name=NAME,
        estimand="AUROC of a classifier trained on real train patients, for images asked to show the label against "
        "images asked not to; floor: its AUROC on real test patients",
        value=value,
        interval=interval,
        method="percentile bootstrap (real images by patient)",
        n_synthetic=len(asked.values_NT),
        n_real=len(real.values_NT),
        floor=floor,
        floor_interval=floor_interval,
        better="near_floor",
        label=label,
        refused=None
        if value is not None
        else f"asked for {shown} times and against {len(asked.values_NT) - shown} times (≥ {SMALLEST_SIDE} each)",
    )


def _auroc(
    predicted: LabelPredictions, bootstrap: int, rng: np.random.Generator
) -> tuple[float | None, Interval | None]:
    """AUROC and its interval; ``None`` where either side is too small."""
    if min((predicted.values_NT == 0).sum(), (predicted.values_NT == 1).sum()) < SMALLEST_SIDE:
        return None, None
    return predicted.auroc(), patient_bootstrap(predicted.auroc, predicted.patients, draws=bootstrap, rng=rng)


def _mean(found: Sequence[Estimate]) -> Estimate:
    pairs = [(e.value, e.floor) for e in found if e.value is not None and e.floor is not None]
    return Estimate(
        name=NAME,
        estimand="mean AUROC over the labels for which both can be had; floor: the same on real test patients",
        value=float(np.mean([value for value, _ in pairs])) if pairs else None,
        method=f"mean of {len(pairs)} of {len(found)} labels; no interval, since labels depend on each other",
        floor=float(np.mean([floor for _, floor in pairs])) if pairs else None,
        better="near_floor",
        refused=None if pairs else f"no label was asked for, and against, at least {SMALLEST_SIDE} times",
    )
