"""Jobs for worker processes, some of which do not survive; in a module of their own so that workers can import them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(number: int) -> int:
    """A harmless job, slower for even numbers so that results come out of order."""
    if number % 2 == 0:
        time.sleep(0.01)
    return number * number


def square_or_die(number: int) -> int:
    """Dies of a segmentation fault at 13, leaves at 17, and hangs at 23 where no Python handler would run."""
    if number == 13:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 17:
        os._exit(3)
    if number == 23:
        time.sleep(60)
    return number * number


def output_is_silenced(descriptor: int) -> bool:
    """Whether what a codec prints goes nowhere."""
    return os.path.samestat(os.fstat(descriptor), Path(os.devnull).stat())


def greedy(mib: int) -> str:
    """Takes memory."""
    try:
        return f"got {len(bytearray(mib * 2**20))}"
    except MemoryError:
        return "MemoryError"
