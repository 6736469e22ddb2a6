"""A small private fit that several tests of this folder share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medphantom.learning.batches import TensorBatches
from medphantom.learning.devices import make_accelerator
from medphantom.learning.fit import FitResult, fit
from medphantom.learning.learner import RowLearner
from medphantom.learning.private_config import PrivateFitConfig
from medphantom.learning.private_steps import Private, PrivateSteps, Units
from tests.learning.tiny import settings


class Rows(RowLearner):
    """Squared error of a small network, each look at a row with noise of its own."""

    def __init__(self, network: nn.Module, *, noise: float = 0.0) -> None:
        super().__init__(network)
        self.noise = noise

    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"x": batch["x"] + self.noise * torch.randn(batch["x"].shape, generator=generator), "y": batch["y"]}

    def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
        return (self.network(prepared["x"]) - prepared["y"]).square().flatten(1).mean(1)


def convolutional(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.SiLU(), nn.Conv2d(6, 1, 3))
    return network.to(memory_format=torch.channels_last)


def data(unit_of_row: Sequence[int], *, loud: int | None = None) -> tuple[TensorBatches, Units]:
    """One image per row; the rows of the unit ``loud`` ask for absurd values."""
    total = len(unit_of_row)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(64, 2, 5, 5, generator=generator)[:total]
    y = torch.randn(64, 1, 3, 3, generator=generator)[:total]
    of_row = torch.tensor(unit_of_row)
    if loud is not None:
        y[of_row == loud] += 1e6
    return TensorBatches({"x": x, "y": y}), Units(of_row)


UNITS = [0, 0, 1, 2, 2, 2, 3, 4, 5, 5]


def steps_of(
    tmp_path: Path, unit_of_row: Sequence[int] = UNITS, *, learner: RowLearner | None = None, **changes: Any
) -> PrivateSteps:
    """The steps of a private fit on their own, begun; every unit is drawn in each by default."""
    batches, units = data(unit_of_row, loud=changes.pop("loud", None))
    expected = changes.pop("expected", len(units))
    learner = learner or Rows(convolutional(), noise=0.1)
    config = PrivateFitConfig.model_validate({"epsilon": None, "draws": 4, **changes})
    optimizer = torch.optim.SGD(learner.network.parameters(), lr=0.1)
    steps = PrivateSteps(
        learner,
        batches,
        Private(config, units),
        settings(batch_size=expected, steps=20),
        optimizer,
        accelerator=make_accelerator("cpu", "fp32", accumulate=1, tracker="none", work=tmp_path),
        work=tmp_path,
    )
    steps.begin(0, None)
    return steps


def gradient(steps: PrivateSteps, step: int = 0) -> Tensor:
    """The noised sum of clipped gradients of one step."""
    steps.take(step)
    return torch.cat([p.grad.flatten() for p in steps.parameters]).double() * steps.expected_units


def fitted(work: Path, learner: RowLearner | None = None, **changes: Any) -> tuple[RowLearner, FitResult]:
    batches, units = data(UNITS)
    learner = learner or Rows(convolutional(), noise=0.1)
    private = PrivateFitConfig.model_validate({"epsilon": 8.0, "draws": 2, "delta": 0.01, **changes.pop("privacy", {})})
    stop = changes.pop("stop", None)
    config = settings(steps=12, batch_size=2, checkpoint_every=4, learning_rate=0.02, **changes)
    return learner, fit(learner, batches, config, work=work, private=Private(private, units), stop=stop)


def fit_few(work: Path) -> tuple[RowLearner, FitResult]:
    """Steps that draw one unit on average, so that most processes have none; the key in ``work`` decides which."""
    learner = Rows(convolutional(), noise=0.1)
    batches, units = data(UNITS)
    config = PrivateFitConfig(epsilon=8.0, delta=0.01, draws=2)
    fit_config = settings(steps=8, batch_size=2, checkpoint_every=8, log_every=1, learning_rate=0.02)
    return learner, fit(learner, batches, fit_config, work=work, private=Private(config, units))
