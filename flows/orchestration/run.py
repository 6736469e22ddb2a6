"""``run``, ``demo`` and ``control``: the whole job of a recipe, with or without Prefect; what is current is reused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from medphantom.core.errors import InputError
from medphantom.flows.operations.places import Folder
from medphantom.flows.orchestration.prefect_server import connected
from medphantom.flows.orchestration.stages import run_job, run_stage
from medphantom.flows.process.progress import watcher
from medphantom.flows.recipes.starter import DEMO_RECIPE
from medphantom.flows.runs.artifact import Stage
from medphantom.flows.runs.control import LOOKS, PATIENTS, Kind, make_control
from medphantom.flows.runs.costs import estimate, require_room
from medphantom.flows.runs.job import Job, Refs, open_job

Until = Literal["ingest", "train", "generate", "assess", "report"]


def run(
    recipe: Folder,
    settings: Sequence[str] = (),
    *,
    out: Folder | None = None,
    until: Until | None = None,
    prefect: bool = False,
) -> dict[Stage, Path]:
    """Read, train, generate, score and report as a recipe says; what is current is reused.

    Args:
        recipe: Recipe file.
        settings: ``field=value`` as of ``--set``.
        out: Run folder; by default ``runs/<name>``.
        until: Stop after this stage; a later run continues from there.
        prefect: Run as a Prefect flow, on the connected server or on a temporary one.

    Returns:
        Path of the artifact of each stage that was run or reused.

    Raises:
        MedphantomError: Whatever is wrong with recipe, data or machine.
    """
    job = open_job(recipe, settings, out)
    if until is None or until == "report":
        return _paths(run_whole(job, prefect=prefect))
    return _paths(run_part(job, until))


def demo(*, out: Folder = Path("runs/demo"), settings: Sequence[str] = (), prefect: bool = False) -> dict[Stage, Path]:
    """The whole job on simulated patients.

    Args:
        out: Run folder.
        settings: ``field=value`` as of ``--set``.
        prefect: Run as a Prefect flow.
    """
    return run(DEMO_RECIPE, settings, out=out, prefect=prefect)


def control(
    recipe: Folder,
    settings: Sequence[str] = (),
    *,
    kind: Kind = "memorised",
    patients: int = PATIENTS,
    looks: int = LOOKS,
    out: Folder | None = None,
    prefect: bool = False,
) -> dict[Stage, Path]:
    """Train an overfitted control model, to show that the privacy checks would notice; then renew the run's report.

    Args:
        recipe: Recipe of a run.
        settings: ``field=value`` as of ``--set``.
        kind: ``memorised`` overfits a few patients, ``noiseless`` takes the same private steps without noise.
        patients: About how many patients are overfitted.
        looks: How many times each of their images is seen.
        out: Run folder; by default ``runs/<name>``.
        prefect: Run as Prefect flows.

    Returns:
        Path of the artifact of each stage of the run itself.
    """
    job = open_job(recipe, settings, out)
    run_whole(make_control(job, kind, patients=patients, looks=looks), prefect=prefect)
    return _paths(run_whole(job, prefect=prefect))


def run_part(job: Job, until: Stage) -> Refs:
    """Run the stages up to one, without Prefect."""
    refs: Refs = {}
    with job.locked():
        stages = job.stages()
        if until not in stages:
            raise InputError(f"--until {until} is no stage of this run", f"one of {', '.join(stages)}")
        for stage in stages[: stages.index(until) + 1]:
            refs[stage] = run_stage(stage, job, refs)
    watcher().note(f"stopped after {until}; the same command without --until goes on")
    return refs


def run_whole(job: Job, *, prefect: bool) -> Refs:
    """Run what is not current, with an estimate before."""
    refs, to_do = job.outlook()
    view = watcher()
    view.note(f"{job.loaded.file.name}: {', '.join(to_do) if to_do else 'nothing'} to do in {job.run.path}")
    if to_do:
        cost = estimate(job, refs, to_do)
        view.note(cost.line())
        require_room(job, cost)
    if prefect and (to_do or connected()):
        from medphantom.flows.orchestration.run_flow import run_with_prefect

        view.note("Prefect starts; --no-prefect runs without it")
        run_with_prefect(job)
        return job.outlook()[0]
    return run_job(job)


def _paths(refs: Refs) -> dict[Stage, Path]:
    return {stage: Path(ref.path) for stage, ref in refs.items()}
