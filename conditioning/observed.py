"""Observed attributes of a cohort's images by the names that a generator uses, and the spacing of their grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from medphantom.cohorts.preprocess import Preprocess, spacing_on_grid
from medphantom.cohorts.records import AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.prompt import SLICE_SPACING, SPACING, ConditionSchema, GridSchema
from medphantom.core.errors import InputError


def observed_attributes(cohort: Cohort, rows: Sequence[int], schema: ConditionSchema) -> dict[str, list[Any]]:
    """Return values of a schema's attributes in rows of a cohort, ``None`` if missing.

    An attribute that the cohort does not have is left out.
    """
    known = {spec.name for spec in cohort.schema.attributes}
    found = {} if schema.grid is None else grid_spacings(cohort, rows, schema.grid)
    for spec in schema.attributes:
        if spec.name in known and spec.name not in found:
            found[spec.name] = cohort.attribute(spec.name, rows)
    return {spec.name: found[spec.name] for spec in schema.attributes if spec.name in found}


def grid_spacings(cohort: Cohort, rows: Sequence[int], grid: GridSchema) -> dict[str, list[float | None]]:
    """Return in-plane ``spacing`` (geometric mean of rows and columns) and, of volumes, ``slice_spacing``, in mm."""
    dims = len(grid.size)
    frame = cohort.manifest.select("shape", "spacing_mm")[list(rows)]
    found = [
        None if spacing is None else spacing_on_grid(shape[:dims], spacing, grid.size, grid.fit)
        for shape, spacing in frame.iter_rows()
    ]
    values = {SPACING: [None if one is None else math.sqrt(one[-1] * one[-2]) for one in found]}
    if dims == 3:
        values[SLICE_SPACING] = [None if one is None else one[0] for one in found]
    return values


def grid_of(preprocess: Preprocess) -> GridSchema:
    """Return the grid of the networks."""
    return GridSchema(size=preprocess.size, fit=preprocess.fit)


def with_spacing(
    vocabulary: ConditionSchema, cohort: Cohort, rows: Sequence[int], preprocess: Preprocess
) -> ConditionSchema:
    """Return the vocabulary with the spacing of the network's grid, as observed in the training rows.

    Raises:
        InputError: If no training image declares its spacing, or an attribute has that name.
    """
    grid = grid_of(preprocess)
    specs = []
    for name, values in grid_spacings(cohort, rows, grid).items():
        if any(spec.name == name for spec in vocabulary.attributes):
            raise InputError(
                f"the cohort has an attribute {name!r}, and conditioning.spacing would add one with the same name",
                "ingest the cohort without it, or set generator.conditioning.spacing to false",
            )
        observed = [value for value in values if value is not None]
        if not observed:
            raise InputError(
                "no training image declares its spacing",
                "ingest DICOM or NIfTI, or set generator.conditioning.spacing to false",
            )
        specs.append(AttributeSpec(name=name, kind="continuous", unit="mm", low=min(observed), high=max(observed)))
    return vocabulary.model_copy(update={"attributes": (*vocabulary.attributes, *specs), "grid": grid})
