"""Synthetic images that somebody else made: a folder of pictures, DICOM or NIfTI files becomes a cohort."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from cohorts.errors import InputError
from cohorts.export import FACTS_FILE, METADATA_FILE
from cohorts.folders import read_json
from cohorts.identity import IdentityKey
from cohorts.manifest import SCHEMA_FILE
from cohorts.options import IngestOptions
from cohorts.private import LINKS_FILE
from cohorts.progress import Progress
from cohorts.records import Array, CohortSchema
from cohorts.store import Cohort
from cohorts.writer import CohortWriter

PHRASE = "synthetic images of somebody else"  # nobody is behind them: the same names everywhere
MAPPING = ("file_name", "value_slope", "value_intercept")
SIGNED = ("int16", "int32")

Mapping = dict[str, tuple[float, float]]


def open_synthetic(path: Path, work: Path, options: IngestOptions, progress: Progress | None = None) -> Cohort:
    """A cohort as it is, or a folder of images read into one below ``work``.

    Images that repeat each other stay: that they do is what scores are to find. Labels come from a table or from the
    names of folders, as of ``medphantom ingest``, and count where they are called like those of the real cohort. Of a
    folder from ``medphantom export`` the values come back that it was made from, by the mapping in its table.

    Args:
        path: a cohort, a folder of images, or one file.
        work: private folder.
        options: how the folder is read.
        progress: told about files.

    Raises:
        InputError: nothing can be read, or an export holds images that its table does not list.
    """
    if (path / SCHEMA_FILE).is_file():
        return Cohort.open(path)
    from cohorts.ingest import ingest

    out = work / "synthetic"
    if out.is_dir():
        return Cohort.open(out)
    # nobody is behind these images: a folder can only be a class, which counts where the real cohort has it
    reading = {"duplicates": "keep", "near_duplicates": "off", "source_splits": "ignore", "min_patients": 1}
    kept = options.model_copy(update=reading | ({"folders": "classes"} if options.folders == "ask" else {}))
    mapping = _mapping(path)
    if mapping is None:
        return ingest(path, out, kept, IdentityKey.from_phrase(PHRASE), progress).cohort
    stored = work / "stored"
    for folder in (stored, stored.with_name("stored.private")):
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted call
    found = ingest(path, stored, kept, IdentityKey.from_phrase(PHRASE), progress)
    links = pl.read_parquet(found.private_folder / LINKS_FILE).filter(pl.col("role") == "image")
    paths = dict(links.select("image_id", "path").iter_rows())
    return _with_source_values(found.cohort, paths, mapping, _kind(path), out)


def _mapping(path: Path) -> Mapping | None:
    """Slope and intercept of each file of an export of ours; ``None`` of other folders."""
    table = path / METADATA_FILE
    if not table.is_file() or not (path / FACTS_FILE).is_file():
        return None
    try:
        rows = pl.read_csv(table, columns=list(MAPPING), infer_schema_length=None)
        numbers = rows.select("file_name", *(pl.col(name).cast(pl.Float64) for name in MAPPING[1:]))
    except (pl.exceptions.PolarsError, OSError):
        return None  # a table of somebody else's of the same name
    return {name: (slope, intercept) for name, slope, intercept in numbers.drop_nulls().iter_rows() if slope != 0}


def _kind(path: Path) -> str:
    """``synthetic`` where an export holds what a generator of ours stored, value by value."""
    facts = read_json(path / FACTS_FILE)
    whole = isinstance(facts, dict) and facts.get("values") == "source"
    return "synthetic" if whole and facts.get("kind") == "synthetic" else "real"


def _with_source_values(cohort: Cohort, paths: dict[str, str], mapping: Mapping, kind: str, out: Path) -> Cohort:
    """The cohort with the values that an export was made from."""
    unknown = sum(paths.get(image_id) not in mapping for image_id in cohort.manifest["image_id"].to_list())
    if unknown:
        raise InputError(
            f"{unknown} of {len(cohort)} images of an export are not listed in its {METADATA_FILE}, which says what "
            "their values stand for",
            f"remove them, or remove {METADATA_FILE} and {FACTS_FILE}",
        )
    schema = CohortSchema.model_validate({**cohort.schema.model_dump(), "kind": kind})
    with CohortWriter(out, schema) as writer:
        for record in cohort.records():
            slope, intercept = mapping[paths[record.image_id]]
            pixels = source_values(record.pixels, slope, intercept)
            writer.add(dataclasses.replace(record, pixels=pixels, inverted=slope < 0))
    return Cohort.open(out)


def source_values(stored: Array, slope: float, intercept: float) -> Array:
    """``slope * stored + intercept``: whole numbers in the smallest format that keeps them, else float32.

    Args:
        stored: values of a file.
        slope: from the table of an export.
        intercept: from the same.

    Example:
        >>> source_values(np.array([31768, 32768], dtype=np.uint16), 1.0, -32768.0)
        array([-1000,     0], dtype=int16)
    """
    if (slope, intercept) == (1, 0):
        return stored
    values = slope * stored.astype(np.float64) + intercept
    if stored.dtype.kind not in "iu" or not (float(slope).is_integer() and float(intercept).is_integer()):
        found: Array = values.astype(np.float32)
        return found
    signed = slope > 0 > intercept or values.min() < 0
    formats = SIGNED if signed else ("uint8", "uint16", "uint32") if stored.dtype == np.uint8 else ("uint16", "uint32")
    for name in formats:
        if np.iinfo(name).min <= values.min() and values.max() <= np.iinfo(name).max:
            return values.astype(name)
    return values
