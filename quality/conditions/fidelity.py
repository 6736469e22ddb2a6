"""Agreement with prompts beyond labels: findings named in texts, prompted attribute values, and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.data.targets import LabelPredictions
from medphantom.quality.networks.regressor import r_squared
from medphantom.quality.stats.auroc import AUROC_METHOD, auroc_with_influence
from medphantom.quality.stats.classification import CALIBRATION_BINS, calibration_error
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.influence import by_owner, plain_interval, variance_of
from medphantom.quality.stats.intervals import mean_interval, patient_bootstrap

SMALLEST_SIDE = 10
LEAST_READ = 25


def text_findings(labels: Sequence[str], *, requested: LabelPredictions, real: LabelPredictions) -> Iterator[Estimate]:
    """AUROC of a classifier of real images for the findings named in the texts.

    Args:
        labels: names of the findings.
        requested: findings that the texts of synthetic images affirm (1) or do not affirm (0), and the predictions.
        real: the same for real test images and their own texts.
    """
    for place, label in enumerate(labels):
        mine, theirs = requested.observed(place), real.observed(place)
        sides = [int((side.values_NT == state).sum()) for side in (mine, theirs) for state in (0, 1)]
        enough = min(sides[:2]) >= SMALLEST_SIDE
        floored = min(sides[2:]) >= SMALLEST_SIDE
        value, interval = mine.auroc() if enough else (None, None)
        floor, floor_interval = theirs.auroc() if floored else (None, None)
        yield Estimate(
            name="text_findings",
            estimand="AUROC of a classifier trained on real train patients, for images whose text affirms the finding "
            "against images whose text does not; floor: the same of real test images and their own texts",
            value=value,
            interval=interval,
            method=f"{AUROC_METHOD} (real images by patient)",
            n_synthetic=len(mine.patients),
            n_real=len(theirs.patients),
            floor=floor,
            floor_interval=floor_interval,
            better="near_floor",
            label=label,
            refused=None
            if enough
            else f"{sides[1]} texts affirm it and {sides[0]} do not (≥ {SMALLEST_SIDE} each); generate more images "
            "of both",
        )


def calibration(
    labels: Sequence[str],
    *,
    requested: LabelPredictions,
    real: LabelPredictions,
    bootstrap: int,
    rng: np.random.Generator,
) -> Iterator[Estimate]:
    """Expected calibration error of a classifier of real images with respect to the prompted labels.

    Args:
        labels: names of the labels.
        requested: prompted labels of synthetic images, and the predictions of the classifier.
        real: labels of held-out real images, and the predictions of the classifier.
        bootstrap: bootstrap samples for each interval.
        rng: source of the bootstrap samples.
    """
    for place, label in enumerate(labels):
        sides = [one.observed(place) for one in (requested, real)]
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
            "real train patients, with respect to the prompted labels; floor: its error on real test patients",
            value=value,
            interval=interval,
            method="bootstrap centred on the value (real images by patient)",
            n_synthetic=len(sides[0].patients),
            n_real=len(sides[1].patients),
            floor=floor,
            floor_interval=floor_interval,
            better="near_floor",
            label=label,
            refused=None
            if value is not None
            else f"{fewest} images in the rarer state (≥ {SMALLEST_SIDE}); generate more images with and without it",
        )


@dataclass(frozen=True)
class ReadValues:
    """Attribute values and their predictions by a regressor.

    Attributes:
        wanted: prompted or recorded values, ``(n,)``.
        read: values predicted from the images, ``(n,)``.
        patients: patient of each image.
    """

    wanted: Array
    read: Array
    patients: Array


def attribute_errors(name: str, unit: str, *, requested: ReadValues, real: ReadValues) -> Iterator[Estimate]:
    """Errors of prompted attribute values, as predicted by a regressor of real images.

    Args:
        name: name of the attribute.
        unit: unit of the attribute.
        requested: prompted and predicted values of synthetic images.
        real: recorded and predicted values of real test images.
    """
    enough = len(requested.wanted) >= LEAST_READ
    refused = (
        None if enough else f"{len(requested.wanted)} images were prompted with a value (≥ {LEAST_READ}); generate more"
    )
    shared = {"n_synthetic": len(requested.wanted), "n_real": len(real.wanted), "label": name, "refused": refused}
    of = f"{name}{f' ({unit})' if unit else ''}"
    floored = len(real.wanted) >= LEAST_READ
    off, floor_off = (np.abs(side.read - side.wanted) for side in (requested, real))
    yield Estimate(
        name="attribute_error",
        estimand=f"mean absolute difference between the prompted {of} and the prediction of a regressor trained on "
        "real train patients; floor: the same for real test patients",
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
    explained = r_squared(requested.wanted, requested.read) if enough else None
    yield Estimate(
        name="attribute_r2",
        estimand=f"share of the variance of the prompted {of} that the same regressor explains (R²; below 0: worse "
        "than the mean); floor: the same for real test patients",
        value=explained,
        method="no interval",
        floor=r_squared(real.wanted, real.read) if floored else None,
        better="near_floor",
        **{
            **shared,
            "refused": refused or (None if explained is not None else "all images were prompted with the same value"),
        },
    )


def _centred(values: Array) -> Array:
    """Influence of each value on their mean."""
    found: Array = (values - values.mean()) / len(values)
    return found


@dataclass(frozen=True)
class TextSimilarity:
    """Cosine similarity of images to texts.

    Attributes:
        own: similarity to the image's own text, ``(n,)``.
        other: similarity to a different text of another image, ``(n,)``.
        patients: patient of each image.
    """

    own: Array
    other: Array
    patients: Array


def text_similarity(
    network: str, digest: str, *, requested: TextSimilarity, real: TextSimilarity
) -> Iterator[Estimate]:
    """Similarity of images to their texts by pretrained encoders (CLIPScore, Hessel et al. 2021), and matching.

    Args:
        network: name of the encoders.
        digest: digest of the weights of the encoders.
        requested: similarities of synthetic images to their prompts.
        real: similarities of real test images to their own texts.
    """
    enough, floored = (len(side.own) >= LEAST_READ for side in (requested, real))
    refused = None if enough else f"{len(requested.own)} images have a text (≥ {LEAST_READ}); generate more with texts"
    shared = {
        "n_synthetic": len(requested.own),
        "n_real": len(real.own),
        "network": network,
        "network_digest": digest,
        "better": "near_floor",
        "refused": refused,
    }
    yield Estimate(
        name="clip_score",
        estimand="100 times the mean cosine of an image and its text; floor: of real test images and their own texts",
        value=float(100 * requested.own.mean()) if enough else None,
        interval=mean_interval(100 * requested.own) if enough else None,
        method="Student's t over images; floor: by patient",
        floor=float(100 * real.own.mean()) if floored else None,
        floor_interval=plain_interval(
            float(100 * real.own.mean()), variance_of(by_owner(100 * _centred(real.own), real.patients))
        )
        if floored
        else None,
        **shared,
    )
    value, interval = _matched(requested) if enough else (None, None)
    floor, floor_interval = _matched(real) if floored else (None, None)
    yield Estimate(
        name="text_match",
        estimand="probability that an image is more similar to its own text than another image is to a text that is "
        "not its own; 0.5: texts carry no information about images; floor: of real test images",
        value=value,
        interval=interval,
        method="influence by image (real ones by patient)",
        floor=floor,
        floor_interval=floor_interval,
        **shared,
    )


def _matched(side: TextSimilarity) -> tuple[float, Interval | None]:
    total = len(side.own)
    truth = np.concatenate([np.ones(total, np.int8), np.zeros(total, np.int8)])
    found = auroc_with_influence(truth, np.concatenate([side.own, side.other]))
    if found is None:
        raise ValueError("no images")
    together = found.influence[:total] + found.influence[total:]
    return found.value, plain_interval(found.value, variance_of(by_owner(together, side.patients)))
