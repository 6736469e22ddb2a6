"""Settings under which the same call gives the same bits: thread count, and on CUDA deterministic kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Compute with so many CPU threads, and put the former number back.

    A sum that is split over another number of threads is rounded differently. On CUDA, convolutions are chosen by rule
    instead of by timing, and without TF32.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
