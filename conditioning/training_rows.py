"""Content of real training rows that may enter a prompt: combinations that several patients share, no exact values."""

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
    """The training split as prompts, none of which reveals more than several patients share.

    - A label set of fewer than ``min_patients`` patients is reduced at random to labels that enough patients show
        together; the rest of it is missing (not absent), for the model to fill in. Each attribute is drawn
        independently from the rows that show those labels.
    - If a label set is common but fewer patients share it with all their categories, each attribute is drawn
        independently from the rows of the set that are equally rare: shares within the set stay, the combination does
        not.
    - A category of fewer patients is never named.
    - Continuous values are drawn from a smoothed distribution, since a row of exact values may identify a patient.

    Args:
        cohort: Real cohort; only its ``train`` rows are used.
        schema: Vocabulary of the generator; by default that of the cohort.
        min_patients: Smallest number of patients of a combination that may be used.

    Raises:
        InputError: If the cohort has no training rows.
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
        """Return positions among the training rows at which the label is present."""
        return np.flatnonzero(self._states[label] == 1) if label in self._states else np.zeros(0, dtype=np.int64)

    def prompt(self, row: int, rng: np.random.Generator, *, keep: str | None = None) -> Prompt:
        """Return a prompt derived from one training row.

        Args:
            row: Position among the training rows.
            rng: Random generator of everything that is not copied from the row.
            keep: Present label that is kept even if the set is reduced.
        """
        labels = {name: bool(state[row]) for name, state in self._states.items() if state[row] >= 0}
        donors: npt.NDArray[np.int64] | None = self._donors.get(row)
        if self._rare_set[row]:
            present = [name for name, shown in labels.items() if shown]
            labels = dict.fromkeys(self._shared(present, rng, keep), True)
            donors = self._showing_all(frozenset(labels))
            if not self._enough(donors):  # only for a label that was requested by name
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
        """Return labels, in random order, as many as enough patients show together."""
        shared = [] if keep is None else [keep]
        for name in rng.permutation([name for name in present if name != keep]):
            if self._enough(self._showing_all(frozenset([*shared, str(name)]))):
                shared.append(str(name))
        return shared

    def _showing_all(self, labels: frozenset[str]) -> npt.NDArray[np.int64]:
        """Return positions of the rows that show all of these labels; all rows if there are no labels."""
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
        """Return for each row whether fewer than ``min_patients`` patients have a row of the same key."""
        holders: dict[Hashable, set[int]] = {}
        for key, patient in zip(keys, self._patients.tolist(), strict=True):
            holders.setdefault(key, set()).add(patient)
        return [len(holders[key]) < self._min_patients for key in keys]

    def _find_donors(self, sets: Sequence[Hashable]) -> dict[int, npt.NDArray[np.int64]]:
        """Return, for each row of a common label set but a rare combination, the rows from which its attributes are
        drawn.

        These are the rare rows of the same label set, or all rows of that set if the rare ones have too few patients.
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
    """Draws near a value that preserve mean and variance over all rows: a smoothed bootstrap (Silverman 1986, 6.4).

    The bandwidth is the normal reference rule (his equation 3.28); drawn values are shrunk towards the mean, which
    compensates for the variance that the kernel adds.
    """

    def __init__(self, spec: AttributeSpec, values: Sequence[float | None]) -> None:
        observed = np.array([value for value in values if value is not None], dtype=np.float64)
        self._low = float(observed.min(initial=math.inf)) if spec.low is None else spec.low
        self._high = float(observed.max(initial=-math.inf)) if spec.high is None else spec.high
        self._mean = float(observed.mean()) if len(observed) else 0.0
        spread = float(observed.std()) if len(observed) else 0.0
        self._bandwidth = 1.06 * spread * max(len(observed), 1) ** -0.2
        self._pull = 1 / math.sqrt(1 + (self._bandwidth / spread) ** 2) if spread > 0 else 1.0
        width = self._high - self._low
        self._digits = math.ceil(2.5 - math.log10(width)) if width > 0 else 15

    def near(self, value: float, rng: np.random.Generator) -> float:
        """Return a random value near ``value``, rounded to about a thousandth of the range and within it."""
        moved = value + self._bandwidth * float(rng.standard_normal())
        drawn = self._mean + self._pull * (moved - self._mean)
        return min(max(round(drawn, self._digits), self._low), self._high)
