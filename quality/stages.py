"""Progress of one stage as progress of the whole that it is part of."""

from __future__ import annotations

from cohorts.progress import Progress


def stage(progress: Progress | None, number: int, total_stages: int) -> Progress | None:
    """What stage ``number`` (from 0) of several equally long ones should call."""
    if progress is None:
        return None
    whole = progress

    def tell(done: int, total: int, what: str = "") -> None:
        share = done / total if total else 0.0
        whole(int(1000 * (number + share)), 1000 * total_stages, what)

    return tell
