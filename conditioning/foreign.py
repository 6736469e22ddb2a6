"""Networks that other people made: read in one guard, without a word of libraries, and no larger than their files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from medphantom.core.errors import InputError
from medphantom.core.guard import reading
from medphantom.learning.headers import no_more_weights_than

TIMES = 4  # libraries make a network, and again as it is filled
SPARE = 2**20  # weights that are made beside those of a base


@contextmanager
def foreign_networks(
    what: str,
    problem: str = "cannot be read",
    remedy: str = "bring it again",
    *,
    source: str,
    folders: Sequence[Path] = (),
) -> Iterator[None]:
    """Whatever a library raises over files of others becomes one line, and nothing that it says is printed.

    While a folder is read no hub is asked, whatever its files name.

    Put nothing but the reading of these files into the block.

    Args:
        what: the network or folder as the user named it.
        problem: what is wrong, after ``what``.
        remedy: what to do about it.
        source: folder, or hub id.
        folders: that hold the weights; networks that the block builds may not be larger. None: not known beforehand.

    Raises:
        InputError: as said.
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
    """Each request of the hub's library is refused, as under HF_HUB_OFFLINE, which it reads once and long before."""
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
    from transformers.utils import logging as of_transformers

    libraries: tuple[Any, ...] = (of_diffusers, of_transformers)
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
