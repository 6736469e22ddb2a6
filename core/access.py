"""Who may read what is written: its owner alone, whatever the umask, unless it is made to be shared.

Runs, cohorts, work, state and partial folders hold patients. While :func:`private_files` is entered, every file of this
process and its children has mode 600 and every folder 700, whichever library writes it; what is made to leave is given
the user's own umask back by :func:`share`.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PRIVATE_UMASK = 0o077
PRIVATE_FOLDER = 0o700
UMASK_VARIABLE = "MEDPHANTOM_UMASK"  # the user's umask, for processes that inherit ours

log = logging.getLogger(__name__)


class _Umask:
    """The umask of the process, which all its threads share: the first that needs it sets it, the last restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._before = 0
        self._ours = False

    def enter(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._before = os.umask(PRIVATE_UMASK)
                self._ours = UMASK_VARIABLE not in os.environ
                if self._ours:
                    os.environ[UMASK_VARIABLE] = f"{self._before:o}"
            self._depth += 1

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                os.umask(self._before)
                if self._ours:
                    os.environ.pop(UMASK_VARIABLE, None)


_umask = _Umask()


@contextmanager
def private_files() -> Iterator[None]:
    """Whatever the block writes, also in threads and child processes, is readable by its owner only."""
    _umask.enter()
    try:
        yield
    finally:
        _umask.leave()


def users_umask() -> int:
    """The umask that the user has set, also while :func:`private_files` is entered."""
    with private_files():
        try:
            return int(os.environ[UMASK_VARIABLE], 8) & 0o777
        except (KeyError, ValueError):
            return PRIVATE_UMASK


def private_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, for their owner only; one that was readable is tightened.

    Args:
        path: the folder. What lay in it before is told of in one line when others could have read it.

    Raises:
        OSError: it cannot be made.
    """
    with private_files():
        path.mkdir(parents=True, exist_ok=True)
    facts = path.stat()
    if facts.st_mode & PRIVATE_UMASK and facts.st_uid == os.geteuid():
        if open_to_others(path) and any(path.iterdir()):
            log.warning("%s could be read by other users of this machine; from now on only by its owner", path)
        with suppress(OSError):  # a file system without modes
            path.chmod(PRIVATE_FOLDER)
    return path


def share(path: Path) -> None:
    """Let a file, or a folder with all in it, be read by whom the user's umask allows.

    Args:
        path: made by us for others; nothing in it may be private. Links are left as they are.
    """
    umask = users_umask()
    if path.is_file():
        path.chmod(0o666 & ~umask)
        return
    for folder, _, names in os.walk(path):
        Path(folder).chmod(0o777 & ~umask)
        for name in names:
            file = Path(folder) / name
            if not file.is_symlink():
                file.chmod(0o666 & ~umask)


def shared_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, as the user's umask says."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    with private_files():
        path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        folder.chmod(0o777 & ~users_umask())


def open_to_others(path: Path) -> bool:
    """Whether other users of this machine can come into a folder: its own mode and those above it let them."""
    try:
        own = path.stat()
        above = [folder.stat().st_mode for folder in path.resolve().parents]
    except OSError:
        return False
    enter = stat.S_IXGRP | stat.S_IXOTH
    return bool(own.st_mode & (enter | stat.S_IRGRP | stat.S_IROTH)) and all(mode & enter for mode in above)


_told: set[Path] = set()


def warn_when_open(path: Path) -> None:
    """Say in one line, once, that a folder with patients, made by an older version or copied, is open to others."""
    place = path.resolve()
    if place not in _told and open_to_others(place):
        _told.add(place)
        log.warning("%s shows patients and can be read by other users of this machine; chmod -R go= %s", path, path)
