"""Verbs about images: phantom, ingest, inspect, export, verify, lineage."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set a field as in a recipe, e.g. sampler.steps=10."),
]
RecipeOption = Annotated[Path | None, typer.Option("--recipe", help="Recipe whose settings are taken.")]


class PhantomFormat(StrEnum):
    """The file formats of simulated patients."""

    DICOM = "dicom"
    PNG = "png"
    NIFTI = "nifti"


class PhantomContent(StrEnum):
    """What simulated images show."""

    PATIENTS = "patients"
    MIXTURE = "mixture"


class ExportFormat(StrEnum):
    """The file formats of an export."""

    PNG = "png"
    NIFTI = "nifti"


class ExportLayout(StrEnum):
    """The ways in which an export gives the labels of images."""

    AUTO = "auto"
    LABELS = "labels"
    TABLE = "table"


def ingest(
    source: Annotated[Path, typer.Argument(help="Folder of DICOM, NIfTI, PNG, JPEG or TIFF files, or a .npz file.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Cohort to make.")],
    file_format: Annotated[str | None, typer.Option("--format", help="auto, dicom, nifti, picture or npz.")] = None,
    spatial_dims: Annotated[int | None, typer.Option(help="2: images, 3: volumes.")] = None,
    table: Annotated[str | None, typer.Option(help="CSV, TSV or Parquet file with labels and attributes.")] = None,
    join: Annotated[str | None, typer.Option(help="How rows find files: auto, path, patient or uid.")] = None,
    path_column: Annotated[str | None, typer.Option(help="Column of paths.")] = None,
    patient_column: Annotated[str | None, typer.Option(help="Column of patient ids.")] = None,
    uid_column: Annotated[str | None, typer.Option(help="Column of DICOM UIDs.")] = None,
    label_column: Annotated[list[str] | None, typer.Option(help="Column of labels; may be repeated.")] = None,
    label_separator: Annotated[str | None, typer.Option(help="Separates the labels of a cell.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(help="Column of an attribute, NAME or NAME:categorical; may be repeated.")
    ] = None,
    masks: Annotated[str | None, typer.Option(help="Folder of masks.")] = None,
    folders: Annotated[
        str | None, typer.Option(help="What folders are: classes, patients, classes/patients or ignore.")
    ] = None,
    color: Annotated[
        str | None, typer.Option(help="Colour images: auto (grey; kept in an export of ours), grey, keep or reject.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first rejected file.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that decode; 0: none beside this one.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Secret key of pseudonyms and splits; made when it does not exist.")
    ] = None,
    public_phrase: Annotated[
        str | None, typer.Option(help="Instead of a key, for public data only: splits that anyone can make again.")
    ] = None,
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Read images into a cohort: checked, de-identified, split by patient."""
    from medphantom.flows.operations.ingest import ingested
    from medphantom.flows.operations.summaries import cohort_summary, rejection_summary
    from medphantom.flows.process.progress import watching

    options: dict[str, Any] = {
        "format": file_format,
        "spatial_dims": spatial_dims,
        "table": table,
        "join": join,
        "path_column": path_column,
        "patient_column": patient_column,
        "uid_column": uid_column,
        "label_columns": label_column or None,
        "label_separator": label_separator,
        "attributes": attribute or None,
        "masks": masks,
        "folders": folders,
        "color": color,
        "strict": strict or None,
        "workers": workers,
    }
    with watching():
        result = ingested(
            source,
            out,
            public_phrase=public_phrase,
            key_file=key_file,
            recipe=recipe,
            settings=setting or [],
            **options,
        )
    for line in result.understood:
        typer.echo(line)
    typer.echo(cohort_summary(result.cohort))
    typer.echo(rejection_summary(result))
    typer.echo(f"cohort: {out}   look at it with: medphantom inspect {out}")


def inspect(
    cohort: Annotated[Path, typer.Argument(help="Cohort, real or synthetic.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="Contact sheet to write; by default <cohort>.sheet.png.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of what a network will see.")] = None,
    images: Annotated[int, typer.Option(help="Images on the sheet, 1 to 400.")] = 24,
    split: Annotated[str | None, typer.Option(help="Only images of this split.")] = None,
    seed: Annotated[int, typer.Option(help="Which images are drawn.")] = 0,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="List the files that were not taken, and why: names of private files.")
    ] = False,
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Count images per split and draw a contact sheet of images beside what a network sees, or list rejected files."""
    from medphantom.flows.operations.inspect import inspect as described

    lines = described(
        cohort,
        out=out,
        size=size,
        images=images,
        split=split,
        seed=seed,
        rejected=rejected,
        recipe=recipe,
        settings=setting or [],
    )
    for line in lines:
        typer.echo(line)


def phantom(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    patients: Annotated[int, typer.Option(help="Simulated patients; most have one image, some up to four.")] = 100,
    content: Annotated[
        PhantomContent, typer.Option(help="patients, or a mixture of procedural images, slices and radiographs (png).")
    ] = PhantomContent.PATIENTS,
    file_format: Annotated[PhantomFormat, typer.Option("--format", help="Files to write.")] = PhantomFormat.DICOM,
    spatial_dims: Annotated[
        Literal[2, 3] | None, typer.Option(help="2: radiographs, 3: volumes; by default 3 for NIfTI, else 2.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side in pixels; by default 256, volumes 64.")] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Also write masks of organs and findings.")] = False,
    missing: Annotated[float, typer.Option(help="Share of table cells that are left empty.")] = 0.0,
    factor: Annotated[
        list[str] | None,
        typer.Option(help="A continuous factor as a column, e.g. anatomy.adiposity; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed, of 0 or more, gives the same patients.")] = 0,
    bit_depth: Annotated[Literal[8, 16], typer.Option(help="Bits per pixel of PNG files.")] = 8,
) -> None:
    """Simulate patients: images with known factors, and invented names in the DICOM headers."""
    from medphantom.flows.operations.phantom import phantom as simulated
    from medphantom.flows.process.facts import usable_cores
    from medphantom.flows.process.progress import watching

    with watching():
        summary = simulated(
            out,
            patients,
            content=content.value,
            format=file_format.value,
            spatial_dims=spatial_dims,
            size=size,
            masks=masks,
            missing=missing,
            factors=factor or (),
            seed=seed,
            bit_depth=bit_depth,
            workers=usable_cores(),
        )
    typer.echo(f"{summary.total_images} images of {summary.total_patients} simulated patients in {out}")
    typer.echo(f"read them with: medphantom ingest {out} --out COHORT")


def export(
    cohort: Annotated[Path, typer.Argument(help="Cohort, usually synthetic.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    file_format: Annotated[ExportFormat, typer.Option("--format", help="Files to write.")] = ExportFormat.PNG,
    layout: Annotated[
        ExportLayout, typer.Option(help="labels: a folder per label; table: metadata.csv; auto: as fits.")
    ] = ExportLayout.AUTO,
) -> None:
    """Write a cohort as files that other tools load: a folder per label, or metadata.csv."""
    from medphantom.flows.operations.export import export as exported
    from medphantom.flows.process.progress import watching

    with watching():
        made = exported(cohort, out, format=file_format.value, layout=layout.value)
    typer.echo(f"exported to {made}")


def verify(
    folder: Annotated[Path, typer.Argument(help="Cohort, bundle (a folder or base:NAME) or run folder.")],
) -> None:
    """Read everything in a cohort, bundle or run, and compare it with its digest."""
    from medphantom.flows.operations.verify import verify as verified
    from medphantom.flows.process.progress import watching

    with watching():
        lines = verified(folder)
    for line in lines:
        typer.echo(line)
    typer.echo(f"verified: {folder}, {len(lines)} {'part' if len(lines) == 1 else 'parts'} as published")


def lineage(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders to look through; by default the working directory.")
    ] = None,
    *,
    patient: Annotated[
        str, typer.Option(help="Patient id as the source names it, or pseudonym; -: read it from standard input.")
    ],
    key_file: Annotated[Path | None, typer.Option(help="Secret key of the pseudonyms.")] = None,
    public_phrase: Annotated[str | None, typer.Option(help="Instead of a key, where one was used.")] = None,
    files: Annotated[bool, typer.Option("--files", help="Also name the patient's source files.")] = False,
) -> None:
    """List what was trained on a patient who withdraws consent, and what has to be trained again."""
    from medphantom.flows.operations.lineage import lineage as followed

    name = sys.stdin.readline() if patient == "-" else patient
    found = followed(name, folders or (), key_file=key_file, public_phrase=public_phrase)
    for trace in found.traces:
        typer.echo(f"{trace.kind:16s}{trace.path}: {trace.part} -> {trace.remedy}")
    for line in found.untold:
        typer.echo(f"not known        {line}")
    if files:
        for path in found.files:
            typer.echo(f"source file      {path}")
    again = [str(trace.path) for trace in found.traces if trace.retrain]
    typer.echo(
        f"looked at {found.searched} cohorts, bundles, exports and reports; {len(found.traces)} know this patient"
        + (f", and of {len(found.untold)} it is not known" if found.untold else "")
    )
    typer.echo(f"to train again: {', '.join(again) or ('nothing that is known' if found.untold else 'nothing')}")
