"""Means and shares over images as estimates, with intervals by patient and floors; refused if n is too small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.intervals import patient_bootstrap, proportion_interval

SMALLEST_MEAN = 5
SMALLEST_SHARE = 10
BY_PATIENT = "percentile bootstrap by patient"


class Named(Protocol):
    """A network to which a score refers."""

    @property
    def name(self) -> str:
        """Short name."""

    @property
    def digest(self) -> str:
        """Digest of its weights."""


class Means:
    """Computes estimates of means and shares over images.

    Args:
        draws: bootstrap samples for each interval.
        seed: seed of the bootstrap samples.
    """

    def __init__(self, draws: int, seed: int) -> None:
        self.draws, self.seed = draws, seed

    def mean(
        self,
        name: str,
        estimand: str,
        values: Array | None,
        patients: Array,
        *,
        floor: Array | None = None,
        floor_patients: Array | None = None,
        better: Literal["lower", "higher", "near_floor"] = "lower",
        network: Named | None = None,
        label: str | None = None,
        why: str = "",
    ) -> Estimate:
        """The mean of one value per image.

        Args:
            name: name of the score.
            estimand: estimated quantity in words.
            values: value of each image; ``None`` if there are none, for the reason ``why``.
            patients: patient of each value.
            floor: values of the reference images.
            floor_patients: patient of each reference value, if different.
            better: direction in which the score improves.
            network: network that was used.
            label: label to which the score is restricted.
            why: reason why there are no values.
        """
        total = 0 if values is None else len(values)
        counted = Estimate(
            name=name,
            estimand=estimand,
            value=None,
            n_synthetic=total,
            better=better,
            network=None if network is None else network.name,
            network_digest=None if network is None else network.digest,
            label=label,
        )
        if values is None or total < SMALLEST_MEAN:
            refused = f"{total} images (≥ {SMALLEST_MEAN})" if values is not None and total else why or "no image"
            return counted.model_copy(update={"refused": refused})
        return counted.model_copy(
            update={
                "value": float(values.mean()),
                "interval": self.bootstrap(name, label, _mean_of(values), patients),
                "method": f"mean over images; {BY_PATIENT}",
                **self._floor(name, label, floor, patients if floor_patients is None else floor_patients),
            }
        )

    def share(
        self,
        name: str,
        estimand: str,
        hits: Array,
        patients: Array,
        *,
        floor: Array | None = None,
        floor_patients: Array | None = None,
        label: str | None = None,
        wilson: bool = False,
        note: str = "",
        why: str = "",
    ) -> Estimate:
        """The share of images for which a condition holds.

        Args:
            name: name of the score.
            estimand: estimated quantity in words.
            hits: whether the condition holds for each image, bool.
            patients: patient of each image.
            floor: the same for the reference images.
            floor_patients: patient of each reference image, if different.
            label: label to which the score is restricted.
            wilson: whether Wilson's interval over images replaces the bootstrap by patient.
            note: note that is added to the method.
            why: reason why there are no images.
        """
        total = len(hits)
        counted = Estimate(name=name, estimand=estimand, value=None, n_synthetic=total, better="higher", label=label)
        if total < SMALLEST_SHARE:
            return counted.model_copy(update={"refused": why or f"{total} images (≥ {SMALLEST_SHARE})"})
        interval, method = proportion_interval(int(hits.sum()), total), "Wilson, over images"
        if not wilson:
            interval, method = self._share_interval(name, label, hits, patients)
        return counted.model_copy(
            update={
                "value": float(hits.mean()),
                "interval": interval,
                "method": "; ".join(filter(None, (f"share of images; {method}", note))),
                **self._floor(name, label, floor, patients if floor_patients is None else floor_patients),
            }
        )

    def bootstrap(
        self, name: str, label: str | None, score: Callable[[Array], float | None], patients: Array
    ) -> Interval | None:
        """95 % interval of a score of rows, resampled by patient.

        See :func:`medphantom.quality.stats.intervals.patient_bootstrap`.
        """
        rng = np.random.default_rng(derive_seed(self.seed, name, label or ""))
        return patient_bootstrap(score, patients, draws=self.draws, rng=rng)

    def _share_interval(self, name: str, label: str | None, hits: Array, patients: Array) -> tuple[Interval, str]:
        """Bootstrap interval by patient; for a share of 0 or 1 Wilson's interval over the number of patients."""
        found = self.bootstrap(name, label, _mean_of(hits), patients)
        if found is not None:
            return found, BY_PATIENT
        trials = len(np.unique(patients))
        return proportion_interval(round(float(hits.mean()) * trials), trials), "Wilson, over patients"

    def _floor(self, name: str, label: str | None, values: Array | None, patients: Array) -> dict[str, object]:
        """Mean of the reference with its interval; empty if there are too few images."""
        if values is None or len(values) < SMALLEST_MEAN:
            return {}
        interval = self.bootstrap(f"{name} floor", label, _mean_of(values), patients)
        return {"floor": float(values.mean()), "floor_interval": interval, "n_real": len(values)}


def _mean_of(values: Array) -> Callable[[Array], float]:
    return lambda rows: float(values[rows].mean())
