"""How long work tells whoever watches how far it is; the watcher decides what that looks like."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by long work."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Take note of progress.

        Args:
            done: units finished so far.
            total: units in all; 0 while unknown.
            what: short name of the current work, without anything from a source image.
        """


def stage(progress: Progress | None, number: int, total_stages: int) -> Progress | None:
    """What stage ``number`` (from 0) of several equally long ones should call."""
    if progress is None:
        return None
    whole = progress

    def tell(done: int, total: int, what: str = "") -> None:
        share = done / total if total else 0.0
        whole(int(1000 * (number + share)), 1000 * total_stages, what)

    return tell
