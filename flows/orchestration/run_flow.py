"""The run of a recipe as a Prefect flow: ingest → train → generate → assess → report.

Tasks pass only paths and digests to each other; :mod:`medphantom.flows.runs.artifact` decides which artifact is reused,
so Prefect caches nothing. Results and errors are JSON, never pickles: Prefect writes the exception of a failed run to
its storage.
"""

from __future__ import annotations

from medphantom.flows.orchestration.prefect_server import any_server, quiet_prefect

quiet_prefect()  # Prefect reads its settings when it is imported

# ruff: noqa: E402 - for the same reason
import logging
import re
import time
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from medphantom.core.errors import MedphantomError, ResourceError
from medphantom.core.progress import Progress
from medphantom.flows.orchestration.served import open_served, served
from medphantom.flows.orchestration.stages import run_stage, write_run_facts
from medphantom.flows.process.ending import end_when_told
from medphantom.flows.process.failure import UnexpectedFailure
from medphantom.flows.process.progress import LineView, ProgressView, Silent, watcher, watching
from medphantom.flows.runs.artifact import ArtifactRef, Stage
from medphantom.flows.runs.job import Job, Refs, open_job
from medphantom.quality.results.quality_report import QualityReport
from medphantom.quality.stats.estimate import Estimate

SECONDS_PER_UPDATE = 5.0
SECONDS_PER_LOG_LINE = 60.0

Wire = dict[Stage, dict[str, str]]  # artifacts of the stages so far, as JSON

log = logging.getLogger(__name__)

end_when_told()  # now, since what is still to be loaded takes seconds


def _run_name() -> str:
    return Path(runtime.flow_run.parameters["recipe"]).stem


def _scheduled_run_name() -> str:
    return Path(served().recipe).stem


@flow(name="medphantom", persist_result=False, result_serializer="json", flow_run_name=_run_name)
def medphantom_flow(recipe: str, settings: list[str] | None = None, out: str | None = None) -> Wire:
    """Run from real images to a scored synthetic dataset.

    Args:
        recipe: The path of the recipe.
        settings: The settings ``field.field=value``, as given to ``--set``.
        out: The run folder; the default is ``runs/<name>``.

    Returns:
        The path and digest of the artifact of each stage.
    """
    return _all_stages(open_job(recipe, settings or [], out))


@flow(name="medphantom", persist_result=False, result_serializer="json", flow_run_name=_scheduled_run_name)
def scheduled_flow() -> Wire:
    """Generate new images of the served recipe, for the scheduled time of this run, in a folder of their own.

    The flow has no parameters, so that a client who requests a run can choose neither what is read nor where it is
    written. Prefect refuses a request with parameters before this function is called.

    Returns:
        The path and digest of the artifact of each stage.
    """
    scheduled = runtime.flow_run.scheduled_start_time
    return _all_stages(open_served(scheduled), scheduled)


def _all_stages(job: Job, scheduled: datetime | None = None) -> Wire:
    wanted = {
        "recipe": str(job.loaded.file),
        "settings": list(job.loaded.settings),
        "out": str(job.base.path),
        "scheduled": None if scheduled is None else scheduled.astimezone(UTC).isoformat(),
    }
    refs: Wire = {}
    with job.locked(), watching(_view()):
        for stage in job.stages():
            run = stage_task.with_options(name=stage, task_run_name=stage)
            refs[stage] = run(stage=stage, **wanted, refs=refs)
            if stage == "assess":
                publish_scores(QualityReport.load(Path(refs[stage]["path"])))
        write_run_facts(job, _refs(refs))
    return refs


@task(cache_policy=NO_CACHE, persist_result=False, result_serializer="json")
def stage_task(
    *, stage: Stage, recipe: str, settings: list[str], out: str | None, scheduled: str | None, refs: Wire
) -> dict[str, str]:
    """Run one stage; see :func:`medphantom.flows.orchestration.stages.run_stage`."""
    job = open_job(recipe, settings, out, None if scheduled is None else datetime.fromisoformat(scheduled))
    return run_stage(stage, job, _refs(refs), artifact_progress(stage)).model_dump()


def _refs(wire: Wire) -> Refs:
    return {stage: ArtifactRef.model_validate(ref) for stage, ref in wire.items()}


def _view() -> ProgressView:
    """Return the console's view, or Prefect's log in a scheduled run, which has no console."""
    return LineView(get_run_logger().info, SECONDS_PER_LOG_LINE) if isinstance(watcher(), Silent) else watcher()


def artifact_progress(stage: Stage) -> Progress:
    """Show the progress of a stage as a Prefect artifact, which is updated at intervals."""
    artifact: UUID | None = None
    last = -float("inf")

    def report(done: int, total: int, what: str = "") -> None:
        nonlocal artifact, last
        now = time.monotonic()
        if now - last < SECONDS_PER_UPDATE and not (total and done == total):
            return
        last = now
        share = 100.0 * done / total if total else 0.0
        try:
            if artifact is None:
                artifact = create_progress_artifact(share, key=f"{stage}-progress", description=_plain(what or stage))
            else:
                update_progress_artifact(artifact, progress=share, description=_plain(what or stage))
        except Exception:  # a bar in a web page must not end hours of training
            log.warning("progress of %s did not reach Prefect", stage)

    return report


def publish_scores(report: QualityReport) -> None:
    """Publish scores as a table and the verdict as text: numbers and names, never an image or its id."""
    create_table_artifact(table=[_row(estimate) for estimate in report.estimates], key="scores", description="Scores")
    lines = [f"# Verdict of the privacy gate: {report.verdict}", ""]
    lines += [f"- {_plain(reason)}" for reason in report.verdict_reasons]
    lines += [f"- Warning: {_plain(warning)}" for warning in report.warnings]
    create_markdown_artifact("\n".join(lines), key="verdict", description="Verdict")


def _row(estimate: Estimate) -> dict[str, Any]:
    return {
        "score": estimate.name,
        "network": escape(estimate.network or ""),
        "label": _plain(estimate.label or ""),
        "value": estimate.value if estimate.refused is None else escape(estimate.refused),
        "95 % interval": _interval(estimate.interval),
        "floor": estimate.floor,
        "floor interval": _interval(estimate.floor_interval),
        "synthetic": estimate.n_synthetic,
        "real": estimate.n_real,
    }


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def _plain(text: str) -> str:
    """Return text that neither HTML nor Markdown interprets, since names of labels come from data."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~>-])", r"\\\1", escape(" ".join(text.split()), quote=False))


def run_with_prefect(job: Job) -> None:
    """Run a job as a Prefect flow, on the connected Prefect server or on a temporary one.

    Raises:
        MedphantomError: There is a problem with the recipe, the data or the machine.
        ResourceError: Prefect itself does not work here.
    """
    try:
        with any_server(watcher().stage("server")):
            medphantom_flow(recipe=str(job.loaded.file), settings=list(job.loaded.settings), out=str(job.base.path))
    except (MedphantomError, UnexpectedFailure):
        raise
    except Exception as error:
        module = type(error).__module__.split(".")[0]
        if module in {"prefect", "httpx", "httpcore"}:
            raise ResourceError(
                f"Prefect does not work here ({type(error).__name__})", "--no-prefect runs without it"
            ) from error
        raise
