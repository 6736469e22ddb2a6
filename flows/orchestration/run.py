"""``run``, ``demo`` and ``control``: the whole job of a recipe, with or without Prefect, reusing current artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from medphantom.core.arguments import Count, checked
from medphantom.core.errors import InputError
from medphantom.flows.operations.places import Folder
from medphantom.flows.orchestration.prefect_server import connected
from medphantom.flows.orchestration.stages import run_job, run_stage
from medphantom.flows.process.progress import watcher
from medphantom.flows.recipes.starter import DEMO_RECIPE
from medphantom.flows.runs.artifact import Stage
from medphantom.flows.runs.control import LOOKS, PATIENTS, Kind, make_control
from medphantom.flows.runs.costs import estimate, forecast, require_room
from medphantom.flows.runs.job import Job, Refs, open_job

Until = Literal["ingest", "train", "generate", "assess", "report"]


@checked
def run(
    recipe: Folder,
    settings: Sequence[str] = (),
    *,
    out: Folder | None = None,
    until: Until | None = None,
    prefect: bool = False,
) -> dict[Stage, Path]:
    """Read, train, generate, score and report as a recipe defines; current artifacts are reused.

    Args:
        recipe: The YAML file of the recipe.
        settings: The settings ``field=value``, as given to ``--set``.
        out: The run folder; the default is ``runs/<name>``.
        until: The last stage to run; a later run continues from there.
        prefect: Whether to run as a Prefect flow, on the connected server or on a temporary one.

    Returns:
        The path of the artifact of each stage that was run or reused.

    Raises:
        MedphantomError: There is a problem with the recipe, the data or the machine.
    """
    job = open_job(recipe, settings, out)
    if until is None or until == "report":
        return _paths(run_whole(job, prefect=prefect))
    return _paths(run_part(job, until))


@checked
def demo(*, out: Folder = Path("runs/demo"), settings: Sequence[str] = (), prefect: bool = False) -> dict[Stage, Path]:
    """Run the whole job on simulated patients.

    Args:
        out: The folder of the run.
        settings: The settings ``field=value``, as given to ``--set``.
        prefect: Whether to run as a Prefect flow.
    """
    return run(DEMO_RECIPE, settings, out=out, prefect=prefect)


@checked
def control(
    recipe: Folder,
    settings: Sequence[str] = (),
    *,
    kind: Kind = "memorised",
    patients: Count = PATIENTS,
    looks: Count = LOOKS,
    out: Folder | None = None,
    prefect: bool = False,
) -> dict[Stage, Path]:
    """Train an overfitted control model, to show that the privacy checks would notice; then renew the run's report.

    Args:
        recipe: The recipe of a run.
        settings: The settings ``field=value``, as given to ``--set``.
        kind: The kind of control: ``memorised`` overfits a few patients, ``noiseless`` takes the same private steps
            without noise.
        patients: The approximate number of patients that are overfitted.
        looks: The number of times that each of their images is seen.
        out: The run folder; the default is ``runs/<name>``.
        prefect: Whether to run as Prefect flows.

    Returns:
        The path of the artifact of each stage of the run itself.
    """
    job = open_job(recipe, settings, out)
    run_whole(make_control(job, kind, patients=patients, looks=looks), prefect=prefect)
    return _paths(run_whole(job, prefect=prefect))


def run_part(job: Job, until: Stage) -> Refs:
    """Run the stages up to a given one, without Prefect, after an estimate of their costs."""
    stages = job.stages()
    if until not in stages:
        raise InputError(f"--until {until} is no stage of this run", f"one of {', '.join(stages)}")
    wanted = stages[: stages.index(until) + 1]
    current, to_do = job.outlook()
    refs: Refs = {}
    with _estimated(job, current, tuple(stage for stage in to_do if stage in wanted)), job.locked():
        for stage in wanted:
            refs[stage] = run_stage(stage, job, refs)
    watcher().note(f"stopped after {until}; the same command without --until goes on")
    return refs


def run_whole(job: Job, *, prefect: bool) -> Refs:
    """Run the stages that are not current, after an estimate of their costs."""
    refs, to_do = job.outlook()
    view = watcher()
    view.note(f"{job.loaded.file.name}: {', '.join(to_do) if to_do else 'nothing'} to do in {job.run.path}")
    with _estimated(job, refs, to_do):
        if prefect and (to_do or connected()):
            from medphantom.flows.orchestration.run_flow import run_with_prefect

            view.note("Prefect starts; --no-prefect runs without it")
            run_with_prefect(job)
            return job.outlook()[0]
        return run_job(job)


@contextmanager
def _estimated(job: Job, refs: Refs, to_do: tuple[Stage, ...]) -> Iterator[None]:
    """Show what the stages to do will cost, refuse what cannot suffice, and correct the estimate in the block."""
    if not to_do:
        yield
        return
    cost = estimate(job, refs, to_do)
    watcher().note(cost.line())
    require_room(job.run.path, cost)
    with forecast(cost):
        yield


def _paths(refs: Refs) -> dict[Stage, Path]:
    return {stage: Path(ref.path) for stage, ref in refs.items()}
