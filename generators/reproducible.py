"""Settings under which equal calls give equal bits: thread count, and on CUDA deterministic kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Compute with this number of CPU threads, and restore the previous number afterwards.

    Splitting a sum over another number of threads changes its rounding. On CUDA, convolutions are selected by a fixed
    rule instead of by timing, and without TF32.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
