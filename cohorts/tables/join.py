"""Which row of a table belongs to which file: by path, by UID or by patient, never by guess when two would fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cohorts.errors import Reason, UnreadableImage
from cohorts.naming import plain_id, plain_text

AMBIGUOUS, NONE = -1, -2
WHOLE, END, NAME, ID = "whole path", "end of the path", "file name", "identifier"
SUFFIXES = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".gz"}


@dataclass(frozen=True, slots=True)
class FileKey:
    """What may identify an image in a table.

    Attributes:
        paths: relative path; for a volume from slices the folder that holds just them, then each slice.
        uids: SOPInstanceUID; for a volume SeriesInstanceUID, then the SOPInstanceUID of each slice.
        patient: patient id of the header.
        parts: of a volume from slices what identifies each of these, since a table may have a row for each.
    """

    paths: tuple[str, ...]
    uids: tuple[str, ...] = ()
    patient: str = ""
    parts: tuple[FileKey, ...] = ()


class Fit(NamedTuple):
    """A row that fits a file.

    Attributes:
        row: its number, or ``AMBIGUOUS`` or ``NONE``.
        weak: other files may fit as well.
        way: what is equal.
    """

    row: int
    weak: bool
    way: str


class RowIndex:
    """Finds rows by one kind of key.

    Paths and identifiers are compared without what tools change about them (:func:`~cohorts.naming.plain_id`).

    A path fits when it is equal to the file's, when one of the two is the end of the other, or when the file names
    alone are equal, provided that no two rows and no two files share a name; all of it again without suffixes, first as
    the names are written, then with ``1.0`` as the ``1`` that it may have been.

    Args:
        kind: what the column holds.
        cells: the column.
        keys: all files, to know whether names identify them.
    """

    def __init__(self, kind: Literal["path", "uid", "patient"], cells: Sequence[Any], keys: Sequence[FileKey]) -> None:
        self.kind = kind
        texts = ["" if cell is None else str(cell) for cell in cells]
        self._ids: dict[str, int] = {}
        self._paths: list[_PathIndex] = []
        self._unlike: set[str] = set()
        if kind == "path":
            paths = [tidy(text) for text in texts]
            own = [tidy(path) for key in keys for path in key.paths]
            self._unlike = _unlike([path for key in keys for path in key.paths])
            self._paths = [_PathIndex(list(map(form, paths)), list(map(form, own))) for form in _FORMS]
            return
        texts = [plain_id(text) for text in texts]
        for row, text in enumerate(texts):
            _note(self._ids, text, row)
        self._ids.pop("", None)

    def candidates(self, key: FileKey) -> Iterator[Fit]:
        """Rows that fit, the surest first."""
        if self.kind == "path":
            for path in map(tidy, key.paths):
                if path in self._unlike:
                    yield Fit(AMBIGUOUS, weak=True, way=WHOLE)
                for index, form in zip(self._paths, _FORMS, strict=True):
                    for fit in index.candidates(form(path)):
                        yield fit._replace(weak=True) if form is _numbered else fit  # 1.0 may be another file than 1
        else:
            for name in (key.patient,) if self.kind == "patient" else key.uids:
                yield Fit(self._ids.get(plain_id(name), NONE), weak=False, way=ID)


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
            _note(names, _name(path), row)
        of_files = Counter(_name(path) for path in files)
        identify = AMBIGUOUS not in names.values() and max(of_files.values(), default=0) == 1
        self._names = names if identify else {}

    def candidates(self, path: str) -> Iterator[Fit]:
        yield Fit(self._whole.get(path, NONE), weak=False, way=WHOLE)
        yield Fit(self._ends.get(path, NONE), weak=False, way=END)  # the table's paths start above the source
        for end in _ends(path):
            yield Fit(self._whole.get(end, NONE), weak=True, way=END)  # the table's paths start below the source
        yield Fit(self._names.get(_name(path), NONE), weak=True, way=NAME)


class Join:
    """The row of each file.

    Args:
        index: the rows.
        keys: the files.
    """

    def __init__(self, index: RowIndex, keys: Sequence[FileKey]) -> None:
        self._fits = [_first_fit(index, key) for key in keys]
        self._parts = {
            number: tuple(fit.row for part in key.parts if (fit := _first_fit(index, part)).row >= 0)
            for number, key in enumerate(keys)
            if key.parts
        }
        weak = Counter(fit.row for fit in self._fits if fit.weak and fit.row >= 0)
        strong = {fit.row for fit in self._fits if not fit.weak and fit.row >= 0}
        for number, fit in enumerate(self._fits):
            if fit.weak and fit.row >= 0 and (weak[fit.row] > 1 or fit.row in strong):
                self._fits[number] = fit._replace(row=AMBIGUOUS)  # several files have that name

    def ways(self) -> Counter[str]:
        """Files that have a row, by what of them is equal."""
        return Counter(fit.way for fit in self._fits if fit.row >= 0)

    def rows_of_slices(self) -> dict[int, tuple[int, ...]]:
        """Row of each volume → that row, and those that its slices have of their own."""
        found: dict[int, tuple[int, ...]] = {}
        for number, rows in self._parts.items():
            row = self._fits[number].row
            if row >= 0 and set(rows) - {row}:
                found[row] = tuple(dict.fromkeys((row, *found.get(row, ()), *rows)))
        return found

    def rows(self) -> set[int]:
        """Rows that have a file."""
        return {fit.row for fit in self._fits if fit.row >= 0}

    def total_with(self, rows: Container[int]) -> int:
        """Files that have one of these rows."""
        return sum(fit.row in rows for fit in self._fits)

    @property
    def total_matched(self) -> int:
        """Files that have a row."""
        return sum(fit.row >= 0 for fit in self._fits)

    def row_of(self, number: int) -> int:
        """Row of the file with this number.

        Raises:
            UnreadableImage: there is none, or several.
        """
        row = self._fits[number].row
        if row == AMBIGUOUS:
            raise UnreadableImage(Reason.AMBIGUOUS_TABLE_ROW, "several rows or files share its name or id")
        if row < 0:
            raise UnreadableImage(Reason.NO_TABLE_ROW, "the table has no row for it")
        return row


def stem(path: str) -> str:
    """A path without the suffixes of image formats (``scan.1.nii.gz`` → ``scan.1``)."""
    folder, slash, name = path.rpartition("/")
    while True:
        rest, _, suffix = name.rpartition(".")
        if not rest or f".{suffix.lower()}" not in SUFFIXES:
            return f"{folder}{slash}{name}"
        name = rest


def tidy(path: str) -> str:
    """A path with forward slashes, comparable with another one."""
    parts = [part for part in plain_text(path).replace("\\", "/").split("/") if part not in {"", "."}]
    return "/".join(parts)


def _numbered(path: str) -> str:
    """A path without suffixes whose name is no longer than the number that it is (``17.0`` → ``17``)."""
    folder, slash, name = stem(path).rpartition("/")
    return f"{folder}{slash}{plain_id(name)}"


_FORMS: tuple[Callable[[str], str], ...] = (str, stem, _numbered)


def _unlike(paths: Sequence[str]) -> set[str]:
    """Tidy paths that different paths have."""
    different = set(paths)
    return {path for path, total in Counter(map(tidy, different)).items() if total > 1}


def _first_fit(index: RowIndex, key: FileKey) -> Fit:
    return next((fit for fit in index.candidates(key) if fit.row >= AMBIGUOUS), Fit(NONE, weak=False, way=""))


def _note(rows: dict[str, int], key: str, row: int) -> None:
    known = rows.setdefault(key, row)
    if known != row:
        rows[key] = AMBIGUOUS


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _ends(path: str) -> Iterator[str]:
    """``a/b/c`` → ``b/c``, ``c``."""
    parts = path.split("/")
    for start in range(1, len(parts)):
        yield "/".join(parts[start:])
