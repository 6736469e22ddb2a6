"""The plan of an ingestion from paths, headers and the table: each question is decided once, in a fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from medphantom.cohorts.export import METADATA_FILE
from medphantom.cohorts.exported import export_facts, exported_images, rounding
from medphantom.cohorts.ingestion.doubts import doubts
from medphantom.cohorts.ingestion.folder_names import FolderNames, folder_names, levels_of
from medphantom.cohorts.ingestion.grouping import choose_spatial_dims, group_files
from medphantom.cohorts.ingestion.layout import Layout
from medphantom.cohorts.ingestion.masks import use_masks
from medphantom.cohorts.ingestion.people import divide, divide_archive, name_by_path, require_patients, settle_people
from medphantom.cohorts.ingestion.plan import Plan
from medphantom.cohorts.ingestion.scanning import largest_image_bytes
from medphantom.cohorts.ingestion.tables import use_table
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.readers.common import ReadOptions
from medphantom.cohorts.readers.npz import NpzHead
from medphantom.cohorts.readers.tasks import FileHead, Refusal
from medphantom.cohorts.records import NAME_PATTERN, AttributeSpec, CohortSchema
from medphantom.cohorts.tables.table import UNITS
from medphantom.core.errors import InputError, Reason

HEADER_ATTRIBUTES: dict[str, Literal["continuous", "categorical"]] = {
    "age": "continuous",
    "sex": "categorical",
    "view": "categorical",
    "body_part": "categorical",
}


def make_plan(layout: Layout, heads: Sequence[FileHead], options: IngestOptions) -> Plan:
    """Decide everything that can be decided from paths, headers and the table.

    Args:
        layout: Result of :func:`~medphantom.cohorts.ingestion.layout.lay_out`.
        heads: Headers, one per file of ``layout.images``, in that order.
        options: Ingestion options of the user.

    Raises:
        InputError: If table, columns or options do not fit the source, or the meaning of its folders is not given.
    """
    plan, usable = begin_plan(layout, heads, options)
    if plan.archive is not None:
        plan.schema = _archive_schema(plan.archive[1], options)
        plan.division = divide_archive(plan.archive[1].parts, options)
        return plan
    names = read_paths(plan, usable, layout, options)
    use_table(plan, layout, options)
    if (listed := plan.exported) is not None:
        unlisted = Refusal(Reason.NO_TABLE_ROW, "the export's table does not say what its values stand for")
        plan.keep(lambda image: None if image.paths[0] in listed else unlisted)
    plan.stand_ins = _stand_ins(plan, options)
    settle_people(plan)
    names = folder_names([image.paths[0] for image in plan.images])
    require_patients(plan, names, options)
    plan.warnings += doubts(plan)
    labels = _folder_labels(plan, names, options)
    use_masks(plan, layout, options)
    plan.division = divide(plan, options)
    plan.schema = _schema(plan, labels, options)
    plan.refused.sort(key=lambda item: item[0])
    return plan


def begin_plan(layout: Layout, heads: Sequence[FileHead], options: IngestOptions) -> tuple[Plan, list[FileHead]]:
    """Return a plan with the kind of the source, and the headers of the readable files."""
    usable = [head for head in heads if head.refusal is None]
    archive = _archive(usable, heads, layout, options)
    dims = choose_spatial_dims(usable, options, archive)
    schema = CohortSchema(spatial_dims=dims)
    exported = export_facts(layout.root)
    read_options = _read_options(options, dims, "grey" if exported is None or dims == 3 else "keep")
    plan = Plan(layout.root, schema, read_options, layout.mask_root, layout.total_files)
    plan.refused = [*layout.refused, *((head.path, head.refusal) for head in heads if head.refusal is not None)]
    plan.states = {head.path: head.state for head in usable}
    plan.archive = archive
    if layout.dataset is not None:
        plan.use("dataset.json", "dataset.json of nnU-Net")
        plan.mask_values, plan.modality = layout.dataset.mask_values, layout.dataset.modality
    plan.is_export, plan.exported = exported is not None, exported_images(layout.root)
    plan.is_drawn = exported is not None and exported.get("kind") != "real"
    if exported is not None and (said := rounding(layout.root)):
        plan.warnings.append(said)
    return plan, usable


def _stand_ins(plan: Plan, options: IngestOptions) -> str:
    """Return why the pseudonyms of an export may represent images; empty if another table names the patients."""
    table = plan.table
    its_own = table is not None and table.path.name == METADATA_FILE and options.patient_column in {"", "patient"}
    said = export_facts(plan.root) if plan.is_export and its_own else None
    if said is None or said.get("patients") == "known":
        return ""
    if said.get("patients") == "per_image":
        return "the cohort behind this export has images that name no patient"
    return "this export does not say whether its patients are known (export the cohort again with this version)"


def read_paths(plan: Plan, usable: Sequence[FileHead], layout: Layout, options: IngestOptions) -> FolderNames:
    """Group files into images, in the order of their first path, and interpret their paths."""
    archives = [head for head in usable if head.kind == "npz"]
    aside = Refusal(Reason.UNSUPPORTED_PIXELS, "an archive of images among files: ingest it alone")
    plan.refused += [(head.path, aside) for head in archives]
    images = [head for head in usable if head.kind != "npz"]
    plan.images = group_files(images, plan.schema.spatial_dims, options, plan.refused, layout.root)
    plan.images.sort(key=lambda image: image.order)
    names = folder_names([image.paths[0] for image in plan.images])
    name_by_path(plan, names, layout, options)
    return names


def _archive(
    usable: Sequence[FileHead], heads: Sequence[FileHead], layout: Layout, options: IngestOptions
) -> tuple[str, NpzHead] | None:
    """Return the archive that is the whole source; a single file that is not a valid archive is fatal."""
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


def _read_options(options: IngestOptions, dims: Literal[2, 3], color: Literal["grey", "keep"]) -> ReadOptions:
    return ReadOptions(
        spatial_dims=dims,
        color=color if options.color == "auto" else options.color,
        split_frames=options.frames == "split",
        min_side=options.min_side,
        min_slices=options.min_slices,
        max_bytes=largest_image_bytes(options),
        max_expansion=options.max_expansion,
        near_duplicates=options.near_duplicates != "off",
    )


def _folder_labels(plan: Plan, names: FolderNames, options: IngestOptions) -> tuple[tuple[str, ...], bool]:
    """Set classes by folder in the planned images; labels of the table take precedence."""
    level = options.folder_level("classes")
    if level is None or not plan.images:
        return (), False
    if plan.table is not None and plan.table.labels:
        plan.warnings.append("folders are classes, but the table names labels: the table's are taken")
        return (), False
    if names.total_at(level) < 2:
        return (), False
    torn = Refusal(Reason.GEOMETRY, "its slices lie in folders of several classes")
    plan.keep(lambda image: torn if len({_class_of(path, level) for path in image.paths}) > 1 else None)
    for image in plan.images:
        image.label = _class_of(image.paths[0], level) or None
    found = tuple(sorted({image.label for image in plan.images if image.label is not None}))
    unfit = sum(not NAME_PATTERN.fullmatch(label) for label in found)
    if unfit:
        raise InputError(
            f"the names of {unfit} class folders are no label names: 1 to 80 characters, no ':', no control character",
            "rename these folders",
        )
    return found, len(found) > 1


def _class_of(path: str, level: int) -> str:
    names = levels_of(path)
    return names[level] if level < len(names) else ""


def _schema(plan: Plan, folder_labels: tuple[tuple[str, ...], bool], options: IngestOptions) -> CohortSchema:
    table = plan.table
    labels, exclusive = (table.labels, table.exclusive) if table is not None and table.labels else folder_labels
    attributes = {spec.name: spec for spec in (table.attributes if table is not None else ())}
    seen: Counter[str] = Counter()
    for image in plan.images:
        if image.head.dicom is not None:
            seen.update(image.head.dicom.attributes.keys())
    wanted = options.attribute_kinds
    for name, kind in HEADER_ATTRIBUTES.items():
        if name not in attributes and seen[name] and (wanted is None or name in wanted):
            attributes[name] = AttributeSpec(name=name, kind=kind, unit=UNITS.get(name, ""))
    renamed = table.renamed if table is not None else set()
    lacking = [name for name in wanted or () if name not in attributes and name not in renamed]
    if lacking and plan.images:
        raise InputError(f"there is no attribute {lacking[0]!r}", "name a column of the table, or leave it out")
    return CohortSchema(
        spatial_dims=3 if plan.read_options.spatial_dims == 3 else 2,
        labels=labels,
        exclusive=exclusive,
        attributes=tuple(attributes.values()),
    )
