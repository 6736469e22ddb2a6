"""``generate``: what to draw (a plan), and the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import SamplingPlan
from medphantom.core.errors import InputError
from medphantom.core.progress import Progress
from medphantom.flows.operations.places import Folder, loaded, opened, refuse_existing, resumable
from medphantom.flows.process.progress import watcher
from medphantom.flows.recipes.plans import make_plan, plan_flags, shard_of
from medphantom.flows.recipes.settings import GeneratePart, read_part

if TYPE_CHECKING:
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.config import SamplerConfig


def plan(
    bundle: GeneratorBundle | Folder,
    *,
    counts: Mapping[str, int] | None = None,
    match: int | None = None,
    balance: int | None = None,
    masks: int | None = None,
    prompts: Folder | None = None,
    plan_file: Folder | None = None,
    cohort: Cohort | Folder | None = None,
    shard: str | None = None,
    seed: int | None = None,
    fresh: str = "",
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
) -> SamplingPlan:
    """What to generate: at most one of ``counts``, ``match``, ``balance``, ``masks``, ``prompts`` and ``plan_file``.

    Without any of them the ``plan`` section of the recipe says it; by default images are distributed as the training
    split.

    Args:
        bundle: Generator whose vocabulary the plan uses.
        counts: Number of images of each label.
        match: Number of images, distributed as the training split.
        balance: Number of images that every label is topped up to.
        masks: Number of images for elastically deformed masks of the training split.
        prompts: Table of prompts, CSV or Parquet.
        plan_file: Plan as JSON lines.
        cohort: Real cohort, for ``match``, ``balance`` and ``masks``.
        shard: ``I/K``: only part I (from 0) of K.
        seed: Another seed gives other images.
        fresh: Tag that enters every seed, such as today's date.
        recipe: Recipe whose ``plan`` section is taken.
        settings: ``field=value`` as of ``--set``.

    Raises:
        InputError: Two kinds of plan are given, or the kind needs a real cohort.
        PromptError: A prompt is outside the vocabulary of the generator.
    """
    facts = _facts(bundle)
    flags = plan_flags(counts, match, balance, seed, masks=masks, prompts=prompts, plan_file=plan_file)
    part = read_part(GeneratePart, recipe, settings, flags)
    if plan_file is not None:
        found = SamplingPlan.from_jsonl(Path(plan_file), facts.conditions)
    else:
        real = None if cohort is None else opened(cohort)
        found = make_plan(part.plan, real, facts.conditions, preprocess=facts.preprocess, fresh=fresh)
    return found if shard is None else shard_of(found, shard)


def generate(
    bundle: GeneratorBundle | Folder,
    images: SamplingPlan,
    out: Folder,
    *,
    sampler: Mapping[str, Any] | SamplerConfig | None = None,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
    work: Path | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Draw the images of a plan; the same call continues after an interruption.

    Args:
        bundle: The generator.
        images: Plan, from :func:`plan`.
        out: Synthetic cohort to make.
        sampler: The ``sampler`` section.
        recipe: Recipe whose ``sampler`` section is taken.
        settings: ``field=value`` as of ``--set``.
        work: Folder for finished batches; by default ``<out>.work`` until the cohort is there.
        progress: Called with the number of images drawn.

    Raises:
        InputError: The plan asks for no image, ``out`` exists, or the solver does not fit the generator.
        PromptError: A prompt is outside the vocabulary of the generator.
    """
    from medphantom.generators.generate import generate as draw

    part = read_part(GeneratePart, recipe, settings, {"sampler": sampler})
    place = Path(out)
    refuse_existing(place)
    shown = progress or watcher().stage("generate")
    maker = loaded(bundle)
    return resumable(
        place, lambda folder: draw(maker, images, place, work=folder, sampler=part.sampler, progress=shown), work
    )


def _facts(bundle: GeneratorBundle | Folder) -> Any:
    """What a bundle says of itself; of a folder no network is loaded for that."""
    from medphantom.generators.facts import read_facts

    if isinstance(bundle, str | Path):
        return read_facts(bundle)[0]
    if not hasattr(bundle, "facts"):
        raise InputError(f"a generator was expected, got {type(bundle).__name__}", "give a bundle or its folder")
    return bundle.facts
