"""Positive controls: copies of training images that are planted, kind by kind, to see what the search finds."""

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
FOUND_IN = 0.8  # of the trials

Maker = Callable[[Array], Array]


@dataclass(frozen=True)
class Planted:
    """Copies of one kind.

    Attributes:
        kind: name of the kind.
        images: ``(n, C, *)`` float32 in -1…1.
    """

    kind: str
    images: Array


def plant(train: Array, config: CopyConfig, makers: Mapping[str, Maker], rng: np.random.Generator) -> Iterator[Planted]:
    """Copies of each kind that can be made, of randomly drawn training images; none where none are asked for.

    Args:
        train: training images ``(N, C, *)``.
        config: which kinds, and how many of each.
        makers: what makes copies through the generator, by kind.
        rng: source of all draws.
    """
    for kind in config.kinds if config.controls else ():
        chosen = train[np.sort(rng.permutation(len(train))[: config.controls])]
        if kind in ALTERATIONS:
            yield Planted(kind, altered(kind, chosen, rng))
        elif (maker := makers.get(kind)) is not None:
            yield Planted(kind, maker(chosen))


def control_kind(kind: str, p_values: Array, config: CopyConfig, *, fewest: int | None, total: int) -> ControlKind:
    """What the search found of one kind.

    Args:
        kind: its name.
        p_values: of each planted copy, that chance makes it look so; empty where none could be planted.
        config: the level at which an image is flagged, and what counts as covered.
        fewest: see :func:`fewest_seen`.
        total: synthetic images.
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


def fewest_seen(
    tests: Sequence[CopyTest], planted: Sequence[Array], level: float, rng: np.random.Generator
) -> int | None:
    """How many copies of a kind have to be in the set before one test sees them, four times out of five.

    Found by trial: ever more images are replaced by planted copies. Every test has its own contrasts.

    Args:
        tests: of the set, without the copies.
        planted: contrasts of the planted copies, in the same order for every test.
        level: at which a test fails the set.
        rng: source of all draws.

    Returns:
        The smallest of some numbers that is enough; ``None``: not even a tenth of the set.
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
        if seen >= FOUND_IN * TRIALS:
            return copies
    return None


def _numbers(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 11 … up to the most."""
    number = 1
    while number <= most:
        yield number
        number = max(number + 1, int(number * 1.4))
