"""Shared memory that is full, really: a mount of its own in a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = """
mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 77
dd if=/dev/zero of=/dev/shm/full bs=1k count=64 2>/dev/null
exec "$@"
"""


def without_shared_memory(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root of Linux can mount a file system of its own")
    command = [
        "unshare",
        "-m",
        "bash",
        "-c",
        FULL,
        "bash",
        sys.executable,
        "-m",
        "medphantom.flows.cli.main",
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    return done


def test_verbs_go_without_workers_or_say_so_in_one_line(tmp_path: Path) -> None:
    made = without_shared_memory("phantom", "--out", tmp_path / "phantoms", "--patients", "6")
    assert (made.returncode, made.stderr) == (0, "")
    reading = ["ingest", tmp_path / "phantoms", "--out", tmp_path / "c", "--public-phrase", "x", "--workers"]
    refused = without_shared_memory(*reading, "2")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "shared memory" in refused.stderr
    assert refused.stderr.endswith("choose workers=0\n")
    assert [path.name for path in tmp_path.iterdir()] == ["phantoms"]
    assert without_shared_memory(*reading, "0").returncode == 0
