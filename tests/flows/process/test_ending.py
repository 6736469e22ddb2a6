"""SIGTERM ends a run in order, soon and for good, and a later run goes on where it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from medphantom.flows.cli.main import main
from tests.flows.conftest import TINY_RECIPE
from tests.flows.orchestration.test_flow import alive, children_of, rows

LONG = TINY_RECIPE.replace("denoiser_fit: {steps: 8", "denoiser_fit: {steps: 100000")
PATIENCE = 300


@pytest.fixture
def folder(copy: Path) -> Path:
    """A finished run whose denoiser is to be trained again, for ever."""
    assert LONG != TINY_RECIPE
    (copy / "tiny.yaml").write_text(LONG)
    for work in (copy / "runs" / "tiny" / "work" / "train").glob("denoiser-*"):
        shutil.rmtree(work)
    return copy


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**kept, "PREFECT_HOME": str(folder / "prefect")}
    command = [sys.executable, "-m", "medphantom.flows.cli.main", *arguments]
    with (folder / "output").open("w") as output, (folder / "complained").open("w") as complained:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=complained, text=True)
        try:
            yield process
        finally:
            for pid in [*children_of(process.pid), process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("runs/tiny/work/train/denoiser-*/checkpoints/step-*"))


def until_it_learns(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(checkpoints(folder)) < 2:
        assert process.poll() is None, (folder / "complained").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def all_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 60
    while [pid for pid in pids if alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.05)
    return not [pid for pid in pids if alive(pid)]


def terminated(folder: Path, process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> int:
    others = children_of(process.pid)
    assert others or "--no-prefect" in process.args
    began = time.monotonic()
    process.send_signal(how)
    status = process.wait(timeout=120)
    assert all_gone(others)
    print(f"ended after {time.monotonic() - began:.1f} s", file=sys.__stderr__)
    assert not [path for path in folder.rglob("*.medphantom-partial-*") if path.is_dir()] or status == -signal.SIGKILL
    return status


def goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The next run takes the cohort as it is and the denoiser from its last checkpoint, not from its beginning."""
    before = checkpoints(folder)
    assert before
    with started(folder, "run", "tiny.yaml", "--no-prefect") as process:
        deadline = time.monotonic() + PATIENCE
        while (now := checkpoints(folder)) == before or len(now) < 2:
            assert process.poll() is None, (folder / "complained").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert min(now) >= min(before)
    assert "ingest: reused" in (folder / "output").read_text()
    capsys.readouterr()
    assert main(["verify", str(folder / "runs" / "tiny" / "cohort")]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--no-prefect", "with prefect"])
def test_a_run_ends_in_one_line_and_goes_on(folder: Path, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--no-prefect"] if way == "--no-prefect" else []
    with started(folder, "run", "tiny.yaml", *arguments) as process:
        until_it_learns(folder, process)
        assert terminated(folder, process) == 143
    told = re.fullmatch(
        r"medphantom: ended by SIGTERM; step (\d+) of 100000 of denoiser is kept; "
        r"the same command continues from there\n",
        (folder / "complained").read_text(),
    )
    assert told
    assert checkpoints(folder)[-1] == f"step-{int(told[1]):09d}"
    goes_on(folder, capsys)


@pytest.mark.slow
def test_a_scheduled_run_ends_with_its_schedule_and_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with started(folder, "serve", "tiny.yaml", "--every", "10s") as process:
        until_it_learns(folder, process)
        assert terminated(folder, process) == 143
    states = dict.fromkeys(state for (state,) in rows(folder / "runs" / ".prefect", "select state_type from flow_run"))
    assert "COMPLETED" not in states
    goes_on(folder, capsys)


@pytest.mark.slow
def test_a_scheduled_run_ends_with_whoever_serves_even_when_that_is_killed(folder: Path) -> None:
    with started(folder, "serve", "tiny.yaml", "--every", "10s") as process:
        until_it_learns(folder, process)
        terminated(folder, process, signal.SIGKILL)
    assert checkpoints(folder)
