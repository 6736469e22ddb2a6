"""Verbs about recipes: init, run, serve, demo, schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medphantom.core.access import share
from medphantom.core.errors import InputError
from medphantom.flows.cli.data import Setting

if TYPE_CHECKING:
    from medphantom.flows.runs.artifact import Stage

OutOption = Annotated[Path | None, typer.Option("--out", help="Run folder; by default runs/<name>.")]


def init(
    file: Annotated[Path, typer.Argument(help="Recipe to write.")] = Path("recipe.yaml"),
    *,
    source: Annotated[str, typer.Option(help="Folder of the images, as the recipe will name it.")] = "images",
    name: Annotated[str | None, typer.Option(help="Name of the run; by default that of the file.")] = None,
    folders: Annotated[
        str | None, typer.Option(help="What folders are: classes, patients, classes/patients or ignore.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="The table of labels, where several would do.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A recipe that shows pictures within minutes.")] = False,
) -> None:
    """Inspect a source and write a commented recipe to start from; ask for what the source does not tell."""
    from medphantom.flows.operations.init import init as written
    from medphantom.flows.process.progress import watching

    with watching():
        questions = written(
            file,
            source=source,
            name=name,
            folders=folders,
            table=table,
            quick=quick,
            ask=_ask if sys.stdin.isatty() else None,
        )
    for question in questions:
        typer.echo(f"confirm {question}")
    typer.echo(f"{file}: look through it, then: medphantom run {file}")


def _ask(question: str, answers: Sequence[str]) -> str:
    """Ask at the terminal until one of the answers is given; an empty line leaves the choice to the recipe."""
    while True:
        answer = str(
            typer.prompt(f"{question} ({', '.join(answers)}; empty: decide later)", default="", show_default=False)
        )
        if not answer or answer in answers:
            return answer


def run(
    recipe: Annotated[Path, typer.Argument(help="Recipe, from medphantom init or examples/.")],
    *,
    setting: Setting = None,
    out: OutOption = None,
    until: Annotated[
        Literal["ingest", "train", "generate", "assess", "report"] | None,
        typer.Option(help="Stop after this stage; a later run continues from there. By default: the report."),
    ] = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run without Prefect.")] = False,
) -> None:
    """Run the whole job: read, train, generate, score, report. Current artifacts are reused."""
    from medphantom.flows.orchestration.run import run as run_recipe
    from medphantom.flows.process.progress import watching

    with watching():
        made = run_recipe(recipe, setting or [], out=out, until=until, prefect=not no_prefect)
    if until is None or until == "report":
        _summary(made)
    else:
        typer.echo(f"{until}: {made[until]}")


def control(
    recipe: Annotated[Path, typer.Argument(help="Recipe of a run.")],
    *,
    kind: Annotated[
        Literal["memorised", "noiseless"],
        typer.Option(help="Overfit a few patients, or take the same private steps without noise."),
    ] = "memorised",
    patients: Annotated[int, typer.Option(help="Memorised: about so many patients.")] = 60,
    looks: Annotated[int, typer.Option(help="Memorised: how many times each image is seen.")] = 1000,
    setting: Setting = None,
    out: OutOption = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run without Prefect.")] = False,
) -> None:
    """Train an overfitted control model, to show that the privacy checks would notice; then renew the run's report."""
    from medphantom.flows.orchestration.run import control as run_control
    from medphantom.flows.process.progress import watching

    with watching():
        made = run_control(
            recipe, setting or [], kind=kind, patients=patients, looks=looks, out=out, prefect=not no_prefect
        )
    _summary(made)


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/demo"),
    setting: Setting = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run without Prefect.")] = False,
) -> None:
    """Run the whole job on simulated patients; an estimate of the time is printed first."""
    from medphantom.flows.orchestration.run import demo as run_demo
    from medphantom.flows.process.progress import watching

    with watching():
        made = run_demo(out=out, settings=setting or [], prefect=not no_prefect)
    _summary(made)


def _summary(made: dict[Stage, Path]) -> None:
    from medphantom.flows.operations.summaries import run_summary

    typer.echo(run_summary(made["report"].parent))


def serve(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe.", show_default=False)] = None,
    *,
    cron: Annotated[str | None, typer.Option(help='Minute, hour, day, month, weekday: "0 2 * * *".')] = None,
    every: Annotated[str | None, typer.Option(help="Instead of --cron: 30s, 15m, 6h, 1d.")] = None,
    timezone: Annotated[str, typer.Option(help="In which --cron is read, e.g. Europe/Berlin.")] = "UTC",
    setting: Setting = None,
    out: OutOption = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder of the server's database and password; by default .prefect beside the run folder."),
    ] = None,
    show_password: Annotated[
        bool, typer.Option("--show-password", help="Print what the server's pages ask for, and serve nothing.")
    ] = False,
) -> None:
    """Run a recipe on a schedule, each time with new images, until stopped."""
    if show_password:
        from medphantom.flows.orchestration.api_password import read_password

        typer.echo(read_password(state or _state(recipe, setting or [], out)))
        return
    if recipe is None:
        raise InputError("serve needs a recipe", "e.g. medphantom serve recipe.yaml --every 6h")
    from medphantom.flows.orchestration.serve_flow import serve as keep_serving
    from medphantom.flows.process.progress import watching

    with watching():
        keep_serving(recipe, setting or [], out=out, cron=cron, every=every, timezone=timezone, state=state)


def _state(recipe: Path | None, settings: Sequence[str], out: Path | None) -> Path:
    from medphantom.flows.orchestration.serve_flow import STATE_FOLDER, state_of
    from medphantom.flows.runs.job import RUNS_FOLDER, open_job

    if recipe is not None:
        return state_of(open_job(recipe, settings, out).base.path)
    return state_of(out) if out is not None else Path(RUNS_FOLDER) / STATE_FOLDER


def schema(
    out: Annotated[Path | None, typer.Option("--out", help="File to write; by default it is printed.")] = None,
) -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from medphantom.flows.operations.places import refuse_file
    from medphantom.flows.recipes.recipe import Recipe
    from medphantom.flows.recipes.recipe_schema import json_schema

    text = json.dumps(json_schema(Recipe), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        refuse_file(out)
        out.write_text(text, encoding="utf-8")
        share(out)
        typer.echo(f"{out}: schema of a recipe")
