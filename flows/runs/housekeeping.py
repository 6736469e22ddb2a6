"""The preparation of every verb: remove what killed processes left behind, and warn of files that others can read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medphantom.core.access import warn_when_open
from medphantom.core.staging import remove_all_leftovers


def keeping_house(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a verb so that it first cleans up the folders that it was given."""

    @functools.wraps(verb)
    def kept(**options: Any) -> Any:
        from medphantom.flows.runs.artifact import STAGES_FILE  # which brings NumPy: --help does without

        remove_all_leftovers(_paths(options.values()))
        for place in _paths(value for name, value in options.items() if name != "out"):
            if (place / STAGES_FILE).is_file():
                warn_when_open(place)
        return verb(**options)

    return kept


def _paths(values: Any) -> Iterator[Path]:
    for value in values:
        if isinstance(value, Path):
            yield value
        elif isinstance(value, list):
            yield from _paths(value)
