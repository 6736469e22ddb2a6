from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medphantom.flows.cli.main import main
from tests.shared import made_once

TINY_RECIPE = """\
name: tiny
cohort:
  simulate: {patients: 60, size: 64, seed: 3}
preprocess: {size: [32, 32]}
generator:
  autoencoder: {channels: [16, 32], norm_groups: 8}
  denoiser: {channels: [16, 32], norm_groups: 8, head_channels: 16, context_dim: 16}
  autoencoder_fit: {steps: 8, batch_size: 4, validate_every: 4, checkpoint_every: 2, tracker: none}
  denoiser_fit: {steps: 8, batch_size: 4, validate_every: 4, checkpoint_every: 2, tracker: none}
  threads: 1
plan: {kind: match, total: 24}
sampler: {steps: 2}
assess:
  network_seeds: 1
  draws: 2
  diversity_pairs: 10
  classifier: {steps: 3}
  copies: {repeats: 20, controls: 4, kinds: [as it is, reconstructed], side: 8}
  utility: {enabled: false}
"""


def _finish(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(TINY_RECIPE)
    status = main(["run", str(folder / "tiny.yaml"), "--out", str(folder / "runs" / "tiny"), "--no-prefect"])
    assert status == 0


@pytest.fixture(scope="session")
def finished() -> Path:
    """A folder with ``tiny.yaml`` and ``runs/tiny/``, run through to its report. Look, do not touch."""
    return made_once("finished", __file__, _finish)


@pytest.fixture
def copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``finished`` to work in; it is the working directory."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder
