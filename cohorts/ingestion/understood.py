"""A short report of how a source was read: only columns, counts and origins, without labels, categories or ids."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from medphantom.cohorts.ingestion.grouping import Planned
from medphantom.cohorts.ingestion.plan import Plan
from medphantom.cohorts.records import SPLITS

if TYPE_CHECKING:
    from medphantom.cohorts.ingestion.sink import Sink


def understood(plan: Plan, sink: Sink) -> tuple[str, ...]:
    """Return lines for the end of ingestion: table, patients, labels, attributes, masks, splits, files left out."""
    lines = [*plan.understood, *_table(plan), _patients(plan), *_labels(plan, sink), *_attributes(plan, sink)]
    return (*lines, *_masks(plan, sink), _splits(plan, sink), *_left_out(sink))


def _table(plan: Plan) -> list[str]:
    if plan.table is None:
        return []
    said = [line for line in plan.table.understood() if not line.startswith(("labels: none", "attributes:"))]
    return said + plan.table.remarks()


def _patients(plan: Plan) -> str:
    if plan.archive is not None:
        return "patients: an archive names none; every row stands for its own"
    sources = Counter(_source_of_patient(image) for image in plan.images)
    unknown = sources.pop("", 0)
    said = ", ".join(f"{total} images by {source}" for source, total in sorted(sources.items()))
    if unknown:
        said += f"{', ' if said else ''}{unknown} name none: study, series or file stands for the patient"
    return f"patients: {said or 'no image'}"


def _source_of_patient(image: Planned) -> str:
    return image.patient_source if image.patient else ""


def _labels(plan: Plan, sink: Sink) -> list[str]:
    total, rare = len(plan.schema.labels), len(sink.rare_labels)
    if plan.archive is not None:
        source = "the archive"
    elif plan.table is not None and plan.table.labels:
        source = "the table"
    else:
        source = "folders"
    if not total:
        return [f"labels: none; {_why_none(plan, sink)}"]
    line = f"labels: {total - rare} of {total} from {source}"
    if rare:
        line += (
            f"; {rare} are shared by fewer than {sink.options.min_patients} patients each and enter no vocabulary "
            "(labels=[…] names those to keep, min_patients sets the number)"
        )
    return [line]


def _why_none(plan: Plan, sink: Sink) -> str:
    if plan.table is not None:
        return "the table has no column that lists or states labels (label_columns names one)"
    if any(meaning == "classes" for meaning in sink.options.folders.split("/")):
        return "all images lie in one folder, which is no class"
    if any("table" in warning for warning in plan.warnings):
        return "no table was used, and folders were not said to be classes"
    return "there is no table, and folders were not said to be classes"


def _attributes(plan: Plan, sink: Sink) -> list[str]:
    lines = []
    if plan.schema.attributes:
        lines.append("attributes: " + ", ".join(f"{spec.name} ({spec.kind})" for spec in plan.schema.attributes))
    unknown = Counter(
        keyword for image in plan.images if image.head.dicom is not None for keyword in image.head.dicom.unknown_codes
    )
    lines += [
        f"header {keyword}: {total} images hold no value that the standard defines, and are not stated there"
        for keyword, total in sorted(unknown.items())
    ]
    for name, total in sorted(sink.rare_categories.items()):
        lines.append(
            f"attribute {name}: {total} categories are shared by fewer than {sink.options.min_patients} patients each "
            "and are not stated"
        )
    return lines


def _masks(plan: Plan, sink: Sink) -> list[str]:
    total = sum(image.mask is not None for image in plan.images)
    line = f"masks: of {total} images"
    if sink.rare_masks:
        few = sink.options.min_patients
        line += f"; names of {sink.rare_masks} values that fewer than {few} patients share are left to mask_values"
    return [line] if total else []


def _splits(plan: Plan, sink: Sink) -> str:
    if not plan.division.theirs:
        return "splits: by keyed hash of the patient"
    theirs = ", ".join(split for split in SPLITS if split in plan.division.theirs)
    carved = [] if plan.division.exact else [split for split in SPLITS if split not in plan.division.theirs]
    rest = f"; {', '.join(carved)} carved from its train by keyed hash" if carved else ""
    return f"splits: the source's own {theirs}{rest}"


def _left_out(sink: Sink) -> list[str]:
    counts = sink.rejected_files()
    if not counts:
        return []
    said = ", ".join(f"{total} {reason.value}" for reason, total in sorted(counts.items()))
    return [f"left out: {said} (medphantom inspect --rejected lists them)"]
