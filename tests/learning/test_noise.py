"""Noise from a key: Gaussian, the same on every machine, another for every purpose and block."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from medphantom.learning.noise import BLOCK, secret_noise

KEY = "a" * 32


def test_it_is_gaussian_of_the_requested_deviation() -> None:
    noise = secret_noise(KEY, "noise", 0, total=3 * BLOCK + 5, deviation=2.5)
    assert stats.kstest(noise.numpy()[::7] / 2.5, "norm").pvalue > 0.001
    assert float(noise.std()) == pytest.approx(2.5, rel=4 / (2 * len(noise)) ** 0.5)


def test_it_is_the_same_however_many_cores_draw_it() -> None:
    before = torch.get_num_threads()
    drawn = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            drawn.append(secret_noise(KEY, "noise", 0, total=2 * BLOCK + 1, deviation=1.0))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*drawn)


def test_blocks_steps_and_keys_have_noise_of_their_own() -> None:
    noise = secret_noise(KEY, "noise", 0, total=2 * BLOCK, deviation=1.0)
    others = [
        noise[BLOCK:],
        secret_noise(KEY, "noise", 1, total=BLOCK, deviation=1.0),
        secret_noise("b" + KEY[1:], "noise", 0, total=BLOCK, deviation=1.0),
    ]
    for other in others:
        correlation = float(torch.corrcoef(torch.stack([noise[:BLOCK], other]))[0, 1])
        assert abs(correlation) < 4 / BLOCK**0.5


def test_without_a_deviation_there_is_none() -> None:
    assert secret_noise(KEY, "noise", 0, total=5, deviation=0).tolist() == [0.0] * 5
