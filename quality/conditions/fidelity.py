"""Condition fidelity beyond labels: findings that a text names, numbers that an image was asked for, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.data.targets import LabelPredictions
from medphantom.quality.networks.regressor import r_squared
from medphantom.quality.stats.auroc import auroc_with_influence
from medphantom.quality.stats.classification import CALIBRATION_BINS, calibration_error
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.influence import by_owner, plain_interval, variance_of
from medphantom.quality.stats.intervals import mean_interval, patient_bootstrap

SMALLEST_SIDE = 10
LEAST_READ = 25


def text_findings(
    labels: Sequence[str], *, asked: LabelPredictions, real: LabelPredictions, bootstrap: int, rng: np.random.Generator
) -> Iterator[Estimate]:
    """Does an image show the findings that its text names? By a classifier of real images.

    Args:
        labels: names.
        asked: what the texts of synthetic images name (1) or do not (0), and what the classifier sees.
        real: the same of real test images and their own texts.
        bootstrap: samples behind each interval.
        rng: source of the samples.
    """
    for place, label in enumerate(labels):
        mine, theirs = asked.observed(place), real.observed(place)
        sides = [int((side.values_NT == state).sum()) for side in (mine, theirs) for state in (0, 1)]
        enough = min(sides[:2]) >= SMALLEST_SIDE
        floored = min(sides[2:]) >= SMALLEST_SIDE
        yield Estimate(
            name="text_findings",
            estimand="AUROC of a classifier trained on real train patients, for images whose text affirms the finding "
            "against images whose text does not; floor: the same of real test images and their own texts",
            value=mine.auroc() if enough else None,
            interval=patient_bootstrap(mine.auroc, mine.patients, draws=bootstrap, rng=rng) if enough else None,
            method="percentile bootstrap (real images by patient)",
            n_synthetic=len(mine.patients),
            n_real=len(theirs.patients),
            floor=theirs.auroc() if floored else None,
            floor_interval=patient_bootstrap(theirs.auroc, theirs.patients, draws=bootstrap, rng=rng)
            if floored
            else None,
            better="near_floor",
            label=label,
            refused=None
            if enough
            else f"{sides[1]} texts affirm it and {sides[0]} do not (≥ {SMALLEST_SIDE} each); ask for more of it",
        )


def calibration(
    labels: Sequence[str], *, asked: LabelPredictions, real: LabelPredictions, bootstrap: int, rng: np.random.Generator
) -> Iterator[Estimate]:
    """Are probabilities of a classifier of real images as right about what was asked for as about real patients?

    Args:
        labels: names.
        asked: what synthetic images were asked to show, and what the classifier sees.
        real: what held-out real images show, and what it sees.
        bootstrap: samples behind each interval.
        rng: source of the samples.
    """
    for place, label in enumerate(labels):
        sides = [one.observed(place) for one in (asked, real)]
        found = []
        for side in sides:
            truth, prediction = side.values_NT.ravel(), side.predictions_NT.ravel()
            states = min(int((truth == state).sum()) for state in (0, 1))

            def error(rows: Array, truth: Array = truth, prediction: Array = prediction) -> float | None:
                return calibration_error(truth[rows], prediction[rows])

            enough = states >= SMALLEST_SIDE and len(truth) >= CALIBRATION_BINS
            value = error(np.arange(len(truth))) if enough else None
            interval = None
            if value is not None:
                interval = patient_bootstrap(error, side.patients, draws=bootstrap, rng=rng, around=value)
            found.append((value, interval, states))
        (value, interval, fewest), (floor, floor_interval, _) = found
        yield Estimate(
            name="label_calibration",
            estimand="expected calibration error, over ten bins of equally many images, of a classifier trained on "
            "real train patients, taken for what images were asked to show; floor: its error on real test patients",
            value=value,
            interval=interval,
            method="bootstrap, its mean put on the value (real images by patient)",
            n_synthetic=len(sides[0].patients),
            n_real=len(sides[1].patients),
            floor=floor,
            floor_interval=floor_interval,
            better="near_floor",
            label=label,
            refused=None
            if value is not None
            else f"{fewest} images in the rarer state (≥ {SMALLEST_SIDE}); ask for more of it, and against it",
        )


@dataclass(frozen=True)
class ReadValues:
    """Numbers, and what a regressor reads.

    Attributes:
        wanted: asked for, or recorded, ``(n,)``.
        read: off the image, ``(n,)``.
        patients: of each.
    """

    wanted: Array
    read: Array
    patients: Array


def attribute_errors(name: str, unit: str, *, asked: ReadValues, real: ReadValues) -> Iterator[Estimate]:
    """How far an image is from the number that it was asked for, as a regressor of real images reads it.

    Args:
        name: attribute.
        unit: of it.
        asked: of synthetic images.
        real: of real test images.
    """
    enough = len(asked.wanted) >= LEAST_READ
    refused = None if enough else f"{len(asked.wanted)} images were asked for a value (≥ {LEAST_READ}); ask for more"
    shared = {"n_synthetic": len(asked.wanted), "n_real": len(real.wanted), "label": name, "refused": refused}
    of = f"{name}{f' ({unit})' if unit else ''}"
    floored = len(real.wanted) >= LEAST_READ
    off, floor_off = (np.abs(side.read - side.wanted) for side in (asked, real))
    yield Estimate(
        name="attribute_error",
        estimand=f"mean absolute difference of the {of} asked for and the one that a regressor trained on real train "
        "patients reads; floor: the same of real test patients",
        value=float(off.mean()) if enough else None,
        interval=mean_interval(off) if enough else None,
        method="Student's t over images; floor: by patient",
        floor=float(floor_off.mean()) if floored else None,
        floor_interval=plain_interval(
            float(floor_off.mean()), variance_of(by_owner(_centred(floor_off), real.patients))
        )
        if floored
        else None,
        better="near_floor",
        **shared,
    )
    told = r_squared(asked.wanted, asked.read) if enough else None
    yield Estimate(
        name="attribute_r2",
        estimand=f"share of the variance of the {of} asked for that the same regressor reads (R²; below 0: worse than "
        "their mean); floor: the same of real test patients",
        value=told,
        method="no interval",
        floor=r_squared(real.wanted, real.read) if floored else None,
        better="near_floor",
        **{**shared, "refused": refused or (None if told is not None else "all images were asked for the same value")},
    )


def _centred(values: Array) -> Array:
    """Influence of each value on their mean."""
    found: Array = (values - values.mean()) / len(values)
    return found


@dataclass(frozen=True)
class NeighbourSimilarity:
    """How alike images are to texts, as a cosine.

    Attributes:
        own: to the own text, ``(n,)``.
        other: to a text of another image that says something else, ``(n,)``.
        patients: of each image.
    """

    own: Array
    other: Array
    patients: Array


def text_similarity(
    network: str, digest: str, *, asked: NeighbourSimilarity, real: NeighbourSimilarity
) -> Iterator[Estimate]:
    """Is an image like its text, by a pretrained pair of encoders (CLIPScore, Hessel et al. 2021)?

    Args:
        network: name of the encoders.
        digest: of their weights.
        asked: of synthetic images and what they were asked for.
        real: of real test images and their own texts.
    """
    enough, floored = (len(side.own) >= LEAST_READ for side in (asked, real))
    refused = None if enough else f"{len(asked.own)} images have a text (≥ {LEAST_READ}); ask for more with one"
    shared = {
        "n_synthetic": len(asked.own),
        "n_real": len(real.own),
        "network": network,
        "network_digest": digest,
        "better": "near_floor",
        "refused": refused,
    }
    yield Estimate(
        name="clip_score",
        estimand="100 times the mean cosine of an image and its text; floor: of real test images and their own texts",
        value=float(100 * asked.own.mean()) if enough else None,
        interval=mean_interval(100 * asked.own) if enough else None,
        method="Student's t over images; floor: by patient",
        floor=float(100 * real.own.mean()) if floored else None,
        floor_interval=plain_interval(
            float(100 * real.own.mean()), variance_of(by_owner(100 * _centred(real.own), real.patients))
        )
        if floored
        else None,
        **shared,
    )
    value, interval = _matched(asked) if enough else (None, None)
    floor, floor_interval = _matched(real) if floored else (None, None)
    yield Estimate(
        name="text_match",
        estimand="chance that an image is more alike to its own text than another image is to a text that is not its "
        "own; one half: texts say nothing of images; floor: of real test images",
        value=value,
        interval=interval,
        method="influence by image (real ones by patient)",
        floor=floor,
        floor_interval=floor_interval,
        **shared,
    )


def _matched(side: NeighbourSimilarity) -> tuple[float, Interval | None]:
    total = len(side.own)
    truth = np.concatenate([np.ones(total, np.int8), np.zeros(total, np.int8)])
    found = auroc_with_influence(truth, np.concatenate([side.own, side.other]))
    if found is None:
        raise ValueError("no images")
    together = found.influence[:total] + found.influence[total:]
    return found.value, plain_interval(found.value, variance_of(by_owner(together, side.patients)))
