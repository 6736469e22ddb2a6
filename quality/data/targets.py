"""Targets of classifiers of real images: the cohort's labels, or its attributes if there are no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.cohorts.store import Cohort
from medphantom.core.records import Array
from medphantom.quality.stats.auroc import auroc, auroc_with_influence
from medphantom.quality.stats.estimate import Interval


@dataclass(frozen=True)
class Targets:
    """Targets per split.

    Attributes:
        names: names of the targets.
        exclusive: whether exactly one target is present per image.
        values: values by split, int8 ``(n, T)``: 1 present, 0 absent, -1 unknown.
        source: origin of the targets: ``labels``, ``attributes`` (a proxy) or ``none``.
    """

    names: tuple[str, ...]
    exclusive: bool
    values: dict[str, Array]
    source: str

    def classes(self, split: str) -> Array | None:
        """Class number of each image for exclusive targets (-1 if unknown), else ``None``."""
        return present_class(self.values[split]) if self.exclusive else None


@dataclass(frozen=True)
class LabelPredictions:
    """Labels (or prompts) of images with the predictions of a classifier.

    Attributes:
        values_NT: labels ``(N, T)``: 1 present, 0 absent, -1 unknown.
        predictions_NT: predicted probabilities, ``(N, T)``.
        patients: patient of each image; synthetic images are independent.
    """

    values_NT: Array
    predictions_NT: Array
    patients: Array

    def observed(self, target: int) -> LabelPredictions:
        """The images with a known value of one target, with the column of this target only."""
        rows = np.flatnonzero(self.values_NT[:, target] >= 0)
        column = slice(target, target + 1)
        return LabelPredictions(self.values_NT[rows, column], self.predictions_NT[rows, column], self.patients[rows])

    def auroc(self) -> tuple[float | None, Interval | None]:
        """AUROC of the first target with its 95 % interval by patient; ``None`` if all images have the same label."""
        found = auroc_with_influence(self.values_NT[:, 0], self.predictions_NT[:, 0])
        return (None, None) if found is None else (found.value, found.interval(self.patients))

    def right(self) -> Array:
        """Whether the most likely class is the present one, for images with a known class."""
        classes = present_class(self.values_NT)
        right: Array = self.predictions_NT[classes >= 0].argmax(axis=1) == classes[classes >= 0]
        return right


def present_class(values_NT: Array) -> Array:
    """Number of the present target of each row; -1 if none is present."""
    found: Array = np.where((values_NT == 1).any(axis=1), (values_NT == 1).argmax(axis=1), -1)
    return found


def targets_of(cohort: Cohort, rows: dict[str, list[int]]) -> Targets:
    """Targets of a cohort: its labels or, without labels, its attributes, with continuous ones split at mid-range.

    Args:
        cohort: real cohort with labels or attributes.
        rows: row numbers by split.
    """
    schema = cohort.schema
    if schema.labels:
        values = {split: cohort.labels(numbers) for split, numbers in rows.items()}
        return Targets(schema.labels, schema.exclusive and len(schema.labels) > 1, values, "labels")
    names: list[str] = []
    columns: dict[str, list[Array]] = {split: [] for split in rows}
    for spec in schema.attributes:
        if spec.kind == "categorical":
            for category in spec.categories if len(spec.categories) > 1 else ():
                names.append(f"{spec.name} = {category}")
                for split, numbers in rows.items():
                    observed = cohort.attribute(spec.name, numbers)
                    columns[split].append(
                        np.array([-1 if v is None else int(v == category) for v in observed], np.int8)
                    )
        elif spec.low is not None and spec.high is not None and spec.low < spec.high:
            middle = (spec.low + spec.high) / 2
            names.append(f"{spec.name} in the upper half of its range")
            for split, numbers in rows.items():
                observed = cohort.attribute(spec.name, numbers)
                columns[split].append(np.array([-1 if v is None else int(v > middle) for v in observed], np.int8))
    values = {
        split: np.stack(columns[split], axis=1) if names else np.zeros((len(numbers), 0), np.int8)
        for split, numbers in rows.items()
    }
    return Targets(tuple(names), False, values, "attributes" if names else "none")


def held_out_score(predictions_NT: Array, values_NT: Array, *, exclusive: bool) -> float | None:
    """Accuracy for exclusive targets, otherwise mean AUROC over targets; ``None`` if no target can be scored."""
    if exclusive:
        classes = present_class(values_NT)
        observed = classes >= 0
        return float((predictions_NT[observed].argmax(axis=1) == classes[observed]).mean()) if observed.any() else None
    found = []
    for target in range(values_NT.shape[1]):
        observed = values_NT[:, target] >= 0
        score = auroc(values_NT[observed, target], predictions_NT[observed, target]) if observed.any() else None
        if score is not None:
            found.append(score)
    return float(np.mean(found)) if found else None


def counts_by_label(values_NT: Array, names: Sequence[str]) -> dict[str, int]:
    """Number of positive images per label."""
    return {name: int((values_NT[:, i] == 1).sum()) for i, name in enumerate(names)}


def positives(values_NT: Array, patients: Array) -> Array:
    """Number of patients with at least one positive image per label, ``(T,)``."""
    return np.array([len(np.unique(patients[column == 1])) for column in values_NT.T], dtype=np.int64)
