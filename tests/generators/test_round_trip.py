from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medphantom.generators.round_trip import round_trip

NAMES = ("speckle", "bright", "rare")


class Blur(nn.Module):
    """An autoencoder that keeps means of blocks: coarse brightness passes, fine texture does not."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block
        self.weight = nn.Parameter(torch.zeros(1))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        means = F.avg_pool2d(images, self.block)
        return means, torch.zeros_like(means)

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents, scale_factor=self.block, mode="nearest")

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return super().parameters(recurse)


def data(total: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with fine speckle or not, brighter or not, and one label that nearly none shows."""
    rng = np.random.default_rng(seed)
    states = np.stack([rng.integers(0, 2, total), rng.integers(0, 2, total), np.arange(total) < 3], axis=1)
    states = states.astype(np.int64)
    noise = rng.normal(0, 1, (total, 1, 16, 16))
    speckle = noise - noise.reshape(total, 1, 4, 4, 4, 4).mean(axis=(3, 5), keepdims=True).repeat(4, 3).repeat(
        4, 5
    ).reshape(total, 1, 16, 16)
    level = rng.normal(0, 0.05, (total, 1, 1, 1)) + 0.3 * states[:, 1].reshape(-1, 1, 1, 1)
    amplitude = 0.05 + 0.15 * states[:, 0].reshape(-1, 1, 1, 1)
    return np.clip(level + amplitude * speckle, -1, 1).astype(np.float32), states


def test_what_an_autoencoder_hides_is_named(caplog: pytest.LogCaptureFixture) -> None:
    train, val = data(120, 0), data(120, 1)
    images, states = {"train": train[0], "val": val[0]}, {"train": train[1], "val": val[1]}
    with caplog.at_level(logging.WARNING):
        found = round_trip(Blur(4), images, states, NAMES, seed=0)
    assert found.hidden == ("speckle",)
    assert [row["label"] for row in found.labels] == ["speckle", "bright"]  # three images say nothing of the third
    scores = {row["label"]: row for row in found.labels}
    assert scores["speckle"]["before"] > 0.95
    assert scores["speckle"]["after"] < 0.65
    assert scores["bright"]["after"] > 0.95
    assert scores["bright"]["n"] == 120
    (message,) = caplog.messages
    assert message.startswith("the base's autoencoder hides speckle: classification is worse after reconstruction; use")
    back = F.interpolate(F.avg_pool2d(torch.from_numpy(val[0]), 4), scale_factor=4).numpy()
    assert found.l1 == pytest.approx(float(np.abs(back - val[0]).mean()), rel=1e-5)


def test_an_autoencoder_that_changes_nothing_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    train, val = data(120, 0), data(120, 1)
    images, states = {"train": train[0], "val": val[0]}, {"train": train[1], "val": val[1]}
    states["val"][::2] = 2  # not observed: does not count
    found = round_trip(Blur(1), images, states, NAMES, seed=0)
    assert found.l1 == 0
    assert found.hidden == ()
    assert all(row["before"] == row["after"] and row["n"] == 60 for row in found.labels)
    assert not caplog.messages
