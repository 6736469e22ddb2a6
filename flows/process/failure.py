"""The handling of errors: one line for the user; details stay in a private file on this machine."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medphantom.core.access import private_folder
from medphantom.core.errors import MedphantomError, ResourceError

ERROR_LOG = "error.log"
DEBUG_VARIABLE = "MEDPHANTOM_DEBUG"  # set: errors pass as they are


class UnexpectedFailure(Exception):
    """A fault of this program. Its message contains only the type of the error, because the text may quote a source
    file.
    """


def memory_ran_out(error: BaseException) -> bool:
    """Return whether host or accelerator memory was insufficient, which the type's name shows without loading torch."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


@contextmanager
def reported(what: str, folder: Path) -> Iterator[None]:
    """Turn any error in the block into one whose text may be shown anywhere.

    Args:
        what: The name of the work.
        folder: The folder for ``error.log`` with the traceback, which only its owner can read.

    Raises:
        MedphantomError: An error of this kind passes unchanged, without its causes.
        ResourceError: Memory or disk space ran out.
        UnexpectedFailure: Anything else went wrong.
    """
    try:
        yield
    except MedphantomError as error:
        error.__cause__, error.__suppress_context__ = None, True
        raise
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        if memory_ran_out(error):
            raise ResourceError(
                f"memory did not suffice for {what}", "lower a batch_size, or raise its accumulate"
            ) from None
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ResourceError(f"the disk was full during {what}", "free some space and run again") from None
        log = _write_log(folder)
        raise UnexpectedFailure(
            f"{what} failed unexpectedly ({type(error).__name__}); the details are in {log}, "
            "which may quote source files: keep it private"
        ) from None


def _write_log(folder: Path) -> Path:
    log = folder / ERROR_LOG
    with suppress(OSError):
        private_folder(folder)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(traceback.format_exc())
    return log
