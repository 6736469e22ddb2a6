"""Verbs that test whether synthetic images help, and which are better: utility, augment, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medphantom.core.errors import InputError
from medphantom.flows.cli.data import RecipeOption, Setting

if TYPE_CHECKING:
    from medphantom.quality.results.augment_report import AugmentPlan


def utility(
    cohort: Annotated[Path, typer.Argument(help="Real cohort with labels, from medphantom ingest.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to make: the table and its JSON for every fraction.")],
    fraction: Annotated[list[float] | None, typer.Option(help="Of the training patients; may be repeated.")] = None,
    generators: Annotated[int, typer.Option(help="Seeds of the generator.")] = 2,
    external: Annotated[
        list[Path] | None, typer.Option(help="Another real cohort to test on; may be repeated.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of what the networks see, in pixels.")] = None,
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Test whether training on synthetic images helps. Trains generators and classifiers. Continues after an
    interruption.
    """
    from medphantom.flows.operations.utility import PAGE_FILE, fraction_folder
    from medphantom.flows.operations.utility import utility as studied
    from medphantom.flows.process.progress import watching

    with watching():
        found = studied(
            cohort,
            out,
            fractions=fraction or [1.0],
            generators=generators,
            external=_by_name(external),
            size=size,
            recipe=recipe,
            settings=setting or [],
        )
    for share, report in found.items():
        typer.echo(f"{share:g} of the training patients ({report.real_patients}):")
        for advice in report.advice:
            if advice.recommendation != "refused":
                typer.echo(f"  {advice.sentence}")
        typer.echo(f"  table: {out / fraction_folder(share) / 'study.md'}")
    typer.echo(f"page to open: {out / PAGE_FILE}")


def augment(
    cohort: Annotated[Path, typer.Argument(help="Real cohort with labels, from medphantom ingest.")],
    *,
    label: Annotated[str, typer.Option("--label", help="The scarce label.")],
    to: Annotated[int, typer.Option("--to", help="Training images of it that are wanted, real and synthetic.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make: answer, report, table of the study, images.")],
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="Generator that learned from exactly this cohort; may be repeated. Without: trained here."),
    ] = None,
    generators: Annotated[int, typer.Option(help="Seeds of the generator, where it is trained here.")] = 2,
    share: Annotated[
        list[float] | None, typer.Option(help="Share of the planned images to learn from; may be repeated.")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Say what would be done, and stop.")] = False,
    external: Annotated[
        list[Path] | None, typer.Option(help="Another real cohort to test on; may be repeated.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of what the networks see, without a bundle.")] = None,
    recipe: RecipeOption = None,
    setting: Setting = None,
) -> None:
    """Top up a scarce label and report whether that helps. The same command continues after an interruption."""
    from medphantom.flows.operations.augment import IMAGES_FOLDER, SHARES, proposal
    from medphantom.flows.operations.augment import augment as augmented
    from medphantom.flows.operations.places import opened
    from medphantom.flows.operations.utility import TABLE_FILE
    from medphantom.flows.process.progress import watching

    bundles, shares, settings = tuple(bundle or ()), share or SHARES, setting or []
    if plan_only:
        _, plan = proposal(
            opened(cohort),
            label,
            to,
            out=out,
            external=_by_name(external),
            bundles=bundles,
            generators=generators,
            shares=shares,
            size=size,
            recipe=recipe,
            settings=settings,
        )
        _show(plan)
        return
    with watching():
        found = augmented(
            cohort,
            label,
            to,
            out,
            bundles=bundles,
            generators=generators,
            shares=shares,
            external=_by_name(external),
            size=size,
            recipe=recipe,
            settings=settings,
            announce=_show,
        )
    typer.echo(f"{found.headline}. {found.sentence}")
    typer.echo(f"privacy gate: {found.verdict}")
    typer.echo(f"report: {out / 'report.html'} (internal), {out / 'report.public.html'} (may be shared)")
    if found.study:
        typer.echo(f"table: {out / TABLE_FILE}")
    if found.verdict != "fail":
        typer.echo(f"images: {out / IMAGES_FOLDER}   as files: medphantom export {out / IMAGES_FOLDER} --out FOLDER")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of run, assess or augment: two or more.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to make: compare.html (internal) and compare.json.")],
    draw: Annotated[
        bool, typer.Option(help="Let generators draw, where runs have no prompt and seed in common.")
    ] = True,
) -> None:
    """Put runs side by side: scores with intervals, and images of the same prompts and seeds."""
    from medphantom.flows.operations.compare import PAGE_FILE
    from medphantom.flows.operations.compare import compare as compared
    from medphantom.flows.operations.summaries import comparison_summary
    from medphantom.flows.process.progress import watching

    with watching():
        found = compared(runs, out, draw=draw)
    typer.echo(comparison_summary(found))
    typer.echo(f"page to open: {out / PAGE_FILE} (internal)")


def _by_name(folders: list[Path] | None) -> dict[str, Path]:
    """Cohorts by the name under which the report shows them.

    Raises:
        InputError: Two folders have the same name, of which one would be dropped.
    """
    found: dict[str, Path] = {}
    for folder in folders or []:
        if folder.name in found:
            raise InputError(
                f"--external: {found[folder.name]} and {folder} have the same name",
                "the report shows cohorts by the name of their folder: rename one, or name both in Python",
            )
        found[folder.name] = folder
    return found


def _show(plan: AugmentPlan) -> None:
    for line in plan.lines():
        typer.echo(f"plan: {line}")
