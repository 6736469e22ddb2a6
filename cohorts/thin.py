"""A cohort with fewer training patients: what a smaller hospital would have, tested on the same others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError


def thin(cohort: Cohort, out: Path, fraction: float, seed: int) -> Cohort:
    """Write a cohort in which some training patients are left out; ``val``, ``holdout`` and ``test`` stay as they are.

    Smaller fractions of the same seed are part of larger ones.

    Args:
        cohort: A real cohort.
        out: Folder to make.
        fraction: Of the training patients that stay, above 0 and up to 1.
        seed: Decides which.

    Raises:
        InputError: A fraction out of bounds, or one that leaves no patient; ``out`` exists.
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
