"""Verbs about generators and their images: train, generate, merge, assess."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medphantom.core.errors import InputError
from medphantom.flows.cli.data import RecipeOption, Setting, as_given

if TYPE_CHECKING:
    from medphantom.cohorts.store import Cohort
    from medphantom.quality.config import AssessConfig


def train(
    cohort: Annotated[Path, typer.Argument(help="Real cohort, from medphantom ingest.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Bundle to make.")],
    size: Annotated[int | None, typer.Option(help="Side of what the networks see, in pixels.")] = None,
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Fit a generator to a cohort. The same command continues after an interruption."""
    from medphantom.cohorts.store import Cohort
    from medphantom.flows.operations import verbs
    from medphantom.flows.process.progress import watching
    from medphantom.flows.recipes.settings import TrainPart, read_part

    real = Cohort.open(cohort)
    part = read_part(TrainPart, recipe, setting or [], size_flag(size, real.schema.spatial_dims))
    verbs.refuse_existing(out)
    with watching():
        bundle = verbs.train(real, part.preprocess.for_cohort(real), part.generator, out)
    typer.echo(f"bundle: {out}   digest {bundle.digest[:12]}, {bundle.facts.training_images} training images")


def size_flag(size: int | None, dims: int) -> dict[str, Any]:
    """``--size`` as settings."""
    return {} if size is None else {"preprocess": {"size": [size] * dims}}


def search(
    cohort: Annotated[Path, typer.Argument(help="Real cohort, from medphantom ingest.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to make: search.json and the best bundle.")],
    tries: Annotated[
        list[str],
        typer.Option("--try", metavar="FIELD=[V1,V2]", help="Values to try; of several, every combination."),
    ],
    images: Annotated[int | None, typer.Option(min=1, help="Drawn to judge each, distributed as train.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of what the networks see, in pixels.")] = None,
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Train and sample with every combination of settings, and choose on val. Continues after an interruption."""
    from medphantom.cohorts.store import Cohort
    from medphantom.flows.operations import search as searching
    from medphantom.flows.process.progress import watching
    from medphantom.flows.recipes.settings import SearchPart, read_part

    real = Cohort.open(cohort)
    flags = size_flag(size, real.schema.spatial_dims)
    plan = {} if images is None else {"plan": {"kind": "match", "total": images}}
    part = read_part(SearchPart, recipe, setting or [], {**flags, **plan})
    trials = searching.trials_of(recipe, setting or [], searching.combinations(tries), flags)
    with watching():
        found = searching.search(real, part, trials, out)
    typer.echo(f"best of {len(trials)} on val: {' '.join(found['best']['settings'])}   bundle: {out / 'bundle'}")


def generate(
    bundle: Annotated[Path, typer.Argument(help="Bundle, from medphantom train.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Synthetic cohort to make.")],
    count: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=N", help="So many images of a label; may be repeated.")
    ] = None,
    match: Annotated[int | None, typer.Option(min=1, help="N images, distributed as the training split.")] = None,
    balance: Annotated[int | None, typer.Option(min=1, help="Top up every label to N images.")] = None,
    masks: Annotated[int | None, typer.Option(min=1, help="N images for bent masks of the training split.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Table of prompts, CSV or Parquet.")] = None,
    cohort: Annotated[Path | None, typer.Option(help="Real cohort, for --match, --balance and --masks.")] = None,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="Plan as JSON lines.")] = None,
    save_plan: Annotated[Path | None, typer.Option(help="Also write the plan as JSON lines.")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/K", help="Only part I (from 0) of K.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed gives other images.")] = None,
    fresh: Annotated[str, typer.Option(help="A tag that enters every seed, such as today's date.")] = "",
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Draw images. The same command continues after an interruption."""
    from medphantom.cohorts.store import Cohort
    from medphantom.conditioning.plan import SamplingPlan
    from medphantom.flows.operations import verbs
    from medphantom.flows.process.progress import watching
    from medphantom.flows.recipes.plans import make_plan, plan_flags, shard_of
    from medphantom.flows.recipes.settings import GeneratePart, read_part
    from medphantom.generators.facts import read_facts

    facts, _ = read_facts(bundle)
    part = read_part(
        GeneratePart, recipe, setting or [], plan_flags(count, match, balance, seed, masks=masks, table=prompts)
    )
    real = None if cohort is None else Cohort.open(cohort)
    if plan_file is None:
        plan = make_plan(part.plan, real, facts.conditions, preprocess=facts.preprocess, fresh=fresh)
    else:
        plan = SamplingPlan.from_jsonl(plan_file, facts.conditions)
    if save_plan is not None:
        plan.to_jsonl(save_plan)
    if shard is not None:
        plan = shard_of(plan, shard)
    verbs.refuse_existing(out)
    with watching():
        made = verbs.generate(bundle, plan, part.sampler, out)
    typer.echo(f"{len(made)} synthetic images: {out}   look at them with: medphantom inspect {out}")


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Synthetic cohorts: the shards of one plan.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Synthetic cohort to make.")],
) -> None:
    """Join the shards of a plan into one synthetic cohort."""
    from medphantom.cohorts.store import Cohort
    from medphantom.flows.operations.verbs import refuse_existing
    from medphantom.generators.generate import merge as join

    refuse_existing(out)
    made = join([Cohort.open(part) for part in parts], out)
    typer.echo(f"{len(made)} synthetic images: {out}")


def assess(
    real: Annotated[Path | None, typer.Argument(help="Real cohort.")] = None,
    synthetic: Annotated[
        Path | None, typer.Argument(help="Synthetic cohort, counterfactual pairs, or a folder of anyone's images.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for the reports.")],
    bundle: Annotated[Path | None, typer.Option(help="The generator, for the control of the copy search.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of what the scoring networks see, without a bundle.")] = None,
    table: Annotated[str | None, typer.Option(help="CSV, TSV or Parquet file with labels of such a folder.")] = None,
    label_column: Annotated[list[str] | None, typer.Option(help="Its column of labels; may be repeated.")] = None,
    synthetic_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Real values that the ends of the synthetic number format stand for (0 and 255 of 8 bits).",
        ),
    ] = None,
    real_flag: Annotated[Path | None, typer.Option("--real", help="The same as the first argument.")] = None,
    synthetic_flag: Annotated[Path | None, typer.Option("--synthetic", help="The same as the second.")] = None,
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Score synthetic images, anyone's, or counterfactual pairs, against real patients, and write a report."""
    from medphantom.cohorts.store import Cohort
    from medphantom.flows.operations import verbs
    from medphantom.flows.operations.foreign import open_synthetic
    from medphantom.flows.operations.summaries import score_summary
    from medphantom.flows.process.progress import watching
    from medphantom.flows.recipes.settings import AssessPart, read_part
    from medphantom.generators.facts import read_facts

    actual = Cohort.open(_one(real, real_flag, "real"))
    source = _one(synthetic, synthetic_flag, "synthetic")
    foreign = {"table": as_given(table, {"auto", "none"}), "label_columns": label_column or None}
    flags = {**size_flag(size, actual.schema.spatial_dims), "foreign": foreign}
    flags["assess"] = {"synthetic_range": synthetic_range}
    part = read_part(AssessPart, recipe, setting or [], flags)
    verbs.refuse_existing(out)
    with watching():
        made = open_synthetic(source, verbs.work_beside(out), part.foreign)
    if made.schema.kind == "counterfactual":
        if bundle is not None or size is not None:
            raise InputError(
                "counterfactual pairs are scored as their generator saw them", "leave --bundle, --size out"
            )
        _assess_pairs(actual, made, part.assess, out)
        return
    preprocess = part.preprocess.for_cohort(actual) if bundle is None else read_facts(bundle)[0].preprocess
    with watching():
        report = verbs.assess(actual, made, preprocess, part.assess, out, bundle=bundle)
    typer.echo(score_summary(report))
    typer.echo(f"report: {out / 'report.html'} (internal), {out / 'report.public.html'} (may be shared)")


def _one(argument: Path | None, option: Path | None, name: str) -> Path:
    """A path that was given once, by place or by name."""
    if (argument is None) == (option is None):
        raise InputError(
            f"{'no' if option is None else 'two'} {name} images were given", f"give --{name} or the argument, not both"
        )
    return argument or option or Path()


def _assess_pairs(real: Cohort, pairs: Cohort, config: AssessConfig, out: Path) -> None:
    from medphantom.flows.operations.pair_verbs import assess_pairs
    from medphantom.flows.operations.summaries import estimate_line
    from medphantom.flows.process.progress import watching

    with watching():
        report = assess_pairs(real, pairs, config, out)
    for estimate in report.estimates:
        typer.echo(estimate_line(estimate, "floor"))
    typer.echo(f"report: {out / 'report.html'} (internal: it shows patients; there is no public one)")
