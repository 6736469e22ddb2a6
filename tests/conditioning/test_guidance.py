from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medphantom.conditioning.encoder import Conditions, encode_prompts
from medphantom.conditioning.guidance import guided
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.core.errors import InputError

SCHEMA = ConditionSchema(labels=("mass",))


class Gaussian:
    """The exact denoiser of two unit Gaussians in x: mean 2 with the label, mean -2 without, mean 0 when not stated.

    At noise level t the posterior mean of x given x + t·noise is (x + t²·mean) / (1 + t²).
    """

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        self.batches.append(len(x))
        mean = torch.tensor([-2.0, 2.0, 0.0])[conditions.labels_BL[:, 0]].view(-1, 1, 1, 1)
        squared = t.view(-1, 1, 1, 1) ** 2
        return (x + squared * mean) / (1 + squared)


CONDITIONS = encode_prompts(SCHEMA, [Prompt(labels={"mass": True}), Prompt(labels={"mass": False}), Prompt()])
X = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
T = torch.full((3,), 1.5)


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_guidance_moves_the_mean_in_closed_form(scale: float) -> None:
    """Guided Gaussians of equal variance are Gaussians of mean w · mean_c + (1 - w) · mean_null."""
    denoise = Gaussian()
    found = guided(denoise, CONDITIONS, scale=scale)(X, T)
    means = scale * torch.tensor([2.0, -2.0, 0.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, (X + 2.25 * means) / 3.25)
    assert denoise.batches == [6]  # both halves in one call


def test_scales_one_and_zero_take_one_pass() -> None:
    denoise = Gaussian()
    conditioned = guided(denoise, CONDITIONS, scale=1)(X, T)
    free = guided(denoise, CONDITIONS, scale=0)(X, T)
    assert denoise.batches == [3, 3]
    assert torch.equal(conditioned, Gaussian()(X, T, CONDITIONS))
    assert torch.equal(free, Gaussian()(X, T, CONDITIONS.all_missing()))


def test_outside_the_interval_there_is_no_guidance() -> None:
    denoise = Gaussian()
    within = guided(denoise, CONDITIONS, scale=3, interval=(0.5, 2.0))
    for t in (0.4, 2.1):
        times = torch.full((3,), t)
        assert torch.equal(within(X, times), Gaussian()(X, times, CONDITIONS))
    assert denoise.batches == [3, 3]
    for t in (0.5, 1.0, 2.0):
        times = torch.full((3,), t)
        torch.testing.assert_close(within(X, times), guided(Gaussian(), CONDITIONS, scale=3)(X, times))


def test_times_that_differ_within_a_batch_are_guided_row_by_row() -> None:
    times = torch.tensor([0.1, 1.0, 3.0])
    found = guided(Gaussian(), CONDITIONS, scale=3, interval=(0.5, 2.0))(X, times)
    plain = Gaussian()(X, times, CONDITIONS)
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]])
    torch.testing.assert_close(found[1], guided(Gaussian(), CONDITIONS, scale=3)(X, times)[1])


def test_impossible_guidance_is_refused() -> None:
    with pytest.raises(InputError, match=r"sampler.guidance must be ≥ 0, got -1"):
        guided(Gaussian(), CONDITIONS, scale=-1)
    with pytest.raises(InputError, match="nan"):
        guided(Gaussian(), CONDITIONS, scale=float("nan"))
    with pytest.raises(InputError, match="in the order low, high"):
        guided(Gaussian(), CONDITIONS, scale=2, interval=(2.0, 1.0))
    with pytest.raises(InputError, match="one time and one prompt per image"):
        guided(Gaussian(), CONDITIONS, scale=2)(X[:2], T[:2])
