"""Temporary files and folders that are written beside their target and then moved, and what killed processes left.

They contain patient data. Their writer holds a lock (``flock``, which ends with the process however it ends), so the
next run in the same folder can tell abandoned ones from those in use without guessing from process ids.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medphantom.core.access import private_files
from medphantom.core.errors import ResourceError

LOCK_FILE = ".medphantom-lock"

_FOLDER = re.compile(r"\..*\.medphantom-partial-[a-z0-9_]{8}")
_FILE = re.compile(r"\..*\.medphantom-tmp-[a-z0-9_]{8}")
_OF_OLDER_VERSIONS = re.compile(r"\..+\.(?:partial|tmp|replaced)-(\d{1,7})")
_SHOWN_OF_A_NAME = 40


@contextmanager
def staging(place: Path) -> Iterator[Path]:
    """Yield a private hidden folder beside ``place`` that is removed after the block.

    The parent folder of ``place`` must exist. What killed processes have left in it is removed first.

    Raises:
        ResourceError: If nothing can be created there.
    """
    remove_leftovers(place.parent)
    with private_files():
        folder, lock = _locked_folder(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path`` that replaces it if the block succeeds and is removed if it fails."""
    with private_files():
        temporary, lock = _locked_file(path)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(lock)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this user left in a folder, but not in its subfolders."""
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.startswith(".")]
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        with suppress(OSError):
            if entry.stat(follow_symlinks=False).st_uid != os.geteuid() or entry.is_symlink():
                continue
            if entry.is_dir() and _FOLDER.fullmatch(entry.name):
                _remove_folder(path)
            elif entry.is_file() and _FILE.fullmatch(entry.name):
                _remove_file(path)
            elif (found := _OF_OLDER_VERSIONS.fullmatch(entry.name)) and not _runs(int(found[1])):
                shutil.rmtree(path, ignore_errors=True) if entry.is_dir() else path.unlink()


def remove_all_leftovers(places: Iterable[Path]) -> None:
    """Remove what killed processes left beside these paths and in the work folders that belong to them.

    Args:
        places: Files or folders that were passed to a command; they need not exist.
    """
    for place in {path.absolute() for path in places}:
        remove_leftovers(place.parent)
        for work in (place / "work", place.with_name(f"{place.name}.work")):
            if not work.is_dir():
                continue
            remove_leftovers(place)
            for folder, below, names in os.walk(work):
                remove_leftovers(Path(folder))
                if "digest.json" in names:  # published: nothing is written in it
                    below.clear()


def _locked_folder(place: Path) -> tuple[Path, int]:
    while True:
        prefix = f".{place.name[:_SHOWN_OF_A_NAME]}.medphantom-partial-"
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place.parent))
        except (FileNotFoundError, NotADirectoryError):
            what = f"{place.parent} cannot be created"
            raise ResourceError(what, "choose another folder with --out") from None
        file = folder / LOCK_FILE
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:  # another process took the empty folder for a leftover
            continue
        if _hold(lock, file, wait=True):
            return folder, lock
        os.close(lock)


def _locked_file(path: Path) -> tuple[Path, int]:
    while True:
        lock, name = tempfile.mkstemp(prefix=f".{path.name[:_SHOWN_OF_A_NAME]}.medphantom-tmp-", dir=path.parent)
        if _hold(lock, Path(name), wait=True):
            return Path(name), lock
        os.close(lock)


def _hold(lock: int, file: Path, *, wait: bool) -> bool:
    """Lock an open file; return ``False`` if another process holds it or the file is no longer at its path.

    Raises:
        OSError: If it cannot be locked at all or does not exist.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        if not wait:
            raise
        return True  # a file system without locks: no process will take what is written here for a leftover
    try:
        return os.path.samestat(os.fstat(lock), file.stat())
    except FileNotFoundError:
        return False


def _remove_folder(folder: Path) -> None:
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        folder.rmdir()  # empty: its owner died before the lock, or is about to make it and will take another
        return
    try:
        if _hold(lock, folder / LOCK_FILE, wait=False):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove_file(file: Path) -> None:
    lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if _hold(lock, file, wait=False):
            file.unlink()
    finally:
        os.close(lock)


def _runs(pid: int) -> bool:
    """Return whether a process with this id is running; older versions held no lock."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
