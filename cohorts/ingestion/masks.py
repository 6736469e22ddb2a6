"""Masks of the planned images: from folders, beside the images, or named by a column of the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medphantom.cohorts.ingestion.grouping import Planned
from medphantom.cohorts.ingestion.layout import Layout
from medphantom.cohorts.ingestion.mask_places import image_key, pair_masks
from medphantom.cohorts.ingestion.plan import Plan
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.readers.tasks import Refusal, sniff
from medphantom.cohorts.tables.join import FileKey
from medphantom.core.errors import InputError, Reason, UnreadableImage
from medphantom.core.folders import inside


def use_masks(plan: Plan, layout: Layout, options: IngestOptions) -> None:
    """Assign each planned image its mask; images without one are rejected if the options require masks."""
    if plan.table is not None and plan.table.has_masks and not (layout.masks or layout.beside):
        _masks_by_table(plan, options)
        return
    orphans = set(layout.loose_masks)
    if layout.masks:
        orphans |= _masks_of_folders(plan, layout)
    if layout.beside:
        orphans |= _masks_beside(plan, layout)
    if layout.masks or layout.beside:
        _require(plan, options)
    plan.refused += [(mask, _orphan(plan.root / mask)) for mask in sorted(orphans)]


def _masks_of_folders(plan: Plan, layout: Layout) -> set[str]:
    """Pair the masks in mask folders; return the masks in the source that belong to no image."""
    channels = layout.dataset is not None
    keys = [_key_for_masks(image, channels=channels) for image in plan.images]
    join = pair_masks(layout.mask_keys, keys)
    taken = set()
    for number, image in enumerate(plan.images):
        try:
            image.mask = layout.masks[join.row_of(number)]
        except UnreadableImage:
            continue
        taken.add(image.mask)
    if not layout.masks_inside:
        return set()
    plan.used += [(layout.in_source(mask), "mask") for mask in layout.masks if mask in taken]
    return {layout.in_source(mask) for mask in layout.masks if mask not in taken}


def _key_for_masks(image: Planned, *, channels: bool) -> FileKey:
    key = image.key()
    paths, slices = (
        tuple(image_key(path, channels=channels) for path in given) for given in (key.paths, key.slice_paths)
    )
    return replace(key, paths=paths, slice_paths=slices)


def _masks_beside(plan: Plan, layout: Layout) -> set[str]:
    orphans = set(layout.beside.values())
    for image in plan.images:
        mask = layout.beside.get(image.paths[0])
        if mask is not None and image.mask is None:
            image.mask = mask
            orphans.discard(mask)
            plan.used.append((mask, "mask"))
    return orphans


def _masks_by_table(plan: Plan, options: IngestOptions) -> None:
    plan.keep(lambda image: _mask_of_row(plan, image, options))
    for mask in sorted({image.mask for image in plan.images if image.mask is not None}):
        plan.use(mask, "mask")


def _mask_of_row(plan: Plan, image: Planned, options: IngestOptions) -> Refusal | None:
    assert plan.table is not None  # noqa: S101 - the caller looked
    cell = plan.table.mask_cell(image.row) if image.row is not None else ""
    if not cell:
        return Refusal(Reason.NO_MASK, "its row names no mask") if options.mask_required else None
    try:
        path = inside(plan.root, cell)
    except InputError:
        return Refusal(Reason.OUTSIDE_SOURCE, "its row names a mask outside the source, or an invalid path")
    if not path.is_file():
        return Refusal(Reason.NO_MASK, "the mask that its row names does not exist")
    image.mask = path.relative_to(plan.root.resolve()).as_posix()
    return None


def _require(plan: Plan, options: IngestOptions) -> None:
    lacking = Refusal(Reason.NO_MASK, "it has no mask")
    plan.keep(lambda image: lacking if image.mask is None and options.mask_required else None)


def _orphan(path: Path) -> Refusal:
    if sniff(path) is None:
        return Refusal(Reason.NOT_AN_IMAGE, "no image among the masks")
    return Refusal(Reason.ORPHAN_MASK, "a mask without an image")
