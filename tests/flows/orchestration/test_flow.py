"""The Prefect flow: the same run, reported to Prefect as numbers and names; and a schedule that fires."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from medphantom.cohorts.store import Cohort
from medphantom.core.folders import read_json
from medphantom.flows.orchestration.api_password import read_password
from medphantom.flows.orchestration.run_flow import _plain
from medphantom.flows.orchestration.serve_flow import interval_seconds
from medphantom.flows.runs.artifact import RunFolder

SECONDS_TO_FIRE = 300  # some 40 on an idle machine


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with a Prefect home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def medphantom(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "medphantom.flows.cli.main", *arguments]


def rows(home: Path, query: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(f"file:{home / 'prefect.db'}?mode=ro", uri=True)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def test_a_run_on_the_embedded_server(copy: Path, environment: dict[str, str]) -> None:
    command = medphantom("run", "tiny.yaml", "--out", "runs/tiny", "--set", "sampler.steps=1")
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "train: reused" in done.stdout
    assert "estimate: about" in done.stdout
    assert not re.search(r"\d\d:\d\d:\d\d", done.stdout), "Prefect's own log lines are noise here"
    home = Path(environment["PREFECT_HOME"])
    assert rows(home, "select state_type from flow_run") == [("COMPLETED",)]
    tasks = rows(home, "select name, state_type from task_run order by start_time")
    assert tasks == [(name, "COMPLETED") for name in ("phantom", "ingest", "train", "generate", "assess", "report")]
    artifacts = dict(rows(home, "select key, data from artifact"))
    assert {"scores", "verdict", "generate-progress", "assess-progress"} <= set(artifacts)
    assert float(artifacts["generate-progress"]) == 100.0
    scores = json.loads(json.loads(artifacts["scores"]))
    report = read_json(copy / "runs" / "tiny" / "work" / "quality.json")
    assert [row["value"] for row in scores if isinstance(row["value"], float)] == [
        estimate["value"] for estimate in report["estimates"] if estimate["refused"] is None
    ]
    assert "Verdict of the privacy gate" in artifacts["verdict"]
    assert max(len(str(data)) for data in artifacts.values()) < 100_000  # no picture hides in there
    assert not [path for path in (home / "storage").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_failed_run_leaves_one_line_and_no_pickle(copy: Path, environment: dict[str, str]) -> None:
    recipe = "cohort: {source: images, public_phrase: x, options: {table: table.csv, label_columns: [diagnosis]}}\n"
    (copy / "failing.yaml").write_text(recipe)
    (copy / "runs" / "tiny" / "phantoms").rename(copy / "images")
    (copy / "images" / "metadata.csv").rename(copy / "images" / "table.csv")
    done = subprocess.run(
        medphantom("run", "failing.yaml"), cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "no column 'diagnosis'" in done.stderr
    home = Path(environment["PREFECT_HOME"])
    kept = [path.read_bytes() for path in (home / "storage").rglob("*") if path.is_file()]
    assert all(json.loads(content)["__exc_type__"] for content in kept)
    assert rows(home, "select state_type from flow_run") == [("FAILED",)]
    assert not [path for path in (copy / "runs" / "failing").iterdir() if path.name in {"cohort", "cohort.private"}]


class Server:
    """The API of a Prefect server, requested over HTTP."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        user, _, secret = password.partition(":")
        self.client = httpx.Client(auth=(user, secret), timeout=10)

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        token = self.client.get(f"{self.url}/api/csrf-token", params={"client": "test"}).raise_for_status().json()
        csrf = {"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": "test"}
        return self.client.post(f"{self.url}/api{path}", json=body, headers=csrf).raise_for_status().json()

    def finished(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.ask("/flow_runs/filter", {})
        return [run for run in runs if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED"}]


@pytest.fixture
def serving(copy: Path, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], Server]]:
    command = medphantom("serve", "tiny.yaml", "--every", "10s", "--out", "runs/tiny", "--set", "plan.total=6")
    with subprocess.Popen(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = next(line.split()[1] for line in process.stdout if line.startswith("Prefect: "))
            server = Server(url, read_password(copy / "runs" / ".prefect"))
            with server.client:
                yield process, server
        finally:
            process.kill()


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [int(child) for child in found] + [deep for child in found for deep in children_of(int(child))]


def alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.slow
def test_a_schedule_fires_makes_new_images_and_ends_without_a_trace(
    copy: Path, serving: tuple[subprocess.Popen[str], Server]
) -> None:
    process, server = serving
    deadline = time.monotonic() + SECONDS_TO_FIRE
    while not server.finished():
        assert process.poll() is None
        assert time.monotonic() < deadline, "no scheduled run finished in time"
        time.sleep(0.5)
    run = server.finished()[0]
    assert (run["state_type"], run["auto_scheduled"]) == ("COMPLETED", True)

    scheduled = run["expected_start_time"][:19].replace("-", "").replace(":", "")
    folder = copy / "runs" / f"tiny-{scheduled}Z"
    base = copy / "runs" / "tiny"
    made, before = Cohort.open(folder / "synthetic"), Cohort.open(base / "synthetic")
    assert len(made) == 6
    assert not set(made.manifest["seed"]) & set(before.manifest["seed"])
    assert not set(made.manifest["digest"]) & set(before.manifest["digest"])
    assert (folder / "report.public.html").is_file()
    facts = read_json(folder / "run.json")
    assert facts["base"] == "../tiny"
    assert facts["digests"]["train"] == RunFolder(base).records()["train"].digest  # the bundle was reused
    artifacts = server.ask("/artifacts/filter", {})
    assert {"scores", "verdict", "generate-progress"} <= {artifact["key"] for artifact in artifacts}

    started = children_of(process.pid)
    assert started
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    deadline = time.monotonic() + 20
    while [pid for pid in started if alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in started if alive(pid)]
    port = int(server.url.rsplit(":", 1)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-P', '-m', 'medphantom.flows.process.keeper', 'sleep', '300'])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.readline()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    keeper = int(parent.stdout.readline())
    deadline = time.monotonic() + 20
    while not children_of(keeper) and time.monotonic() < deadline:
        time.sleep(0.05)
    started = [keeper, *children_of(keeper)]
    assert len(started) == 2
    parent.kill()
    parent.communicate()
    while [pid for pid in started if alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in started if alive(pid)]


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("15m", 900), ("6h", 21600), ("1d", 86400), (" 5s ", 5)])
def test_intervals(text: str, seconds: int) -> None:
    assert interval_seconds(text) == seconds


def test_names_from_data_mean_nothing_to_a_page() -> None:
    escaped = _plain('<script>alert(1)</script> [x](http://evil) **b** `c` | "q" \n# head')
    assert "<script>" not in escaped
    assert "](" not in escaped
    assert "\n" not in escaped
    assert escaped.startswith("&lt;script&gt;alert\\(1\\)")
