"""The selection of images for the report by a fixed rule that excludes cherry-picking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.cohorts.store import Cohort

ROWS_OF_LABELS = 16
NONE_PRESENT = "no label present"


@dataclass(frozen=True)
class LabelRows:
    """The images that are shown for one label.

    Attributes:
        title: name of the label, or of the group without any label.
        real: row numbers of the real cohort.
        synthetic: row numbers of the synthetic cohort.
        total_real: number of real candidates.
        total_synthetic: number of synthetic candidates.
    """

    title: str
    real: tuple[int, ...]
    synthetic: tuple[int, ...]
    total_real: int
    total_synthetic: int


def choose(
    real: Cohort, synthetic: Cohort, *, split: str = "test", per_label: int, hidden: frozenset[int] = frozenset()
) -> tuple[list[LabelRows], int]:
    """The first images of each label in stored order, of different patients where patients are known.

    The selection depends only on label, patient and position, so that the images cannot be cherry-picked.

    Args:
        real: real cohort of which rows of ``split`` are shown.
        synthetic: synthetic cohort, all rows of which are candidates, in the order of the plan.
        split: split of the real patients that are shown.
        per_label: number of images of each kind.
        hidden: synthetic rows that must not be shown.

    Returns:
        One entry per label (the most frequent first :data:`ROWS_OF_LABELS`, in the order of the schema), and how many
        labels were left out.
    """
    groups = _groups(real, split)
    synthetic_rows = [row for row in range(len(synthetic)) if row not in hidden]
    synthetic_groups = _members(synthetic, synthetic_rows, real.schema.labels)
    counts = {title: len(synthetic_groups.get(title, ())) for title in groups}
    ranked = sorted(groups, key=lambda title: -counts[title])[:ROWS_OF_LABELS]
    chosen = []
    for title in groups:
        if title not in ranked:
            continue
        real_rows, made_rows = groups[title], synthetic_groups.get(title, [])
        if real_rows or made_rows:
            shown = _one_per_patient(real, real_rows)[:per_label]
            chosen.append(LabelRows(title, tuple(shown), tuple(made_rows[:per_label]), len(real_rows), len(made_rows)))
    return chosen, len(groups) - len(ranked)


def _groups(cohort: Cohort, split: str) -> dict[str, list[int]]:
    return _members(cohort, cohort.rows(split), cohort.schema.labels)


def _members(cohort: Cohort, rows: Sequence[int], labels: Sequence[str]) -> dict[str, list[int]]:
    """Rows by present label; rows with all labels absent form a separate group."""
    if not labels:
        return {"all images": list(rows)}
    members: dict[str, list[int]] = {name: [] for name in labels}
    none_present: list[int] = []
    known = {name: place for place, name in enumerate(cohort.schema.labels)}
    table = cohort.labels(rows) if rows else np.zeros((0, len(known)), dtype=np.int8)
    for row, observed in zip(rows, table, strict=True):
        present = [name for name in labels if name in known and observed[known[name]] == 1]
        for name in present:
            members[name].append(row)
        if not present and bool(np.all(observed == 0)):
            none_present.append(row)
    if not cohort.schema.exclusive:
        members[NONE_PRESENT] = none_present
    return members


def _one_per_patient(cohort: Cohort, rows: Sequence[int]) -> list[int]:
    seen: set[str] = set()
    firsts = []
    for row, patient in zip(rows, cohort.patients(rows), strict=True):
        if patient not in seen:
            seen.add(patient)
            firsts.append(row)
    return firsts
