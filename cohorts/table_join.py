"""Which row of a table belongs to which file: by path, by UID or by patient, never by guess when two would fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from cohorts.errors import Reason, UnreadableImage

AMBIGUOUS, NONE = -1, -2
SUFFIXES = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".gz"}


@dataclass(frozen=True, slots=True)
class FileKey:
    """What may identify an image in a table.

    Attributes:
        paths: relative path; for a volume from slices the folder that holds just them, then each slice.
        uids: SOPInstanceUID, or SeriesInstanceUID for a volume; then the other.
        patient: patient id of the header.
    """

    paths: tuple[str, ...]
    uids: tuple[str, ...] = ()
    patient: str = ""


class RowIndex:
    """Finds rows by one kind of key.

    A path fits when it is equal to the file's, when one of the two is the end of the other, or when the file names
    alone are equal, provided that no two rows and no two files share a name; all of it again without suffixes.

    Args:
        kind: what the column holds.
        cells: the column.
        keys: all files, to know whether names identify them.
    """

    def __init__(self, kind: Literal["path", "uid", "patient"], cells: Sequence[Any], keys: Sequence[FileKey]) -> None:
        self.kind = kind
        texts = ["" if cell is None else str(cell).strip() for cell in cells]
        self._ids: dict[str, int] = {}
        self._paths: list[_PathIndex] = []
        if kind == "path":
            paths = [_tidy(text) for text in texts]
            own = [path for key in keys for path in key.paths]
            self._paths = [_PathIndex(paths, own), _PathIndex([stem(p) for p in paths], [stem(p) for p in own])]
            return
        for row, text in enumerate(texts):
            _note(self._ids, text, row)
        self._ids.pop("", None)

    def candidates(self, key: FileKey) -> Iterator[tuple[int, bool]]:
        """Rows that fit, the surest first, each with whether other files may fit as well."""
        if self.kind == "path":
            for path in key.paths:
                for index, own in zip(self._paths, (path, stem(path)), strict=True):
                    yield from index.candidates(own)
        else:
            for name in (key.patient,) if self.kind == "patient" else key.uids:
                yield self._ids.get(name, NONE), False


class _PathIndex:
    """Rows by path, by the ends of their paths, and by name where names identify."""

    def __init__(self, rows: Sequence[str], files: Sequence[str]) -> None:
        self._whole: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        names: dict[str, int] = {}
        for row, path in enumerate(rows):
            if not path:
                continue
            _note(self._whole, path, row)
            for end in _ends(path):
                _note(self._ends, end, row)
            _note(names, PurePosixPath(path).name, row)
        of_files = Counter(PurePosixPath(path).name for path in files)
        identify = AMBIGUOUS not in names.values() and max(of_files.values(), default=0) == 1
        self._names = names if identify else {}

    def candidates(self, path: str) -> Iterator[tuple[int, bool]]:
        yield self._whole.get(path, NONE), False
        yield self._ends.get(path, NONE), False  # the table's paths start above the source
        for end in _ends(path):
            yield self._whole.get(end, NONE), True  # the table's paths start below the source
        yield self._names.get(PurePosixPath(path).name, NONE), True


class Join:
    """The row of each file.

    Args:
        index: the rows.
        keys: the files.
    """

    def __init__(self, index: RowIndex, keys: Sequence[FileKey]) -> None:
        self._rows = [_first_fit(index, key) for key in keys]
        weak = Counter(row for row, by_end in self._rows if by_end and row >= 0)
        strong = {row for row, by_end in self._rows if not by_end and row >= 0}
        for number, (row, by_end) in enumerate(self._rows):
            if by_end and row >= 0 and (weak[row] > 1 or row in strong):
                self._rows[number] = (AMBIGUOUS, True)  # several files have that name

    @property
    def total_matched(self) -> int:
        """Files that have a row."""
        return sum(row >= 0 for row, _ in self._rows)

    @property
    def total_rows_used(self) -> int:
        """Rows that have a file."""
        return len({row for row, _ in self._rows if row >= 0})

    def row_of(self, number: int) -> int:
        """Row of the file with this number.

        Raises:
            UnreadableImage: there is none, or several.
        """
        row = self._rows[number][0]
        if row == AMBIGUOUS:
            raise UnreadableImage(Reason.AMBIGUOUS_TABLE_ROW, "several rows or files share its name or id")
        if row < 0:
            raise UnreadableImage(Reason.NO_TABLE_ROW, "the table has no row for it")
        return row


def stem(path: str) -> str:
    """A path without the suffixes of image formats (``scan.1.nii.gz`` → ``scan.1``)."""
    pure = PurePosixPath(path)
    while pure.suffix.lower() in SUFFIXES:
        pure = pure.with_suffix("")
    return str(pure)


def _first_fit(index: RowIndex, key: FileKey) -> tuple[int, bool]:
    for row, by_end in index.candidates(key):
        if row >= AMBIGUOUS:
            return row, by_end
    return NONE, False


def _note(rows: dict[str, int], key: str, row: int) -> None:
    known = rows.setdefault(key, row)
    if known != row:
        rows[key] = AMBIGUOUS


def _tidy(path: str) -> str:
    parts = [part for part in path.replace("\\", "/").split("/") if part not in {"", "."}]
    return "/".join(parts)


def _ends(path: str) -> Iterator[str]:
    """``a/b/c`` → ``b/c``, ``c``."""
    parts = path.split("/")
    for start in range(1, len(parts)):
        yield "/".join(parts[start:])
