from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medphantom.learning.ledger import KEY_FILE, LEDGER_FILE
from tests.learning.private_tiny import fit_few
from tests.learning.tiny import fit_regression, without_speed

ROOT = Path(__file__).parents[2]


def in_two_processes(*arguments: str) -> None:
    # torchrun, because accelerate's own launcher starts several processes on CPUs only through MPI.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    program = ["-m", "tests.learning.tiny", *arguments]
    done = subprocess.run([*launch, *program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Each sees half of every batch, and both end with the weights of a single process that saw all of it.

    The processes start from different weights on purpose: those of the first must be the ones that count.
    """
    in_two_processes("regression", str(tmp_path / "two"), "2")
    alone, result = fit_regression(tmp_path / "one")
    for rank in (0, 1):
        weights = load_file(tmp_path / "two" / f"rank-{rank}.safetensors")
        for key, value in alone.network.state_dict().items():
            torch.testing.assert_close(weights[key], value, rtol=1e-4, atol=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    for ours, expected in zip(without_speed(rows), without_speed(result.history), strict=True):
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_take_the_same_private_steps_as_one(tmp_path: Path) -> None:
    """With the key of one fit, and so few units per step that now and then neither process has any."""
    alone, result = fit_few(tmp_path / "one")
    (tmp_path / "two").mkdir()
    shutil.copy(tmp_path / "one" / KEY_FILE, tmp_path / "two")
    ledger = json.loads((tmp_path / "one" / LEDGER_FILE).read_text())
    (tmp_path / "two" / LEDGER_FILE).write_text(json.dumps({**ledger, "steps_begun": 0}))
    in_two_processes("private", str(tmp_path / "two"))
    for rank in (0, 1):
        weights = load_file(tmp_path / "two" / f"rank-{rank}.safetensors")
        for key, value in alone.network.state_dict().items():
            torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [set(row) - {"images_per_s"} for row in rows] == [set(row) - {"images_per_s"} for row in result.history]
