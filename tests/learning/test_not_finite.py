"""A loss that is no number: back to the last good checkpoint once, at half the rate; a private fit ends at once."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medphantom.learning.batches import TensorBatches
from medphantom.learning.checkpoint import latest_checkpoint
from medphantom.learning.fit import FitResult, fit
from medphantom.learning.history import NotFinite
from tests.learning.private_tiny import Rows, convolutional, data
from tests.learning.tiny import Line, settings


class Steep(Line):
    """Its loss is -w until w passes a cliff, beyond which there is none: a rate that is too high falls over it."""

    def __init__(self, cliff: float) -> None:
        super().__init__()
        self.cliff = cliff

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        weight = self.network.weight.sum()
        return {"loss": -weight * (1.0 if float(weight.detach()) < self.cliff else math.nan)}


def climb(work: Path, cliff: float, **changes: Any) -> tuple[Steep, FitResult]:
    learner, stop = Steep(cliff), changes.pop("stop", None)
    plain = {"warmup_steps": 0, "schedule": "constant", "weight_decay": 0.0, "ema_decay": None, "validate_every": 0}
    config = settings(**{**plain, "steps": 30, "learning_rate": 0.1, "checkpoint_every": 10, **changes})
    return learner, fit(learner, TensorBatches({"x": torch.zeros(8, 1)}), config, work=work, stop=stop)


def test_it_goes_back_once_at_half_the_rate_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        learner, result = climb(tmp_path, 2.55)  # 2.6 after 26 steps of 0.1; from 2.0 at half the rate it ends at 2.5
    assert result.finished
    assert result.not_finite_at == 27
    assert learner.weight == pytest.approx(2.0 + 10 * 0.05, abs=1e-3)
    assert [record.getMessage() for record in caplog.records] == [
        "loss is not finite at step 27; continuing from step 20 at half the learning rate"
    ]
    row = {"step": 20, "not_finite_at": 27, "learning_rate_factor": 0.5}
    assert row in result.history
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == result.history
    assert [row["learning_rate"] for row in written if row["step"] in {20, 24} and "loss" in row] == pytest.approx(
        [0.1, 0.05]
    )
    assert result.history == climb(tmp_path, 2.55)[1].history  # done: nothing is computed again


def test_before_the_first_checkpoint_it_goes_back_to_the_beginning(tmp_path: Path) -> None:
    learner, result = climb(tmp_path, 0.75, steps=14, checkpoint_every=100, log_every=1)
    assert (result.not_finite_at, result.finished) == (9, True)
    assert learner.weight == pytest.approx(14 * 0.05, abs=1e-3)


def test_twice_is_one_line_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(
        NotFinite, match=r"^loss is not finite at step \d+, also at half the learning rate .*; lower learn"
    ):
        climb(tmp_path, 2.3)
    kept = latest_checkpoint(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.step == 20
    assert float(kept.groups["network"]["weight"]) == pytest.approx(2.0, abs=1e-3)
    with pytest.raises(NotFinite, match="also at half the learning rate"):
        climb(tmp_path, 2.3)  # the same again, and not once more at a quarter


def test_a_resume_keeps_the_halved_rate_and_has_no_second_try(tmp_path: Path) -> None:
    schedule = {"steps": 18, "checkpoint_every": 5, "log_every": 1}
    straight, expected = climb(tmp_path / "straight", 1.65, **schedule)
    calls = iter([False] * 17 + [True])  # after the first step at half the rate
    _, first = climb(tmp_path / "stopped", 1.65, stop=lambda: next(calls), **schedule)
    assert (first.finished, first.not_finite_at) == (False, 18)
    resumed, result = climb(tmp_path / "stopped", 1.65, **schedule)
    assert (result.resumed_from, result.not_finite_at, expected.not_finite_at) == (16, 18, 18)
    assert resumed.weight == straight.weight == pytest.approx(1.65, abs=1e-3)


class Broken(Rows):
    """Its network gives no numbers from some step on."""

    def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
        return super().row_losses(prepared) * (1.0 if self.step < 4 else math.nan)


def test_a_private_fit_gets_no_second_try_and_its_steps_are_recorded(tmp_path: Path) -> None:
    from medphantom.learning.private_config import PrivateFitConfig
    from medphantom.learning.private_steps import Private

    batches, units = data([0, 0, 1, 2, 2, 2, 3, 4, 5, 5])
    private = Private(PrivateFitConfig(epsilon=8.0, delta=1e-2), units)
    config = settings(steps=10, batch_size=6, checkpoint_every=2, log_every=1, validate_every=0)
    with pytest.raises(NotFinite, match="loss is not finite at step 5"):
        fit(Broken(convolutional()), batches, config, work=tmp_path, private=private)
    assert json.loads((tmp_path / "privacy.json").read_text())["steps_begun"] == 5
    assert "not_finite_at" not in (tmp_path / "metrics.jsonl").read_text()
