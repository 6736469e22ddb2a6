"""Prefect without noise, and a Prefect server that lasts: the embedded one cannot schedule."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cohorts.access import private_files
from cohorts.errors import ResourceError
from cohorts.folders import no_space_becomes_one_line, work_folder
from cohorts.progress import Progress
from flows.progress import ignore

HOST = "127.0.0.1"
SECONDS_TO_START = 300.0  # some 8 on an idle machine
SECONDS_TO_STOP = 15.0
API_VARIABLE = "PREFECT_API_URL"

# Read by Prefect when it is imported, so they are set before; what a user has set stays.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # errors reach the console once, as our own one line
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # 20 are few on a busy machine
}


def quiet_prefect(**more: str) -> None:
    """Set the environment that keeps Prefect quiet and at home; call it before Prefect is imported."""
    for name, value in {**QUIET, **more}.items():
        os.environ.setdefault(name, value)


def connected() -> bool:
    """Whether a Prefect server is named that outlives this process."""
    return bool(os.environ.get(API_VARIABLE))


@contextmanager
def persistent_server(state: Path, progress: Progress = ignore) -> Iterator[str]:
    """Have a Prefect API that can schedule: the one that ``PREFECT_API_URL`` names, else a server of our own.

    Our own listens on this machine only, keeps its database under ``state`` and ends with the block.

    Yields:
        URL of the API, also set as ``PREFECT_API_URL``.

    Raises:
        ResourceError: the named API does not answer, or the server does not start.
    """
    given = os.environ.get(API_VARIABLE)
    if given:
        _require_answer(given)
        yield given
        return
    work_folder(state)
    with no_space_becomes_one_line(state / "server.log"), private_files():
        log = (state / "server.log").open("ab")
    port = _free_port()
    url = f"http://{HOST}:{port}/api"
    os.environ["PREFECT_HOME"] = str(state.resolve())
    with log:
        server = _start(port, log.fileno())
        try:
            _wait_until_healthy(server, port, state / "server.log", progress)
            os.environ[API_VARIABLE] = url
            yield url
        finally:
            os.environ.pop(API_VARIABLE, None)
            _stop(server)


def _start(port: int, log: int) -> subprocess.Popen[bytes]:
    prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.keeper", *prefect],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**QUIET, **os.environ},
        start_new_session=True,  # Ctrl-C must reach the schedule first, which then ends the server
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path, progress: Progress) -> None:
    started = time.monotonic()
    while not _healthy(port):
        waited = time.monotonic() - started
        progress(int(waited), 0, "starting Prefect's server")
        if server.poll() is not None or waited > SECONDS_TO_START:
            raise ResourceError("Prefect's server did not start", f"see {log}, or give one by {API_VARIABLE}")
        time.sleep(0.3)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _require_answer(url: str) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise ResourceError(
            f"the Prefect API at {url} does not answer ({type(problem).__name__})",
            f"start it, or unset {API_VARIABLE} to have a server of our own",
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
