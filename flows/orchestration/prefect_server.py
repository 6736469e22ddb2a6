"""Prefect without console messages, and Prefect servers of our own, which only their owner can use.

A server of our own listens on this machine only, requires a password, admits no other origin, and starts on a port that
is bound already. ``serve`` needs one that lasts, since a temporary one cannot schedule; ``run`` uses a temporary one
with a password that is written nowhere.
"""

from __future__ import annotations

import atexit
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medphantom.core.errors import ResourceError
from medphantom.core.folders import no_space_becomes_one_line
from medphantom.core.progress import Progress
from medphantom.flows.orchestration.api_password import load_or_make_password, new_password, private_state
from medphantom.flows.orchestration.api_server import API, PASSWORD_VARIABLE, STATUS_NOT_STARTED
from medphantom.flows.orchestration.named_api import API_VARIABLE, named_api, require_answer
from medphantom.flows.process.failure import DEBUG_VARIABLE
from medphantom.flows.process.progress import ignore

HOST = "127.0.0.1"
SECONDS_TO_START = 300.0  # some 8 on an idle machine
SECONDS_TO_STOP = 15.0
TRIES_TO_START = 3
HOME_VARIABLE = "PREFECT_HOME"

# Read by Prefect when it is imported, so they are set before; what a user has set stays.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # errors reach the console once, as our own one line
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # the server that Prefect starts by itself asks for no password
}

# Settings of a server that decide who gets in: a user's own, under whatever name, must not open ours.
DECISIVE = (
    "PREFECT_SERVER_API_",
    "PREFECT_SERVER_CSRF_",
    "PREFECT_SERVER_CORS_",
    "PREFECT_SERVER_UI_",
    "PREFECT_UI_",
    "PREFECT_API_",
)
KEPT = "PREFECT_API_DATABASE_"  # where a user keeps Prefect's database is no question of access


def quiet_prefect(**more: str) -> None:
    """Set the environment that stops Prefect's messages and telemetry; call it before Prefect is imported."""
    for name, value in {**QUIET, **more}.items():
        os.environ.setdefault(name, value)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy would be shown the password, and could not reach us anyway
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if HOST not in hosts and "*" not in hosts:
            os.environ[name] = ",".join([*hosts, HOST])


def connected() -> bool:
    """Return whether a Prefect server is named that outlives this process."""
    return bool(os.environ.get(API_VARIABLE))


@dataclass(frozen=True)
class Api:
    """A Prefect API that this process uses.

    Attributes:
        url: The URL of the API, without any password.
        own: Whether this process started the API.
    """

    url: str
    own: bool


@contextmanager
def persistent_server(state: Path, progress: Progress = ignore) -> Iterator[Api]:
    """Provide a Prefect API that can schedule: the one that ``PREFECT_API_URL`` names, or else a server of our own.

    The server of our own keeps its database and its password under ``state`` and ends with the block.

    Yields:
        The API, which is also set in Prefect's settings and, for child processes, in the environment.

    Raises:
        InputError: The password in ``state`` is no secret.
        ResourceError: The named API does not answer or refuses the password, or the server does not start.
    """
    given = named_api()
    if given is not None:
        yield Api(require_answer(given), own=False)
        return
    password = load_or_make_password(private_state(state))
    file = state / "server.log"
    with no_space_becomes_one_line(file):
        log = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
        file.chmod(0o600)
    home = {HOME_VARIABLE: str(state.resolve())}
    with log, _bound_socket() as bound:
        url = _url(bound)
        remedy = f"see {file}, or give one by {API_VARIABLE}"
        server = _healthy_server(lambda: _start(bound, password, home, log=log), bound, progress, remedy)
        try:
            child = {API_VARIABLE: url, "PREFECT_API_AUTH_STRING": password, "PREFECT_API_KEY": None, **home}
            with _environment(child), _client_settings(url, password):
                yield Api(url, own=True)
        finally:
            _stop(server)


@contextmanager
def any_server(progress: Progress = ignore) -> Iterator[Api]:
    """Provide a Prefect API: the one that ``PREFECT_API_URL`` names, or else a temporary server of this process.

    Raises:
        ResourceError: The named API does not answer or refuses the password, or the server does not start.
    """
    given = named_api()
    if given is not None:
        yield Api(require_answer(given), own=False)
        return
    url, password = _Temporary.of_this_process(progress)
    with _client_settings(url, password):
        yield Api(url, own=True)


class _Temporary:
    """The temporary server of this process, started when it is first needed and ended with the process."""

    running: _Temporary | None = None

    def __init__(self, progress: Progress) -> None:
        self.password = new_password()
        self.bound = _bound_socket()
        log = None if os.environ.get(DEBUG_VARIABLE) else subprocess.DEVNULL
        self.process = _healthy_server(
            lambda: _start(self.bound, self.password, {}, "--temporary", log=log),
            self.bound,
            progress,
            "--no-prefect runs without it",
        )
        atexit.register(self.end)

    def end(self) -> None:
        _stop(self.process)
        self.bound.close()
        atexit.unregister(self.end)

    @classmethod
    def of_this_process(cls, progress: Progress) -> tuple[str, str]:
        """Return its URL and its password."""
        if cls.running is None or cls.running.process.poll() is not None:
            if cls.running is not None:
                cls.running.end()
            cls.running = None
            cls.running = cls(progress)
        return _url(cls.running.bound), cls.running.password


@contextmanager
def _client_settings(url: str, password: str) -> Iterator[None]:
    """Let Prefect, which this process imported before there was a server, use this server and no other."""
    from prefect.settings import temporary_settings

    ours = {
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": True,
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": False,
        "PREFECT_RUNNER_SERVER_ENABLE": False,  # it would start runs for anybody, without a password
    }
    with temporary_settings(ours, restore_defaults={"PREFECT_API_KEY"}):
        yield


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    try:
        _set_environment(values)
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _server_environment(url: str, password: str) -> dict[str, str]:
    host, port = url.removeprefix("http://").removesuffix(API).split(":")
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT) or not name.startswith(DECISIVE)}
    return {
        **QUIET,
        **kept,
        PASSWORD_VARIABLE: password,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": url.removesuffix(API),  # its own, which needs none: so no other
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_API_BASE_PATH": API,
        "PREFECT_SERVER_UI_API_URL": API,  # the same origin, whichever name of this machine the browser was given
        "PREFECT_SERVER_UI_SERVE_BASE": "/",
    }


def _start(
    bound: socket.socket,
    password: str,
    home: Mapping[str, str],
    *arguments: str,
    log: IO[bytes] | int | None,
) -> subprocess.Popen[bytes]:
    ours = [sys.executable, "-P", "-m"]
    return subprocess.Popen(
        [*ours, "medphantom.flows.process.keeper", *ours, "medphantom.flows.orchestration.api_server", *arguments],
        stdin=bound.fileno(),
        stdout=log,
        stderr=log,
        env={**_server_environment(_url(bound), password), **home},
        start_new_session=True,  # Ctrl-C must reach the schedule first, which then ends the server
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _healthy_server(
    start: Callable[[], subprocess.Popen[bytes]], bound: socket.socket, progress: Progress, remedy: str
) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers; start it once more if another server was making the same database."""
    began = time.monotonic()
    tries, server = 1, start()
    try:
        while not (healthy := _healthy(bound.getsockname()[1])):
            waited = time.monotonic() - began
            progress(int(waited), 0, "starting Prefect's server")
            if server.poll() == STATUS_NOT_STARTED and tries < TRIES_TO_START:
                tries, server = tries + 1, start()
            elif server.poll() is not None or waited > SECONDS_TO_START:
                break
            time.sleep(0.3)
    except BaseException:
        _stop(server)
        raise
    if not healthy:
        _stop(server)
        raise ResourceError("Prefect's server did not start", remedy)
    return server


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", f"{API}/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _url(bound: socket.socket) -> str:
    return f"http://{HOST}:{bound.getsockname()[1]}{API}"


def _bound_socket() -> socket.socket:
    """Bind a port of this machine, which refuses connections until the server listens there."""
    bound = socket.socket()
    bound.bind((HOST, 0))
    return bound
