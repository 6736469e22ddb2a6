"""A first summary of a source before anything is read from it: the facts from which a new recipe starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from medphantom.cohorts.ingestion.folder_names import folder_names
from medphantom.cohorts.ingestion.people import divide, divide_archive, folders_matter, settle_people
from medphantom.cohorts.ingestion.planning import begin_plan, read_paths
from medphantom.cohorts.ingestion.scanning import lay_out_source, make_workers, scan_heads, source_root
from medphantom.cohorts.ingestion.tables import find_tables, use_table
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.records import SPLITS
from medphantom.core.progress import Progress


@dataclass(slots=True)
class Findings:
    """Summary of a source.

    Attributes:
        total_images: Number of images or volumes that its files declare.
        spatial_dims: Number of spatial dimensions, 2 or 3.
        tables: Tables at its top that fit its images; with several, the user has to choose.
        table_problems: Reasons why tables could not be read.
        folders: Number of folders at the first level that may be classes or patients if nothing else decides, else 0.
        above: Placeholder for the folders above those, in ``IngestOptions.folders``.
        patients_by: Number of images by the source of their patient; ``""`` if there is none.
        labels: Number of labels that the table names.
        splits: Number of images per split of the source, if its division is unambiguous.
        masks: Number of images that have a mask.
    """

    total_images: int = 0
    spatial_dims: int = 2
    tables: tuple[str, ...] = ()
    table_problems: tuple[str, ...] = ()
    folders: int = 0
    above: str = ""
    patients_by: dict[str, int] = field(default_factory=dict)
    labels: int = 0
    splits: tuple[str, ...] = ()
    masks: int = 0


def look(source: str | Path, options: IngestOptions | None = None, progress: Progress | None = None) -> Findings:
    """Summarise a source without reading its pixels.

    Args:
        source: Folder of images, or one file.
        options: Options that are already chosen.
        progress: Callback that receives the number of files.

    Raises:
        InputError: If there is nothing to read.
    """
    options = options or IngestOptions()
    root, only = source_root(Path(source))
    layout = lay_out_source(Path(source), root, only, options)
    with make_workers(options) as pool:
        heads = scan_heads(pool, layout, options, progress)
    plan, usable = begin_plan(layout, heads, options)
    if plan.archive is not None:
        head = plan.archive[1]
        parts = divide_archive(head.parts, options).theirs
        total = sum(head.parts.values())
        return Findings(total, plan.schema.spatial_dims, labels=len(head.labels), splits=_in_order(parts))
    read_paths(plan, usable, layout, options)
    found = Findings(len(plan.images), plan.schema.spatial_dims, masks=len(layout.masks) + len(layout.beside))
    if options.table == "auto":
        candidates = find_tables(plan, layout, options)
        found.tables = tuple(candidate.names[0] for candidate in candidates.fitting)
        problems = [*candidates.unreadable, *candidates.unjoined]
        found.table_problems = tuple(str(problem) for problem in problems)
    if len(found.tables) > 1:
        return found  # the user has to choose first
    use_table(plan, layout, options)
    settle_people(plan)
    found.total_images = len(plan.images)
    found.labels = 0 if plan.table is None else len(plan.table.labels)
    found.patients_by = dict(Counter(image.patient_source for image in plan.images))
    names = folder_names([image.paths[0] for image in plan.images])
    if options.folders == "ask" and names.open_level is not None and folders_matter(plan):
        found.folders, found.above = names.total_at(names.open_level), "-/" * names.open_level
    found.splits = _in_order(divide(plan, options).theirs)
    return found


def _in_order(splits: frozenset[str]) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if split in splits)
