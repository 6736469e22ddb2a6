"""Did the action show, and did anything else move: what readers see in counterfactuals, beside real images."""

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

SMALLEST_VALUES = 5  # different values that were asked for, behind an R²
NOT_READ = "all pairs are of patients that the classifiers learned from: make pairs of --split test"


def readable(images: PairImages) -> Array:
    """Which pairs a reader may see: those of patients in neither ``train`` nor ``val``."""
    found: Array = ~np.isin(images.splits, ["train", "val"])
    return found


def effectiveness(
    readings: Sequence[Reading], images: PairImages, test_patients: Array, means: Means
) -> Iterator[Estimate]:
    """Per label and state that was asked for, and per continuous attribute: is it read off the counterfactual?

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
    """Effectiveness of one reading: ``may`` marks the pairs that its network may see."""

    reading: Reading
    may: Array
    patients: Array
    test_patients: Array
    means: Means

    def of_states(self) -> Iterator[Estimate]:
        """Each state that some counterfactuals were asked for."""
        reading = self.reading
        for state, word in ((1, "present"), (0, "absent")):
            asked = (reading.after == state) & (reading.before != state)
            if asked.any() and not (reading.facts.kind == "category" and state == 0):
                yield from self._of_state(state, f"{reading.facts.name}, {word}", asked)

    def _of_state(self, state: int, label: str, asked: Array) -> Iterator[Estimate]:
        """The state that was asked for, and the one in which the factual images were."""
        reading, rows = self.reading, asked & self.may
        known = rows & (reading.before >= 0)
        trained = "a classifier trained on real train patients, read at the operating point of val,"
        for name, role, wanted, chosen, words in (
            ("effectiveness", "counterfactual", state, rows, "counterfactuals in which {} sees what was asked for"),
            ("effectiveness_before", "factual", 1 - state, known, "factual images in which {} sees the state before"),
        ):
            real = reading.test == wanted
            nothing = not reading.read
            yield self.means.share(
                name,
                f"share of {words.format(trained)}; floor: of real test images that are in that state",
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
        """Mean absolute error, and R², of the value that is read against the one that was asked for."""
        reading = self.reading
        asked = ~np.isnan(reading.after) & (reading.after != reading.before)
        if not asked.any():
            return
        rows, stated = asked & self.may, ~np.isnan(reading.test)
        nothing, unit = not reading.read, f", in {reading.unit}" if reading.unit else ""
        trained = "a regressor trained on real train patients"
        for score, role, words in (
            ("effectiveness_error", "counterfactual", "reads off the counterfactual"),
            ("effectiveness_error_before", "factual", "reads off the factual image, which was not changed"),
        ):
            yield self.means.mean(
                score,
                f"mean absolute difference between the value that was asked for and what {trained} {words}{unit}; "
                "floor: between what real test images have and what it reads",
                None if nothing else np.abs(reading.read[role][rows] - reading.after[rows]),
                self.patients[rows],
                floor=None if nothing else np.abs(reading.read_test - reading.test)[stated],
                floor_patients=self.test_patients[stated],
                label=reading.facts.name,
                why=self._why(rows),
            )
        yield self._r_squared(rows)

    def _r_squared(self, rows: Array) -> Estimate:
        """R² of the values that are read about those that were asked for, where these differ."""
        reading, label, wanted = self.reading, self.reading.facts.name, self.reading.after[rows]
        why = self._why(rows)
        if not why and rows.sum() < SMALLEST_SHARE:
            why = f"{int(rows.sum())} images (≥ {SMALLEST_SHARE})"
        elif not why and len(np.unique(wanted)) < SMALLEST_VALUES:
            why = f"one value was asked of all images, or nearly so: ask for a range, as in --set {label}=LOW:HIGH"
        estimate = Estimate(
            name="effectiveness_r2",
            estimand="coefficient of determination of what a regressor trained on real train patients reads off the "
            "counterfactual about the value that was asked for; floor: about the value that real test images have",
            value=None,
            n_synthetic=int(rows.sum()),
            better="higher",
            label=label,
            refused=why or None,
        )
        if why:
            return estimate
        stated = ~np.isnan(reading.test)
        asked = self._fit(wanted, reading.read["counterfactual"][rows], self.patients[rows], label)
        real = self._fit(reading.test[stated], reading.read_test[stated], self.test_patients[stated], f"{label} floor")
        floor = real if stated.sum() >= SMALLEST_SHARE else (None, None)
        found = {"value": asked[0], "interval": asked[1], "floor": floor[0], "floor_interval": floor[1]}
        return estimate.model_copy(update={**found, "method": BY_PATIENT, "n_real": int(stated.sum())})

    def _fit(self, wanted: Array, read: Array, owners: Array, label: str) -> tuple[float | None, Interval | None]:
        between = self.means.bootstrap("effectiveness_r2", label, lambda n: r_squared(wanted[n], read[n]), owners)
        return r_squared(wanted, read), between


def unrelated_kept(readings: Sequence[Reading], images: PairImages, means: Means) -> Iterator[Estimate]:
    """Labels and categories that the intervention does not touch: is their reading what it was on the factual image?"""
    may = readable(images)
    kept, alone, owners = [], [], []
    estimand = (
        "share of pairs in which a classifier reads a label that the intervention leaves alone off the counterfactual "
        "as it does off the factual image; floor: off the autoencoder's reconstruction as off the image"
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
        why="no label that the intervention leaves alone could be read",
    )
