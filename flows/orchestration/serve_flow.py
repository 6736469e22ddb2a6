"""Runs on a schedule: a Prefect server that lasts, and the flow served from this process until it is stopped."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import ValidationError

from medphantom.core.errors import InputError
from medphantom.flows.orchestration.named_api import lets_anybody_in
from medphantom.flows.orchestration.prefect_server import persistent_server, quiet_prefect
from medphantom.flows.orchestration.served import SERVED_VARIABLE, Served
from medphantom.flows.process.ending import Terminated, stopping
from medphantom.flows.process.progress import watcher
from medphantom.flows.runs.job import open_job

STATE_FOLDER = ".prefect"
SHORTEST_INTERVAL_S = 5
LONGEST_INTERVAL_S = 366 * 86400

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_INTERVAL = re.compile(r"(\d+)\s*([smhd])")


def serve(
    recipe: Path,
    settings: Sequence[str] = (),
    *,
    out: Path | None = None,
    cron: str | None = None,
    every: str | None = None,
    timezone: str = "UTC",
    state: Path | None = None,
) -> None:
    """Run a recipe at every time of a schedule, each time with new images, until interrupted.

    Cohort and bundle are shared with ``runs/<name>/`` and made there if they are not current; images and report of each
    run lie in a folder of their own beside it.

    Args:
        recipe: The YAML file of the recipe.
        settings: The settings ``field=value``, as given to ``--set``.
        out: The run folder; the default is ``runs/<name>``.
        cron: The schedule as five fields, such as ``0 2 * * *``.
        every: The interval instead of ``cron``: ``30s``, ``15m``, ``6h``, ``1d``.
        timezone: The time zone of ``cron``, such as ``Europe/Berlin``.
        state: The folder of the server's database; the default is ``.prefect`` beside the run folder.

    Raises:
        InputError: The schedule cannot be read, or the password in ``state`` is no secret.
        RecipeError: The recipe is wrong.
        ResourceError: No server is available.
    """
    job = open_job(recipe, settings, out)  # a wrong recipe is told now, not at two in the morning
    quiet_prefect(PREFECT_LOGGING_LEVEL="INFO")
    schedule = read_schedule(cron, every, timezone)
    view = watcher()
    folder = state or state_of(job.base.path)
    with persistent_server(folder, view.stage("server")) as api:
        from medphantom.flows.orchestration.run_flow import scheduled_flow

        view.note(f"{recipe} runs {f'at {cron} ({timezone})' if cron else f'every {every}'}")
        view.note(f"Prefect: {api.url.removesuffix('/api')}   stop with Ctrl-C")
        if api.own:
            view.note(f"its pages ask for a password: medphantom serve --show-password --state {quote(str(folder))}")
        elif lets_anybody_in(api.url):
            view.note("warning: this Prefect API asks for no password: who reaches it can start and stop these runs")
        os.environ[SERVED_VARIABLE] = Served.of(job).model_dump_json()
        _serve_until_stopped(scheduled_flow, job.recipe.name, schedule)
        view.note("the schedule has ended")


def _serve_until_stopped(flow: Any, name: str, schedule: Any) -> None:
    """Start a process for each scheduled run until a signal comes, which also ends the current run.

    Prefect's own runner would wait for that run, however many hours it takes.

    Raises:
        Terminated: SIGTERM was received.
    """
    from prefect.runner import Runner
    from prefect.types.entrypoint import EntrypointType

    terminated = False

    class Stoppable(Runner):
        def handle_sigterm(self, *_: Any, **__: Any) -> None:
            nonlocal terminated
            terminated = True
            signal.raise_signal(signal.SIGINT)  # asyncio cancels its tasks, and leaves the runner

        async def __aexit__(self, *error: object) -> None:
            ends.begin()
            await super().__aexit__(*error)

    runner = Stoppable(name=name, pause_on_shutdown=True, limit=1)  # runs share cohort and bundle
    runner.add_flow(
        flow,
        name=name,
        schedule=schedule,
        parameters={},  # of an older version's deployment, too, none are left
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    with stopping() as ends, suppress(KeyboardInterrupt):
        asyncio.run(runner.start(webserver=False))
    if terminated:
        raise Terminated


def state_of(run: Path) -> Path:
    """Return the default folder for the state of the server that serves a run folder."""
    return run.parent / STATE_FOLDER


def read_schedule(cron: str | None, every: str | None, timezone: str) -> Any:
    """Return the Prefect schedule of ``--cron`` or ``--every``.

    Raises:
        InputError: Neither or both are given, or the schedule cannot be read.
    """
    if (cron is None) == (every is None):
        raise InputError("a schedule needs either --cron or --every", 'e.g. --cron "0 2 * * *", or --every 6h')
    from prefect.schedules import Cron, Interval

    if every is not None:
        return Interval(timedelta(seconds=interval_seconds(every)))
    from prefect.client.schemas.schedules import CronSchedule

    if not timezone.strip():
        raise InputError("--timezone is empty", "give a name such as Europe/Berlin")
    try:
        CronSchedule(cron=str(cron), timezone=timezone)
    except ValidationError as error:
        if any("timezone" in problem["loc"] for problem in error.errors()):
            raise InputError(f"--timezone {timezone!r} is unknown", "give a name such as Europe/Berlin") from None
        raise InputError(
            f"--cron {cron!r} is no schedule", 'give minute, hour, day, month, weekday: "0 2 * * *" is 02:00 every day'
        ) from None
    return Cron(str(cron), timezone=timezone)


def interval_seconds(every: str) -> int:
    """Return the number of seconds of ``30s``, ``15m``, ``6h`` or ``1d``.

    Raises:
        InputError: The text is none of these forms, or the interval is shorter than :data:`SHORTEST_INTERVAL_S`.
    """
    match = _INTERVAL.fullmatch(every.strip())
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not SHORTEST_INTERVAL_S <= seconds <= LONGEST_INTERVAL_S:
        raise InputError(
            f"--every must be ≥ {SHORTEST_INTERVAL_S}s and ≤ 366d, such as 30s, 15m, 6h or 1d; got {every!r}",
            "correct the interval",
        )
    return seconds
