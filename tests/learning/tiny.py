"""Tiny learners that several tests of this folder share; also run as a program, to be killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medphantom.learning.batches import TensorBatches
from medphantom.learning.devices import leave_processes
from medphantom.learning.fit import FitConfig, FitResult, Learner, fit


class Line(Learner):
    """A single weight w with the loss -w: its gradient is -1 at every step, whatever the batch."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 1, bias=False))
        with torch.no_grad():
            self.network.weight.zero_()

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": -self.network.weight.sum()}

    @property
    def weight(self) -> float:
        return float(self.network.weight.detach())


class Target(Line):
    """SampleLosses by the distance of its weight to 0.55, which it passes on its way to 1; the train loss by that to
    0.75.
    """

    def validate(self, network: nn.Module, split: Literal["val", "train"]) -> dict[str, float]:
        assert not network.training
        assert not torch.is_grad_enabled()
        return {"loss": abs(float(network.weight) - (0.55 if split == "val" else 0.75))}


def denoiser(width: int = 6) -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),  # its running statistics are buffers
        nn.SiLU(),
        nn.Dropout(0.1),  # draws from the global generator
        nn.Conv2d(width, width, 3, padding=1),
        nn.Conv2d(width, 1, 3, padding=1),
    )
    return network.to(memory_format=torch.channels_last)  # a layout in which moments can be paired wrongly


class Denoise(Learner):
    """Everything that a resume must carry: noise, dropout, buffers, and an adversary that starts late."""

    grid_shows_real_images = False

    def __init__(self, *, adversary: bool = True) -> None:
        torch.manual_seed(1)
        discriminator = (
            nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.SiLU(), nn.Conv2d(4, 1, 3)) if adversary else None
        )
        super().__init__(denoiser(), discriminator)
        self.images = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(2))

    def _cleaned(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        noise = torch.randn(batch["x"].shape, generator=generator).to(batch["x"].device)
        return self.network(batch["x"] + 0.3 * noise)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        cleaned = self._cleaned(batch, generator)
        error = (cleaned - batch["x"]).square().mean()
        if self.adversary is None or self.step < 5:
            return {"loss": error, "error": error}
        return {"loss": error - 0.1 * self.adversary(cleaned).mean(), "error": error}

    def adversary_loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        if self.adversary is None or self.step < 5:
            return {}
        with torch.no_grad():
            cleaned = self._cleaned(batch, generator)
        real, made = self.adversary(batch["x"]), self.adversary(cleaned)
        return {"loss": torch.relu(1 - real).mean() + torch.relu(1 + made).mean()}

    def validate(self, network: nn.Module, split: Literal["val", "train"]) -> dict[str, float]:
        clean = self.images[:12] if split == "train" else self.images[12:]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
        return {"loss": float((network(clean + 0.3 * noise) - clean).square().mean())}

    def grid(self, network: nn.Module) -> Tensor:
        return self.images[:3]


def settings(**changes: Any) -> FitConfig:
    values: dict[str, Any] = {
        "steps": 30,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "warmup_steps": 5,
        "validate_every": 10,
        "checkpoint_every": 10,
        "log_every": 4,
        "tracker": "none",
        "device": "cpu",
        "precision": "fp32",
    }
    return FitConfig(**{**values, **changes})


def fit_denoiser(work: Path, learner: Denoise | None = None, **changes: Any) -> tuple[Denoise, FitResult]:
    learner = learner or Denoise()
    stop = changes.pop("stop", None)
    result = fit(learner, TensorBatches({"x": learner.images[:12]}), settings(**changes), work=work, stop=stop)
    return learner, result


def without_speed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what depends on the clock."""
    return [{key: value for key, value in row.items() if key != "images_per_s"} for row in rows]


class Regression(Learner):
    """Without noise, dropout or batch statistics: the loss of a batch is the mean of the losses of its parts."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(3, 5, 2), nn.Tanh(), nn.Conv2d(5, 1, 2))
        super().__init__(network.to(memory_format=torch.channels_last))

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (self.network(batch["x"]) - batch["y"]).square().mean()}

    def validate(self, network: nn.Module, split: Literal["val", "train"]) -> dict[str, float]:
        return {"loss": float(network(torch.ones(1, 3, 3, 3)).square())}


def fit_regression(work: Path, seed: int = 0, **changes: Any) -> tuple[Regression, FitResult]:
    learner = Regression(seed)
    x = torch.randn(20, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    batches = TensorBatches({"x": x, "y": x.mean(dim=(1, 2, 3), keepdim=True)})
    return learner, fit(learner, batches, settings(**changes), work=work)


if __name__ == "__main__":
    if sys.argv[1] == "denoise":
        fit_denoiser(Path(sys.argv[2]), steps=int(sys.argv[3]))
    elif sys.argv[1] == "private":
        from tests.learning.private_tiny import fit_few

        rank = int(os.environ["RANK"])
        learned, _ = fit_few(Path(sys.argv[2]))
        weights = {key: value.contiguous() for key, value in learned.network.state_dict().items()}
        save_file(weights, Path(sys.argv[2]) / f"rank-{rank}.safetensors")
        leave_processes()
    else:
        rank = int(os.environ["RANK"])
        fit_regression(Path(sys.argv[2]) / "before", tracker="tensorboard")  # a fit must leave the processes connected
        fitted, _ = fit_regression(Path(sys.argv[2]), seed=rank, accumulate=int(sys.argv[3]))
        weights = {key: value.contiguous() for key, value in fitted.network.state_dict().items()}
        save_file(weights, Path(sys.argv[2]) / f"rank-{rank}.safetensors")
        leave_processes()
