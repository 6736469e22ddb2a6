"""The files of a source: walked in a fixed order, links that leave it refused, masks and tables told from images."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from cohorts.errors import InputError, Reason
from cohorts.readers.tasks import Refusal
from cohorts.table_join import FileKey, Join, RowIndex, stem

TABLE_SUFFIXES = {".csv", ".tsv", ".parquet", ".pq"}
IMAGE_FOLDERS = ("images", "imagesTr", "image")
MASK_FOLDERS = ("labels", "labelsTr", "masks", "mask", "segmentations")
SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
MANY_CLASSES = 64
_MASK_ENDING = re.compile(r"[_-](mask|seg|segmentation|label|labels)$", re.IGNORECASE)

Refused = tuple[str, Refusal]


def walk(root: Path, exclude: Sequence[str] = ()) -> tuple[list[str], list[Refused]]:
    """All files below a folder, as sorted relative POSIX paths, and what was refused without being opened.

    A link to a file inside the folder counts as a file; a link that leaves it is refused; linked folders are not
    entered (one inside the source is found under its own path). Devices and pipes are never opened.

    Args:
        root: the folder.
        exclude: patterns of paths that are left out (``*`` also matches ``/``).

    Raises:
        InputError: the folder does not exist or cannot be listed.
    """
    if not root.exists():
        raise InputError(f"{root} does not exist", "check the path of the source")
    base = root.resolve()
    files: list[str] = []
    refused: list[Refused] = []
    folders = [""]
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
            refusal = _refusal(base, base / path, entry)
            if refusal is not None:
                refused.append((path, refusal))
            elif not entry.is_dir():
                files.append(path)
    return sorted(files), sorted(refused, key=lambda item: item[0])


def _refusal(base: Path, path: Path, entry: os.DirEntry[str]) -> Refusal | None:
    try:
        if entry.is_symlink() and not path.resolve(strict=True).is_relative_to(base):
            return Refusal(Reason.OUTSIDE_SOURCE, "a link that leaves the source folder")
        mode = entry.stat().st_mode
    except (OSError, RuntimeError):
        return Refusal(Reason.BROKEN, "a link to nothing, or a file that cannot be looked at")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return Refusal(Reason.NOT_AN_IMAGE, "a device, pipe or socket")
    return None


def find_path(given: Path, root: Path) -> Path:
    """A path that the user gave: relative ones are looked for in the source first, then in the working folder."""
    return given if given.is_absolute() or not (root / given).exists() else root / given


def table_candidates(files: Sequence[str]) -> list[str]:
    """Tables at the top of the source."""
    return [path for path in files if "/" not in path and PurePosixPath(path).suffix.lower() in TABLE_SUFFIXES]


def mask_folder(files: Sequence[str]) -> str | None:
    """The folder of masks beside a folder of images at the top of the source, when there is one of each."""
    tops = {path.split("/", 1)[0] for path in files if "/" in path}
    masks = [name for name in MASK_FOLDERS if name in tops]
    return masks[0] if len(masks) == 1 and any(name in tops for name in IMAGE_FOLDERS) else None


def pair_masks(masks: Sequence[str], images: Sequence[FileKey]) -> Join:
    """Pair masks with images by relative path or name; ``x_mask`` and ``x_seg`` belong to ``x``."""
    cleaned = [_MASK_ENDING.sub("", stem(mask)) for mask in masks]
    return Join(RowIndex("path", cleaned, images), images)


def folder_classes(paths: Sequence[str]) -> list[str | None]:
    """The class that each path's folder names: the first one below what all share that is no split name."""
    parents = [PurePosixPath(path).parts[:-1] for path in paths]
    shared = 0
    for level in zip(*parents, strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    classes: list[str | None] = []
    for parts in parents:
        below = [part for part in parts[shared:] if part.lower() not in SPLIT_FOLDERS]
        classes.append(below[0] if below else None)
    return classes


def are_classes(classes: Sequence[str | None]) -> bool:
    """Whether folders look like classes: two or more, each image in one, far fewer than images."""
    names = set(classes)
    return None not in names and 2 <= len(names) <= min(MANY_CLASSES, len(classes) // 2)


def common_folder(paths: Sequence[str]) -> str | None:
    """The folder that directly holds all paths, if one does."""
    folders = {str(PurePosixPath(path).parent) for path in paths}
    return folders.pop() if len(folders) == 1 else None


def batches_of(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Consecutive parts of a list."""
    for start in range(0, len(paths), size):
        yield paths[start : start + size]
