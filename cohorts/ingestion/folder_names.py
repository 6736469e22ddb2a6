"""Possible meanings of folders: splits, classes or patients. Names alone do not decide between the last two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.records import Split
from medphantom.cohorts.split_names import split_word
from medphantom.core.errors import InputError
from medphantom.core.naming import is_nobody, plain_id

BY_PATTERN, BY_FOLDER, BY_SUBJECT = "patient_pattern", "folder", "BIDS subject"
_SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)")  # BIDS 1.10, "Entities"
_INITIALS = {"tr", "ts", "dev"}  # words of splits that may as well be somebody's
_NO_YEAR = re.compile(r"(?<!\d)(?!(?:19|20)\d\d(?!\d))\d")  # test07 may be the seventh person of a test


@dataclass(frozen=True, slots=True)
class FolderNames:
    """The folders of each image, separated by meaning.

    Attributes:
        levels: Names of each image's folders below the source, except split folders.
        splits: Split that a folder of each image names, if any.
        subjects: Subject of each image named in the form of BIDS (``sub-<label>``), if any.
        subjects_count: Whether most images name their subject in this way.
    """

    levels: tuple[tuple[str, ...], ...]
    splits: tuple[Split | None, ...]
    subjects: tuple[str | None, ...]
    subjects_count: bool

    @property
    def open_level(self) -> int | None:
        """Return the first level, from 0, at which images are in several folders, which may be classes or patients."""
        depth = max((len(names) for names in self.levels), default=0)
        return next((level for level in range(depth) if self.total_at(level) > 1), None)

    def total_at(self, level: int) -> int:
        """Return the number of folders at a level."""
        return len({names[level] for names in self.levels if len(names) > level})

    def at(self, number: int, level: int) -> str:
        """Return the folder of an image at a level; empty if the image is above it."""
        names = self.levels[number]
        return names[level] if level < len(names) else ""


def folder_names(paths: Sequence[str]) -> FolderNames:
    """Read the folders of images.

    Args:
        paths: Relative POSIX paths of the images.
    """
    parents = [PurePosixPath(path).parts[:-1] for path in paths]
    splits = [split_by_path(path) for path in paths]
    levels = [levels_of(path) for path in paths]
    subjects = [next((match[1] for part in parts if (match := _SUBJECT.fullmatch(part))), None) for parts in parents]
    most = 2 * sum(subject is not None for subject in subjects) > len(subjects)
    return FolderNames(tuple(levels), tuple(splits), tuple(subjects), most)


@lru_cache(maxsize=4096)
def split_by_folder(name: str) -> Split | None:
    """Return the split that a folder name denotes.

    Example:
        >>> [split_by_folder(name) for name in ("train2017", "Test_images", "test07", "TS", "benign")]
        ['train', 'test', None, None, None]
    """
    return None if name.casefold() in _INITIALS or _NO_YEAR.search(name) else split_word(name)


def split_by_path(path: str) -> Split | None:
    """Return the split denoted by the folders above a file, the highest first."""
    return next((split for part in PurePosixPath(path).parts[:-1] if (split := split_by_folder(part))), None)


def levels_of(path: str) -> tuple[str, ...]:
    """Return the names of the folders above a file, except those of splits."""
    return tuple(part for part in PurePosixPath(path).parts[:-1] if split_by_folder(part) is None)


def named_by_path(names: FolderNames, number: int, path: str, options: IngestOptions) -> list[tuple[str, str]]:
    """Return the patients named by an image's path, most reliable first, as ``(source, id)``, without placeholders.

    Args:
        names: Folders of all images.
        number: Number of the image.
        path: Path of the image.
        options: Ingestion options with ``patient_pattern`` and the level of patient folders.
    """
    match = re.search(options.patient_pattern, path) if options.patient_pattern else None
    level = options.folder_level("patients")
    subject = names.subjects[number] if names.subjects_count else None
    candidates = (
        (BY_PATTERN, (match[1] or "") if match else ""),
        (BY_FOLDER, "" if level is None else names.at(number, level)),
        (BY_SUBJECT, "" if subject is None else f"sub-{subject}"),
    )
    return [(source, plain_id(text)) for source, text in candidates if plain_id(text) and not is_nobody(text)]


def folders_above(names: FolderNames, number: int, source: str, options: IngestOptions) -> tuple[str, ...]:
    """Return the folders above the one that names an image's patient, by :data:`BY_FOLDER` or :data:`BY_SUBJECT`."""
    levels = names.levels[number]
    if source == BY_FOLDER:
        return levels[: options.folder_level("patients")]
    return levels[: next((place for place, part in enumerate(levels) if _SUBJECT.fullmatch(part)), 0)]


def ask(names: FolderNames, *, labels_known: bool) -> InputError:
    """Return an error with both readings and their options; it names no folder, since that may be a person's name."""
    level = names.open_level or 0
    total, images, above = names.total_at(level), len(names.levels), "-/" * level
    where = f"{images} images lie in {total} folders, and nothing says whether these are"
    if labels_known:
        return InputError(
            f"{where} patients",
            f"set cohort.options.folders={above}patients ({total} patients), or folders=ignore (every file its own "
            "patient)",
        )
    return InputError(
        f"{where} classes or patients",
        f"set cohort.options.folders={above}classes ({total} public labels), folders={above}patients "
        f"({total} patients, no labels), {above}classes/patients (one inside the other), or ignore",
    )
