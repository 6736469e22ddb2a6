"""Positive controls: copies of training images planted by kind, to measure the recall of the copy search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.config import CORE_KINDS, CopyConfig
from medphantom.quality.privacy.alterations import ALTERATIONS, altered
from medphantom.quality.privacy.contrast import CopyTest
from medphantom.quality.results.quality_report import ControlKind
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.stats.intervals import proportion_lower_bound

TRIALS = 20
POWER = 0.8

Maker = Callable[[Array], Array]


@dataclass(frozen=True)
class Planted:
    """Planted copies of one kind.

    Attributes:
        kind: name of the kind of copy.
        images: planted copies ``(n, C, *)``, float32 in -1…1.
    """

    kind: str
    images: Array


def plant(train: Array, config: CopyConfig, makers: Mapping[str, Maker], rng: np.random.Generator) -> Iterator[Planted]:
    """Make copies of randomly drawn training images, of each kind that is configured and can be made.

    Args:
        train: training images ``(N, C, *)``.
        config: kinds of copies and their number.
        makers: functions that make copies through the generator, by kind.
        rng: source of all random draws.
    """
    for kind in config.kinds if config.controls else ():
        chosen = train[np.sort(rng.permutation(len(train))[: config.controls])]
        if kind in ALTERATIONS:
            yield Planted(kind, altered(kind, chosen, rng))
        elif (maker := makers.get(kind)) is not None:
            yield Planted(kind, maker(chosen))


def control_kind(kind: str, p_values: Array, config: CopyConfig, *, fewest: int | None, total: int) -> ControlKind:
    """Recall of one kind of planted copies.

    Args:
        kind: name of the kind of copy.
        p_values: p value of each planted copy; empty if none could be planted.
        config: significance level of flags, and the recall required for coverage.
        fewest: result of :func:`fewest_detected` for this kind.
        total: number of synthetic images.
    """
    core = kind in CORE_KINDS or kind in config.core
    if not len(p_values):
        return ControlKind(kind=kind, core=core, covered=False, recall=None, fewest=None)
    hits = int((p_values < config.flag_level).sum())
    bound = proportion_lower_bound(hits, len(p_values))
    recall = Estimate(
        name="control_recall",
        estimand=f"share of planted copies ({kind}) that are flagged",
        value=hits / len(p_values),
        interval=(bound, 1.0),
        method="Clopper-Pearson, 95 % one-sided",
        n_synthetic=len(p_values),
        better="near_floor",
        floor=1.0,
        label=kind,
    )
    return ControlKind(
        kind=kind,
        core=core,
        covered=bound >= config.least_recall,
        recall=recall,
        fewest=fewest if fewest is not None and fewest <= total else None,
    )


def fewest_detected(
    tests: Sequence[CopyTest], planted: Sequence[Array], level: float, rng: np.random.Generator
) -> int | None:
    """The smallest number of copies of a kind in the set that at least one test detects with a power of 80 %.

    It is found by simulation, in which increasing numbers of images are replaced by planted copies.

    Args:
        tests: tests of the set without the copies.
        planted: contrasts of the planted copies for each test, in the same order.
        level: significance level at which a test fails the set.
        rng: source of all random draws.

    Returns:
        The smallest sufficient number of those tried; ``None`` if a tenth of the set is not enough.
    """
    total, available = len(tests[0].contrast), len(planted[0])
    for copies in _numbers(total // 10):
        seen = 0
        for _ in range(TRIALS):
            places, chosen = rng.permutation(total)[:copies], rng.integers(available, size=copies)
            for test, theirs in zip(tests, planted, strict=True):
                mixed = test.contrast.copy()
                mixed[places] = theirs[chosen]
                if test.p_value_of(mixed) < level:
                    seen += 1
                    break
        if seen >= POWER * TRIALS:
            return copies
    return None


def _numbers(most: int) -> Iterator[int]:
    """The numbers 1, 2, 3, 4, 6, 8, 11, … up to ``most``."""
    number = 1
    while number <= most:
        yield number
        number = max(number + 1, int(number * 1.4))
