"""Subgroups of test patients by sex, age or view: performance gaps, and whether synthetic images widen them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from medphantom.cohorts.store import Cohort
from medphantom.core.records import Array
from medphantom.quality.results.model_score import TrainingArm
from medphantom.quality.results.study_report import GroupGap
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.utility.repeated import RepeatedScore, mean_over

ByGroup = Callable[[TrainingArm, Array], dict[str, RepeatedScore]]
REAL = TrainingArm(kind="real")


@dataclass(frozen=True)
class Subgroup:
    """A subgroup of the test images.

    Attributes:
        attribute: attribute that defines the subgroup.
        name: name in words, such as ``sex = F``.
        rows: positions among the test images.
    """

    attribute: str
    name: str
    rows: Array


def subgroups(cohort: Cohort, test: Sequence[int], train: Sequence[int]) -> Iterator[Subgroup]:
    """Subgroups by the categories of an attribute, or by the median of a continuous one over the training images.

    Args:
        cohort: real cohort with attributes.
        test: rows of the test images.
        train: rows of the training images.
    """
    for spec in cohort.schema.attributes:
        observed = cohort.attribute(spec.name, test)
        if spec.kind == "categorical":
            for category in spec.categories:
                rows = np.array([place for place, value in enumerate(observed) if value == category], dtype=np.int64)
                yield Subgroup(spec.name, f"{spec.name} = {category}", rows)
            continue
        known = [float(value) for value in cohort.attribute(spec.name, train) if value is not None]
        if not known:
            continue
        middle = float(np.median(known))
        numbers = np.array([np.nan if value is None else float(value) for value in observed])
        unit = f" {spec.unit}" if spec.unit else ""
        yield Subgroup(spec.name, f"{spec.name} < {middle:g}{unit}", np.flatnonzero(numbers < middle))
        yield Subgroup(spec.name, f"{spec.name} ≥ {middle:g}{unit}", np.flatnonzero(numbers >= middle))


def group_gaps(groups: Sequence[Subgroup], by_group: ByGroup, arms: Sequence[TrainingArm]) -> Iterator[GroupGap]:
    """The gap in every arm between the subgroups with the best and worst score in *real*, over labels that all support.

    Args:
        groups: subgroups in the order of their attributes.
        by_group: function that returns scores by label for some rows, for labels with enough patients.
        arms: arms to be compared.
    """
    for attribute, members in groupby(groups, key=lambda group: group.attribute):
        some = list(members)
        real = {group.name: by_group(REAL, group.rows) for group in some}
        shared = [label for label in next(iter(real.values())) if all(label in found for found in real.values())]
        if len(some) < 2 or not shared:
            continue
        means = {name: mean_over([found[label] for label in shared]) for name, found in real.items()}
        order = sorted(some, key=lambda group: -means[group.name].mean.value)
        best, worst = order[0], order[-1]
        base = means[best.name].less(means[worst.name])
        for arm in arms:
            sides = [
                mean_over([found[label] for label in shared])
                for found in (by_group(arm, group.rows) for group in (best, worst))
            ]
            gap = sides[0].less(sides[1])
            change = None if arm == REAL else _estimate(gap.less(base), "group_gap_change", attribute)
            widened = change is not None and change.interval is not None and change.interval[0] > 0
            yield GroupGap(
                arm=arm,
                attribute=attribute,
                better=best.name,
                worse=worst.name,
                gap=_estimate(gap, "group_gap", attribute),
                change=change,
                widened=widened,
            )


def _estimate(found: RepeatedScore, name: str, attribute: str) -> Estimate:
    value, interval, _ = found.plain()
    return Estimate(
        name=name,
        estimand="mean AUROC of the subgroup with the highest score of models trained on real images minus that of the "
        "subgroup with the lowest"
        + ("; minus the same gap of models trained on real images" if name == "group_gap_change" else ""),
        value=value,
        interval=interval if interval[0] < interval[1] else None,
        method="variance of patients and of seeds, Student's t",
        better="near_floor",
        label=attribute,
    )
