"""Synthetic images that somebody else made: a folder of pictures, DICOM or NIfTI files becomes a cohort."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.export import FACTS_FILE, METADATA_FILE
from medphantom.cohorts.exported import export_facts
from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.manifest import SCHEMA_FILE
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.records import CohortSchema
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError, Reason
from medphantom.core.progress import Progress

if TYPE_CHECKING:
    from medphantom.cohorts.ingest import IngestResult

PHRASE = "synthetic images of somebody else"  # nobody is behind them: the same names everywhere


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
    from medphantom.cohorts.ingest import ingest

    out = work / "synthetic"
    if out.is_dir():
        return Cohort.open(out)
    # nobody is behind these images: a folder can only be a class, which counts where the real cohort has it
    reading = {"duplicates": "keep", "near_duplicates": "off", "source_splits": "ignore", "min_patients": 1}
    kept = options.model_copy(update=reading | ({"folders": "classes"} if options.folders == "ask" else {}))
    facts = export_facts(path)
    if facts is None or facts.get("values") != "source" or facts.get("kind") != "synthetic":
        found = ingest(path, out, kept, IdentityKey.from_phrase(PHRASE), progress)
        _require_all(found, facts)
        return found.cohort
    stored = work / "stored"
    for folder in (stored, stored.with_name("stored.private")):
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted call
    found = ingest(path, stored, kept, IdentityKey.from_phrase(PHRASE), progress)
    _require_all(found, facts)
    return _as_synthetic(found.cohort, out)


def _require_all(found: IngestResult, facts: dict[str, Any] | None) -> None:
    """Refuse an export with images that its table does not list, since nobody knows what their values stand for."""
    unknown = 0 if facts is None else found.rejected.get(Reason.NO_TABLE_ROW, 0)
    if unknown:
        raise InputError(
            f"{unknown} of {unknown + found.accepted} images of an export are not listed in its {METADATA_FILE}, which "
            "says what their values stand for",
            f"remove them, or remove {METADATA_FILE} and {FACTS_FILE}",
        )


def _as_synthetic(cohort: Cohort, out: Path) -> Cohort:
    """The cohort under its own kind: what a generator of ours stored, value by value."""
    schema = CohortSchema.model_validate({**cohort.schema.model_dump(), "kind": "synthetic"})
    with CohortWriter(out, schema) as writer:
        for record in cohort.records():
            writer.add(record)
    return Cohort.open(out)
