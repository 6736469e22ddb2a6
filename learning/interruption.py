"""An interruption of a fit waits for the end of the step, so that the checkpoint written then is whole.

Ctrl-C (SIGINT) and SIGTERM otherwise raise an exception in the middle of a step, where some weights have moved and
others have not.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
_kept: list[str] = []
PATIENCE_S = 5.0
"""Longest wait for the end of a step, in seconds: whoever sends SIGTERM sends SIGKILL some seconds later."""


def last_kept() -> str:
    """Return what the last interruption in this process kept, in words; empty if nothing was.

    The exception that ends a verb carries the same note, unless whatever runs the verb replaces it, as Prefect does.
    """
    return "".join(_kept)


class Postponed:
    """A block in which SIGINT and SIGTERM are held back, for at most :data:`PATIENCE_S`; a second one acts at once.

    Outside of the main thread, and for signals whose handlers are not Python functions, nothing is held back.

    Attributes:
        requested: Whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.requested = False
        self._arrived: tuple[int, FrameType | None] | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if callable(before):
                    self._handlers[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._deliver()  # what came after the last look

    def raise_now(self, note: str) -> None:
        """Do what the signal would have done when it arrived, if there was one.

        Args:
            note: Note for the exception that the signal's handler raises: what is kept; empty means no note.
        """
        if self._arrived is not None:
            _kept[:] = [note]
        try:
            self._deliver()
        except BaseException as ending:
            if note:
                ending.add_note(note)
            raise

    def _receive(self, number: int, frame: FrameType | None) -> None:
        insisted, self.requested, self._arrived = self.requested, True, (number, frame)
        if insisted:
            self._deliver()
            return
        timer = threading.Timer(PATIENCE_S, self._insist, (number,))
        timer.daemon = True
        timer.start()

    def _insist(self, number: int) -> None:
        if self._arrived is not None:
            os.kill(os.getpid(), number)

    def _deliver(self) -> None:
        if self._arrived is not None:
            (number, frame), self._arrived = self._arrived, None
            self._handlers[number](number, frame)
