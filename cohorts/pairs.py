"""Counterfactual pairs as rows of a cohort, with the source image of each. A row's id is ``<image id>-<role>``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from medphantom.cohorts.records import ATTRIBUTE_PREFIX
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import CohortError, InputError

ROLE = "role"
Role = Literal["factual", "counterfactual", "difference", "reversed", "reconstruction"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class PairRows:
    """The rows of a cohort of kind ``counterfactual``, image by image.

    Attributes:
        source_ids: Id of each image in the real cohort, in stored order.
        rows: Row numbers in that order, by role; a role that not every image has is left out.
    """

    source_ids: tuple[str, ...]
    rows: dict[Role, list[int]]

    def __len__(self) -> int:
        return len(self.source_ids)


def pair_id(image_id: str, role: Role) -> str:
    """Return the id of the row of one role."""
    return f"{image_id}-{role}"


def pair_rows(pairs: Cohort) -> PairRows:
    """Return the rows of counterfactual pairs by role.

    Raises:
        InputError: If the cohort contains no counterfactual pairs.
        CohortError: If an image has a factual row but no counterfactual one, or vice versa.
    """
    if pairs.schema.kind != "counterfactual" or all(spec.name != ROLE for spec in pairs.schema.attributes):
        raise InputError(f"{pairs.path} contains no counterfactual pairs", "create them with medphantom counterfactual")
    found: dict[str, dict[str, int]] = {role: {} for role in ROLES}
    columns = pairs.manifest.select("image_id", ATTRIBUTE_PREFIX + ROLE)
    for row, (image_id, role) in enumerate(columns.iter_rows()):
        if role in found:
            found[role][image_id.removesuffix(f"-{role}")] = row
    ids = tuple(found["factual"])
    if set(ids) != set(found["counterfactual"]) or not ids:
        raise CohortError(f"{pairs.path} lacks one half of some pairs", "create it again")
    rows = {role: [found[role][name] for name in ids] for role in ROLES if found[role].keys() >= set(ids)}
    return PairRows(ids, rows)
