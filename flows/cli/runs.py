"""Verbs about recipes: init, run, serve, demo, schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medphantom.core.access import share
from medphantom.core.errors import InputError
from medphantom.flows.cli.data import Setting

if TYPE_CHECKING:
    from medphantom.flows.runs.artifact import Stage
    from medphantom.flows.runs.job import Job, Refs

TEMPLATES = Path(__file__).parent.parent / "recipes" / "templates"
RECIPE_TEMPLATE = TEMPLATES / "recipe.yaml"
DEMO_RECIPE = TEMPLATES / "demo.yaml"

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
) -> None:
    """Look at a source and write a commented recipe to start from; asks what the source does not say."""
    from medphantom.flows.process.progress import watching
    from medphantom.flows.recipes.starter import write_starter

    options = {key: value for key, value in (("folders", folders), ("table", table)) if value is not None}
    with watching() as view:
        questions = write_starter(
            file,
            source=source,
            name=name or file.stem,
            options=options,
            ask=_ask if sys.stdin.isatty() else None,
            progress=view.stage("init"),
        )
    for question in questions:
        typer.echo(f"confirm {question}")
    typer.echo(f"{file}: look through it, then: medphantom run {file}")


def _ask(question: str, answers: Sequence[str]) -> str:
    """Ask at the terminal until one of the answers is given; an empty line leaves it to the recipe."""
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
        typer.Option(help="Stop after this stage; a later run goes on from there."),
    ] = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run without Prefect.")] = False,
) -> None:
    """The whole job: read, train, generate, score, report. What is current is reused."""
    from medphantom.flows.runs.job import open_job

    job = open_job(recipe, setting or [], out)
    if until is None or until == "report":
        run_recipe(job, prefect=not no_prefect)
    else:
        run_part(job, until)


def run_part(job: Job, until: Stage) -> None:
    """Run the stages up to one, without Prefect, and say where its result lies."""
    from medphantom.flows.process.progress import watching
    from medphantom.flows.runs.steps import run_stage

    refs: Refs = {}
    with watching() as view, job.locked():
        stages = job.stages()
        for stage in stages[: stages.index(until) + 1]:
            refs[stage] = run_stage(stage, job, refs)
        view.note(f"stopped after {until}; the same command without --until goes on")
    typer.echo(f"{until}: {refs[until].path}")


def control(
    recipe: Annotated[Path, typer.Argument(help="Recipe of a run.")],
    *,
    kind: Annotated[
        Literal["memorised", "noiseless"],
        typer.Option(help="Learn a few patients by heart, or take the same private steps without noise."),
    ] = "memorised",
    patients: Annotated[int, typer.Option(help="By heart: about so many.")] = 60,
    looks: Annotated[int, typer.Option(help="By heart: how often each image is looked at.")] = 1000,
    setting: Setting = None,
    out: OutOption = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run without Prefect.")] = False,
) -> None:
    """Train a twin that gives its patients away, to show that the checks would see it; then renew the run's report."""
    from medphantom.flows.runs.control import make_control
    from medphantom.flows.runs.job import open_job

    job = open_job(recipe, setting or [], out)
    run_recipe(make_control(job, kind, patients=patients, looks=looks), prefect=not no_prefect)
    run_recipe(job, prefect=not no_prefect)


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/demo"),
    setting: Setting = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run without Prefect.")] = False,
) -> None:
    """The whole job on simulated patients, in at most ten minutes on two cores."""
    from medphantom.flows.runs.job import open_job

    run_recipe(open_job(DEMO_RECIPE, setting or [], out), prefect=not no_prefect)


def run_recipe(job: Job, *, prefect: bool) -> None:
    """Run what is not current, with an estimate before and a summary after."""
    from medphantom.flows.operations.summaries import run_summary
    from medphantom.flows.orchestration.prefect_server import connected
    from medphantom.flows.process.progress import watching
    from medphantom.flows.runs.steps import run_job

    refs, to_do = job.outlook()
    with watching() as view:
        view.note(f"{job.loaded.file.name}: {', '.join(to_do) if to_do else 'nothing'} to do in {job.run.path}")
        if to_do:
            _estimate(job, refs, to_do, view.note)
        if prefect and (to_do or connected()):
            from medphantom.flows.orchestration.run_flow import run_with_prefect

            view.note("Prefect starts; --no-prefect runs without it")
            run_with_prefect(job)
        else:
            run_job(job)
    typer.echo(run_summary(job))


def _estimate(job: Job, refs: Refs, to_do: tuple[Stage, ...], note: Callable[[str], None]) -> None:
    from medphantom.flows.runs.costs import estimate, require_room

    cost = estimate(job, refs, to_do)
    note(cost.line())
    require_room(job, cost)


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
    """The JSON Schema of a recipe, for editors."""
    from medphantom.flows.recipes.recipe import Recipe
    from medphantom.flows.recipes.recipe_schema import json_schema

    text = json.dumps(json_schema(Recipe), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        share(out)
        typer.echo(f"{out}: schema of a recipe")
