"""Predictions of networks trained on real training patients, for real images and counterfactual pairs.

Operating points are chosen on ``val`` and floors are computed on ``test``. Pairs of patients in ``train`` or ``val``
are not scored (:mod:`medphantom.quality.counterfactual.effects`), because the networks were fitted to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medphantom.cohorts.pairs import pair_rows
from medphantom.cohorts.preprocess import network_images
from medphantom.cohorts.records import AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import UnsupportedClaim
from medphantom.core.progress import Progress, stage
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.quality.config import AssessConfig
from medphantom.quality.data.evaluation_data import on_stored_grid
from medphantom.quality.data.pairs import PairImages, attribute_by_name, labels_by_name, pairs_preprocess
from medphantom.quality.data.targets import positives
from medphantom.quality.networks.classifier import fit_classifier, predict, weights_digest
from medphantom.quality.networks.regressor import fit_regressor, r_squared
from medphantom.quality.results.counterfactual_report import ReaderFacts
from medphantom.quality.stats.auroc import auroc

Split = Literal["train", "val", "test"]

NUM_FEATURES = 64
SMALLEST_STATE = 5  # smallest number of val images per state for an operating point
LEARNERS = 3


@dataclass(frozen=True)
class RealImages:
    """Real images of the required splits, preprocessed as for the generator.

    Attributes:
        cohort: real cohort of the images.
        rows: row numbers by split.
        images: images by split, float32 ``(n, C, *size)`` in -1…1.
        patients: patient of each image, by split.
    """

    cohort: Cohort
    rows: dict[Split, list[int]]
    images: dict[Split, Array]
    patients: dict[Split, Array]

    @classmethod
    def for_pairs(cls, real: Cohort, pairs: Cohort) -> RealImages:
        """The real images for an assessment of pairs."""
        preprocess = pairs_preprocess(pairs)
        splits: tuple[Split, ...] = ("train", "val", "test")
        rows: dict[Split, list[int]] = {split: real.rows(split) for split in splits}
        images = {s: on_stored_grid(network_images(real, rows[s], preprocess), preprocess) for s in splits}
        return cls(real, rows, images, {s: np.asarray(real.patients(rows[s])) for s in splits})


@dataclass(frozen=True)
class Reading:
    """Predictions of one target, either present or absent or a continuous value.

    Attributes:
        facts: description of the target and of the network's performance on real images.
        unit: unit of a continuous attribute.
        before: value of each source image: 1, 0, or -1 if unknown; NaN for an unknown continuous value.
        after: requested value of each counterfactual.
        test: value of each real test image.
        read: predictions for each pair by role (including ``source``), bool or float.
        read_test: prediction for each real test image.
    """

    facts: ReaderFacts
    before: Array
    after: Array
    test: Array
    read: dict[str, Array]
    read_test: Array
    unit: str = ""


@dataclass(frozen=True)
class _Target:
    name: str
    kind: Literal["label", "category"]
    real: dict[Split, Array]
    before: Array
    after: Array


class Readers:
    """Trains classifiers and regressors of labels, categories and continuous attributes.

    Args:
        real: real images by split.
        pairs: cohort of the pairs.
        images: images of the pairs as arrays.
        config: settings of classifiers, seed and minimum counts.
        work: private folder for checkpoints.
        progress: callback that receives the progress of the trainings.
    """

    def __init__(
        self,
        real: RealImages,
        pairs: Cohort,
        images: PairImages,
        *,
        config: AssessConfig,
        work: Path,
        progress: Progress | None = None,
    ) -> None:
        self.real, self.pairs, self.config = real, pairs, config
        self.work, self.progress = work, progress
        self.role_images = {"source": images.source, **images.images}
        found = pair_rows(pairs)
        self.before_rows, self.after_rows = found.rows["factual"], found.rows["counterfactual"]

    def readings(self) -> list[Reading]:
        """Predictions of all labels, categories and changed continuous attributes, including refused ones."""
        schema = self.real.cohort.schema
        labels = self._labels(schema.labels)
        exclusive = schema.exclusive and len(schema.labels) > 1
        categories = [target for spec in schema.attributes for target in self._categories(spec)]
        numbers = [spec for spec in schema.attributes if spec.kind == "continuous" and self._changes(spec.name)]
        return [
            *self._present(labels, "labels", exclusive=exclusive, number=0),
            *self._present(categories, "categories", exclusive=False, number=1),
            *self._numbers(numbers, number=2),
        ]

    def _labels(self, names: Sequence[str]) -> list[_Target]:
        before, after = (labels_by_name(self.pairs, rows, names) for rows in (self.before_rows, self.after_rows))
        real = {split: labels_by_name(self.real.cohort, rows, names) for split, rows in self.real.rows.items()}
        return [
            _Target(name, "label", {s: table[:, i] for s, table in real.items()}, before[:, i], after[:, i])
            for i, name in enumerate(names)
        ]

    def _categories(self, spec: AttributeSpec) -> Iterator[_Target]:
        if spec.kind != "categorical" or len(spec.categories) < 2:
            return

        def column(cohort: Cohort, rows: Sequence[int], category: str) -> Array:
            values = attribute_by_name(cohort, rows, spec.name)
            return np.array([-1 if value is None else int(value == category) for value in values], dtype=np.int8)

        for category in spec.categories:
            real = {split: column(self.real.cohort, rows, category) for split, rows in self.real.rows.items()}
            before, after = (column(self.pairs, rows, category) for rows in (self.before_rows, self.after_rows))
            yield _Target(f"{spec.name} = {category}", "category", real, before, after)

    def _changes(self, name: str) -> bool:
        """Whether the intervention changes a continuous attribute of any image."""
        before, after = (attribute_by_name(self.pairs, rows, name) for rows in (self.before_rows, self.after_rows))
        return any(new is not None and new != old for old, new in zip(before, after, strict=True))

    def _present(self, targets: list[_Target], what: str, *, exclusive: bool, number: int) -> Iterator[Reading]:
        """Predictions of targets that share one classifier."""
        if not targets:
            return
        table = np.stack([target.real["train"] for target in targets], axis=1)
        if not (table >= 0).any():
            for target in targets:
                yield self._refused(target, "no training image has a known value")
            return
        network = fit_classifier(
            self.real.images["train"],
            table,
            exclusive=exclusive,
            num_features=NUM_FEATURES,
            config=self.config.classifier,
            seed=derive_seed(self.config.seed, "reader", what),
            work=self.work,
            name=f"classifier of {what}",
            progress=stage(self.progress, number, LEARNERS),
        )

        def seen(images: Array) -> Array:
            return predict(network, images, exclusive=exclusive, device=self.config.classifier.device)

        digest = weights_digest(network)
        val, test = seen(self.real.images["val"]), seen(self.real.images["test"])
        predicted = {role: seen(images) for role, images in self.role_images.items()}
        for i, target in enumerate(targets):
            refusal = self._refusal(target)
            if refusal is not None:
                yield self._refused(target, refusal)
                continue
            threshold = operating_point(target.real["val"], val[:, i])
            known = target.real["test"] >= 0
            facts = ReaderFacts(
                name=target.name,
                kind=target.kind,
                digest=digest,
                train_images=int((target.real["train"] >= 0).sum()),
                threshold=threshold,
                held_out_score=auroc(target.real["test"][known], test[known, i]),
            )
            read = {role: values[:, i] >= threshold for role, values in predicted.items()}
            yield Reading(facts, target.before, target.after, target.real["test"], read, test[:, i] >= threshold)

    def _refusal(self, target: _Target) -> str | None:
        """Reason why a target cannot be predicted, or ``None``."""
        least, patients = self.config.utility.least_train, self.real.patients["train"]
        for state, word in ((1, "have"), (0, "do not have")):
            total = int(positives((target.real["train"] == state)[:, None].astype(np.int8), patients)[0])
            if total < least:
                return f"{total} training patients {word} it (≥ {least})"
            in_val = int((target.real["val"] == state).sum())
            if in_val < SMALLEST_STATE:
                return f"{in_val} val images {word} it (≥ {SMALLEST_STATE}), too few to choose an operating point"
        return None

    def _refused(self, target: _Target, why: str) -> Reading:
        facts = ReaderFacts(name=target.name, kind=target.kind, refused=why)
        return Reading(facts, target.before, target.after, target.real["test"], {}, np.zeros(0, bool))

    def _numbers(self, specs: Sequence[AttributeSpec], *, number: int) -> Iterator[Reading]:
        """Predictions of continuous attributes that share one regressor."""
        real = {
            split: np.stack([_floats(attribute_by_name(self.real.cohort, rows, spec.name)) for spec in specs], axis=1)
            for split, rows in (self.real.rows.items() if specs else ())
        }
        regressor, why = None, ""
        if specs:
            try:
                regressor = fit_regressor(
                    self.real.images["train"],
                    real["train"],
                    num_features=NUM_FEATURES,
                    config=self.config.classifier,
                    seed=derive_seed(self.config.seed, "reader", "numbers"),
                    work=self.work,
                    name="regressor of attributes",
                    progress=stage(self.progress, number, LEARNERS),
                )
            except UnsupportedClaim as error:
                why = str(error)
        device = self.config.classifier.device
        for i, spec in enumerate(specs):
            rows = self.before_rows, self.after_rows
            before, after = (_floats(attribute_by_name(self.pairs, numbers, spec.name)) for numbers in rows)
            test = real["test"][:, i]
            if regressor is None:
                facts = ReaderFacts(name=spec.name, kind="continuous", refused=why)
                yield Reading(facts, before, after, test, {}, np.zeros(0), spec.unit)
                continue
            read_test = regressor.read(self.real.images["test"], device)[:, i]
            known = ~np.isnan(test)
            facts = ReaderFacts(
                name=spec.name,
                kind="continuous",
                digest=weights_digest(regressor.network),
                train_images=int((~np.isnan(real["train"][:, i])).sum()),
                held_out_score=r_squared(test[known], read_test[known]) if known.any() else None,
            )
            read = {role: regressor.read(images, device)[:, i] for role, images in self.role_images.items()}
            yield Reading(facts, before, after, test, read, read_test, spec.unit)


def _floats(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def operating_point(states: Array, probabilities: Array) -> float:
    """The threshold with the best balanced accuracy (Youden 1950), the median of ties.

    Args:
        states: 1 for present, 0 for absent, -1 for unknown; both states occur.
        probabilities: predicted probabilities of the classifier.
    """
    present, absent = np.sort(probabilities[states == 1]), np.sort(probabilities[states == 0])
    values = np.unique(np.concatenate([present, absent]))
    candidates = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])
    hits = 1 - np.searchsorted(present, candidates) / len(present)
    rejected = np.searchsorted(absent, candidates) / len(absent)
    balanced = hits + rejected
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(candidates[best[len(best) // 2]])
