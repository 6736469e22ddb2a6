"""The files of a source: listed in a fixed order, with links that leave it refused and tables separated from images."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from medphantom.cohorts.readers.tasks import Refusal
from medphantom.core.errors import InputError, Reason
from medphantom.core.guard import user_path

TABLE_SUFFIXES = {".csv", ".tsv", ".tab", ".parquet", ".pq", ".xlsx", ".xls", ".ods"}

Refused = tuple[str, Refusal]


def walk(root: Path, exclude: Sequence[str] = (), *, follow_links: bool = False) -> tuple[list[str], list[Refused]]:
    """Return all files below a folder, as sorted relative POSIX paths, and those refused without being opened.

    A link to a file inside the folder counts as a file; a link that leaves it is refused, unless links are followed;
    linked folders are entered only then (one inside the source is found under its own path). Devices and pipes are
    never opened.

    Args:
        root: Folder that is listed.
        exclude: Patterns of paths that are left out (``*`` also matches ``/``).
        follow_links: Whether to follow links to files and folders anywhere; each folder is read once.

    Raises:
        InputError: If the folder does not exist or cannot be listed.
    """
    if not user_path(root).exists():
        raise InputError(f"{root} does not exist", "check the path of the source")
    base = root.resolve()
    files: list[str] = []
    refused: list[Refused] = []
    folders = [""]
    entered = {base}
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(base / folder), key=lambda entry: entry.name)
        except OSError:
            if not folder:
                raise InputError(f"{root} cannot be listed", "check its permissions") from None
            refused.append((folder, Refusal(Reason.BROKEN, "a folder that cannot be listed")))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if any(fnmatchcase(path, pattern) for pattern in exclude):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
                continue
            if follow_links and entry.is_dir():
                target = (base / path).resolve()
                if not target.is_relative_to(base) and target not in entered:
                    entered.add(target)
                    folders.append(path)
                continue
            refusal = _refusal(base, base / path, entry, follow_links=follow_links)
            if refusal is not None:
                refused.append((path, refusal))
            elif not entry.is_dir():
                files.append(path)
    return sorted(files), sorted(refused, key=lambda item: item[0])


def _refusal(base: Path, path: Path, entry: os.DirEntry[str], *, follow_links: bool) -> Refusal | None:
    try:
        if entry.is_symlink() and not follow_links and not path.resolve(strict=True).is_relative_to(base):
            return Refusal(Reason.OUTSIDE_SOURCE, "a link that leaves the source folder; follow_links reads it")
        mode = entry.stat().st_mode
    except (OSError, RuntimeError):
        return Refusal(Reason.BROKEN, "a broken link, or a file that cannot be accessed")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return Refusal(Reason.NOT_AN_IMAGE, "a device, pipe or socket")
    return None


def find_path(given: Path, root: Path) -> Path:
    """Return a path given by the user: a relative one is searched in the source first, then in the working folder."""
    return given if given.is_absolute() or not user_path(given, base=root).exists() else root / given


def table_candidates(files: Sequence[str]) -> list[str]:
    """Return the tables at the top of the source."""
    return [path for path in files if "/" not in path and PurePosixPath(path).suffix.lower() in TABLE_SUFFIXES]


def common_folder(paths: Sequence[str]) -> str | None:
    """Return the folder that directly contains all paths, if there is one."""
    folders = {str(PurePosixPath(path).parent) for path in paths}
    return folders.pop() if len(folders) == 1 else None


def batches_of(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield consecutive parts of a list."""
    for start in range(0, len(paths), size):
        yield paths[start : start + size]
