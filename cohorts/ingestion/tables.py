"""The label table of a source: its selection, and the join of its rows with the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from medphantom.cohorts.ingestion.grouping import Planned
from medphantom.cohorts.ingestion.layout import Layout
from medphantom.cohorts.ingestion.plan import Plan
from medphantom.cohorts.ingestion.source import TABLE_SUFFIXES, find_path
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.readers.tasks import Refusal
from medphantom.cohorts.split_names import SPLIT_WORDS
from medphantom.cohorts.tables.table import Table
from medphantom.core.errors import InputError, Reason, UnreadableImage

TABLE_FITS = 0.5  # share of files that must have a row for a table to be used automatically


def use_table(plan: Plan, layout: Layout, options: IngestOptions) -> None:
    """Find, read and join the table; images without a row are rejected.

    Raises:
        InputError: If the table cannot be read or fits nothing, several tables fit, or a column is named without a
            table.
    """
    if options.table == "auto":
        _take_fitting_table(plan, layout, options)
    elif options.table != "none":
        _take_named_table(plan, Path(options.table), options)
    if plan.table is None:
        named = [name for name in _named_columns(options) if name]
        if named:
            raise InputError(f"column {named[0]!r} was named, but there is no table", "give one with table")
        return
    _join_rows(plan, plan.table)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A table at the top of the source with a row for most images.

    Attributes:
        names: File name of the table, or one per split.
        table: Table joined to the images.
    """

    names: tuple[str, ...]
    table: Table


@dataclass(slots=True)
class Candidates:
    """The tables at the top of a source.

    Attributes:
        fitting: Tables that fit the images.
        unreadable: Reasons why other tables could not be read.
        unjoined: Reasons why other tables could not be joined.
    """

    fitting: list[Candidate] = field(default_factory=list)
    unreadable: list[InputError] = field(default_factory=list)
    unjoined: list[InputError] = field(default_factory=list)


def find_tables(plan: Plan, layout: Layout, options: IngestOptions) -> Candidates:
    """Examine the tables at the top of the source; files named after splits are parts of one table."""
    found = Candidates()
    for path, refusal in layout.refused:
        if "/" not in path and PurePosixPath(path).suffix.lower() in TABLE_SUFFIXES:
            found.unreadable.append(
                InputError(f"a table at the top of {plan.root} is {refusal.detail}", "copy it there")
            )
    waiting = _parts(layout.tables)
    for names in waiting:
        try:
            table = Table.read_parts([plan.root / name for name in names], options)
        except InputError as error:
            if len(names) > 1:
                waiting += [(name,) for name in names]  # of other columns: each for itself
            else:
                found.unreadable.append(error)
            continue
        try:
            if table.bind([image.key() for image in _without_masks_of(table, plan.images)]) >= TABLE_FITS:
                found.fitting.append(Candidate(names, table))
        except InputError as error:
            found.unjoined.append(error)
    return found


def _parts(tables: Sequence[str]) -> list[tuple[str, ...]]:
    parts = tuple(name for name in tables if PurePosixPath(name).stem.lower() in SPLIT_WORDS)
    return [*((parts,) if parts else ()), *((name,) for name in tables if name not in parts)]


def _take_fitting_table(plan: Plan, layout: Layout, options: IngestOptions) -> None:
    found = find_tables(plan, layout, options)
    if len(found.fitting) > 1:
        names = ", ".join(candidate.names[0] for candidate in found.fitting)
        raise InputError(
            f"{len(found.fitting)} tables at the top of {plan.root} fit the images: {names}", "name one with table"
        )
    if found.fitting:
        for name in found.fitting[0].names:
            plan.use(name, "table")
        plan.table = found.fitting[0].table
    elif found.unreadable:  # it may be the one that names the patients
        problem = found.unreadable[-1]
        raise InputError(problem.what, f"{problem.remedy}, or read the images alone with table: none")
    elif found.unjoined and any(_named_columns(options)):
        raise found.unjoined[-1]
    elif found.unjoined and plan.images:
        plan.warnings.append(f"a table at the top of the source was not used: {found.unjoined[0]}")
    elif layout.tables and plan.images:
        plan.warnings.append("a table at the top of the source fits too few images and was not used; name it to use it")


def _take_named_table(plan: Plan, given: Path, options: IngestOptions) -> None:
    path = find_path(given, plan.root)
    table = Table.read(path, options)
    images = _without_masks_of(table, plan.images)
    if table.bind([image.key() for image in images]) == 0 and images:
        raise InputError(f"no row of {path} fits a file of the source", "check the column that joins, and join")
    if path.resolve().is_relative_to(plan.root):
        plan.use(path.resolve().relative_to(plan.root).as_posix(), "table")
    plan.table = table


def _join_rows(plan: Plan, table: Table) -> None:
    if (missing := table.total_unmatched()) > 0:
        plan.warnings.append(f"{missing} of {len(table)} table rows belong to no image that was found")
    images = _without_masks_of(table, plan.images)
    of_images = {image.paths[0] for image in images}
    masks = [image for image in plan.images if image.paths[0] not in of_images]
    orphan = Refusal(Reason.ORPHAN_MASK, "a mask without an image")
    plan.refused += [(image.paths[0], orphan) for image in masks]  # until an image claims it
    plan.images = images
    numbers = {image.paths[0]: number for number, image in enumerate(images)}
    plan.keep(lambda image: _find_row(table, image, numbers[image.paths[0]]))


def _find_row(table: Table, image: Planned, number: int) -> Refusal | None:
    try:
        image.row = table.row_of(number)
    except UnreadableImage as error:
        return Refusal(error.reason, error.detail)
    return None


def _without_masks_of(table: Table, images: Sequence[Planned]) -> list[Planned]:
    masks = table.mask_paths()
    return [image for image in images if image.paths[0] not in masks]


def _named_columns(options: IngestOptions) -> list[str]:
    roles = ("path", "patient", "study", "uid", "text", "mask")
    return [*(getattr(options, f"{role}_column") for role in roles), *options.label_columns]
