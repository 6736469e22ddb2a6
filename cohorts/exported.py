"""Reading of our own exports: every value, split and label is restored."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medphantom.cohorts.export import FACTS_FILE, LARGEST_ROUNDING, METADATA_FILE
from medphantom.cohorts.records import Voi
from medphantom.core.errors import ArtifactError
from medphantom.core.folders import read_json
from medphantom.core.guard import reading
from medphantom.core.records import Array
from medphantom.core.spreadsheet import GUARD, GUARD_FACT, unguarded, unmarked

MAPPING = ("file_name", "value_slope", "value_intercept")
HEADER = ("exact", "modality", "spacing_mm", "voi_center", "voi_width")
NUMBERS = {"value_slope", "value_intercept", "voi_center", "voi_width"}
SIGNED = ("int16", "int32")


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """Table entry of one exported file.

    Attributes:
        slope: Slope of ``source = slope * stored + intercept``.
        intercept: Intercept of that mapping.
        exact: Whether the mapping restores every source value.
        modality: DICOM modality code of the image.
        has_header: Whether the table has columns for the following fields; those of older versions lack them.
        spacing_mm: Distance between pixel centres along each spatial axis.
        voi: VOI window of the header, in source values.
    """

    slope: float
    intercept: float
    exact: bool = False
    modality: str | None = None
    has_header: bool = False
    spacing_mm: tuple[float, ...] | None = None
    voi: Voi | None = None


def export_facts(root: Path) -> dict[str, Any] | None:
    """Return the content of ``export.json`` if a folder is an export of this project, else ``None``."""
    if not (root / FACTS_FILE).is_file():
        return None
    try:
        said = read_json(root / FACTS_FILE)
    except ArtifactError:
        return None
    return said if is_ours(said) else None


def is_ours(said: Any) -> bool:
    """Return whether the content of an ``export.json`` belongs to an export of this project."""
    return isinstance(said, dict) and {"cohort_digest", "total_images", "mapping"} <= set(said)


def original_texts(path: Path, table: pl.DataFrame) -> pl.DataFrame:
    """Return the texts of a table before our export, or another spreadsheet, marked them as text."""
    facts = export_facts(path.parent) if path.name == METADATA_FILE else None
    if facts is None:
        return unmarked(table)
    return unguarded(table) if facts.get(GUARD_FACT) == GUARD else table


def exported_images(root: Path) -> dict[str, ExportedImage] | None:
    """Return the table entry of each file of an export of this project; ``None`` for other folders."""
    table = root / METADATA_FILE
    if export_facts(root) is None or not table.is_file():
        return None
    try:
        with reading(table):
            there = pl.read_csv(table, n_rows=0, infer_schema=False, glob=False).columns
            known = [name for name in (*MAPPING, *HEADER) if name in there or name in MAPPING]
            rows = pl.read_csv(table, columns=known, infer_schema=False, glob=False).select(
                pl.col("file_name", *(name for name in known if name in {"exact", "modality", "spacing_mm"})),
                *(pl.col(name).cast(pl.Float64, strict=name in MAPPING) for name in known if name in NUMBERS),
            )
    except ArtifactError:
        return None  # another table of the same name
    kept = rows.drop_nulls(MAPPING).filter(pl.all_horizontal(pl.col(MAPPING[1:]).is_finite()))
    return {
        row["file_name"]: ExportedImage(
            slope=row["value_slope"],
            intercept=row["value_intercept"],
            exact=row.get("exact") in {"true", "True", "TRUE"},
            modality=_modality(row.get("modality")),
            has_header=set(HEADER) <= set(known),
            spacing_mm=_spacing(row.get("spacing_mm")),
            voi=_voi(row.get("voi_center"), row.get("voi_width")),
        )
        for row in kept.iter_rows(named=True)
        if row["value_slope"] != 0
    }


def _modality(said: str | None) -> str | None:
    return said if said and re.fullmatch(r"[A-Z]{1,16}", said) else None


def _spacing(said: str | None) -> tuple[float, ...] | None:
    """Parse the spacing in a cell, such as ``0.3 0.4``; ``None`` if it has none."""
    try:
        found = tuple(float(part) for part in (said or "").split(" "))
    except ValueError:
        return None
    return found if len(found) in {2, 3} and all(0 < value < math.inf for value in found) else None


def _voi(center: float | None, width: float | None) -> Voi | None:
    if center is None or width is None or not (math.isfinite(center) and 0 < width < math.inf):
        return None
    return Voi(center, width)


def exported_texts(root: Path, column: str) -> list[str] | None:
    """Return the non-empty cells of a column of an export's table; ``None`` if it cannot be read."""
    table = root / METADATA_FILE
    if not table.is_file():
        return None
    try:
        with reading(table):
            cells = pl.read_csv(table, columns=[column], infer_schema=False, glob=False)[column]
            return unguarded(cells.to_frame())[column].drop_nulls().to_list()
    except ArtifactError:
        return None


def rounding(root: Path) -> str:
    """Describe how many images of an export do not restore their source values; empty if all do."""
    facts = export_facts(root) or {}
    stated = exported_texts(root, "exact") or []
    inexact = sum(cell.casefold() == "false" for cell in stated)
    if not inexact:
        return ""
    largest = facts.get(LARGEST_ROUNDING)
    far = ""
    if isinstance(largest, float) and 0 < largest < math.inf:
        far = f", by up to {100 * largest:.2g} % of an image's range"
    how, remedy = "rounded", "; --format nifti keeps the values of grey images"
    if facts.get("values") == "display":
        how, remedy = "clipped and rounded to 8 bits for display", ""
    elif facts.get("format") == "nifti":
        how, remedy = "given a mapping to whole numbers that no double holds", ""
    return f"{inexact} of {len(stated)} exported images were {how}{far}{remedy}"


def source_values(stored: Array, slope: float, intercept: float, *, exact: bool = False) -> Array:
    """Return ``slope * stored + intercept``: integers in the smallest suitable format, else float32 or float64.

    Args:
        stored: Values of a file.
        slope: Slope from the table of an export.
        intercept: Intercept from the table of an export.
        exact: Whether these are exactly the source values, so that float64 is used if float32 would change one;
            otherwise float64 is used if float32 would change one by more than a hundredth of a step.

    Example:
        >>> source_values(np.array([31768, 32768], dtype=np.uint16), 1.0, -32768.0)
        array([-1000,     0], dtype=int16)
    """
    if (slope, intercept) == (1, 0):
        return stored
    values = slope * stored.astype(np.float64) + intercept
    if stored.dtype.kind not in "iu" or not (float(slope).is_integer() and float(intercept).is_integer()):
        with np.errstate(over="ignore"):
            single: Array = values.astype(np.float32)
        allowed = 0.0 if exact or stored.dtype.kind == "f" else abs(slope) / 100
        return single if float(np.abs(single - values).max()) <= allowed else values
    signed = slope > 0 > intercept or values.min() < 0
    formats = SIGNED if signed else ("uint8", "uint16", "uint32") if stored.dtype == np.uint8 else ("uint16", "uint32")
    for name in formats:
        if np.iinfo(name).min <= values.min() and values.max() <= np.iinfo(name).max:
            return values.astype(name)
    return values
