"""A disk that fills up while a network is trained, really: a small file system in a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import pathlib, sys
from medphantom.core.errors import ResourceError
from medphantom.learning.checkpoint import latest_checkpoint
from tests.learning.tiny import fit_denoiser
disk = pathlib.Path(sys.argv[1])
filler = disk / "filler"
def fill():
    if len(list((disk / "work" / "checkpoints").glob("step-*"))) == 2 and not filler.exists():
        with filler.open("wb", buffering=0) as stream:
            try:
                while True: stream.write(bytes(4096))
            except OSError: pass
    return False
try:
    fit_denoiser(disk / "work", steps=40, stop=fill)
except ResourceError as error:
    print(error)
left = sorted(path.name for path in (disk / "work" / "checkpoints").iterdir())
print(left, latest_checkpoint(disk / "work" / "checkpoints").step)
filler.unlink()
_, result = fit_denoiser(disk / "work", steps=40)
print(result.finished, result.resumed_from)
"""


def test_it_is_one_line_nothing_is_half_written_and_it_goes_on_when_there_is_room(tmp_path: Path) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root of Linux can mount a file system of its own")
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0" || exit 77; exec "$@"'
    command = ["unshare", "-m", "bash", "-c", mount, str(tmp_path), sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    assert done.returncode == 0, done.stderr
    error, left, end = done.stdout.splitlines()
    assert "is full; free some space" in error
    assert left == "['step-000000000', 'step-000000010'] 10"
    assert end == "True 10"
