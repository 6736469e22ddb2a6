"""Seeds that derive from (run seed, purpose, step or image), so that nothing has to be restored to resume."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(run_seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose of one run; equal arguments give equal seeds on every machine."""
    text = "\0".join(str(part) for part in (run_seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(run_seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator seeded by :func:`derive_seed`; numbers are drawn on the CPU so that all devices agree."""
    import torch

    return torch.Generator().manual_seed(derive_seed(run_seed, *purpose))


def secret_numbers(key: str, *purpose: str | int) -> np.random.Generator:
    """Return a generator for secret numbers, seeded by 128 bits of the key; torch's CPU generator uses only 32 bits."""
    text = "\0".join(str(part) for part in (key, *purpose))
    return np.random.Generator(np.random.Philox(key=int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")))


@contextmanager
def seeded_layers(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global generator, from which layers such as dropout draw, for the block, and restore it afterwards."""
    import torch

    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        # Not torch.manual_seed: without CUDA it takes 1 ms and queues a call with its stack trace for ever.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed(seed)
        yield


def stream_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose; equal arguments give equal seeds on every machine."""
    text = "\0".join(str(part) for part in ("phantom", seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a generator for one purpose: Philox, which is counter-based, cheap to create and portable."""
    return np.random.Generator(np.random.Philox(stream_seed(seed, *purpose)))
