"""What the noise of training can be: centred, drifting, or moved channel by channel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medphantom.conditioning.conditioner import Conditioner
from medphantom.conditioning.encoder import Conditions
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.generators.config import DenoiserConfig, GeneratorConfig, Objective
from medphantom.generators.denoiser import DenoiserLearner
from medphantom.generators.facts import LatentScaling


class Probe(nn.Module):
    """Keeps the noise that it is shown: the latents of this test are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x_t: Tensor, time_B: Tensor, conditions: Conditions) -> Tensor:
        self.seen.append(x_t / time_B.reshape(-1, 1, 1, 1))
        return torch.zeros_like(x_t, requires_grad=True)


def noise(total: int = 400, **settings: float) -> Tensor:
    """Noise of one training batch, (total, 2, 4, 4)."""
    probe = Probe()
    learner = DenoiserLearner(
        probe,
        DenoiserConfig(),
        objective=Objective(kind="flow"),
        scaling=LatentScaling(mean=(0.0, 0.0), std=(1.0, 1.0)),
        monitored={},
        seed=0,
        decode=lambda latents: latents,
        **settings,
    )
    shape = (total, 2, 4, 4)
    conditions = Conditioner(ConditionSchema()).of_prompts([Prompt()] * total).tensors()
    batch = {"mean": torch.zeros(shape), "log_var": torch.full(shape, -60.0), **conditions}
    learner.loss(batch, torch.Generator().manual_seed(1))
    return probe.seen[0]


def test_noise_is_centred_unless_it_drifts() -> None:
    plain = noise()
    assert abs(float(plain.mean())) < 0.03
    torch.testing.assert_close(noise(drift=0.1), plain + 0.1, atol=1e-4, rtol=0)


def test_offset_noise_moves_whole_channels() -> None:
    plain, moved = noise(), noise(offset_noise=0.5)
    change = moved - plain
    torch.testing.assert_close(change, change.mean(dim=(2, 3), keepdim=True).expand_as(change), atol=1e-3, rtol=0)
    assert float(change.mean(dim=(2, 3)).std()) == pytest.approx(0.5, rel=0.1)


def test_a_drift_without_a_base_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the fine-tuning of a base, but generator\.init_from names none"):
        GeneratorConfig.model_validate({"tuning": {"drift": 0.1}})
