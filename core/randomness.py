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
    """A 63-bit seed for one purpose of one run; the same arguments give the same seed on every machine."""
    text = "\0".join(str(part) for part in (run_seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(run_seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`; draws are made on the CPU so that they match on every device."""
    import torch

    return torch.Generator().manual_seed(derive_seed(run_seed, *purpose))


def secret_numbers(key: str, *purpose: str | int) -> np.random.Generator:
    """A generator for what must stay secret, of 128 bits of the key; torch's own on the CPU uses 32 bits of a seed."""
    text = "\0".join(str(part) for part in (key, *purpose))
    return np.random.Generator(np.random.Philox(key=int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")))


@contextmanager
def seeded_layers(device: torch.device, seed: int) -> Iterator[None]:
    """Layers such as dropout draw from the global generator: seed it for the block, and put it back after."""
    import torch

    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        # Not torch.manual_seed: without CUDA it takes 1 ms and queues a call with its stack trace for ever.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed(seed)
        yield


def stream_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose; the same arguments give the same seed on every machine."""
    text = "\0".join(str(part) for part in ("phantom", seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """A generator for one purpose. Philox is counter-based: it is cheap to make and the same on every machine."""
    return np.random.Generator(np.random.Philox(stream_seed(seed, *purpose)))
