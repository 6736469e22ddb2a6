"""A score with its estimand, sample size, interval and real-vs-real floor."""

from __future__ import annotations

import math
from typing import Literal

from medphantom.core.records import Frozen

Interval = tuple[float, float]
IMAGES_PER_FEATURE = 2
"""Number of images per side and feature that a Fréchet distance requires."""


class Estimate(Frozen):
    """One score.

    Attributes:
        name: short name, e.g. ``fid``; unique in a report together with ``network`` and ``label``.
        estimand: estimated quantity in words.
        value: value of the estimate; ``None`` if it was refused.
        interval: 95 % confidence interval; ``None`` if none is supported.
        spread: smallest and largest value over repeated draws or seeds, which is *not* a confidence interval;
            ``method`` describes it.
        method: method of the interval or spread, and of the value.
        n_synthetic: number of synthetic images used.
        n_real: number of real images used.
        floor: score of real images against real images of other patients at the same n.
        floor_interval: range or interval of the floor.
        better: direction in which synthetic images resemble real images more closely.
        network: name of the feature network, if one is used.
        network_digest: digest of its weights.
        label: label or subgroup to which the estimate is restricted.
        refused: reason why there is no value, and what to use instead.
    """

    name: str
    estimand: str
    value: float | None
    interval: Interval | None = None
    spread: Interval | None = None
    method: str = ""
    n_synthetic: int | None = None
    n_real: int | None = None
    floor: float | None = None
    floor_interval: Interval | None = None
    better: Literal["lower", "higher", "near_floor"] = "lower"
    network: str | None = None
    network_digest: str | None = None
    label: str | None = None
    refused: str | None = None


def number(value: float | None) -> str:
    """The value as text with three significant digits (two below 0.1), and an exponent only below 0.0001."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) < 1e-4:
        text = f"{value:.1e}"
    else:
        digits = max(0, (2 if abs(value) >= 0.0995 else 1) - math.floor(math.log10(abs(value))))
        text = f"{value:.{digits}f}"
    return text.replace("-", "−")
