"""What of the real training rows may enter a prompt: combinations that several patients share, and no exact values."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from medphantom.cohorts.records import AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.observed import observed_attributes
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.core.errors import InputError


class TrainingRows:
    """The training split as prompts, each of which says no more than several patients share.

    - A label set that fewer than ``min_patients`` patients have is cut down at random to labels that as many patients
      show together; the rest of it is left unstated (not absent), for the model to fill in. Each attribute is drawn for
      itself from the rows that show those labels.
    - Where a label set is common but fewer patients share it with all their categories, each attribute is drawn for
      itself from the rows of the set that are held back likewise: shares within the set stay, the combination does not.
    - A category that fewer patients have is never stated.
    - Continuous values are drawn from a smoothed distribution, since a row of exact values may point to a patient.

    Args:
        cohort: real cohort; only its ``train`` rows are used.
        schema: the vocabulary of the generator; by default that of the cohort.
        min_patients: smallest number of patients that a combination must have to be written down.

    Raises:
        InputError: the cohort has no training rows.
    """

    def __init__(self, cohort: Cohort, schema: ConditionSchema | None, min_patients: int) -> None:
        self.schema = ConditionSchema.from_cohort(cohort.schema) if schema is None else schema
        rows = cohort.rows("train")
        if not rows:
            raise InputError("the cohort has no training rows to plan from", "give a real cohort with a train split")
        self._min_patients = min_patients
        self._patients = np.unique(cohort.patients(rows), return_inverse=True)[1]
        columns = {name: place for place, name in enumerate(cohort.schema.labels)}
        states = cohort.labels(rows)
        self._states = {name: states[:, columns[name]] for name in self.schema.labels if name in columns}
        self._values = observed_attributes(cohort, rows, self.schema)
        self._specs = [spec for spec in self.schema.attributes if spec.name in self._values]
        self._smoothed = {s.name: Smoothed(s, self._values[s.name]) for s in self._specs if s.kind == "continuous"}
        self._observed = {s.name: self._common_categories(s) for s in self._specs if s.kind == "categorical"}
        sets = [tuple(int(state[row]) for state in self._states.values()) for row in range(len(rows))]
        combined = [(labels, *(self._values[name][row] for name in self._observed)) for row, labels in enumerate(sets)]
        self._rare_set = self._rare(sets)
        self._rare_row = self._rare(combined)
        self._donors = self._find_donors(sets)
        self._together: dict[frozenset[str], npt.NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._patients)

    def showing(self, label: str) -> npt.NDArray[np.int64]:
        """Places among the training rows at which the label is present."""
        return np.flatnonzero(self._states[label] == 1) if label in self._states else np.zeros(0, dtype=np.int64)

    def prompt(self, row: int, rng: np.random.Generator, *, keep: str | None = None) -> Prompt:
        """A prompt after one training row.

        Args:
            row: place among the training rows.
            rng: draws whatever is not taken from the row as it is.
            keep: a present label that is stated even where the set is cut down.
        """
        labels = {name: bool(state[row]) for name, state in self._states.items() if state[row] >= 0}
        donors: npt.NDArray[np.int64] | None = self._donors.get(row)
        if self._rare_set[row]:
            present = [name for name, shown in labels.items() if shown]
            labels = dict.fromkeys(self._shared(present, rng, keep), True)
            donors = self._showing_all(frozenset(labels))
            if not self._enough(donors):  # only a label that was asked for by name
                donors = np.arange(len(self))
        attributes: dict[str, float | str] = {}
        for spec in self._specs:
            value = self._values[spec.name][row if donors is None else int(rng.choice(donors))]
            if value is None:
                continue
            if spec.kind == "continuous":
                attributes[spec.name] = self._smoothed[spec.name].near(float(value), rng)
            elif value in self._observed[spec.name]:
                attributes[spec.name] = value
        return self.schema.check(Prompt(labels=labels, attributes=attributes))

    def _shared(self, present: Sequence[str], rng: np.random.Generator, keep: str | None) -> list[str]:
        """Labels, taken in random order, as many as enough patients show together."""
        shared = [] if keep is None else [keep]
        for name in rng.permutation([name for name in present if name != keep]):
            if self._enough(self._showing_all(frozenset([*shared, str(name)]))):
                shared.append(str(name))
        return shared

    def _showing_all(self, labels: frozenset[str]) -> npt.NDArray[np.int64]:
        """Places of the rows that show all of these labels; all rows, where there are none."""
        if labels not in self._together:
            shown = np.ones(len(self), dtype=bool)
            for name in labels:
                shown &= self._states[name] == 1
            self._together[labels] = np.flatnonzero(shown)
        return self._together[labels]

    def _common_categories(self, spec: AttributeSpec) -> set[str]:
        values = self._values[spec.name]
        rare = self._rare(values)
        return {value for value, few in zip(values, rare, strict=True) if not few and value in spec.categories}

    def _rare(self, keys: Sequence[Hashable]) -> list[bool]:
        """For each row, whether fewer than ``min_patients`` patients have a row of the same key."""
        holders: dict[Hashable, set[int]] = {}
        for key, patient in zip(keys, self._patients.tolist(), strict=True):
            holders.setdefault(key, set()).add(patient)
        return [len(holders[key]) < self._min_patients for key in keys]

    def _find_donors(self, sets: Sequence[Hashable]) -> dict[int, npt.NDArray[np.int64]]:
        """For each row of a common label set but a rare combination, the rows that its attributes are drawn from.

        Those of the same label set that are rare too, or all of that set where these are of too few patients.
        """
        held_back: dict[Hashable, list[int]] = {}
        whole: dict[Hashable, list[int]] = {}
        for row, key in enumerate(sets):
            whole.setdefault(key, []).append(row)
            if self._rare_row[row]:
                held_back.setdefault(key, []).append(row)
        chosen = {}
        for key, rows in held_back.items():
            pool = np.array(rows)
            chosen[key] = pool if self._enough(pool) else np.array(whole[key])
        return {row: chosen[key] for row, key in enumerate(sets) if self._rare_row[row]}

    def _enough(self, rows: npt.NDArray[np.int64]) -> bool:
        return len(np.unique(self._patients[rows])) >= self._min_patients


class Smoothed:
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
        self._digits = math.ceil(2.5 - math.log10(width)) if width > 0 else 15

    def near(self, value: float, rng: np.random.Generator) -> float:
        """A draw near ``value``, to about a thousandth of the range and within it."""
        moved = value + self._bandwidth * float(rng.standard_normal())
        drawn = self._mean + self._pull * (moved - self._mean)
        return min(max(round(drawn, self._digits), self._low), self._high)
