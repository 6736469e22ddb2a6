"""Gaussian noise from a key, drawn in blocks on several cores; the numbers do not depend on the number of cores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from medphantom.core.randomness import secret_numbers

BLOCK = 1 << 16  # numbers per block, which fit a core's cache
SUMMED = 4
SCHEME = "blocks of 65536, sums of 4"  # how a key determines the numbers


def secret_noise(key: str, *purpose: str | int, total: int, deviation: float) -> Tensor:
    """Return independent Gaussian numbers, float32 ``(total,)``, drawn on the CPU so that all devices agree.

    Each is a sum of four, against attacks on the sampling of floats (Holohan & Braghin 2021, section 5.1).

    Args:
        key: Secret key of the generator.
        purpose: Purpose of the numbers; each purpose has its own numbers.
        total: Number of values to draw.
        deviation: Standard deviation of the values.
    """
    noise = np.zeros(total, dtype=np.float32)
    if deviation == 0:
        return torch.from_numpy(noise)

    def fill(start: int) -> None:
        part = noise[start : start + BLOCK]
        random, drawn = secret_numbers(key, *purpose, start), np.empty(len(part))
        summed = random.standard_normal(len(part))
        for _ in range(SUMMED - 1):
            random.standard_normal(out=drawn)
            summed += drawn
        part[:] = summed * (deviation / SUMMED**0.5)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, range(0, total, BLOCK)))
    return torch.from_numpy(noise)
