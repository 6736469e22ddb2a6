"""A clock that jumps: locks decide what is live or left over, never times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medphantom.core.staging import remove_leftovers

HOLD = """
import pathlib, sys, time
from medphantom.core.staging import staging
with staging(pathlib.Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("seconds", [0, 4_000_000_000])
def test_a_live_folder_stays_and_a_dead_one_goes_whatever_their_times_say(tmp_path: Path, seconds: int) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        for path in (folder, *folder.iterdir()):
            os.utime(path, (seconds, seconds))
        remove_leftovers(tmp_path)
        assert folder.is_dir()
        holder.kill()
    os.utime(folder, (seconds, seconds))
    remove_leftovers(tmp_path)
    assert not folder.exists()
