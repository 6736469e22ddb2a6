"""Effectiveness of interventions and preservation of other labels, from predictions for counterfactuals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.counterfactual.readings import Reading
from medphantom.quality.data.pairs import PairImages
from medphantom.quality.networks.regressor import r_squared
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.means import BY_PATIENT, SMALLEST_SHARE, Means

SMALLEST_VALUES = 5  # smallest number of different requested values for an R²
NOT_READ = "all pairs are of patients on whom the classifiers were trained: make pairs of --split test"


def readable(images: PairImages) -> Array:
    """Mask of pairs of patients in neither ``train`` nor ``val``, for whom predictions are valid."""
    found: Array = ~np.isin(images.splits, ["train", "val"])
    return found


def effectiveness(
    readings: Sequence[Reading], images: PairImages, test_patients: Array, means: Means
) -> Iterator[Estimate]:
    """Agreement of predictions with the intervention, per label and requested state and per continuous attribute.

    Args:
        readings: predictions of labels and attributes.
        images: pairs with their patients and splits.
        test_patients: patient of each real test image.
        means: estimator of means and shares.
    """
    for reading in readings:
        effect = _Effect(reading, readable(images), images.patients, test_patients, means)
        yield from effect.of_number() if reading.facts.kind == "continuous" else effect.of_states()


@dataclass(frozen=True)
class _Effect:
    """Effectiveness for one target; ``may`` marks the pairs that may be scored."""

    reading: Reading
    may: Array
    patients: Array
    test_patients: Array
    means: Means

    def of_states(self) -> Iterator[Estimate]:
        """Effectiveness for each requested state."""
        reading = self.reading
        for state, word in ((1, "present"), (0, "absent")):
            requested = (reading.after == state) & (reading.before != state)
            if requested.any() and not (reading.facts.kind == "category" and state == 0):
                yield from self._of_state(state, f"{reading.facts.name}, {word}", requested)

    def _of_state(self, state: int, label: str, requested: Array) -> Iterator[Estimate]:
        """Effectiveness for one requested state, and for the previous state of the factual images."""
        reading, rows = self.reading, requested & self.may
        known = rows & (reading.before >= 0)
        trained = "a classifier trained on real train patients, at its operating point on val,"
        for name, role, wanted, chosen, words in (
            (
                "effectiveness",
                "counterfactual",
                state,
                rows,
                "counterfactuals in which {} predicts the requested state",
            ),
            (
                "effectiveness_before",
                "factual",
                1 - state,
                known,
                "factual images in which {} predicts the previous state",
            ),
        ):
            real = reading.test == wanted
            nothing = not reading.read
            yield self.means.share(
                name,
                f"share of {words.format(trained)}; floor: of real test images with that state",
                np.zeros(0, bool) if nothing else reading.read[role][chosen] == bool(wanted),
                self.patients[:0] if nothing else self.patients[chosen],
                floor=None if nothing else reading.read_test[real] == bool(wanted),
                floor_patients=self.test_patients[real],
                label=label,
                why=self._why(rows),
            )

    def _why(self, rows: Array) -> str:
        return self.reading.facts.refused or ("" if rows.any() else NOT_READ)

    def of_number(self) -> Iterator[Estimate]:
        """Mean absolute error and R² of predicted against requested values."""
        reading = self.reading
        requested = ~np.isnan(reading.after) & (reading.after != reading.before)
        if not requested.any():
            return
        rows, known = requested & self.may, ~np.isnan(reading.test)
        nothing, unit = not reading.read, f", in {reading.unit}" if reading.unit else ""
        trained = "a regressor trained on real train patients"
        for score, role, words in (
            ("effectiveness_error", "counterfactual", "predicts for the counterfactual"),
            ("effectiveness_error_before", "factual", "predicts for the unchanged factual image"),
        ):
            yield self.means.mean(
                score,
                f"mean absolute difference between the requested value and what {trained} {words}{unit}; floor: "
                "between recorded and predicted values of real test images",
                None if nothing else np.abs(reading.read[role][rows] - reading.after[rows]),
                self.patients[rows],
                floor=None if nothing else np.abs(reading.read_test - reading.test)[known],
                floor_patients=self.test_patients[known],
                label=reading.facts.name,
                why=self._why(rows),
            )
        yield self._r_squared(rows)

    def _r_squared(self, rows: Array) -> Estimate:
        """R² of predicted against requested values, if these differ."""
        reading, label, wanted = self.reading, self.reading.facts.name, self.reading.after[rows]
        why = self._why(rows)
        if not why and rows.sum() < SMALLEST_SHARE:
            why = f"{int(rows.sum())} images (≥ {SMALLEST_SHARE})"
        elif not why and len(np.unique(wanted)) < SMALLEST_VALUES:
            why = f"the requested values hardly differ: request a range, as in --set {label}=LOW:HIGH"
        estimate = Estimate(
            name="effectiveness_r2",
            estimand="coefficient of determination between the requested values and the predictions of a regressor "
            "trained on real train patients for the counterfactuals; floor: the same for recorded values of real "
            "test images",
            value=None,
            n_synthetic=int(rows.sum()),
            better="higher",
            label=label,
            refused=why or None,
        )
        if why:
            return estimate
        known = ~np.isnan(reading.test)
        fitted = self._fit(wanted, reading.read["counterfactual"][rows], self.patients[rows], label)
        real = self._fit(reading.test[known], reading.read_test[known], self.test_patients[known], f"{label} floor")
        floor = real if known.sum() >= SMALLEST_SHARE else (None, None)
        found = {"value": fitted[0], "interval": fitted[1], "floor": floor[0], "floor_interval": floor[1]}
        return estimate.model_copy(update={**found, "method": BY_PATIENT, "n_real": int(known.sum())})

    def _fit(self, wanted: Array, read: Array, owners: Array, label: str) -> tuple[float | None, Interval | None]:
        between = self.means.bootstrap("effectiveness_r2", label, lambda n: r_squared(wanted[n], read[n]), owners)
        return r_squared(wanted, read), between


def unrelated_kept(readings: Sequence[Reading], images: PairImages, means: Means) -> Iterator[Estimate]:
    """Share of unchanged predictions for labels and categories outside the intervention."""
    may = readable(images)
    kept, alone, owners = [], [], []
    estimand = (
        "share of pairs in which the prediction of a label outside the intervention is the same for the "
        "counterfactual and the factual image; floor: for the autoencoder's reconstruction and the source image"
    )
    for reading in readings:
        if reading.facts.kind == "continuous" or not reading.read:
            continue
        rows = may & (reading.before == reading.after)
        if not rows.any():
            continue
        same = reading.read["counterfactual"][rows] == reading.read["factual"][rows]
        floor = None
        if "reconstruction" in reading.read:
            floor = reading.read["reconstruction"][rows] == reading.read["source"][rows]
            alone.append(floor)
        kept.append(same)
        owners.append(images.patients[rows])
        yield means.share("unrelated_kept", estimand, same, owners[-1], floor=floor, label=reading.facts.name)
    none = np.zeros(0, bool)
    yield means.share(
        "unrelated_kept",
        f"{estimand}; over all such labels together",
        np.concatenate([none, *kept]),
        np.concatenate([images.patients[:0], *owners]),
        floor=np.concatenate(alone) if alone and len(alone) == len(kept) else None,
        why="no label outside the intervention can be predicted",
    )
