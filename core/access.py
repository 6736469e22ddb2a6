"""File permissions: what is written is readable by its owner only, whatever the umask, unless it is made to be shared.

Runs, cohorts, work folders, state and partial folders contain patient data. While :func:`private_files` is active,
every file that this process and its children write has mode 600 and every folder 700, whichever library writes it.
:func:`share` applies the user's own umask to whatever is meant to be passed on.
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
UMASK_VARIABLE = "MEDPHANTOM_UMASK"  # the user's umask, for child processes, which inherit the private one

log = logging.getLogger(__name__)


class _Umask:
    """The umask of the process, shared by its threads: the first that needs it sets it, the last restores it."""

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
    """Make everything that the block writes, also in threads and child processes, readable by its owner only."""
    _umask.enter()
    try:
        yield
    finally:
        _umask.leave()


def users_umask() -> int:
    """Return the umask that the user has set, also while :func:`private_files` is active."""
    with private_files():
        try:
            return int(os.environ[UMASK_VARIABLE], 8) & 0o777
        except (KeyError, ValueError):
            return PRIVATE_UMASK


def private_folder(path: Path) -> Path:
    """Create a folder and its missing parents for their owner only; restrict an existing folder that others can read.

    Args:
        path: Folder to create. If others could read an existing folder with content, one warning is logged.

    Raises:
        OSError: If the folder cannot be created.
    """
    with private_files():
        path.mkdir(parents=True, exist_ok=True)
    facts = path.stat()
    if facts.st_mode & PRIVATE_UMASK and facts.st_uid == os.geteuid():
        if open_to_others(path) and any(path.iterdir()):
            log.warning("%s could be read by other users of this machine; it is now restricted to its owner", path)
        with suppress(OSError):  # the file system has no modes
            path.chmod(PRIVATE_FOLDER)
    return path


def share(path: Path) -> None:
    """Give a file, or a folder with all its content, the permissions that the user's umask allows.

    Args:
        path: File or folder made for others; it must contain nothing private. Symbolic links are left unchanged.
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
    """Create a folder and its missing parents with the permissions that the user's umask allows."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    with private_files():
        path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        folder.chmod(0o777 & ~users_umask())


def open_to_others(path: Path) -> bool:
    """Return whether other users of this machine can enter a folder, given its own mode and those of its parents."""
    try:
        own = path.stat()
        above = [folder.stat().st_mode for folder in path.resolve().parents]
    except OSError:
        return False
    enter = stat.S_IXGRP | stat.S_IXOTH
    return bool(own.st_mode & (enter | stat.S_IRGRP | stat.S_IROTH)) and all(mode & enter for mode in above)


_warned: set[Path] = set()


def warn_when_open(path: Path) -> None:
    """Warn once about a folder with patient data that other users can read (made by an older version, or copied)."""
    place = path.resolve()
    if place not in _warned and open_to_others(place):
        _warned.add(place)
        log.warning(
            "%s contains patient data and can be read by other users of this machine; chmod -R go= %s", path, path
        )
