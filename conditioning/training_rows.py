"""What of the real training rows may enter a prompt: combinations that several patients share, and no exact values."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from cohorts.errors import InputError
from cohorts.records import AttributeSpec
from cohorts.store import Cohort
from conditioning.prompt import ConditionSchema, Prompt


class TrainingRows:
    """The training split as prompts that say no more of a patient than several patients share.

    Args:
        cohort: real cohort; only its ``train`` rows are used.
        schema: the vocabulary of the generator; by default that of the cohort.
        min_patients: a combination of labels and categories that fewer patients have is not written down.

    Raises:
        InputError: the cohort has no training rows.
    """

    def __init__(self, cohort: Cohort, schema: ConditionSchema | None, min_patients: int) -> None:
        self.schema = ConditionSchema.from_cohort(cohort.schema) if schema is None else schema
        rows = cohort.rows("train")
        if not rows:
            raise InputError("the cohort has no training rows to plan from", "give a real cohort with a train split")
        columns = {name: place for place, name in enumerate(cohort.schema.labels)}
        known = {spec.name for spec in cohort.schema.attributes}
        states = cohort.labels(rows)
        self._states = {name: states[:, columns[name]] for name in self.schema.labels if name in columns}
        self._values = {
            spec.name: cohort.attribute(spec.name, rows) for spec in self.schema.attributes if spec.name in known
        }
        self._smoothed = {
            spec.name: _Smoothed(spec, self._values[spec.name])
            for spec in self.schema.continuous
            if spec.name in self._values
        }
        patients = cohort.patients(rows)
        sets = [tuple(int(state[row]) for state in self._states.values()) for row in range(len(rows))]
        categories = [
            tuple(self._values[spec.name][row] for spec in self.schema.categorical if spec.name in self._values)
            for row in range(len(rows))
        ]
        self._rare_set = _held_by_fewer(sets, patients, min_patients)
        self._rare_row = _held_by_fewer(list(zip(sets, categories, strict=True)), patients, min_patients)

    def __len__(self) -> int:
        return len(self._rare_row)

    def showing(self, label: str) -> npt.NDArray[np.int64]:
        """Places among the training rows at which the label is present."""
        return np.flatnonzero(self._states[label] == 1) if label in self._states else np.zeros(0, dtype=np.int64)

    def prompt(self, row: int, rng: np.random.Generator, *, keep: str | None = None) -> Prompt:
        """A prompt after one training row, coarsened where too few patients share it.

        Args:
            row: place among the training rows.
            rng: draws the jitter, and the label that stays of a rare set.
            keep: the label that stays of a rare set, instead of a drawn one.
        """
        labels = {name: bool(state[row]) for name, state in self._states.items() if state[row] >= 0}
        if self._rare_set[row]:
            present = [name for name, shown in labels.items() if shown]
            stays = keep or (str(rng.choice(present)) if present else None)
            return Prompt(labels={} if stays is None else {stays: True})
        attributes: dict[str, float | str] = {}
        for spec in self.schema.attributes:
            value = self._values[spec.name][row] if spec.name in self._values else None
            if value is None:
                continue
            if spec.kind == "continuous":
                attributes[spec.name] = self._smoothed[spec.name].near(float(value), rng)
            elif not self._rare_row[row] and value in spec.categories:
                attributes[spec.name] = value
        return self.schema.check(Prompt(labels=labels, attributes=attributes))


def _held_by_fewer(keys: Sequence[Hashable], patients: Sequence[str], min_patients: int) -> list[bool]:
    """For each row, whether fewer than so many patients have a row of the same key."""
    holders: dict[Hashable, set[str]] = {}
    for key, patient in zip(keys, patients, strict=True):
        holders.setdefault(key, set()).add(patient)
    return [len(holders[key]) < min_patients for key in keys]


class _Smoothed:
    """Draws near a value so that mean and variance over all rows stay: a smoothed bootstrap (Silverman 1986, 6.4).

    The bandwidth is the normal reference rule (his equation 3.28); drawn values are pulled towards the mean, which
    makes up for the variance that the kernel adds.
    """

    def __init__(self, spec: AttributeSpec, values: Sequence[float | None]) -> None:
        stated = np.array([value for value in values if value is not None], dtype=np.float64)
        self._low = float(stated.min(initial=math.inf)) if spec.low is None else spec.low
        self._high = float(stated.max(initial=-math.inf)) if spec.high is None else spec.high
        self._mean = float(stated.mean()) if len(stated) else 0.0
        spread = float(stated.std()) if len(stated) else 0.0
        self._bandwidth = 1.06 * spread * max(len(stated), 1) ** -0.2
        self._pull = 1 / math.sqrt(1 + (self._bandwidth / spread) ** 2) if spread > 0 else 1.0
        width = self._high - self._low
        self._digits = 2 - math.floor(math.log10(width)) if width > 0 else 15

    def near(self, value: float, rng: np.random.Generator) -> float:
        """A draw near ``value``, to a thousandth of the range and within it."""
        moved = value + self._bandwidth * float(rng.standard_normal())
        drawn = self._mean + self._pull * (moved - self._mean)
        return min(max(round(drawn, self._digits), self._low), self._high)
