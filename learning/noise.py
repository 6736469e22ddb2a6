"""Gaussian noise from a key, in blocks that several cores draw at once; the same numbers however many they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from medphantom.core.randomness import secret_numbers

BLOCK = 1 << 16  # numbers, which stay in a core's cache
SUMMED = 4
SCHEME = "blocks of 65536, sums of 4"  # of the numbers that a key stands for


def secret_noise(key: str, *purpose: str | int, total: int, deviation: float) -> Tensor:
    """Independent Gaussian numbers, float32 ``(total,)`` on the CPU, so that every device repeats them alike.

    Each is a sum of four, against attacks on how floats are drawn (Holohan & Braghin 2021, section 5.1).

    Args:
        key: what must stay secret.
        purpose: of these numbers; each purpose has its own.
        total: how many.
        deviation: their standard deviation.
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
