"""Looking at what is there: a cohort's counts and contact sheet, and whether a folder is what it says it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medphantom.cohorts.manifest import SCHEMA_FILE
from medphantom.cohorts.overview import contact_sheet, overview
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.private import REJECTIONS_FILE, private_path, read_rejections
from medphantom.cohorts.records import SYNTHETIC_SPLIT
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import ArtifactError, InputError, ResourceError
from medphantom.core.folders import inside, no_space_becomes_one_line
from medphantom.core.guard import user_path
from medphantom.core.randomness import derive_seed
from medphantom.flows.operations.summaries import cohort_summary, frame_text
from medphantom.flows.recipes.recipe import PreprocessChoice
from medphantom.flows.runs.artifact import STAGES_FILE, RunFolder, artifact_mark
from medphantom.generators.facts import FACTS_FILE


def inspect_cohort(
    folder: Path,
    sheet: Path,
    choice: PreprocessChoice,
    *,
    size: int | None = None,
    images: int = 24,
    split: str | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Lines about a cohort; also writes a contact sheet of images beside what a network will see of them.

    Raises:
        InputError: the split has no images, or the sheet would lie in the cohort.
    """
    cohort = Cohort.open(folder)
    if sheet.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{sheet} lies in the cohort, which must stay as it is", "choose another --out")
    dims = cohort.schema.spatial_dims
    if size is not None:
        choice = choice.model_copy(update={"size": (size,) * dims})
    preprocess = _preprocess(cohort, choice)
    rows = cohort.rows(split)
    if not rows:
        raise InputError(f"{folder} has no image in split {split!r}", f"splits: {', '.join(_splits(cohort))}")
    rng = np.random.default_rng(derive_seed(seed, "contact sheet"))
    chosen = sorted(rng.choice(rows, size=min(images, len(rows)), replace=False).tolist())
    with no_space_becomes_one_line(sheet):
        contact_sheet(cohort, chosen, preprocess).save(sheet)
    yield cohort_summary(cohort)
    counts = overview(cohort)
    for title, frame in (
        ("labels", counts.labels),
        ("attributes", counts.attributes),
        ("categories", counts.categories),
        ("shapes", counts.shapes),
    ):
        if len(frame):
            yield f"\n{title}\n{frame_text(frame)}"
    for warning in counts.warnings:
        yield f"warning: {warning}"
    yield f"\na network sees {_described(preprocess)}"
    private = {
        "real": "; it shows real images: keep it private",
        "counterfactual": "; edits of real images: keep it private",
    }
    real = private.get(cohort.schema.kind, "")
    yield f"contact sheet: {sheet} (left: source, right: network{real})"


def rejected_files(folder: Path) -> Iterator[str]:
    """The files that were not taken into a cohort, one line each: reason, file, frame where one is meant, detail.

    Raises:
        InputError: the private folder is not beside the cohort.
    """
    file = private_path(folder) / REJECTIONS_FILE
    if not file.is_file():
        raise InputError(
            f"{private_path(folder)} is not beside {folder}",
            "look where the images were ingested: it stays with its owner",
        )
    table = read_rejections(file).sort("reason", "path")
    for path, frame, reason, detail in table.iter_rows():
        shown = "".join(sign if sign.isprintable() else "?" for sign in path)
        yield f"{reason:20s} {shown}{'' if frame is None else f', frame {frame}'}: {detail}"
    yield f"{len(table)} files or frames were not taken; these names are private"


def _preprocess(cohort: Cohort, choice: PreprocessChoice) -> Preprocess:
    if len(choice.size) != cohort.schema.spatial_dims:
        choice = choice.model_copy(update={"size": (choice.size[0],) * cohort.schema.spatial_dims})
    return choice.for_cohort(cohort)


def _described(preprocess: Preprocess) -> str:
    size = "×".join(str(side) for side in preprocess.size)
    range_ = preprocess.intensity
    unit = " % of each image" if range_.kind == "percentile" else ""
    return f"{size} pixels, {preprocess.fit}, {range_.kind} {range_.low:g}…{range_.high:g}{unit}"


def _splits(cohort: Cohort) -> list[str]:
    return sorted(set(cohort.manifest["split"].to_list())) or [SYNTHETIC_SPLIT]


def verify_folder(folder: Path) -> Iterator[str]:
    """Read everything in a cohort, bundle or run folder and compare it with its digest; one line for each.

    Raises:
        ArtifactError: something differs.
        InputError: the folder is none of these.
    """
    user_path(folder)
    if (folder / STAGES_FILE).is_file():
        records = RunFolder(folder).records()
        if not records:  # a run does without them; whoever asks whether it is whole must be told
            raise ArtifactError(f"{folder / STAGES_FILE} is damaged or names no stage", "run the recipe again")
        for stage, record in records.items():
            for name in dict.fromkeys((record.output, *record.marks)):
                part = inside(folder, name)
                if (part / SCHEMA_FILE).is_file() or (part / FACTS_FILE).is_file():
                    yield from verify_folder(part)
                elif not part.exists() or artifact_mark(part) != record.marks.get(name):
                    raise ResourceError(f"{part} is missing or was altered", "run the recipe again")
                else:
                    yield f"{part}: as stage {stage} made it"
    elif (folder / SCHEMA_FILE).is_file():
        cohort = Cohort.open(folder)
        cohort.verify()
        yield f"{folder}: {len(cohort)} {cohort.schema.kind} images as published, digest {cohort.digest[:12]}"
    elif (folder / FACTS_FILE).is_file():
        from medphantom.generators.bundle import GeneratorBundle

        yield f"{folder}: bundle as published, digest {GeneratorBundle.load(folder).digest[:12]}"
    else:
        raise InputError(f"{folder} is no cohort, bundle or run folder", "give one that medphantom made")
