"""Mask agreement: does a segmenter trained on real images find the prompted mask in synthetic images?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.intervals import patient_bootstrap

NAME = "mask_dice"
SMALLEST_TEST = 5


def dice_table(found_N: Array, wanted_N: Array, total_values: int) -> Array:
    """Dice coefficient of every image and every value except the background (Dice 1945): ``2 |A ∩ B| / (|A| + |B|)``.

    Args:
        found_N: predicted masks, uint8 ``(N, *size)``.
        wanted_N: reference masks, uint8 ``(N, *size)``.
        total_values: number V of mask values, including the background.

    Returns:
        float64 ``(N, V - 1)``; NaN where neither mask holds the value.
    """
    table = np.full((len(found_N), total_values - 1), np.nan)
    for value in range(1, total_values):
        first = (found_N == value).reshape(len(found_N), -1)
        second = (wanted_N == value).reshape(len(found_N), -1)
        sizes = first.sum(axis=1) + second.sum(axis=1)
        shared = (first & second).sum(axis=1)
        table[sizes > 0, value - 1] = 2 * shared[sizes > 0] / sizes[sizes > 0]
    return table


def mask_agreement(
    names: Sequence[str],
    *,
    requested: Array,
    wanted: Array,
    patients: Sequence[str],
    bootstrap: int,
    rng: np.random.Generator,
) -> list[Estimate]:
    """Dice of prompted and predicted masks, over all values and for each value.

    Args:
        names: names of the mask values except the background.
        requested: Dice table of synthetic images.
        wanted: Dice table of real test images, which is the floor.
        patients: patient of each real test image.
        bootstrap: bootstrap samples for each interval.
        rng: source of the bootstrap samples.
    """
    own = np.arange(len(requested)).astype(str)
    found = []
    for number, name in enumerate([None, *names]):
        columns = slice(None) if name is None else slice(number - 1, number)
        value, interval = _mean(requested[:, columns], own, bootstrap, rng)
        floor, floor_interval = _mean(wanted[:, columns], np.asarray(patients), bootstrap, rng)
        found.append(
            Estimate(
                name=NAME,
                estimand="Dice of the prompted mask and the mask that a segmenter trained on real train patients "
                "finds in the synthetic image; floor: its Dice on real test patients",
                value=value,
                interval=interval,
                method="mean over images; percentile bootstrap (real images by patient)",
                n_synthetic=len(requested),
                n_real=len(wanted),
                floor=floor,
                floor_interval=floor_interval,
                better="higher",
                label=name,
                refused=None if value is not None else f"fewer than {SMALLEST_TEST} images were prompted with it",
            )
        )
    return found


def _mean(
    table: Array, patients: Array, bootstrap: int, rng: np.random.Generator
) -> tuple[float | None, Interval | None]:
    """Mean over the images that contain any of the values, and its interval."""
    held = ~np.isnan(table).all(axis=1)
    if held.sum() < SMALLEST_TEST:
        return None, None
    each = np.nanmean(table[held], axis=1)
    return float(each.mean()), patient_bootstrap(
        lambda rows: float(each[rows].mean()), patients[held], draws=bootstrap, rng=rng
    )
