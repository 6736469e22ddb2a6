"""What the folders of a source may mean: splits, classes or patients. Names alone never decide between the last two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cohorts.errors import InputError
from cohorts.naming import SPLIT_WORDS
from cohorts.records import Split

_SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)")  # BIDS 1.10, "Entities"


@dataclass(frozen=True, slots=True)
class FolderNames:
    """The folders of each image, told apart.

    Attributes:
        levels: per image the names of its folders below what all share, split folders aside.
        splits: per image the split that a folder names, if one does.
        subjects: per image the subject that its folders name as BIDS does (``sub-<label>``), if they do.
    """

    levels: tuple[tuple[str, ...], ...]
    splits: tuple[Split | None, ...]
    subjects: tuple[str | None, ...]

    @property
    def ambiguous(self) -> bool:
        """Whether images lie in several folders that may be classes as well as patients."""
        return self.total_first > 1

    @property
    def all_subjects(self) -> bool:
        """Whether every image names its subject as BIDS does."""
        return bool(self.subjects) and None not in self.subjects

    @property
    def total_first(self) -> int:
        """How many folders there are at the first level."""
        return len({names[0] for names in self.levels if names})

    def at(self, number: int, level: int) -> str:
        """Folder of an image at a level; empty when it lies higher."""
        names = self.levels[number]
        return names[level] if level < len(names) else ""


def folder_names(paths: Sequence[str]) -> FolderNames:
    """Read the folders of images.

    Args:
        paths: relative POSIX paths.
    """
    parents = [PurePosixPath(path).parts[:-1] for path in paths]
    splits = [
        next((SPLIT_WORDS[part.lower()] for part in parts if part.lower() in SPLIT_WORDS), None) for parts in parents
    ]
    levels = [tuple(part for part in parts if part.lower() not in SPLIT_WORDS) for parts in parents]
    shared = 0
    for level in zip(*levels, strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    if levels and all(len(names) == shared for names in levels):
        levels = [()] * len(levels)  # one folder holds everything
    subjects = [next((match[1] for part in parts if (match := _SUBJECT.fullmatch(part))), None) for parts in parents]
    return FolderNames(tuple(names[shared:] for names in levels), tuple(splits), tuple(subjects))


def ask(names: FolderNames, *, labels_known: bool) -> InputError:
    """The line that shows both readings and the option for each; it names no folder, since one may be a name."""
    total, images = names.total_first, len(names.levels)
    where = f"{images} images lie in {total} folders, and nothing says whether these are"
    if labels_known:
        return InputError(
            f"{where} patients",
            f"set cohort.options.folders=patients ({total} patients), or folders=ignore (every file its own patient)",
        )
    return InputError(
        f"{where} classes or patients",
        f"set cohort.options.folders=classes ({total} public labels), folders=patients ({total} patients, no labels), "
        "classes/patients (one inside the other), or ignore",
    )
