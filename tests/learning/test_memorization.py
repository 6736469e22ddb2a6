"""Early warning: a network that memorises its rows is noticed, and stopped where that was requested."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from medphantom.core.errors import InputError
from medphantom.learning.batches import TensorBatches
from medphantom.learning.fit import FitResult, fit
from medphantom.learning.fit_config import FitConfig
from medphantom.learning.learner import RowLearner
from medphantom.learning.memorization import SampleLosses, membership_signal
from medphantom.learning.private_config import PrivateFitConfig
from medphantom.learning.private_steps import Private, Units

ROWS = 40


def sample_losses(errors: Tensor) -> SampleLosses:
    return SampleLosses(errors, torch.arange(len(errors)) % ROWS)


def test_equal_errors_tell_nothing_and_smaller_ones_do() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(4 * ROWS, generator=generator) for _ in range(2))
    honest = membership_signal(sample_losses(one), sample_losses(other))
    assert honest is not None
    assert honest.low < 0.5 < honest.share + 0.15
    signal = membership_signal(sample_losses(one * 0.3), sample_losses(other))
    assert signal is not None
    assert signal.low > 0.7
    same = membership_signal(sample_losses(one), sample_losses(one))
    assert same is not None
    assert same.share == 0.5
    assert membership_signal(sample_losses(one[:10]), sample_losses(other[:10])) is None


class Memorising(RowLearner):
    """Fits random labels: whatever it learns of them, it memorises."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Linear(30, 128), nn.ReLU(), nn.Linear(128, 1)))
        generator = torch.Generator().manual_seed(1)
        self.data = {
            split: (torch.randn(ROWS, 30, generator=generator), torch.randn(ROWS, generator=generator))
            for split in ("train", "val")
        }
        self.errors: dict[str, Tensor] = {}

    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        return batch

    def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
        error: Tensor = self.network(prepared["x"])[:, 0] - prepared["y"]
        return error.square()

    def validate(self, network: nn.Module, split: Literal["val", "train"]) -> dict[str, float]:
        x, y = self.data[split]
        self.errors[split] = (network(x)[:, 0] - y).square()
        return {"loss": float(self.errors[split].mean())}

    def per_sample_losses(self, split: Literal["val", "train"]) -> SampleLosses | None:
        return sample_losses(self.errors[split])


def run(folder: Path, **more: object) -> FitResult:
    learner = Memorising()
    x, y = learner.data["train"]
    settings = {
        "steps": 300, "batch_size": 20, "learning_rate": 3e-3, "validate_every": 25, "checkpoint_every": 50,
        "tracker": "none", "precision": "fp32", "device": "cpu", "ema_decay": None, "warmup_steps": 0, **more,
    }  # fmt: skip
    return fit(learner, TensorBatches({"x": x, "y": y}), FitConfig.model_validate(settings), work=folder)


def test_learning_memorised_is_flagged_and_stopped_on_demand(tmp_path: Path) -> None:
    flagged = run(tmp_path / "flag")
    assert flagged.finished
    assert flagged.memorized_at is not None
    shares = {row["step"]: row["membership"] for row in flagged.history if "membership" in row}
    assert shares[300] > 0.9
    assert next(row["step"] for row in flagged.history if row.get("memorized")) == flagged.memorized_at
    stopped = run(tmp_path / "stop", on_memorization="stop")
    assert stopped.finished
    assert stopped.memorized_at == flagged.memorized_at
    assert stopped.history[-1]["step"] == stopped.memorized_at < 300
    assert stopped.best_step <= stopped.memorized_at
    again = run(tmp_path / "stop", on_memorization="stop")  # nothing is done twice
    assert again.history == stopped.history
    assert again.finished
    ignored = run(tmp_path / "ignore", on_memorization="ignore")
    assert ignored.memorized_at is None
    assert not any("membership" in row for row in ignored.history)


def test_a_higher_limit_warns_later(tmp_path: Path) -> None:
    early, late = (run(tmp_path / f"{limit}", memorization_limit=limit).memorized_at for limit in (0.5, 0.85))
    assert early is not None
    assert late is not None
    assert early < late


def test_a_private_fit_does_not_stop_by_private_rows(tmp_path: Path) -> None:
    learner = Memorising()
    x, y = learner.data["train"]
    config = FitConfig(steps=2, batch_size=4, tracker="none", device="cpu", on_memorization="stop")
    private = Private(PrivateFitConfig(epsilon=1), Units(torch.arange(ROWS)))
    with pytest.raises(InputError, match="cannot stop at a validation result"):
        fit(learner, TensorBatches({"x": x, "y": y}), config, work=tmp_path, private=private)
