"""The parts of an assessment that need no feature network of their own: diversity, labels, utility, copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from medphantom.core.progress import Progress, stage
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array, Frozen
from medphantom.quality.conditions.agreement import agreement
from medphantom.quality.conditions.fidelity import calibration, text_findings
from medphantom.quality.conditions.masks import SMALLEST_TEST, dice_table, mask_agreement
from medphantom.quality.config import AssessConfig
from medphantom.quality.data.evaluation_data import EvaluationData
from medphantom.quality.data.targets import LabelPredictions, positives
from medphantom.quality.data.texts import requested_findings
from medphantom.quality.fidelity.diversity import diversity
from medphantom.quality.networks.classifier import fit_classifier, predict
from medphantom.quality.networks.features import FeatureNetwork
from medphantom.quality.networks.segmentation import SMALLEST_TRAIN, fit_segmenter, segment
from medphantom.quality.privacy.search import CopySearch, RealImages, Screened, screen
from medphantom.quality.results.model_score import CheckedScore, ModelScore
from medphantom.quality.results.quality_report import CopySummary, LabelAgreement, NearestPair
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.utility.check import Arm, Counts, score_arm
from medphantom.quality.utility.metadata import metadata_predictions, metadata_table

ImageArm = Literal["real", "synthetic", "real_and_synthetic"]

NUM_FEATURES = 64
ARMS: tuple[ImageArm, ...] = get_args(ImageArm)


class Estimates(Frozen):
    """The estimates of one part."""

    estimates: tuple[Estimate, ...]


class LabelScores(Frozen):
    """Label agreement, agreement with other prompts, and the utility check."""

    agreement: LabelAgreement | None
    utility: tuple[CheckedScore, ...]
    conditions: tuple[Estimate, ...] = ()


class CopyScores(Frozen):
    """The copy search; ``summary`` is ``None`` if there are no training or holdout images."""

    summary: CopySummary | None
    nearest: tuple[NearestPair, ...]


@dataclass(frozen=True)
class Context:
    """The inputs of every part.

    Attributes:
        data: evaluation data: images, patients and labels.
        config: settings of the assessment.
        work: folder for checkpoints of classifiers.
        progress: callback that receives the progress of the part.
    """

    data: EvaluationData
    config: AssessConfig
    work: Path
    progress: Progress

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """A random generator for one purpose."""
        return np.random.default_rng(derive_seed(self.config.seed, *purpose))


def diversity_part(context: Context) -> Estimates:
    """MS-SSIM over all images and, for exclusive labels, within each label."""
    data, pairs = context.data, context.config.diversity_pairs
    patients = np.asarray(data.patients["test"])
    test, synthetic = data.images["test"], data.synthetic_images
    found = [diversity(synthetic, test, patients, pairs=pairs, rng=context.rng("pairs"))]
    shown, requested = data.targets.classes("test"), data.requested_class
    if requested is not None and shown is not None:
        for number, label in enumerate(data.targets.names):
            mine, theirs, rng = requested == number, shown == number, context.rng("pairs", label)
            found.append(diversity(synthetic[mine], test[theirs], patients[theirs], pairs=pairs, rng=rng, label=label))
    return Estimates(estimates=tuple(found))


def mask_part(context: Context) -> Estimates:
    """Mask agreement if both cohorts have masks; empty if the real train or test split has too few."""
    data, config = context.data, context.config
    names = [data.real.schema.mask_values[value] for value in data.mask_values if value]
    if not names:
        return Estimates(estimates=())
    train, test = (data.masked(data.real, data.rows[s], data.images[s]) for s in ("train", "test"))
    requested = data.masked(data.synthetic, range(len(data.synthetic)), data.synthetic_images)
    if len(train) < SMALLEST_TRAIN or len(test) < SMALLEST_TEST or not len(requested):
        return Estimates(estimates=())
    network = fit_segmenter(
        train,
        1 + len(names),
        config.segmenter,
        seed=derive_seed(config.seed, "segmenter"),
        work=context.work,
        progress=context.progress,
    )
    tables = [
        dice_table(segment(network, part.images_NC, config.segmenter), part.masks_N, 1 + len(names))
        for part in (requested, test)
    ]
    return Estimates(
        estimates=tuple(
            mask_agreement(
                names,
                requested=tables[0],
                wanted=tables[1],
                patients=test.patients,
                bootstrap=config.utility.bootstrap,
                rng=context.rng("masks"),
            )
        )
    )


def label_part(context: Context) -> LabelScores:
    """Label agreement and the utility check, which share the classifier trained on real training patients."""
    data, config = context.data, context.config
    targets = data.targets
    if targets.source != "labels" or not data.rows["train"]:
        return LabelScores(agreement=None, utility=())
    real, seen = _train_arm(context, "real", data.images["train"], targets.values["train"])
    agreed, conditions = None, tuple(_conditions(context, real.predictions, seen))
    if real.predictions is not None and (data.requested >= 0).any():
        own = np.arange(len(data.requested)).astype(str)
        agreed = agreement(
            targets.names,
            exclusive=targets.exclusive,
            requested=LabelPredictions(data.requested, seen, own),
            real=real.predictions,
        )
    if not config.utility.enabled:
        return LabelScores(agreement=agreed, utility=(), conditions=conditions)
    counts = Counts(
        train=positives(targets.values["train"], np.asarray(data.patients["train"])),
        test=positives(targets.values["test"], np.asarray(data.patients["test"])),
        unit="patients" if data.real.schema.patients == "known" else "images",
    )
    scores: list[ModelScore] = []
    for arm in (*_synthetic_arms(context), real, *_metadata_arm(context)):
        rng = context.rng("utility", arm.trained_on)
        scores += score_arm(arm, targets.names, counts, exclusive=targets.exclusive, config=config.utility, rng=rng)
    return LabelScores(agreement=agreed, utility=tuple(scores), conditions=conditions)


def _conditions(context: Context, real: LabelPredictions | None, seen: Array) -> Iterator[Estimate]:
    """Calibration against the prompted labels, and agreement with findings named in texts."""
    data, draws = context.data, context.config.utility.bootstrap
    if real is None:
        return
    names, own = data.targets.names, np.arange(len(data.requested)).astype(str)
    if (data.requested >= 0).any():
        requested = LabelPredictions(data.requested, seen, own)
        yield from calibration(names, requested=requested, real=real, bootstrap=draws, rng=context.rng("calibration"))
    named = requested_findings(data)
    if named is not None:
        sides = LabelPredictions(named[0], seen, own), LabelPredictions(named[1], real.predictions_NT, real.patients)
        yield from text_findings(names, requested=sides[0], real=sides[1])


def _synthetic_arms(context: Context) -> list[Arm]:
    """Arms of synthetic images, at most as many as real training images, and of both together."""
    data = context.data
    values = data.targets.values["train"]
    order = context.rng("utility rows").permutation(len(data.requested))
    chosen = np.sort(order[: len(values)])
    images, labels = data.synthetic_images[chosen], data.requested[chosen]
    both = np.concatenate([data.images["train"], images])
    return [
        _train_arm(context, "synthetic", images, labels)[0],
        _train_arm(context, "real_and_synthetic", both, np.concatenate([values, labels]))[0],
    ]


def _train_arm(context: Context, trained_on: ImageArm, images_NC: Array, values_NT: Array) -> tuple[Arm, Array]:
    """Train one classifier; every arm uses the same number of steps and the same initial weights.

    Returns:
        The arm with its predictions for real test images, and its predictions for the synthetic images.
    """
    data, config = context.data, context.config.classifier
    targets = data.targets
    if not (values_NT >= 0).any():
        return Arm(trained_on, len(images_NC), None), np.zeros((0, len(targets.names)))
    network = fit_classifier(
        images_NC,
        values_NT,
        exclusive=targets.exclusive,
        num_features=NUM_FEATURES,
        config=config,
        seed=derive_seed(context.config.seed, "judge"),
        work=context.work,
        name=f"classifier on {trained_on.replace('_', ' ')} images",
        progress=stage(context.progress, ARMS.index(trained_on), len(ARMS)),
    )
    test, synthetic = (
        predict(network, images, exclusive=targets.exclusive, device=config.device)
        for images in (data.images["test"], data.synthetic_images)
    )
    predicted = LabelPredictions(targets.values["test"], test, np.asarray(data.patients["test"]))
    return Arm(trained_on, len(images_NC), predicted), synthetic


def _metadata_arm(context: Context) -> list[Arm]:
    """The baseline of attributes alone; empty if the cohort has none."""
    data, targets = context.data, context.data.targets
    train, test = (metadata_table(data.real, data.rows[split]) for split in ("train", "test"))
    predictions = metadata_predictions(train, targets.values["train"], test, exclusive=targets.exclusive)
    if predictions is None:
        return []
    return [
        Arm(
            "metadata",
            len(train),
            LabelPredictions(targets.values["test"], predictions, np.asarray(data.patients["test"])),
        )
    ]


def copy_part(context: Context, network: FeatureNetwork) -> CopyScores:
    """Run the copy search.

    Args:
        context: inputs of the part.
        network: feature network that was fitted on neither training nor holdout images.
    """
    data, config = context.data, context.config.copies
    images, patients = data.images, data.patients
    if len(set(patients["train"])) < 2 or not len(images["holdout"]):
        return CopyScores(summary=None, nearest=())
    real = RealImages(images["train"], images["holdout"], images["val"], patients["train"], patients["holdout"])
    search = CopySearch(real, config, network, context.rng("copies"))
    found = screen(search, data.synthetic_images, data.makers(), context.progress)
    return CopyScores(summary=found.gate.summary, nearest=tuple(_pairs(data, search, found, config.pairs)))


def _pairs(data: EvaluationData, search: CopySearch, found: Screened, total: int) -> list[NearestPair]:
    """The pairs with the smallest p values, flagged ones first."""
    similarity, gate = found.similarity, found.gate
    order = np.lexsort((-similarity.contrast, gate.p_values, ~gate.flagged))[:total]
    names = {"real": data.real.manifest["image_id"], "synthetic": data.synthetic.manifest["image_id"]}
    pairs = []
    for row in (int(place) for place in order):
        train = data.rows["train"][int(similarity.train[row])]
        holdout = data.rows["holdout"][search.holdout_row(similarity.holdout[row])]
        pairs.append(
            NearestPair(
                synthetic_row=row,
                synthetic_id=names["synthetic"][row],
                train_row=train,
                train_id=names["real"][train],
                train_similarity=float(np.tanh(similarity.train_score[row])),
                holdout_row=holdout,
                holdout_id=names["real"][holdout],
                holdout_similarity=float(np.tanh(similarity.holdout_score[row])),
                flagged=bool(gate.flagged[row]),
            )
        )
    return pairs
