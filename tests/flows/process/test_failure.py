"""Errors that may be shown anywhere: no text of a source file, no cause that quotes one."""

from __future__ import annotations

import errno
import stat
import traceback
from pathlib import Path

import pytest

from medphantom.core.errors import InputError, ResourceError
from medphantom.flows.process.failure import UnexpectedFailure, reported

QUOTED = "Doe^Jane 1960-01-01"


def fail(error: BaseException, folder: Path) -> BaseException:
    with pytest.raises(BaseException) as caught, reported("ingest", folder):  # noqa: PT011 - any error is the point
        raise error
    return caught.value


def test_an_unexpected_error_names_its_type_only(tmp_path: Path) -> None:
    shown = fail(ValueError(QUOTED), tmp_path / "work")
    assert isinstance(shown, UnexpectedFailure)
    assert "ingest failed unexpectedly (ValueError)" in str(shown)
    assert QUOTED not in "".join(traceback.format_exception(shown))
    log = tmp_path / "work" / "error.log"
    assert QUOTED in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_an_error_of_ours_stays_but_loses_its_cause(tmp_path: Path) -> None:
    error = InputError("no such column", "give one")
    error.__cause__ = KeyError(QUOTED)
    shown = fail(error, tmp_path)
    assert shown is error
    assert QUOTED not in "".join(traceback.format_exception(shown))


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "memory did not suffice for ingest"),
        (OutOfMemoryError("CUDA out of memory"), "memory did not suffice for ingest"),
        (OSError(errno.ENOSPC, "No space left on device", f"/data/{QUOTED}"), "the disk was full during ingest"),
    ],
)
def test_what_the_machine_lacks_is_reported(tmp_path: Path, error: Exception, text: str) -> None:
    shown = fail(error, tmp_path)
    assert isinstance(shown, ResourceError)
    assert text in str(shown)
    assert QUOTED not in str(shown)


def test_interrupts_pass(tmp_path: Path) -> None:
    assert isinstance(fail(KeyboardInterrupt(), tmp_path), KeyboardInterrupt)
