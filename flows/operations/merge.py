"""``merge``: the shards of a plan become one synthetic cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medphantom.cohorts.store import Cohort
from medphantom.flows.operations.places import Folder, opened, refuse_existing


def merge(parts: Sequence[Cohort | Folder], out: Folder) -> Cohort:
    """Join the shards of a plan into one synthetic cohort.

    Args:
        parts: Synthetic cohorts that were drawn by one generator under equal settings.
        out: Synthetic cohort to make.

    Raises:
        InputError: The parts do not belong together, or ``out`` exists.
    """
    from medphantom.generators.generate import merge as join

    refuse_existing(Path(out))
    return join([opened(part) for part in parts], Path(out))
