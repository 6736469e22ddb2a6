"""``generate``: what to draw (a plan), and the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import SamplingPlan
from medphantom.core.arguments import Count, Seed, Total, checked
from medphantom.core.errors import InputError, MedphantomError
from medphantom.core.progress import Progress
from medphantom.flows.operations.places import (
    Folder,
    loaded,
    opened,
    refuse_existing,
    refuse_published,
    require_folder,
    resumable,
)
from medphantom.flows.process.progress import watcher
from medphantom.flows.recipes.plans import make_plan, plan_flags, refuse_changes, refuse_section, shard_of
from medphantom.flows.recipes.settings import GeneratePart, read_part

if TYPE_CHECKING:
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.config import SamplerConfig


@checked
def plan(
    bundle: GeneratorBundle | Folder,
    *,
    counts: Mapping[str, Total] | None = None,
    match: Count | None = None,
    balance: Count | None = None,
    masks: Count | None = None,
    prompts: Folder | None = None,
    plan_file: Folder | None = None,
    cohort: Cohort | Folder | None = None,
    seed: Seed | None = None,
    fresh: str = "",
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
) -> SamplingPlan:
    """What to generate: at most one of ``counts``, ``match``, ``balance``, ``masks``, ``prompts`` and ``plan_file``.

    Without any of them the ``plan`` section of the recipe says it; by default 500 images are distributed as the
    training split, which needs the cohort.

    Args:
        bundle: Generator whose vocabulary the plan uses.
        counts: Number of images of each label.
        match: Number of images, distributed as the training split.
        balance: Number of images that every label is topped up to.
        masks: Number of images for elastically deformed masks of the training split.
        prompts: Table of prompts, CSV or Parquet.
        plan_file: Plan as JSON lines, which is drawn as it is.
        cohort: Real cohort, for ``match``, ``balance`` and ``masks``.
        seed: Another seed gives other images.
        fresh: Tag that enters every seed, such as today's date.
        recipe: Recipe whose ``plan`` section is taken.
        settings: ``field=value`` as of ``--set``, of the ``plan`` section.

    Raises:
        InputError: Two kinds of plan are given, a plan file and something that would change it, a setting has no
            effect on a plan, or the kind needs a real cohort.
        PromptError: A prompt is outside the vocabulary of the generator.
    """
    refuse_section("sampler", settings, "a plan does not say how images are sampled", "give it to generate")
    facts = _facts(bundle)
    flags = plan_flags(counts, match, balance, seed, masks=masks, prompts=prompts, plan_file=plan_file)
    if plan_file is not None:
        refuse_changes({"seed": seed is not None, "fresh": bool(fresh)}, settings)
    part = read_part(GeneratePart, recipe, settings, flags, {"plan": {"fresh": fresh}} if fresh else {})
    if plan_file is not None:
        return SamplingPlan.from_jsonl(Path(plan_file), facts.conditions)
    real = None if cohort is None else opened(cohort)
    return make_plan(part.plan, real, facts.conditions, preprocess=facts.preprocess)


@checked
def generate(
    bundle: GeneratorBundle | Folder,
    images: SamplingPlan,
    out: Folder,
    *,
    save_plan: Folder | None = None,
    shard: str | None = None,
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
        save_plan: File to write the whole plan to as JSON lines, once it is certain that it can be drawn.
        shard: ``I/K``: draw only part I (from 0) of K; :func:`medphantom.merge` joins the parts.
        sampler: The ``sampler`` section.
        recipe: Recipe whose ``sampler`` section is taken.
        settings: ``field=value`` as of ``--set``, of the ``sampler`` section.
        work: Folder for finished batches; by default ``<out>.work`` until the cohort is there.
        progress: Called with the number of images drawn.

    Raises:
        InputError: The plan or its part asks for no image, ``out`` exists, ``save_plan`` holds something else, a
            setting would change the plan, or the solver does not fit the generator.
        PromptError: A prompt is outside the vocabulary of the generator.
    """
    from medphantom.generators.generate import generate as draw
    from medphantom.generators.generate import settings_for

    refuse_section("plan", settings, "the plan is already made", "give it to plan")
    part = read_part(GeneratePart, recipe, settings, {"sampler": sampler})
    place = Path(out)
    refuse_existing(place)
    wanted = images if shard is None else shard_of(images, shard)
    shown = progress or watcher().stage("generate")
    maker = loaded(bundle)
    if save_plan is not None:
        settings_for(maker, wanted, part.sampler)
        _save(images, Path(save_plan), place)
    return resumable(
        place, lambda folder: draw(maker, wanted, place, work=folder, sampler=part.sampler, progress=shown), work
    )


def _save(images: SamplingPlan, file: Path, out: Path) -> None:
    """Write a plan where nothing else lies."""
    if file.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{file} is or lies in {out}, which will hold the images", "choose another --save-plan")
    refuse_published(file, "--save-plan")
    if file.exists():
        with suppress(MedphantomError):
            if SamplingPlan.from_jsonl(file) == images:  # of the same command, which was interrupted
                return
        raise InputError(
            f"{file} exists already and is not this plan", "choose another --save-plan, or remove it first"
        )
    images.to_jsonl(file)


def _facts(bundle: GeneratorBundle | Folder) -> Any:
    """What a bundle says of itself; of a folder no network is loaded for that."""
    from medphantom.generators.facts import read_facts

    if hasattr(bundle, "facts"):
        return bundle.facts
    require_folder(bundle, "a bundle")
    return read_facts(bundle)[0]
