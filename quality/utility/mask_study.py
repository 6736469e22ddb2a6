"""The utility study of segmentation: the same U-Net trained in several arms, scored by Dice on real test patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import SPLITS
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.core.progress import Progress, stage
from medphantom.core.records import Array
from medphantom.quality.conditions.masks import dice_table
from medphantom.quality.config import SegmenterConfig, StudyConfig
from medphantom.quality.data.evaluation_data import EvaluationData
from medphantom.quality.data.masked import Masked
from medphantom.quality.data.targets import Targets, positives
from medphantom.quality.networks.segmentation import fit_segmenter, segment
from medphantom.quality.results.model_score import ModelScore, TrainingArm
from medphantom.quality.results.study_report import StudyReport
from medphantom.quality.stats.auroc import Auroc
from medphantom.quality.utility.base_study import Study, check_counts
from medphantom.quality.utility.cells import Evaluation, TestSet
from medphantom.quality.utility.check import Counts
from medphantom.quality.utility.repeated import Predictions, RepeatedScore, mean_over
from medphantom.quality.utility.subgroups import subgroups
from medphantom.quality.utility.trainers import CLASSICAL, ArmTrainer


def run_mask_study(
    real: Cohort,
    synthetic: Sequence[Cohort],
    preprocess: Preprocess,
    config: StudyConfig,
    *,
    work: Path,
    external: dict[str, Cohort] | None = None,
    progress: Progress | None = None,
) -> StudyReport:
    """As :func:`medphantom.quality.utility.study.run_study`, for structures in masks.

    Raises:
        InputError: there is no synthetic cohort, there are no masks, or an external cohort was given.
        UnsupportedClaim: no structure has enough patients.
    """
    if not synthetic:
        raise InputError("a utility study needs synthetic images", "generate some first")
    if external:
        raise InputError("a study of segmentation takes no external cohort", "leave --external out")
    evaluations = [EvaluationData(real, cohort, preprocess) for cohort in synthetic]
    for data in evaluations:
        data.check()
    first = evaluations[0]
    parts = {split: first.masked(real, first.rows[split], first.images[split]) for split in ("train", "test")}
    made = tuple(data.masked(data.synthetic, range(len(data.synthetic)), data.synthetic_images) for data in evaluations)
    if not all(len(part) for part in (*parts.values(), *made)):
        raise InputError(
            "a study of segmentation needs masks of training, test and synthetic images", "plan with masks"
        )
    names = tuple(real.schema.mask_values[value] for value in first.mask_values if value)
    test_set = _test_set(first, parts, names)
    check_counts(test_set.counts, names, config)
    trainer = SegmenterTrainer(parts["train"], made, config, work, progress, 1 + len(names))
    return MaskStudy(evaluations, [test_set], config, trainer, parts["test"], names).report()


def check_mask_study(real: Cohort, config: StudyConfig) -> None:
    """As :func:`medphantom.quality.utility.study.check_study`, for structures in masks.

    Raises:
        InputError: the cohort has no test patients.
        UnsupportedClaim: there are no masks, or no structure has enough patients.
    """
    values = [value for value in sorted(real.schema.mask_values) if value]
    if not values:
        raise UnsupportedClaim("a study of segmentation needs masks")
    if not real.rows("test"):
        raise InputError("the real cohort has no test patients", "ingest with a test split > 0")
    found = {}
    for split in ("train", "test"):
        rows = real.rows(split)
        held = [np.zeros(len(values), np.int8) if m is None else _holds(m, values) for m in real.masks(rows)]
        found[split] = positives(np.array(held).reshape(-1, len(values)), np.asarray(real.patients(rows)))
    counts = Counts(found["train"], found["test"], "patients" if real.schema.patients == "known" else "images")
    check_counts(counts, [real.schema.mask_values[value] for value in values], config)


def _holds(mask: Array, values: Sequence[int]) -> Array:
    return np.array([(mask == value).any() for value in values], dtype=np.int8)


def _test_set(data: EvaluationData, parts: dict[str, Masked], names: Sequence[str]) -> TestSet:
    """The test set with the structures in each mask, so that every arm is scored on the same images."""
    holds = {
        split: np.array([_holds(mask, range(1, 1 + len(names))) for mask in part.masks_N])
        for split, part in parts.items()
    }
    owners = {split: np.asarray(part.patients) for split, part in parts.items()}
    unit = "patients" if data.real.schema.patients == "known" else "images"
    train, test = (positives(holds[split], owners[split]) for split in ("train", "test"))
    counts = Counts(train, test, unit)
    with_mask = [mask is not None for mask in data.real.masks(data.rows["test"])]
    rows = [row for row, known in zip(data.rows["test"], with_mask, strict=True) if known]
    groups = subgroups(data.real, rows, data.rows["train"])
    return TestSet("test", parts["test"].images_NC, holds["test"], owners["test"], counts, tuple(groups))


@dataclass(frozen=True)
class SegmenterTrainer(ArmTrainer[Masked]):
    """Trainings of segmenters.

    Attributes:
        total_values: number of mask values, including the background.
    """

    total_values: int

    def arms(self) -> tuple[TrainingArm, ...]:
        """The training arms without oversampling, which does not apply to structures."""
        return tuple(arm for arm in super().arms() if arm.kind != "oversampled")

    def train(self, arm: TrainingArm, test: Masked, done: int) -> Predictions:
        """Train the segmenters of one arm; their Dice with the test masks, ``(generators, seeds, n, structures)``."""
        found, total = [], self.trainings()
        for synthetic in self.sets(arm):
            row = []
            for number in range(self.config.classifier_seeds):
                network = self._trained(arm, synthetic, self.seed(number), stage(self.progress, done, total))
                done += 1
                seen = segment(network, test.images_NC, self.config.segmenter)
                row.append(dice_table(seen, test.masks_N, self.total_values))
            found.append(row)
        return Predictions(np.array(found))

    def _trained(self, arm: TrainingArm, synthetic: Masked | None, seed: int, progress: Progress | None) -> nn.Module:
        network: nn.Module | None = None
        phases = list(self.phases(arm, synthetic, seed, self.config.segmenter.steps))
        for number, (examples, steps) in enumerate(phases):
            config: SegmenterConfig = self.config.segmenter.model_copy(update={"steps": steps})
            network = fit_segmenter(
                examples,
                self.total_values,
                config,
                seed=seed,
                work=self.work,
                network=network,
                classical=self.config.classical if arm.kind in CLASSICAL else None,
                name=f"segmenter on {arm.words}",
                progress=stage(progress, number, len(phases)),
            )
        if network is None:
            raise ValueError("the arm has no training phase")
        return network


class MaskEvaluation(Evaluation):
    """Dice scores over structures and by structure."""

    def cells(self) -> Iterator[ModelScore]:
        """Dice over structures and by structure."""
        scored, rows = [], []
        for place, label in enumerate(self.targets.names):
            why = self.test_set.counts.refusal(place, self.config)
            if why is not None:
                refused = self.estimate("Dice", label, refused=why)
                rows.append(ModelScore(arm=self.arm, test=self.test_set.name, measure="Dice", estimate=refused))
                continue
            sides = [dice_of(each, self.test_set, place) for each in self._sides()]
            scored.append(sides)
            rows.append(self._cell("Dice", label, sides))
        if scored:
            yield self._cell("Dice", None, [mean_over(parts) for parts in zip(*scored, strict=True)])
        yield from rows

    def secondary(self) -> Iterator[ModelScore]:
        """No secondary measures."""
        yield from ()


def dice_of(predictions: Predictions, test_set: TestSet, place: int, rows: Array | None = None) -> RepeatedScore:
    """Mean Dice of one structure over the test images that contain it, for every training.

    Args:
        predictions: Dice tables of an arm.
        test_set: test set that says which images contain the structure.
        place: number of the structure.
        rows: rows of the images to use; all by default.
    """
    chosen = np.arange(len(test_set.values_NT)) if rows is None else rows
    chosen = chosen[test_set.values_NT[chosen, place] == 1]
    found = []
    for per_generator in predictions.by_seed:
        row = []
        for one in per_generator:
            values = one[chosen, place]
            influence = np.zeros(len(test_set.values_NT))
            influence[chosen] = (values - values.mean()) / len(values)
            row.append(Auroc(float(values.mean()), influence))
        found.append(tuple(row))
    return RepeatedScore(tuple(found), test_set.patients)


@dataclass
class MaskStudy(Study):
    """The study of segmenters.

    Attributes:
        trainer: trainer of the segmenters.
        test: test images with masks.
        names: names of the structures.
    """

    trainer: SegmenterTrainer
    test: Masked
    names: tuple[str, ...]

    @property
    def targets(self) -> Targets:
        """The structures as non-exclusive labels."""
        empty = np.zeros((0, len(self.names)), dtype=np.int8)
        return Targets(self.names, False, dict.fromkeys(SPLITS, empty), "labels")

    def learn(self) -> None:
        """Train all arms and keep their Dice tables."""
        done = 0
        for arm in self.trainer.arms():
            self.predictions[arm, "test"] = found = self.trainer.train(arm, self.test, done)
            done += found.by_seed.shape[0] * self.config.classifier_seeds

    def evaluation(self, arm: TrainingArm, test_set: TestSet) -> Evaluation:
        """The predictions from which the scores of an arm are computed."""
        plain = super().evaluation(arm, test_set)
        return MaskEvaluation(plain.arm, test_set, plain.predictions, plain.real, self.targets, self.config, plain.free)

    def by_group(self, arm: TrainingArm, rows: Array) -> dict[str, RepeatedScore]:
        """Dice by structure for a subgroup of test patients, for structures with enough patients in it."""
        test_set, found = self.test_sets[0], {}
        for place, label in enumerate(self.names):
            shown = rows[test_set.values_NT[rows, place] == 1]
            enough = len(np.unique(test_set.patients[shown])) >= self.config.least_test
            if enough and test_set.counts.refusal(place, self.config) is None:
                found[label] = dice_of(self.predictions[arm, "test"], test_set, place, rows)
        return found
