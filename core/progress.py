"""How long-running work reports its progress; the receiver decides how to display it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A callback that long-running work calls from time to time."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Report progress.

        Args:
            done: Units finished so far.
            total: Total number of units; 0 while unknown.
            what: Short name of the current work, without any content of a source image.
        """


def stage(progress: Progress | None, number: int, total_stages: int) -> Progress | None:
    """Return the callback for stage ``number`` (from 0) of several stages of equal length."""
    if progress is None:
        return None
    whole = progress

    def tell(done: int, total: int, what: str = "") -> None:
        share = done / total if total else 0.0
        whole(int(1000 * (number + share)), 1000 * total_stages, what)

    return tell
