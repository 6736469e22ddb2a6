"""What is not finished is named as such by whatever comes after it, with how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medphantom.core.errors import ArtifactError
from medphantom.core.folders import read_digest


def checkpoint(work: Path, fit: str, step: int) -> None:
    (work / f"{fit}-0123456789abcdef" / "checkpoints" / f"step-{step:09d}").mkdir(parents=True)


def test_a_training_that_stopped_is_named_with_its_step(tmp_path: Path) -> None:
    checkpoint(tmp_path / "bundle.work", "autoencoder", 700)
    checkpoint(tmp_path / "bundle.work", "denoiser", 250)
    with pytest.raises(ArtifactError, match=r"bundle is not finished: its training stands at step 250 of the denoiser"):
        read_digest(tmp_path / "bundle")


@pytest.mark.parametrize(("name", "said"), [("bundle", "work on it lies in"), ("other", "is not a folder")])
def test_folders_of_a_run_are_known_by_its_work(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "work").mkdir()
    with pytest.raises(ArtifactError, match=said):
        read_digest(tmp_path / name)


def test_verbs_say_it_in_one_line(tmp_path: Path, one_line: Callable[..., str]) -> None:
    checkpoint(tmp_path / "bundle.work", "denoiser", 40)
    line = one_line("generate", tmp_path / "bundle", "--out", tmp_path / "images", "--count", "nodule=1")
    assert "is not finished: its training stands at step 40 of the denoiser" in line
    assert line.endswith("run the command that makes it; it continues")
