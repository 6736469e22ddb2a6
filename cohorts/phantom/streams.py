"""Independent random streams: one per purpose and patient, so that patient k is the same whatever else is drawn."""

from __future__ import annotations

import hashlib

import numpy as np


def stream_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose; the same arguments give the same seed on every machine."""
    text = "\0".join(str(part) for part in ("phantom", seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """A generator for one purpose. Philox is counter-based: it is cheap to make and the same on every machine."""
    return np.random.Generator(np.random.Philox(stream_seed(seed, *purpose)))
