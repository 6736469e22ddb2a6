"""What classifiers of real images learn: the cohort's labels, or its attributes where there are no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from medphantom.cohorts.store import Cohort
from medphantom.core.records import Array


@dataclass(frozen=True)
class Targets:
    """Targets per split.

    Attributes:
        names: names of the targets.
        exclusive: exactly one is present per image.
        values: split → int8 ``(n, T)``: 1 present, 0 absent, -1 not stated.
        source: ``labels``, ``attributes`` (a proxy) or ``none``.
    """

    names: tuple[str, ...]
    exclusive: bool
    values: dict[str, Array]
    source: str

    def classes(self, split: str) -> Array | None:
        """Class number of each image for exclusive targets (-1 where none is stated), else ``None``."""
        return present_class(self.values[split]) if self.exclusive else None


@dataclass(frozen=True)
class LabelPredictions:
    """What images show (or were asked to show) beside what a classifier sees in them.

    Attributes:
        values_NT: 1 present, 0 absent, -1 not stated.
        predictions_NT: predicted probabilities, ``(N, T)``.
        patients: patient of each image; synthetic images are each their own.
    """

    values_NT: Array
    predictions_NT: Array
    patients: Array

    def observed(self, target: int) -> LabelPredictions:
        """Only the images that state one target, with that target's column alone."""
        rows = np.flatnonzero(self.values_NT[:, target] >= 0)
        column = slice(target, target + 1)
        return LabelPredictions(self.values_NT[rows, column], self.predictions_NT[rows, column], self.patients[rows])

    def auroc(self, rows: Array | slice = slice(None)) -> float | None:
        """AUROC of the first target over some rows."""
        return auroc(self.values_NT[rows, 0], self.predictions_NT[rows, 0])

    def right(self) -> Array:
        """Whether the likeliest target is the present one, over the images that state one."""
        classes = present_class(self.values_NT)
        right: Array = self.predictions_NT[classes >= 0].argmax(axis=1) == classes[classes >= 0]
        return right


def present_class(values_NT: Array) -> Array:
    """Number of the present target of each row, -1 where none is."""
    found: Array = np.where((values_NT == 1).any(axis=1), (values_NT == 1).argmax(axis=1), -1)
    return found


def targets_of(cohort: Cohort, rows: dict[str, list[int]]) -> Targets:
    """Targets of a cohort: its labels; without labels its attributes, categories as they are and numbers halved.

    Args:
        cohort: real cohort with labels or attributes.
        rows: split → row numbers.
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
                    stated = cohort.attribute(spec.name, numbers)
                    columns[split].append(np.array([-1 if v is None else int(v == category) for v in stated], np.int8))
        elif spec.low is not None and spec.high is not None and spec.low < spec.high:
            middle = (spec.low + spec.high) / 2
            names.append(f"{spec.name} in the upper half of its range")
            for split, numbers in rows.items():
                stated = cohort.attribute(spec.name, numbers)
                columns[split].append(np.array([-1 if v is None else int(v > middle) for v in stated], np.int8))
    values = {
        split: np.stack(columns[split], axis=1) if names else np.zeros((len(numbers), 0), np.int8)
        for split, numbers in rows.items()
    }
    return Targets(tuple(names), False, values, "attributes" if names else "none")


def auroc(present: Array, score: Array) -> float | None:
    """Area under the ROC curve of a score for images with (1) and without (0) something, ties counted one half.

    The Mann-Whitney statistic over its maximum; ``None`` when all images are alike. Thousands of bootstrap samples call
    this, so it does without scikit-learn's checks.
    """
    positive = np.asarray(present) == 1
    total, hits = len(positive), int(positive.sum())
    if hits in {0, total}:
        return None
    ranks = rankdata(score)
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * (total - hits)))


def held_out_score(predictions_NT: Array, values_NT: Array, *, exclusive: bool) -> float | None:
    """Accuracy over exclusive targets, mean AUROC over the others; ``None`` when nothing can be scored."""
    if exclusive:
        classes = present_class(values_NT)
        stated = classes >= 0
        return float((predictions_NT[stated].argmax(axis=1) == classes[stated]).mean()) if stated.any() else None
    found = []
    for target in range(values_NT.shape[1]):
        stated = values_NT[:, target] >= 0
        score = auroc(values_NT[stated, target], predictions_NT[stated, target]) if stated.any() else None
        if score is not None:
            found.append(score)
    return float(np.mean(found)) if found else None


def counts_by_label(values_NT: Array, names: Sequence[str]) -> dict[str, int]:
    """Images per label that show it."""
    return {name: int((values_NT[:, i] == 1).sum()) for i, name in enumerate(names)}


def positives(values_NT: Array, patients: Array) -> Array:
    """Patients with at least one image that shows each label, ``(T,)``."""
    return np.array([len(np.unique(patients[column == 1])) for column in values_NT.T], dtype=np.int64)
