"""``train``: a generator is fitted to a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import checked
from medphantom.core.progress import Progress
from medphantom.flows.operations.places import Folder, opened, preprocess_flags, refuse_existing, resumable
from medphantom.flows.process.progress import warn, watcher
from medphantom.flows.recipes.settings import TrainPart, read_part
from medphantom.flows.runs.costs import Sections, tell_costs

if TYPE_CHECKING:
    from medphantom.cohorts.preprocess import Preprocess
    from medphantom.flows.recipes.recipe import PreprocessChoice
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.config import GeneratorConfig
    from medphantom.quality.results.quality_report import CopySummary


@dataclass(frozen=True)
class Training:
    """What a training made.

    Attributes:
        bundle: The generator.
        base: What the copy search found in images of the base that was fine-tuned; ``None`` where none was.
    """

    bundle: GeneratorBundle
    base: CopySummary | None


@checked
def train(
    cohort: Cohort | Folder,
    out: Folder,
    *,
    size: int | Sequence[int] | None = None,
    preprocess: Mapping[str, Any] | PreprocessChoice | None = None,
    generator: Mapping[str, Any] | GeneratorConfig | None = None,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
    progress: Progress | None = None,
) -> GeneratorBundle:
    """Fit a generator to a cohort; the same call continues after an interruption.

    Args:
        cohort: Real cohort.
        out: Bundle to make.
        size: Side, or sides, of what the networks see, in pixels.
        preprocess: The ``preprocess`` section.
        generator: The ``generator`` section.
        recipe: Recipe whose sections are taken.
        settings: ``field=value`` as of ``--set``.
        progress: Called with the number of steps.

    Returns:
        The generator. Signs of memorisation and losses that were not finite are shown as warnings.

    Raises:
        InputError: The cohort cannot be learned from, or ``out`` exists.
        RecipeError: A setting is unknown or out of bounds.
    """
    real = opened(cohort)
    flags = {"preprocess": preprocess, "generator": generator}
    part = read_part(TrainPart, recipe, settings, flags, {"preprocess": preprocess_flags(real, size)})
    seen = part.preprocess.for_cohort(real)
    refuse_existing(Path(out))
    tell_costs(Sections(preprocess=seen, generator=part.generator), len(real.rows("train")), Path(out))
    return trained(real, seen, part.generator, Path(out), progress=progress).bundle


def trained(
    cohort: Cohort,
    preprocess: Preprocess,
    config: GeneratorConfig,
    out: Path,
    *,
    work: Path | None = None,
    progress: Progress | None = None,
) -> Training:
    """Fit a generator with everything decided.

    Args:
        cohort: Real cohort.
        preprocess: What the networks see of an image.
        config: The generator and how it is fitted.
        out: Bundle to make.
        work: Folder for checkpoints; by default ``<out>.work`` until the bundle is there.
        progress: Called with the number of steps.

    Raises:
        InputError: The cohort cannot be learned from, the base draws images of it, or ``out`` exists.
    """
    from medphantom.flows.runs.base_check import check_base
    from medphantom.generators.train import train_generator

    refuse_existing(out)
    shown = progress or watcher().stage("train")

    def run(folder: Path) -> Training:
        base = check_base(cohort, preprocess, config, work=folder, progress=shown)
        bundle = train_generator(cohort, preprocess, config, out, work=folder, progress=shown, grids=_told)
        return Training(bundle, base)

    found = resumable(out, run, work)
    for line in training_warnings(found.bundle.training):
        warn(line, "train")
    return found


def _told(step: int, file: Path) -> None:
    watcher().note(f"train: images at step {step}: {file}")


def training_warnings(training: Mapping[str, Any]) -> list[str]:
    """Where a training began to memorise its images, and where a loss was not finite."""
    rows = training_curves(training)
    found = []
    for stage in dict.fromkeys(row["stage"] for row in rows if row.get("memorized")):
        row = next(row for row in rows if row["stage"] == stage and row.get("memorized"))
        found.append(
            f"the {stage} tells its training images from others from step {row['step']} on (smaller error in "
            f"{row['membership']:.2f} of pairs): train it for fewer steps, or on more patients"
        )
    found += [
        f"a loss of the {row['stage']} was not finite at step {row['not_finite_at']}: it went back to step "
        f"{row['step']} and on at half the learning rate"
        for row in rows
        if "not_finite_at" in row
    ]
    return found


def training_curves(training: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Rows of the training curves of a bundle's ``training.json``, each with its ``stage``."""
    rows: list[dict[str, Any]] = []
    for stage, curve in training.items():
        if isinstance(curve, dict) and "rows" in curve:
            rows += [{"stage": stage, **row} for row in curve["rows"]]
    return tuple(rows)
