"""``ingest``: images become a cohort: checked, de-identified, split by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.core.arguments import Text, checked
from medphantom.core.errors import InputError
from medphantom.core.progress import Progress
from medphantom.flows.operations.places import Folder, options_here, refuse_existing
from medphantom.flows.process.progress import warn, watcher
from medphantom.flows.recipes.settings import IngestPart, read_part

if TYPE_CHECKING:
    from medphantom.cohorts.ingest import IngestResult
    from medphantom.cohorts.store import Cohort
    from medphantom.flows.recipes.recipe import CohortChoice


@checked
def ingest(
    source: Folder,
    out: Folder,
    *,
    public_phrase: Text | None = None,
    key_file: Folder | None = None,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
    progress: Progress | None = None,
    **options: Any,
) -> Cohort:
    """Read images into a cohort: checked, de-identified, split by patient.

    Args:
        source: Folder of DICOM, NIfTI, PNG, JPEG or TIFF files, or a ``.npz`` file.
        out: Cohort to make.
        public_phrase: For public data only, instead of a key: splits that anyone can make again.
        key_file: Secret key of pseudonyms and splits; by default the user's own, made when it does not exist.
        recipe: Recipe whose ``cohort`` section is taken.
        settings: ``field=value`` as of ``--set``.
        progress: Called with the number of files read.
        options: Fields of :class:`medphantom.cohorts.options.IngestOptions`, such as ``table`` or ``workers``; a
            relative path of a table or of masks is one in the source or in the working folder.

    Returns:
        The cohort. Warnings about the source are shown.

    Raises:
        InputError: Nothing can be read, or ``out`` exists.
        RecipeError: An option is unknown or out of bounds.
    """
    return ingested(
        source,
        out,
        public_phrase=public_phrase,
        key_file=key_file,
        recipe=recipe,
        settings=settings,
        progress=progress,
        **options,
    ).cohort


@checked
def ingested(
    source: Folder,
    out: Folder,
    *,
    public_phrase: Text | None = None,
    key_file: Folder | None = None,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
    progress: Progress | None = None,
    **options: Any,
) -> IngestResult:
    """The same as :func:`ingest`, with what was understood of the source and what was rejected."""
    refuse_empty_paths(options)
    flags = {
        "source": str(Path.cwd() / source),
        "public_phrase": public_phrase,
        "key_file": None if key_file is None else str(Path.cwd() / key_file),
        "options": options_here(options, Path(source)),
    }
    part = read_part(IngestPart, recipe, settings, {"cohort": flags})
    return ingest_cohort(part.cohort, Path(out), progress=progress)


def refuse_empty_paths(options: Mapping[str, Any]) -> None:
    """Refuse an empty path of a table or of masks, of which pathlib makes the working directory.

    Args:
        options: Fields of :class:`medphantom.cohorts.options.IngestOptions`, as arguments of an operation.

    Raises:
        InputError: One is empty.
    """
    for name in ("table", "masks"):
        if options.get(name) == "":
            raise InputError(f"{name} is empty", "give a path, or leave it out")


def ingest_cohort(
    choice: CohortChoice, out: Path, *, source: Path | None = None, progress: Progress | None = None
) -> IngestResult:
    """Read what the ``cohort`` section of a recipe names.

    Args:
        choice: The section.
        out: Cohort to make.
        source: Folder of the images where the section simulates them.
        progress: Called with the number of files read.

    Raises:
        InputError: Nothing can be read, or ``out`` exists.
    """
    from medphantom.cohorts.ingest import ingest as read_source

    refuse_existing(out)
    place = source or choice.source
    if place is None:
        raise InputError("no source was given", "give the folder of the images")
    result = read_source(place, out, choice.reading, choice.identity_key(), progress or watcher().stage("ingest"))
    for warning in result.warnings:
        warn(warning, "ingest")
    return result
