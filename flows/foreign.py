"""Synthetic images that somebody else made: a folder of pictures, DICOM or NIfTI files becomes a cohort."""

from __future__ import annotations

from pathlib import Path

from cohorts.identity import IdentityKey
from cohorts.manifest import SCHEMA_FILE
from cohorts.options import IngestOptions
from cohorts.progress import Progress
from cohorts.store import Cohort

PHRASE = "synthetic images of somebody else"  # nobody is behind them: the same names everywhere


def open_synthetic(path: Path, work: Path, options: IngestOptions, progress: Progress | None = None) -> Cohort:
    """A cohort as it is, or a folder of images read into one below ``work``.

    Images that repeat each other stay: that they do is what scores are to find. Labels come from a table or from the
    names of folders, as of ``medphantom ingest``, and count where they are called like those of the real cohort.

    Args:
        path: a cohort, a folder of images, or one file.
        work: private folder.
        options: how the folder is read.
        progress: told about files.

    Raises:
        InputError: nothing can be read.
    """
    if (path / SCHEMA_FILE).is_file():
        return Cohort.open(path)
    from cohorts.ingest import ingest

    out = work / "synthetic"
    if out.is_dir():
        return Cohort.open(out)
    kept = options.model_copy(update={"duplicates": "keep", "near_duplicates": "off"})
    return ingest(path, out, kept, IdentityKey.from_phrase(PHRASE), progress).cohort
