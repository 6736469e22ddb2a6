"""A short run of the harness: whatever a file holds, the command line ends in 0 or 2 with one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_changed_files_end_in_one_line() -> None:
    command = [sys.executable, "-m", "tests.hostile.pound", "--mutations", "46", "--seed", "7"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-3000:] + done.stderr.decode()[-2000:]
    assert b'"mutations": 46' in done.stdout
