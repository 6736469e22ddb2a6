"""Before any pixel is read: which files make which images, whose they are, and what the cohort's columns will be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cohorts.errors import InputError, Reason, UnreadableImage
from cohorts.folders import inside
from cohorts.grouping import Planned, choose_spatial_dims, group_files
from cohorts.options import IngestOptions
from cohorts.readers.common import ReadOptions
from cohorts.readers.npz import NpzHead
from cohorts.readers.tasks import FileHead, Refusal, sniff
from cohorts.records import AttributeSpec, CohortSchema
from cohorts.source import (
    Refused,
    are_classes,
    find_path,
    folder_classes,
    mask_folder,
    pair_masks,
    table_candidates,
)
from cohorts.table import UNITS, Table

TABLE_FITS = 0.5  # share of files that must have a row before a table is taken unasked
HEADER_ATTRIBUTES: dict[str, Literal["continuous", "categorical"]] = {
    "age": "continuous",
    "sex": "categorical",
    "view": "categorical",
    "body_part": "categorical",
}


@dataclass(slots=True)
class Plan:
    """All that ingestion will do.

    Attributes:
        root: source folder.
        images: planned images in the order of their first path.
        refused: files that will not be read.
        used: other files that serve a purpose: ``(path, role)``.
        table: the label table.
        archive: the ``.npz`` that is the source, and its path.
        mask_root: folder that mask paths are relative to.
        schema: columns of the cohort.
        read_options: for the readers.
        warnings: what the user should know.
        total_files: files found.
    """

    root: Path
    schema: CohortSchema
    read_options: ReadOptions
    mask_root: Path
    total_files: int
    images: list[Planned] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)
    table: Table | None = None
    archive: tuple[str, NpzHead] | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Layout:
    """Which files of the source may be images, and which are masks or tables."""

    root: Path
    images: list[str]
    masks: list[str]
    mask_root: Path
    refused: list[Refused]
    tables: list[str]
    total_files: int
    uses_masks: bool


def lay_out(root: Path, files: Sequence[str], refused: Sequence[Refused], options: IngestOptions) -> Layout:
    """Tell images from masks and tables, by place and name alone.

    Raises:
        InputError: a mask folder that was named does not exist.
    """
    mask_root, inside_masks, masks = root, "", []
    if options.masks == "auto":
        inside_masks = mask_folder(files) or ""
        mask_root = root / inside_masks
    elif options.masks != "none":
        mask_root = find_path(Path(options.masks), root).resolve()
        if not mask_root.is_dir():
            raise InputError(f"{options.masks} is no folder of masks", "check --masks")
        if mask_root.is_relative_to(root):
            inside_masks = mask_root.relative_to(root).as_posix()
    if inside_masks:
        masks = [path.removeprefix(f"{inside_masks}/") for path in files if path.startswith(f"{inside_masks}/")]
    elif options.masks not in {"auto", "none"}:
        masks = sorted(path.relative_to(mask_root).as_posix() for path in mask_root.rglob("*") if path.is_file())
    tables = table_candidates(files) if options.table == "auto" else []
    images = [path for path in files if not (inside_masks and path.startswith(f"{inside_masks}/"))]
    return Layout(
        root, images, masks, mask_root, list(refused), tables, len(files) + len(refused), bool(masks or inside_masks)
    )


def make_plan(layout: Layout, heads: Sequence[FileHead], options: IngestOptions) -> Plan:
    """Decide everything that can be decided from paths, headers and the table.

    Args:
        layout: what :func:`lay_out` found.
        heads: one per file of ``layout.images``, in that order.
        options: the user's choices.

    Raises:
        InputError: table, columns or options do not fit the source.
    """
    refused = [*layout.refused, *((head.path, head.refusal) for head in heads if head.refusal is not None)]
    usable = [head for head in heads if head.refusal is None]
    archive = _archive(usable, heads, layout, options)
    dims = choose_spatial_dims(usable, options, archive)
    read_options = _read_options(options, dims)
    plan = Plan(layout.root, CohortSchema(spatial_dims=dims), read_options, layout.mask_root, layout.total_files)
    plan.refused = refused
    if archive is not None:
        plan.archive = archive
        plan.schema = _archive_schema(archive[1], options)
        return plan
    others = [head for head in usable if head.kind == "npz"]
    plan.refused += [
        (head.path, Refusal(Reason.UNSUPPORTED_PIXELS, "an archive of images among files: ingest it alone"))
        for head in others
    ]
    images = [head for head in usable if head.kind != "npz"]
    plan.images = group_files(images, dims, options, plan.refused, layout.root)
    plan.images.sort(key=lambda image: image.order)
    _use_table(plan, layout, options)
    _use_masks(plan, layout, options)
    plan.schema = _schema(plan, options)
    plan.refused.sort(key=lambda item: item[0])
    return plan


def patient_of(planned: Planned, from_table: str, options: IngestOptions) -> str:
    """Patient id out of the table, the path or the header; empty when nothing names one."""
    if from_table:
        return from_table
    if options.patient_pattern:
        match = re.search(options.patient_pattern, planned.paths[0])
        if match and match[1]:
            return match[1]
    return planned.head.dicom.patient if planned.head.dicom is not None else ""


def _archive(
    usable: Sequence[FileHead], heads: Sequence[FileHead], layout: Layout, options: IngestOptions
) -> tuple[str, NpzHead] | None:
    """The archive that is the whole source; a lone file that cannot be one is fatal."""
    if len(heads) == 1 and heads[0].refusal is not None and heads[0].refusal.reason is Reason.PICKLE:
        raise InputError(
            f"{layout.root / heads[0].path if layout.total_files == 1 else layout.root} cannot be read: "
            f"{heads[0].refusal.detail}",
            "save it again from plain arrays",
        )
    archives = [head for head in usable if head.kind == "npz"]
    if len(archives) > 1 and len(archives) == len(usable):
        raise InputError(f"{layout.root} holds {len(archives)} .npz archives", "ingest one at a time")
    if len(archives) != 1 or len(usable) != 1 or archives[0].npz is None:
        return None
    found = archives[0].npz
    if options.label_names and len(options.label_names) != len(found.labels):
        raise InputError(
            f"label_names has {len(options.label_names)} names, the archive has {len(found.labels)} labels",
            "name each label, in order",
        )
    return archives[0].path, replace(found, labels=options.label_names or found.labels)


def _archive_schema(head: NpzHead, options: IngestOptions) -> CohortSchema:
    exclusive = head.exclusive if options.exclusive == "auto" else options.exclusive
    return CohortSchema(
        spatial_dims=3 if head.spatial_dims == 3 else 2,
        labels=head.labels,
        exclusive=exclusive and len(head.labels) > 1,
        patients="per_image",
    )


def _read_options(options: IngestOptions, dims: Literal[2, 3]) -> ReadOptions:
    return ReadOptions(
        spatial_dims=dims,
        color=options.color,
        split_frames=options.frames == "split",
        min_side=options.min_side,
        min_slices=options.min_slices,
        max_bytes=options.max_image_mib * 2**20,
        near_duplicates=options.near_duplicates,
    )


def _use_table(plan: Plan, layout: Layout, options: IngestOptions) -> None:
    """Find, read and join the table; images without a row are refused."""
    if options.table == "auto":
        _take_fitting_table(plan, layout, options)
    elif options.table != "none":
        path = find_path(Path(options.table), plan.root)
        table = Table.read(path, options)
        images = _without_masks_of(table, plan.images)
        if table.bind([image.key() for image in images]) == 0 and images:
            raise InputError(f"no row of {path} fits a file of the source", "check the column that joins, and join")
        if path.resolve().is_relative_to(plan.root):
            _mark_used(plan, path.resolve().relative_to(plan.root).as_posix(), "table")
        plan.table = table
    if plan.table is None:
        named = [name for name in _named_columns(options) if name]
        if named:
            raise InputError(f"column {named[0]!r} was named, but there is no table", "give one with table")
        return
    if (missing := plan.table.total_unmatched()) > 0:
        plan.warnings.append(f"{missing} of {len(plan.table)} table rows belong to no image that was found")
    images = _without_masks_of(plan.table, plan.images)
    of_images = {image.paths[0] for image in images}
    masks = [image for image in plan.images if image.paths[0] not in of_images]
    orphan = Refusal(Reason.ORPHAN_MASK, "a mask that belongs to no image")
    plan.refused += [(image.paths[0], orphan) for image in masks]  # until an image claims it
    plan.images = []
    for number, image in enumerate(images):
        try:
            image.row = plan.table.row_of(number)
            plan.images.append(image)
        except UnreadableImage as error:
            plan.refused += [(path, Refusal(error.reason, error.detail)) for path in image.paths]


def _without_masks_of(table: Table, images: Sequence[Planned]) -> list[Planned]:
    masks = table.mask_paths()
    return [image for image in images if image.paths[0] not in masks]


def _named_columns(options: IngestOptions) -> list[str]:
    roles = ("path", "patient", "study", "uid", "text", "mask")
    return [*(getattr(options, f"{role}_column") for role in roles), *options.label_columns]


def _take_fitting_table(plan: Plan, layout: Layout, options: IngestOptions) -> None:
    fitting: list[tuple[str, Table]] = []
    problem: InputError | None = None
    for path in layout.tables:
        try:
            table = Table.read(plan.root / path, options)
            if table.bind([image.key() for image in _without_masks_of(table, plan.images)]) >= TABLE_FITS:
                fitting.append((path, table))
        except InputError as error:
            problem = error
    if len(fitting) > 1:
        raise InputError(f"{len(fitting)} tables at the top of {plan.root} fit the images", "name one with table")
    if fitting:
        _mark_used(plan, fitting[0][0], "table")
        plan.table = fitting[0][1]
    elif problem is not None and any(_named_columns(options)):
        raise problem
    elif layout.tables and plan.images:
        plan.warnings.append("a table at the top of the source fits too few images and was not used; name it to use it")


def _mark_used(plan: Plan, path: str, role: str) -> None:
    plan.refused = [item for item in plan.refused if item[0] != path]
    plan.used.append((path, role))


def _use_masks(plan: Plan, layout: Layout, options: IngestOptions) -> None:
    if plan.table is not None and plan.table.has_masks and not layout.uses_masks:
        _masks_by_table(plan, options)
        return
    if not layout.uses_masks:
        return
    join = pair_masks(layout.masks, [image.key() for image in plan.images])
    within = layout.mask_root.relative_to(plan.root).as_posix() if layout.mask_root.is_relative_to(plan.root) else None
    kept, taken = [], set()
    for number, image in enumerate(plan.images):
        try:
            image.mask = layout.masks[join.row_of(number)]
            taken.add(image.mask)
        except UnreadableImage:
            if options.mask_required:
                plan.refused += [(path, Refusal(Reason.NO_MASK, "no mask belongs to it")) for path in image.paths]
                continue
        kept.append(image)
    plan.images = kept
    if within is not None:
        plan.used += [(f"{within}/{mask}", "mask") for mask in layout.masks if mask in taken]
        plan.refused += [
            (f"{within}/{mask}", _orphan(layout.mask_root / mask)) for mask in layout.masks if mask not in taken
        ]


def _orphan(path: Path) -> Refusal:
    if sniff(path) is None:
        return Refusal(Reason.NOT_AN_IMAGE, "no image among the masks")
    return Refusal(Reason.ORPHAN_MASK, "a mask that belongs to no image")


def _masks_by_table(plan: Plan, options: IngestOptions) -> None:
    assert plan.table is not None  # noqa: S101 - the caller looked
    kept = []
    for image in plan.images:
        cell = plan.table.mask_cell(image.row if image.row is not None else 0)
        refusal: Refusal | None = None
        if cell:
            try:
                path = inside(plan.root, cell)
                image.mask = path.relative_to(plan.root).as_posix()
                if not path.is_file():
                    refusal = Refusal(Reason.NO_MASK, "the mask that its row names does not exist")
            except InputError:
                refusal = Refusal(Reason.OUTSIDE_SOURCE, "its row names a mask outside the source")
        elif options.mask_required:
            refusal = Refusal(Reason.NO_MASK, "its row names no mask")
        if refusal is None:
            kept.append(image)
        else:
            plan.refused += [(path, refusal) for path in image.paths]
    plan.images = kept
    for mask in sorted({image.mask for image in kept if image.mask is not None}):
        _mark_used(plan, mask, "mask")


def _schema(plan: Plan, options: IngestOptions) -> CohortSchema:
    table = plan.table
    labels, exclusive = (table.labels, table.exclusive) if table is not None else _folder_labels(plan, options)
    attributes = {spec.name: spec for spec in (table.attributes if table is not None else ())}
    seen: Counter[str] = Counter()
    for image in plan.images:
        if image.head.dicom is not None:
            seen.update(image.head.dicom.attributes.keys())
    wanted = options.attribute_kinds
    for name, kind in HEADER_ATTRIBUTES.items():
        if name not in attributes and seen[name] and (wanted is None or name in wanted):
            attributes[name] = AttributeSpec(name=name, kind=kind, unit=UNITS.get(name, ""))
    lacking = [name for name in wanted or () if name not in attributes]
    if lacking and plan.images:
        raise InputError(f"there is no attribute {lacking[0]!r}", "name a column of the table, or leave it out")
    return CohortSchema(
        spatial_dims=3 if plan.read_options.spatial_dims == 3 else 2,
        labels=labels,
        exclusive=exclusive,
        attributes=tuple(attributes.values()),
    )


def _folder_labels(plan: Plan, options: IngestOptions) -> tuple[tuple[str, ...], bool]:
    """Classes by folder, written into the planned images."""
    wanted = options.labels_from_folders
    pictures = all(image.head.kind == "picture" for image in plan.images)
    if wanted is False or not plan.images or (wanted == "auto" and not pictures):
        return (), False
    classes = folder_classes([image.paths[0] for image in plan.images])
    if wanted == "auto" and not are_classes(classes):
        return (), False
    for image, name in zip(plan.images, classes, strict=True):
        image.label = name
    names = tuple(sorted({name for name in classes if name is not None}))
    return names, len(names) > 1
