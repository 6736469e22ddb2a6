"""The label table of a source: which one it is, and which row belongs to which image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cohorts.errors import InputError, Reason, UnreadableImage
from cohorts.grouping import Planned
from cohorts.ingestion.layout import Layout
from cohorts.ingestion.plan import Plan
from cohorts.options import IngestOptions
from cohorts.readers.tasks import Refusal
from cohorts.source import find_path
from cohorts.table import Table

TABLE_FITS = 0.5  # share of files that must have a row before a table is taken unasked


def use_table(plan: Plan, layout: Layout, options: IngestOptions) -> None:
    """Find, read and join the table; images without a row are refused.

    Raises:
        InputError: the table cannot be read or fits nothing, several would do, or a column was named without one.
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


def fitting_tables(
    plan: Plan, layout: Layout, options: IngestOptions
) -> tuple[list[tuple[str, Table]], list[InputError]]:
    """Tables at the top of the source of which most images have a row, and what is wrong with the unreadable ones."""
    fitting: list[tuple[str, Table]] = []
    problems: list[InputError] = []
    for path in layout.tables:
        try:
            table = Table.read(plan.root / path, options)
            if table.bind([image.key() for image in _without_masks_of(table, plan.images)]) >= TABLE_FITS:
                fitting.append((path, table))
        except InputError as error:
            problems.append(error)
    return fitting, problems


def _take_fitting_table(plan: Plan, layout: Layout, options: IngestOptions) -> None:
    fitting, problems = fitting_tables(plan, layout, options)
    if len(fitting) > 1:
        names = ", ".join(path for path, _ in fitting)
        raise InputError(
            f"{len(fitting)} tables at the top of {plan.root} fit the images: {names}", "name one with table"
        )
    if fitting:
        plan.use(fitting[0][0], "table")
        plan.table = fitting[0][1]
    elif problems and any(_named_columns(options)):
        raise problems[-1]
    elif problems:
        plan.warnings.append(f"a table at the top of the source was not used: {problems[0]}")
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
    orphan = Refusal(Reason.ORPHAN_MASK, "a mask that belongs to no image")
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
