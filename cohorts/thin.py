"""A cohort with fewer training patients, like that of a smaller hospital, tested on the same other patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError


def thin(cohort: Cohort, out: Path, fraction: float, seed: int) -> Cohort:
    """Write a cohort without some of the training patients; ``val``, ``holdout`` and ``test`` are unchanged.

    Smaller fractions with the same seed are subsets of larger ones.

    Args:
        cohort: Cohort of real images.
        out: Folder that is created.
        fraction: Fraction of the training patients to keep, above 0 and at most 1.
        seed: Seed of the selection.

    Raises:
        InputError: If the fraction is out of bounds or leaves no patient, or ``out`` exists.
    """
    rows = cohort.rows("train")
    owners = cohort.patients(rows)
    names = sorted(set(owners))
    if not 0 < fraction <= 1 or round(fraction * len(names)) < 1:
        raise InputError(f"a fraction of {fraction:g} of {len(names)} training patients leaves none", "give up to 1")
    order = np.random.default_rng(seed).permutation(len(names))
    kept = {names[place] for place in order[: round(fraction * len(names))]}
    dropped = {row for row, owner in zip(rows, owners, strict=True) if owner not in kept}
    left = [row for row in range(len(cohort)) if row not in dropped]
    with CohortWriter(out, cohort.schema) as writer:
        for record in cohort.records(left):
            writer.add(record)
    return Cohort.open(out)
