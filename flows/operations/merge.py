"""``merge``: the shards of a plan become one synthetic cohort."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import checked
from medphantom.flows.operations.places import Folder, opened, refuse_existing
from medphantom.flows.process.progress import warn

PLACE = re.compile(r"([0-9]{6,})(?:-|$)")
"""Start of the id of an image: its place in the plan."""


@checked
def merge(parts: Sequence[Cohort | Folder], out: Folder) -> Cohort:
    """Join the shards of a plan into one synthetic cohort.

    Args:
        parts: Synthetic cohorts that were drawn by one generator under equal settings.
        out: Synthetic cohort to make.

    A warning says so where images of the plan are in none of the parts.

    Raises:
        InputError: The parts do not belong together, or ``out`` exists.
    """
    from medphantom.generators.generate import merge as join

    refuse_existing(Path(out))
    made = join([opened(part) for part in parts], Path(out))
    if missing := _missing(made):
        warn(f"{missing} images of the plan are in none of the parts: is a shard missing?", "merge")
    return made


def _missing(cohort: Cohort) -> int:
    """Return how many images of the plan there are not; where it was not recorded, as far as ids say their place."""
    if cohort.schema.plan is not None:
        return cohort.schema.plan.images - len(cohort)
    places = [PLACE.match(name) for name in cohort.manifest["image_id"].to_list()]
    numbers = {int(place[1]) for place in places if place is not None}
    if len(numbers) < len(places):  # ids of somebody else's
        return 0
    return max(numbers) + 1 - len(numbers)
