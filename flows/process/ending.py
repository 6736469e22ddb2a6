"""SIGTERM, as sent by a service manager or a batch system, ends a verb in order: partial folders go, checkpoints stay.

A scheduled run is a process of its own, which Prefect would let run on for hours after its schedule was stopped. It
ends itself when a file tells it to, or when the serving process is gone for whatever reason.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

STATUS_TERMINATED = 143
STOP_VARIABLE = "MEDPHANTOM_STOP_FILE"  # for processes of scheduled runs: end yourself once this file is there
SECONDS_PER_LOOK = 0.3
SECONDS_FOR_A_RUN = 4.0  # to tell Prefect that it ends, and to remove its partial folders
SECONDS_FOR_ALL = 8.0


class Terminated(BaseException):
    """SIGTERM requested the end of this process. This is no error, and no handler of errors catches it."""


class Interrupted(BaseException):
    """Ctrl-C requested the end of a verb, which typer would turn into a bare status."""


def _raise(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    leave_within(SECONDS_FOR_ALL)  # an exception may also be lost, in the callback of a weak reference
    raise Terminated


def leave_within(seconds: float) -> None:
    """End this process after a number of seconds unless it ends before; unfinished output is not yet in its place."""
    threading.Thread(target=_leave, args=(seconds,), daemon=True).start()


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated` in the block, where it would otherwise kill the process at once."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Stopping:
    """The end of a schedule and of its current run, within :data:`SECONDS_FOR_ALL`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def begin(self) -> None:
        """Let a scheduled run end itself; if that takes too long, end this process and all others with it."""
        if not self._file.exists():
            self._file.touch()
            leave_within(SECONDS_FOR_ALL)


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Tell the processes that are started in the block how they will be notified of its end."""
    with tempfile.TemporaryDirectory(prefix="medphantom-") as folder:
        file = Path(folder) / "stop"
        os.environ[STOP_VARIABLE] = str(file)
        try:
            yield Stopping(file)
        finally:
            os.environ.pop(STOP_VARIABLE, None)


def end_when_told() -> None:
    """Watch for the end of the schedule in a process that it has started; in any other process do nothing."""
    file = os.environ.pop(STOP_VARIABLE, None)  # it says nothing to processes of this one
    if file is not None:
        threading.Thread(target=_watch, args=(Path(file), os.getppid()), daemon=True).start()


def _watch(file: Path, parent: int) -> None:
    while os.getppid() == parent and not file.exists():
        time.sleep(SECONDS_PER_LOOK)
    leave_within(SECONDS_FOR_A_RUN)
    while True:  # Prefect turns it into an exception in the main thread, which may be lost there
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_FOR_A_RUN / 2)


def _leave(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(STATUS_TERMINATED)
