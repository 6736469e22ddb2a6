"""A score that says what it estimates, from how many images, how sure it is, and what real images themselves reach."""

from __future__ import annotations

from typing import Literal

from cohorts.records import Frozen

Interval = tuple[float, float]


class Estimate(Frozen):
    """One score.

    Attributes:
        name: short name, e.g. ``fid``; unique in a report together with ``network`` and ``label``.
        estimand: what is estimated, in words.
        value: the estimate; ``None`` when it was refused.
        interval: 95 % interval, ``None`` where none is supported.
        spread: smallest and largest value over repeated draws or seeds, which is *not* a confidence interval;
            ``method`` says over what.
        method: how interval or spread (and value) were obtained.
        n_synthetic: synthetic images used.
        n_real: real images used.
        floor: what real images reach against real images of other patients at the same n.
        floor_interval: range or interval of the floor.
        better: the direction in which synthetic images resemble real ones more.
        network: name of the feature network, where one is used.
        network_digest: digest of its weights.
        label: label or subgroup that the estimate is restricted to.
        refused: why there is no value, and what to use instead.
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
