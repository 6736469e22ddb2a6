"""Progress on the console: bars on a terminal and occasional lines elsewhere, always with the time left."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from medphantom.core.errors import MedphantomWarning
from medphantom.core.plain import plain_line, plain_output, printable, raw_stream
from medphantom.core.progress import Progress

SECONDS_PER_LINE = 15.0


class ProgressView(Protocol):
    """Shows the progress of one stage after another."""

    def stage(self, name: str) -> Progress:
        """Begin a stage and return a function that shows its progress."""

    def note(self, text: str) -> None:
        """Print a line without disturbing the bars."""


def clock(seconds: float) -> str:
    """Format a duration for readers: ``8 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Silent:
    """A view that shows nothing."""

    def stage(self, name: str) -> Progress:
        """Return a progress function that does nothing."""
        del name
        return ignore

    def note(self, text: str) -> None:
        """Ignore the line."""


def ignore(done: int, total: int, what: str = "") -> None:
    """Ignore the progress."""
    del done, total, what


class Phase:
    """One run of a counter from its first to its last unit; a stage may consist of several."""

    def __init__(self, total: int, done: int, now: float) -> None:
        self.total = total
        self.done = done
        self._first = done
        self._started = now

    def goes_on(self, done: int, total: int) -> bool:
        """Return whether a report belongs to this phase."""
        return total == self.total and done >= self.done

    def seconds_left(self, now: float) -> float | None:
        """Return the time left at the mean speed so far, or ``None`` if it is unknown."""
        units, seconds = self.done - self._first, now - self._started
        if units <= 0 or self.total <= 0:
            return None
        return seconds / units * (self.total - self.done)


class LineView:
    """A view that writes a line of text at intervals, for logs and pipes.

    Args:
        say: The function that receives each line.
        every_s: The number of seconds between lines.
        now: The clock, in seconds.
    """

    def __init__(
        self,
        say: Callable[[str], None] | None = None,
        every_s: float = SECONDS_PER_LINE,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say or _print
        self._every_s = every_s
        self._now = now

    def stage(self, name: str) -> Progress:
        """Show the progress of one stage as lines ``train: denoiser 120/2000 (6 %), 3 min 20 s left``."""
        phase: Phase | None = None
        last_line = -float("inf")

        def report(done: int, total: int, what: str = "") -> None:
            nonlocal phase, last_line
            now = self._now()
            if phase is None or not phase.goes_on(done, total):
                phase = Phase(total, done, now)
            phase.done = done
            if now - last_line < self._every_s and not (total and done == total):
                return
            last_line = now
            left = phase.seconds_left(now)
            share = f" ({100 * done // total} %)" if total else ""
            ahead = f", {clock(left)} left" if left and done < total else ""
            counted = f"{done}/{total}" if total else f"{done}"
            self.note(f"{name}: {what + ' ' if what else ''}{counted}{share}{ahead}")

        return report

    def note(self, text: str) -> None:
        """Write a line."""
        self._say(printable(text))  # it may go to Prefect's log, or to a notebook


def _print(text: str) -> None:
    print(text, flush=True)


class BarView:
    """A view that shows bars with the time left on a terminal. Use it as a context manager through :func:`watching`."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self.bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]:<9}"),
            TextColumn("{task.description:<28.28}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(file=raw_stream(sys.stdout)),  # it moves the cursor; its texts are made plain here
            refresh_per_second=4,
        )

    def stage(self, name: str) -> Progress:
        """Show a bar for each phase of the stage."""
        phase: Phase | None = None
        task = self.bars.add_task("", total=None, stage=name)

        def report(done: int, total: int, what: str = "") -> None:
            nonlocal phase, task
            if phase is not None and not phase.goes_on(done, total):
                task = self.bars.add_task("", total=None, stage=name)
                phase = None
            if phase is None:
                phase = Phase(total, done, time.monotonic())
                self.bars.reset(task, total=total or None, completed=done)
            phase.done = done
            self.bars.update(task, completed=done, description=plain_line(what))

        return report

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self.bars.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


_watcher: ContextVar[ProgressView | None] = ContextVar("medphantom_progress", default=None)


def watcher() -> ProgressView:
    """Return the view that watches the present work; by default it shows nothing."""
    return _watcher.get() or Silent()


def warn(text: str, where: str) -> None:
    """Show a warning in the view that watches the present work, or as a Python warning if there is none.

    Args:
        text: The text of the warning, which contains nothing of a source image.
        where: The name of the operation.
    """
    view = watcher()
    if isinstance(view, Silent):
        warnings.warn(f"{where}: {text}", MedphantomWarning, stacklevel=3)
    else:
        view.note(f"{where}: warning: {text}")


@contextmanager
def watching(view: ProgressView | None = None) -> Iterator[ProgressView]:
    """Let ``view`` (by default bars on a terminal, lines elsewhere) watch the work of the block."""
    chosen = view or (BarView() if sys.stdout.isatty() else LineView())
    token = _watcher.set(chosen)
    try:
        if isinstance(chosen, BarView):
            with chosen.bars, plain_output():  # the bars put what is printed above them
                yield chosen
        else:
            yield chosen
    finally:
        _watcher.reset(token)
