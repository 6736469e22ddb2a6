"""The join of table rows with files: by path, by UID or by patient, never by a guess if two would fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.naming import plain_id, plain_text

AMBIGUOUS, NONE = -1, -2
MANY_FOLDERS = 1000
WHOLE, END, NAME, ID = "whole path", "end of the path", "file name", "identifier"
SUFFIXES = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".gz"}


@dataclass(frozen=True, slots=True)
class FileKey:
    """Keys that may identify an image in a table.

    Attributes:
        paths: Relative path; for a volume from slices the folder that contains only them, if there is one.
        uids: SOPInstanceUID, then SeriesInstanceUID; for a volume from slices only the latter.
        patient: Patient id in the header.
        slice_paths: Relative paths of all slices of a volume.
        slice_uids: SOPInstanceUIDs of all slices.
    """

    paths: tuple[str, ...]
    uids: tuple[str, ...] = ()
    patient: str = ""
    slice_paths: tuple[str, ...] = ()
    slice_uids: tuple[str, ...] = ()


class Fit(NamedTuple):
    """A row that fits a file.

    Attributes:
        row: Number of the row, or ``AMBIGUOUS`` or ``NONE``.
        weak: Whether other files may fit as well.
        way: Kind of key that is equal.
        rank: Rank of a path match: ignored parts (0 for none), then how little of the path is equal.
        path: Path of the file, for path matches.
    """

    row: int
    weak: bool
    way: str
    rank: tuple[int, int] = (0, 0)
    path: str = ""


class RowIndex:
    """Finds rows by one kind of key.

    Paths and identifiers are compared without what tools change about them (:func:`~medphantom.core.naming.plain_id`).

    A path fits if it equals the file's, if one of the two is the end of the other, or if only the file names are equal,
    provided that no two rows and no two files share a name. The same is then tried without suffixes, first with the
    names as written, then with ``1.0`` as the ``1`` that it may have been. A row is assigned to one path, see
    :class:`Join`.

    Args:
        kind: Kind of key in the column.
        cells: Cells of the column.
        keys: Keys of all files, to determine whether names identify them.
    """

    def __init__(self, kind: Literal["path", "uid", "patient"], cells: Sequence[Any], keys: Sequence[FileKey]) -> None:
        self.kind = kind
        texts = ["" if cell is None else str(cell) for cell in cells]
        self._ids: dict[str, int] = {}
        self._paths: list[_PathIndex] = []
        self._unlike: set[str] = set()
        if kind == "path":
            paths = [tidy(text) for text in texts]
            files = [path for key in keys for path in (*key.paths, *key.slice_paths)]
            own = [tidy(path) for path in files]
            self._unlike = _unlike(files)
            self._paths = [
                _PathIndex(place, list(map(form, paths)), list(map(form, own))) for place, form in enumerate(_FORMS)
            ]
            return
        texts = [plain_id(text) for text in texts]
        for row, text in enumerate(texts):
            _note(self._ids, text, row)
        self._ids.pop("", None)

    def fit(self, key: FileKey) -> Fit:
        """Return the most reliable row for a file, or for a volume as a whole."""
        if self.kind == "path":
            return _first(fit for path in key.paths for fit in self._of_path(path))
        return _first(map(self._of_id, (key.patient,) if self.kind == "patient" else key.uids))

    def slice_fits(self, key: FileKey, *, certain: bool = False) -> list[Fit]:
        """Return the same for each slice of a volume; with ``certain`` only rows that no other file can fit as well."""
        if self.kind == "path":
            of_path = self._certain if certain else self._of_path
            return [_first(of_path(path)) for path in key.slice_paths]
        return [] if self.kind == "patient" else list(map(self._of_id, key.slice_uids))

    def _of_path(self, path: str) -> Iterator[Fit]:
        path = tidy(path)
        if path in self._unlike:
            yield Fit(AMBIGUOUS, weak=True, way=WHOLE)
        for index, form in zip(self._paths, _FORMS, strict=True):
            yield from index.candidates(path, form(path), number=form is _numbered)

    def _certain(self, path: str) -> Iterator[Fit]:
        path = tidy(path)
        if path not in self._unlike:
            for index, form in zip(self._paths, _FORMS, strict=True):
                if form is not _numbered:
                    yield from index.certain(path, form(path))

    def _of_id(self, name: str) -> Fit:
        return Fit(self._ids.get(plain_id(name), NONE), weak=False, way=ID)


class _PathIndex:
    """Rows by path, by the ends of their paths, and by name if names identify them; all in one form."""

    def __init__(self, form: int, rows: Sequence[str], files: Sequence[str]) -> None:
        self._form = form
        self._without = " without suffix" if form else ""
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

    def certain(self, file: str, path: str, *, number: bool = False) -> Iterator[Fit]:
        """Yield rows that fit the whole path of a file in the form of the index.

        With ``number``, its name is a number, and ``1.0`` may be another file than ``1``.
        """
        yield self._fit(self._whole.get(path, NONE), WHOLE, -MANY_FOLDERS, file, weak=number)
        yield self._fit(
            self._ends.get(path, NONE), END, -path.count("/"), file, weak=number
        )  # the table's start above the source

    def candidates(self, file: str, path: str, *, number: bool = False) -> Iterator[Fit]:
        """Yield the same, then rows that fit a smaller part of the path."""
        yield from self.certain(file, path, number=number)
        for end in _ends(path):
            yield self._fit(self._whole.get(end, NONE), END, MANY_FOLDERS, file)  # the table's start below the source
        yield self._fit(self._names.get(_name(path), NONE), NAME, MANY_FOLDERS, file)

    def _fit(self, found: int, way: str, less: int, file: str, *, weak: bool = True) -> Fit:
        return _NO_FIT if found == NONE else Fit(found, weak, way + self._without, (self._form, less), file)


class Join:
    """The rows of each file: one, or those of the slices of a volume.

    A volume has the row that fits it as a whole, and the rows of its slices: all of them if none fits the whole, else
    those that are certain. A row that fits some file as written belongs to no file that it fits only without suffix; of
    two files that it fits without suffix, or by the end of their paths, the more reliable one gets it and the other is
    ambiguous, and both are if neither is more reliable.

    Args:
        index: Index of the rows.
        keys: Keys of the files.

    Attributes:
        total_lacking: Number of volumes with rows for some slices but not for others or the whole.
    """

    def __init__(self, index: RowIndex, keys: Sequence[FileKey]) -> None:
        found = [_fits_of(index, key) for key in keys]
        self._fits = [fits for fits, _ in found]
        files: _Files = {}
        for number, fits in enumerate(self._fits):
            for fit in fits:
                of_row = files.setdefault(fit.row, {})
                of_row[number] = min(fit, of_row.get(number, fit), key=_rank)
        as_written = {row for row, fits in files.items() if row >= 0 and any(map(_is_as_written, fits.values()))}
        self._fits = [[fit for fit in fits if _is_as_written(fit) or fit.row not in as_written] for fits in self._fits]
        for row in as_written:
            files[row] = {number: fit for number, fit in files[row].items() if _is_as_written(fit)}
        self._rows = [self._settled(number, fits, files) for number, fits in enumerate(self._fits)]
        lacking = (_is_matched(rows) and lacks for rows, (_, lacks) in zip(self._rows, found, strict=True))
        self.total_lacking = sum(lacking)

    @staticmethod
    def _settled(number: int, fits: Sequence[Fit], files: _Files) -> tuple[int, ...]:
        """Return the distinct rows of a file; only ``AMBIGUOUS`` if any of them may belong to another file."""

        def may_be_of_another(fit: Fit) -> bool:
            if fit.way == ID:  # all files of a patient or series have its row
                return False
            others = (other for each, other in files[fit.row].items() if each != number)
            return any(fit.weak or _rank(other) < _rank(fit) or _equals(other, fit) for other in others)

        if any(fit.row == AMBIGUOUS or may_be_of_another(fit) for fit in fits):
            return (AMBIGUOUS,)
        return tuple(dict.fromkeys(fit.row for fit in fits))

    def ways(self) -> Counter[str]:
        """Count files with a row by the kind of key that is equal."""
        return Counter(fits[0].way for fits, rows in zip(self._fits, self._rows, strict=True) if _is_matched(rows))

    def rows(self) -> set[int]:
        """Return the rows that have a file."""
        return {row for rows in self._rows if _is_matched(rows) for row in rows}

    def total_with(self, rows: Container[int]) -> int:
        """Return the number of files that have one of these rows."""
        return sum(any(row in rows for row in own) for own in self._rows)

    @property
    def total_matched(self) -> int:
        """Return the number of files that have a row."""
        return sum(map(_is_matched, self._rows))

    def rows_of(self, number: int) -> tuple[int, ...]:
        """Return the rows of the file with this number; none if there is none, or it is uncertain."""
        rows = self._rows[number]
        return rows if _is_matched(rows) else ()

    def row_of(self, number: int) -> int:
        """Return the row of the file with this number, the first of several.

        Raises:
            UnreadableImage: If there is none, or it is uncertain.
        """
        rows = self._rows[number]
        if rows == (AMBIGUOUS,):
            raise UnreadableImage(Reason.AMBIGUOUS_TABLE_ROW, "several rows or files share its name or id")
        if not rows:
            raise UnreadableImage(Reason.NO_TABLE_ROW, "the table has no row for it")
        return rows[0]


def stem(path: str) -> str:
    """Return a path without the suffixes of image formats (``scan.1.nii.gz`` → ``scan.1``)."""
    folder, slash, name = path.rpartition("/")
    while True:
        rest, _, suffix = name.rpartition(".")
        if not rest or f".{suffix.lower()}" not in SUFFIXES:
            return f"{folder}{slash}{name}"
        name = rest


def tidy(path: str) -> str:
    """Return a path with forward slashes, comparable with another one."""
    parts = [part for part in plain_text(path).replace("\\", "/").split("/") if part not in {"", "."}]
    return "/".join(parts)


def _numbered(path: str) -> str:
    """Return a path without suffixes, with a numeric name in its shortest form (``17.0`` → ``17``)."""
    folder, slash, name = stem(path).rpartition("/")
    return f"{folder}{slash}{plain_id(name)}"


_FORMS: tuple[Callable[[str], str], ...] = (str, stem, _numbered)


_Files = dict[int, dict[int, Fit]]
"""Files that each row fits, with the best reliability."""
_NO_FIT = Fit(NONE, weak=False, way="")


def _rank(fit: Fit) -> tuple[int, int, bool]:
    return (*fit.rank, fit.weak)


def _is_as_written(fit: Fit) -> bool:
    return fit.rank[0] == 0


def _equals(one: Fit, other: Fit) -> bool:
    """Return whether two files fit a row equally well; volumes that share a folder share its row."""
    return _rank(one) == _rank(other) and one.path != other.path


def _unlike(paths: Sequence[str]) -> set[str]:
    """Return tidy paths that different paths have."""
    different = set(paths)
    return {path for path, total in Counter(map(tidy, different)).items() if total > 1}


def _first(fits: Iterable[Fit]) -> Fit:
    return next((fit for fit in fits if fit.row >= AMBIGUOUS), _NO_FIT)


def _fits_of(index: RowIndex, key: FileKey) -> tuple[list[Fit], bool]:
    """Return possible rows of a file, that of a whole volume first, and whether only some slices have one."""
    whole = index.fit(key)
    if whole.row != NONE:
        return [whole, *(fit for fit in index.slice_fits(key, certain=True) if fit.row >= 0)], False
    slices = index.slice_fits(key)
    fitting = [fit for fit in slices if fit.row != NONE]
    return fitting, 0 < len(fitting) < len(slices)


def _is_matched(rows: Sequence[int]) -> bool:
    return bool(rows) and rows[0] >= 0


def _note(rows: dict[str, int], key: str, row: int) -> None:
    known = rows.setdefault(key, row)
    if known != row:
        rows[key] = AMBIGUOUS


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _ends(path: str) -> Iterator[str]:
    """Yield the ends of a path: ``a/b/c`` → ``b/c``, ``c``."""
    parts = path.split("/")
    for start in range(1, len(parts)):
        yield "/".join(parts[start:])
