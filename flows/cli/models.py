"""Verbs about generators and their images: bases, train, search, generate, merge, assess."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medphantom.core.errors import InputError
from medphantom.flows.cli.data import RecipeOption, Setting


def bases(
    *,
    shipped: Annotated[bool, typer.Option("--shipped", help="Only those that are part of this installation.")] = False,
) -> None:
    """List what a generator can be fine-tuned from: bases that ship and saw no patient, and public ones."""
    from medphantom.flows.operations.bases import bases as listed

    for entry in listed(shipped=shipped):
        typer.echo(entry.line())


def train(
    cohort: Annotated[Path, typer.Argument(help="Real cohort, from medphantom ingest.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Bundle to make.")],
    size: Annotated[int | None, typer.Option(help="Side of what the networks see, in pixels.")] = None,
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Fit a generator to a cohort. The same command continues after an interruption."""
    from medphantom.flows.operations.train import train as fitted
    from medphantom.flows.process.progress import watching

    with watching():
        bundle = fitted(cohort, out, size=size, recipe=recipe, settings=setting or [])
    typer.echo(f"bundle: {out}   digest {bundle.digest[:12]}, {bundle.facts.training_images} training images")


def search(
    cohort: Annotated[Path, typer.Argument(help="Real cohort, from medphantom ingest.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to make: search.json and the best bundle.")],
    tries: Annotated[
        list[str],
        typer.Option("--try", metavar="FIELD=[V1,V2]", help="Values to try; of several, every combination."),
    ],
    images: Annotated[int | None, typer.Option(help="Images to draw per trial, distributed as train.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of what the networks see, in pixels.")] = None,
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Train and sample with every combination of settings, and choose on val. Continues after an interruption."""
    from medphantom.flows.operations.search import search as searched
    from medphantom.flows.operations.search import tries_of
    from medphantom.flows.process.progress import watching

    with watching():
        found = searched(cohort, tries_of(tries), out, images=images, size=size, recipe=recipe, settings=setting or [])
    best = " ".join(found["best"]["settings"])
    typer.echo(f"best of {len(found['trials'])} on val: {best}   bundle: {out / 'bundle'}")


def generate(
    bundle: Annotated[Path, typer.Argument(help="Bundle, from medphantom train, or base:NAME of medphantom bases.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Synthetic cohort to make.")],
    count: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=N", help="So many images of a label; may be repeated.")
    ] = None,
    match: Annotated[int | None, typer.Option(help="N images, distributed as the training split.")] = None,
    balance: Annotated[int | None, typer.Option(help="Top up every label to N images.")] = None,
    masks: Annotated[
        int | None, typer.Option(help="N images for elastically deformed masks of the training split.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Table of prompts, CSV or Parquet.")] = None,
    cohort: Annotated[Path | None, typer.Option(help="Real cohort, for --match, --balance and --masks.")] = None,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="Plan as JSON lines.")] = None,
    save_plan: Annotated[Path | None, typer.Option(help="Also write the whole plan as JSON lines.")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/K", help="Only part I (from 0) of K.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, of 0 or more, gives other images.")] = None,
    fresh: Annotated[str, typer.Option(help="A tag that enters every seed, such as today's date.")] = "",
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Draw images. The same command continues after an interruption."""
    from medphantom.flows.operations.generate import generate as drawn
    from medphantom.flows.operations.generate import plan
    from medphantom.flows.process.progress import watching
    from medphantom.flows.recipes.plans import counts_of, settings_without

    requested = plan(
        bundle,
        counts=counts_of(count),
        match=match,
        balance=balance,
        masks=masks,
        prompts=prompts,
        plan_file=plan_file,
        cohort=cohort,
        seed=seed,
        fresh=fresh,
        recipe=recipe,
        settings=settings_without("sampler", setting),
    )
    settings = settings_without("plan", setting)
    with watching():
        made = drawn(bundle, requested, out, save_plan=save_plan, shard=shard, recipe=recipe, settings=settings)
    typer.echo(f"{len(made)} synthetic images: {out}   look at them with: medphantom inspect {out}")


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Synthetic cohorts: the shards of one plan.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Synthetic cohort to make.")],
) -> None:
    """Join the shards of a plan into one synthetic cohort."""
    from medphantom.flows.operations.merge import merge as merged
    from medphantom.flows.process.progress import watching

    with watching():
        made = merged(parts, out)
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
    from medphantom.flows.operations.assess import assess as scored
    from medphantom.flows.operations.summaries import estimate_line, score_summary
    from medphantom.flows.process.progress import watching
    from medphantom.quality.results.quality_report import QualityReport

    foreign = {"table": table, "label_columns": label_column or None}
    with watching():
        report = scored(
            _one(real, real_flag, "real"),
            _one(synthetic, synthetic_flag, "synthetic"),
            out,
            bundle=bundle,
            size=size,
            synthetic_range=synthetic_range,
            foreign={name: value for name, value in foreign.items() if value is not None},
            recipe=recipe,
            settings=setting or [],
        )
    if isinstance(report, QualityReport):
        typer.echo(score_summary(report))
        typer.echo(f"report: {out / 'report.html'} (internal), {out / 'report.public.html'} (may be shared)")
        return
    for estimate in report.estimates:
        typer.echo(estimate_line(estimate, "floor"))
    typer.echo(f"report: {out / 'report.html'} (internal: it shows patients; there is no public one)")


def _one(argument: Path | None, option: Path | None, name: str) -> Path:
    """Return a path that was given once, by position or by name."""
    if (argument is None) == (option is None):
        raise InputError(
            f"{'no' if option is None else 'two'} {name} images were given", f"give --{name} or the argument, not both"
        )
    return argument or option or Path()
