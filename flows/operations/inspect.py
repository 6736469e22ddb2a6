"""``inspect``: counts of a cohort, and a contact sheet of its images beside what a network will see of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medphantom.cohorts.overview import contact_sheet as sheet_of
from medphantom.cohorts.overview import overview
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.private import REJECTIONS_FILE, private_path, read_rejections
from medphantom.cohorts.records import SYNTHETIC_SPLIT
from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import Seed, checked
from medphantom.core.errors import InputError
from medphantom.core.folders import no_space_becomes_one_line
from medphantom.core.randomness import derive_seed
from medphantom.flows.operations.places import Folder, opened, preprocess_flags, refuse_published
from medphantom.flows.operations.summaries import cohort_summary, frame_text
from medphantom.flows.recipes.recipe import PreprocessChoice
from medphantom.flows.recipes.settings import InspectPart, read_part

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_IMAGES = 400
DEFAULT_IMAGES = 24
PICTURES = (".png", ".jpg", ".jpeg")


@checked
def inspect(
    cohort: Cohort | Folder,
    *,
    out: Folder | None = None,
    size: int | None = None,
    images: int = DEFAULT_IMAGES,
    split: str | None = None,
    seed: Seed = 0,
    rejected: bool = False,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
) -> list[str]:
    """Describe a cohort in lines, and write a contact sheet of images beside what a network will see of them.

    Args:
        cohort: Cohort, real or synthetic.
        out: Contact sheet to write; by default ``<cohort>.sheet.png``.
        size: Side of what a network will see, in pixels.
        images: Number of images on the sheet, 1 to 400.
        split: Only images of this split.
        seed: Seed of the choice of images.
        rejected: Instead list the files that were not taken, and why: names of private files.
        recipe: Recipe whose ``preprocess`` section is taken.
        settings: ``field=value`` as of ``--set``.

    Raises:
        InputError: The split has no images, the sheet would lie in the cohort, nothing is known of rejected files, or
            an option has no effect on their list.
    """
    folder = cohort.path if isinstance(cohort, Cohort) else Path(cohort)
    if rejected:
        _refuse_beside_rejected(
            out=out is not None,
            size=size is not None,
            images=images != DEFAULT_IMAGES,
            split=split is not None,
            seed=seed != 0,
            recipe=recipe is not None,
            set=bool(settings),
        )
        return list(rejected_files(folder))
    _require_number(images)
    given = Cohort.open(folder)
    part = read_part(InspectPart, recipe, settings, {"preprocess": preprocess_flags(given, size)})
    sheet = folder.with_name(f"{folder.name}.sheet.png") if out is None else Path(out)
    return list(_described_cohort(given, folder, sheet, part.preprocess, images=images, split=split, seed=seed))


def _refuse_beside_rejected(**given: bool) -> None:
    """Refuse options of the contact sheet where none is made."""
    names = [f"--{name}" for name, here in given.items() if here]
    if names:
        have, them = ("has", "it") if len(names) == 1 else ("have", "them")
        what = f"{', '.join(names)} {have} no effect with --rejected, which draws no sheet"
        raise InputError(what, f"leave {them} out")


def _require_number(images: int) -> None:
    """Refuse a number of images that a sheet cannot show."""
    if not 1 <= images <= MOST_IMAGES:
        raise InputError(f"--images must be 1 to {MOST_IMAGES}, got {images}", "choose fewer images")


def _described_cohort(
    cohort: Cohort, folder: Path, sheet: Path, choice: PreprocessChoice, *, images: int, split: str | None, seed: int
) -> Iterator[str]:
    refuse_published(sheet)
    if sheet.suffix.lower() not in PICTURES:
        raise InputError(f"{sheet} is no name of a picture", f"let it end with {' or '.join(PICTURES)}")
    if sheet.exists() and not _is_picture(sheet):
        raise InputError(f"{sheet} exists already and is no picture", "choose another --out, or remove it first")
    preprocess = _preprocess(cohort, choice)
    rows = cohort.rows(split)
    if not rows:
        raise InputError(f"{folder} has no image in split {split!r}", f"splits: {', '.join(_splits(cohort))}")
    chosen = _chosen(rows, images, seed)
    with no_space_becomes_one_line(sheet):
        sheet_of(cohort, chosen, preprocess).save(sheet)
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


@checked
def contact_sheet(
    cohort: Cohort | Folder, images: int = DEFAULT_IMAGES, *, seed: Seed = 0, size: int | None = None
) -> Image:
    """Some images of a cohort as one picture; with ``size``, each beside what a network will see of it.

    Args:
        cohort: Cohort, real or synthetic.
        images: Number of images, 1 to 400.
        seed: Seed of the choice of images.
        size: Side of what a network will see, in pixels.

    Raises:
        InputError: A number is out of bounds.
    """
    _require_number(images)
    shown = opened(cohort)
    part = read_part(InspectPart, None, (), {"preprocess": preprocess_flags(shown, size)})
    seen = None if size is None else part.preprocess.for_cohort(shown)
    return sheet_of(shown, _chosen(range(len(shown)), images, seed), seen)


def _chosen(rows: Sequence[int], images: int, seed: int) -> list[int]:
    rng = np.random.default_rng(derive_seed(seed, "contact sheet"))
    found: list[int] = sorted(rng.choice(rows, size=min(images, len(rows)), replace=False).tolist())
    return found


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


def _is_picture(file: Path) -> bool:
    """Return whether a file is a picture, such as an earlier contact sheet."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened_file:
            return opened_file.format in {"PNG", "JPEG"}
    except (OSError, UnidentifiedImageError):
        return False


def _splits(cohort: Cohort) -> list[str]:
    return sorted(set(cohort.manifest["split"].to_list())) or [SYNTHETIC_SPLIT]
