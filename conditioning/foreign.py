"""External networks: read in one guard, without output of their libraries, and no larger than their files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from medphantom.core.errors import InputError
from medphantom.core.extras import importable
from medphantom.core.guard import reading
from medphantom.learning.headers import no_more_weights_than

TIMES = 4  # libraries create a network, and again while loading it
SPARE = 2**20  # weights that are created in addition to those of a base


@contextmanager
def foreign_networks(
    what: str,
    problem: str = "cannot be read",
    remedy: str = "provide it again",
    *,
    source: str,
    folders: Sequence[Path] = (),
) -> Iterator[None]:
    """Turn whatever a library raises on external files into one line, and suppress its output.

    While a folder is read, no hub is contacted, whatever its files name.

    Only the reading of these files should be in the block.

    Args:
        what: Network or folder as the user named it.
        problem: Predicate that follows ``what`` in the message.
        remedy: What to do about it.
        source: Folder or hub id.
        folders: Folders with the weights; networks that the block builds may not be larger. Empty if not known in
            advance.

    Raises:
        InputError: If the block fails.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet_libraries())
        if Path(source).is_dir():
            stack.enter_context(no_hub())
        stack.enter_context(reading(what, InputError, problem, remedy))
        if folders:
            stack.enter_context(no_more_weights_than(folders, InputError, remedy, times=TIMES, spare=SPARE))
        yield


@contextmanager
def no_hub() -> Iterator[None]:
    """Refuse all requests of the hub's library, as under HF_HUB_OFFLINE, which the library reads only once."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    from diffusers.utils import logging as of_diffusers

    libraries: tuple[Any, ...] = (of_diffusers,)
    if importable("transformers"):
        from transformers.utils import logging as of_transformers

        libraries = (of_diffusers, of_transformers)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (level, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(level)
            if bars:
                library.enable_progress_bar()
