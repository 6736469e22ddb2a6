"""The table beside the images: the join of its rows with files, and the content of its cells.

Missing is not absent: an empty cell states nothing about any label, a *no finding* value states that none is present.
One invalid cell costs the cell, not the image.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.records import HELD_OUT_FIRST, LEFT_OUT_SPLIT, AttributeSpec
from medphantom.cohorts.split_names import cell_split
from medphantom.cohorts.tables.attributes import UNITS, find_attributes
from medphantom.cohorts.tables.columns import USUAL_ATTRIBUTES, USUAL_NAMES, Columns
from medphantom.cohorts.tables.file import TableFile, read_parts, read_table
from medphantom.cohorts.tables.join import FileKey, Join, RowIndex, tidy
from medphantom.cohorts.tables.labels import find_labels
from medphantom.cohorts.tables.rows import Groups, United, agreed, unite_rows, united
from medphantom.core.errors import InputError, Reason, UnreadableImage
from medphantom.core.naming import plain_id

__all__ = ["UNITS", "USUAL_ATTRIBUTES", "USUAL_NAMES", "RowContent", "Table"]

SHOWN_COLUMNS = 20
_FORMS = {
    "none": "none",
    "names": "one name in each cell",
    "lists": "lists of names",
    "numbers": "numbers of classes",
    "flag": "one label, present or absent",
    "columns": "one column per label",
}


@dataclass(slots=True)
class RowContent:
    """Content of the table for one image.

    Attributes:
        labels: Whether each label is present, absent or missing.
        attributes: Value of each attribute; ``None`` if missing.
        unread: Attributes with a cell that was not used, so that no header may replace it.
        patient: Patient id, normalised by :func:`~medphantom.core.naming.plain_id`; empty if missing.
        study: Study id, normalised in the same way.
        text: Text of the report or caption.
        split: Existing split (``train``, ``val``, ``holdout`` or ``test``), the most held-out one of several rows;
            empty without one.
    """

    labels: dict[str, bool | None] = field(default_factory=dict)
    attributes: dict[str, float | str | None] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    patient: str = ""
    study: str = ""
    text: str | None = None
    split: str = ""


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to join: the compared key, and its column."""

    kind: Literal["path", "uid", "patient"]
    role: str


class Table:
    """A label table, joined to files.

    Attributes:
        path: Path of the table.
        attributes: Specs of its attribute columns.
        has_masks: Whether it names masks.
        has_splits: Whether it assigns images to splits.
    """

    def __init__(self, path: Path, file: TableFile, options: IngestOptions) -> None:
        self.path = path
        self._options = options
        self._form = file.form
        self._columns = Columns(path, file, options)
        self._remarks: list[str] = []
        self._found = find_attributes(self._columns, options, self._remarks)
        self.attributes: tuple[AttributeSpec, ...] = tuple(attribute.spec for attribute in self._found)
        roles = [column for column in self._columns.roles.values() if column is not None]
        taken = {*roles, *(attribute.column for attribute in self._found)}
        self._labels = find_labels(self._columns, taken, options, self._remarks)
        self.has_masks = self._columns.roles["mask"] is not None
        self.has_splits = self._columns.roles["split"] is not None
        self._ids = {role: self._columns.ids(role) for role in ("path", "patient", "study", "uid")}
        self._raw = {role: self._columns.raw(role) for role in ("text", "mask")}
        splits = [] if not self.has_splits else self._columns.cells(str(self._columns.roles["split"]))
        split_of = {cell: cell_split(cell) for cell in set(splits)}
        self._splits = [split_of[cell] for cell in splits] or [""] * len(self)
        self._join: Join | None = None
        self._way: _Way | None = None
        self._total_files = 0
        self._boxes: list[list[str]] | None = None
        self._groups: Groups = {}
        self._torn: Groups = {}
        self._of_volume: Collection[int] = ()
        self._refused: dict[int, tuple[Reason, str]] = {}

    @classmethod
    def read(cls, path: Path, options: IngestOptions) -> Table:
        """Read a CSV, TSV or Parquet file.

        Raises:
            InputError: If it cannot be read, is empty, or lacks a column that was named.
        """
        return cls.read_parts([path], options)

    @classmethod
    def read_parts(cls, paths: Sequence[Path], options: IngestOptions) -> Table:
        """Read a table stored in one file per split; see :func:`~medphantom.cohorts.tables.file.read_parts`.

        Raises:
            InputError: As for :meth:`read`, or if the files have different columns.
        """
        named = [getattr(options, f"{role}_column") for role in (*USUAL_NAMES, "text") if role != "labels"]
        usual = [name for names in (*USUAL_NAMES.values(), *USUAL_ATTRIBUTES.values()) for name in names]
        known = [name for name in (*named, *options.label_columns, *usual) if name]
        encoding = options.table_encoding
        file = read_table(paths[0], encoding, known) if len(paths) == 1 else read_parts(paths, encoding, known)
        return cls(paths[0], file, options)

    def __len__(self) -> int:
        return self._columns.frame.height

    @property
    def renamed(self) -> set[str]:
        """Requested attributes that were renamed, since their names would be wrong."""
        return {found.requested for found in self._found if found.requested}

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in a fixed order."""
        return self._labels.names

    @property
    def exclusive(self) -> bool:
        """Whether every labelled image has exactly one label."""
        if self._options.exclusive != "auto":
            return self._options.exclusive
        if len(self.labels) < 2:
            return False
        if self._labels.form == "columns" and len(self._labels.columns) > len(self.labels):
            return False  # one of them states that there is none
        together = (united([self._labels.of(row) for row in rows]) for rows in self._groups.values())
        any_observed = False
        for kind in chain(self._labels.kinds(), together):
            values = list(kind.values())
            if values.count(None) == len(values):
                continue
            any_observed = True
            if (values.count(True), values.count(False)) != (1, len(values) - 1):
                return False
        return any_observed

    def bind(self, keys: Sequence[FileKey]) -> float:
        """Join the rows to these files; return the share of files that have a row.

        Rows of one image, and those of the slices of a volume, are united: identical ones count once, and a label that
        any row states is present. Rows of one patient are united if they agree in labels, mask and split, or are boxes;
        a file whose patient's rows contradict each other in these has rows that are not used.

        Raises:
            InputError: If the requested join lacks its column.
        """
        ways = self._ways()
        if not ways:
            wanted = self._options.join
            what = "path, uid or patient" if wanted == "auto" else wanted
            names = ", ".join(self._columns.frame.columns[:SHOWN_COLUMNS])
            raise InputError(
                f"{self.path} has no column of {what} to join by, it has {names}",
                "name it with path_column, uid_column or patient_column",
            )
        tried = []
        for way in ways:
            rows = self._united(way, keys)
            join = Join(RowIndex(way.kind, rows.names, keys), keys)
            usable = join.total_matched - join.total_with(rows.torn)
            tried.append(((usable, join.total_matched), join, way, rows))
        _, self._join, self._way, rows = max(tried, key=lambda each: each[0])  # the first of equals
        joined = self._join.rows()
        self._groups = {row: each for row, each in rows.groups.items() if row in joined}
        self._torn = {row: each for row, each in rows.torn.items() if row in joined}
        self._unite_slices(len(keys))
        self._refused = self._refusals()
        self._total_files = len(keys)
        return self._join.total_matched / max(1, len(keys))

    def _unite_slices(self, total_files: int) -> None:
        """Give each volume with several rows a row of its own, appended to those of the table."""
        assert self._join is not None  # noqa: S101 - bind() comes first
        single: set[int] = set()
        volumes: Groups = {}
        for number in range(total_files):
            rows = self._join.rows_of(number)
            if len(rows) > 1:
                volumes[len(self) + number] = rows
            else:
                single.update(rows)
        torn = {volume: rows for volume, rows in volumes.items() if any(row in self._torn for row in rows)}
        expand = {**self._groups, **self._torn}
        united = {
            volume: tuple(each for row in rows for each in expand.get(row, (row,))) for volume, rows in volumes.items()
        }
        self._of_volume = united.keys()
        self._groups = {row: rows for row, rows in self._groups.items() if row in single}
        self._torn = {row: rows for row, rows in self._torn.items() if row in single}
        for volume, rows in united.items():
            (self._torn if volume in torn else self._groups)[volume] = rows

    def row_of(self, number: int) -> int:
        """Return the row of a file by its number in :meth:`bind`; for a volume with several, the row that represents
        them.

        Raises:
            UnreadableImage: If there is none, or several contradict each other, or name different patients or masks.
        """
        assert self._join is not None  # noqa: S101 - bind() comes first
        row = self._join.row_of(number)
        row = len(self) + number if len(self) + number in self._of_volume else row
        if row in self._refused:
            raise UnreadableImage(*self._refused[row])
        return row

    def contradicted(self) -> str:
        """Return one line on the files whose rows contradict each other and are not used; empty without any."""
        if not self._torn:
            return ""
        whose = "patients" if self._way is not None and self._way.role == "patient" else "series"
        where = _columns(column for rows in self._torn.values() for column in self._differing(rows))
        return f"rows of {len(self._torn)} {whose} contradict each other in {where}: their images are refused"

    def total_unmatched(self) -> int:
        """Return the number of rows that belong to no file."""
        used = set() if self._join is None else self._join.rows()
        used.update(row for rows in chain(self._groups.values(), self._torn.values()) for row in rows)
        return len(self) - len(used)

    def content(self, row: int) -> RowContent:
        """Return the content for the image of a row, from all rows of that image."""
        rows = self._groups.get(row, (row,))
        return RowContent(
            labels=united([self._labels.of(each) for each in rows]),
            attributes={found.spec.name: agreed(found.of(each) for each in rows)[0] for found in self._found},
            unread=frozenset(found.spec.name for found in self._found if any(found.is_unread(each) for each in rows)),
            patient=self._observed(self._ids["patient"], rows),
            study=self._observed(self._ids["study"], rows),
            text=self._observed(self._raw["text"], rows) or None,
            split=next(iter(self._splits_of(rows)), ""),
        )

    def states_several(self, row: int) -> bool:
        """Return whether the rows of an image differ in labels or boxes, so that each may refer to a part of it."""
        rows = self._groups.get(row, (row,))
        if len(rows) > 1 and self._boxes is None:
            self._boxes = [self._columns.cells(column) for column in self._columns.others(self._used())[0]]
        boxes = self._boxes or ()
        return len({(*self._labels.of(each).values(), *(box[each] for box in boxes)) for each in rows}) > 1

    def who(self, row: int) -> tuple[str, str, tuple[str, ...]]:
        """Return patient, study and all splits of an image's rows, the most held-out first; empty if missing."""
        rows = self._groups.get(row, (row,))
        patient, study = (self._observed(self._ids[role], rows) for role in ("patient", "study"))
        return patient, study, self._splits_of(rows)

    def _splits_of(self, rows: Sequence[int]) -> tuple[str, ...]:
        stated = {self._splits[row] for row in rows}
        return tuple(split for split in (LEFT_OUT_SPLIT, *HELD_OUT_FIRST) if split in stated)

    def mask_cell(self, row: int) -> str:
        """Return the path of the mask that a row names, with forward slashes; empty if there is none."""
        return self._observed(self._raw["mask"], self._groups.get(row, (row,))).replace("\\", "/")

    def mask_paths(self) -> set[str]:
        """Return the paths of all masks that rows name."""
        if not self.has_masks:
            return set()
        return {os.path.normpath(cell.replace("\\", "/")) for cell in self._raw["mask"]}

    def remarks(self) -> list[str]:
        """Return remarks on unused content by column, without the content of cells."""
        said = [*self._columns.remarks, *self._remarks, *self._disagreements(), self.contradicted(), self._lacking()]
        unknown = set(self._options.labels).difference(self.labels) if self.labels else ()
        if unknown:
            said.append(f"labels names {len(unknown)} labels that the table does not have")
        return [line for line in said if line]

    def _lacking(self) -> str:
        total = 0 if self._join is None else self._join.total_lacking
        return f"{total} volumes have rows for some of their slices only: the others state nothing" if total else ""

    def understood(self) -> list[str]:
        """Return lines on how the table was interpreted; they name columns, but no cell content."""
        lines = [f"table {self.path.name}: {len(self)} rows, {self._form}"]
        if self._join is not None and self._way is not None:
            ways = ", ".join(f"{total} by {way}" for way, total in self._join.ways().most_common())
            column = self._columns.roles[self._way.role]
            matched = f"{self._join.total_matched} of {self._total_files} images"
            lines.append(f"joined by column {column!r}: {matched}{f' ({ways})' if ways else ''}")
        if self._groups:
            lines.append(f"{len(self._groups)} images have several rows, whose labels are united")
        lines += [
            f"{role}: column {column!r}"
            for role, column in self._columns.roles.items()
            if column is not None and role not in {"path", "uid"}
        ]
        if self._labels.columns:
            where = ", ".join(map(repr, self._labels.columns[:SHOWN_COLUMNS]))
            lines.append(f"labels: {len(self.labels)}, {_FORMS[self._labels.form]} ({where})")
        else:
            lines.append("labels: none, no column holds any")
        if self._found:
            named = (f"{each.spec.name} ({each.spec.kind}, column {each.column!r})" for each in self._found)
            lines.append("attributes: " + ", ".join(named))
        boxes, others = self._columns.others(self._used())
        if boxes:
            lines.append(f"columns of boxes, not used: {', '.join(map(repr, boxes))}")
        if others:
            more = f" and {len(others) - SHOWN_COLUMNS} more" if len(others) > SHOWN_COLUMNS else ""
            lines.append(f"columns not used: {', '.join(map(repr, others[:SHOWN_COLUMNS]))}{more}")
        return lines

    def _used(self) -> list[str]:
        roles = [column for column in self._columns.roles.values() if column is not None]
        return [*roles, *self._labels.columns, *(found.column for found in self._found)]

    def _ways(self) -> list[_Way]:
        wanted, roles = self._options.join, self._columns.roles
        ways = [_Way("path", "path"), _Way("uid", "uid"), _Way("path", "patient"), _Way("patient", "patient")]
        fitting = [way for way in ways if roles[way.role] is not None and wanted in {"auto", way.kind}]
        by_name = _Way("path", "patient")  # files that are named by patient, where no column names files
        return [way for way in fitting if way != by_name or roles["path"] is None]

    def _united(self, way: _Way, keys: Sequence[FileKey]) -> United:
        names = [tidy(name) for name in self._ids[way.role]] if way.kind == "path" else self._ids[way.role]
        uids = chain.from_iterable((*key.uids[:1], *key.slice_uids) for key in keys) if way.kind == "uid" else ()
        own = set(map(plain_id, uids))
        boxes = self._columns.has_boxes

        def of_one_image(name: str) -> bool:
            return boxes or way.role == "path" or name in own

        return unite_rows(names, of_one_image, self._deciding)

    def _deciding(self, row: int) -> Hashable:
        """Return the content in which rows of one patient must agree; other cells that differ are missing."""
        labels = tuple(self._labels.of(row).values())
        return (labels, self._ids["patient"][row], self._raw["mask"][row], self._splits[row])

    def _differing(self, rows: Sequence[int]) -> list[str]:
        """Return the columns in which rows that must agree do not."""
        columns = dict(self._labels.cells())
        for role, cells in (("patient", self._ids["patient"]), ("mask", self._raw["mask"]), ("split", self._splits)):
            columns |= {} if self._columns.roles[role] is None else {str(self._columns.roles[role]): cells}
        return [name for name, cells in columns.items() if len({cells[row] for row in rows}) > 1]

    def _refusals(self) -> dict[int, tuple[Reason, str]]:
        """Return the rejection of each image whose rows contradict each other, by its first row."""
        named = {row: why for row, rows in self._groups.items() if (why := self._contradiction(rows))}
        refused = {row: (Reason.BAD_TABLE_ROW, why) for row, why in named.items()}
        for row, rows in self._torn.items():
            where = _columns(self._differing(rows))
            refused[row] = (Reason.AMBIGUOUS_TABLE_ROW, f"its rows contradict each other in {where}")
        return refused

    def _contradiction(self, rows: Sequence[int]) -> str:
        """Return why an image with these rows is rejected; empty if it is not."""
        for what, cells in (("patients", self._ids["patient"]), ("masks", self._raw["mask"])):
            if agreed(cells[row] for row in rows)[1]:
                return f"its rows name different {what}"
        return ""

    def _disagreements(self) -> list[str]:
        disagreeing: Counter[str] = Counter()
        for rows in self._groups.values():
            disagreeing.update(f.column for f in self._found if agreed(f.of(row) for row in rows)[1])
            for role, cells in (("study", self._ids["study"]), ("text", self._raw["text"])):
                disagreeing[str(self._columns.roles[role])] += agreed(cells[row] for row in rows)[1]
        said = [
            f"column {column!r}: rows of {total} images contradict each other and are not stated"
            for column, total in disagreeing.items()
            if total
        ]
        if several := sum(len(self._splits_of(rows)) > 1 for rows in self._groups.values()):
            column = self._columns.roles["split"]
            said.append(f"column {column!r}: rows of {several} images name several splits, see split_conflicts")
        return said

    @staticmethod
    def _observed(cells: Sequence[str], rows: Sequence[int]) -> str:
        return agreed(cells[row] for row in rows)[0] or ""


def _columns(names: Iterable[str]) -> str:
    """Return column names for display: ``column 'a'``, ``columns 'a', 'b'``."""
    different = list(dict.fromkeys(names))
    return f"column{'s' * (len(different) > 1)} {', '.join(map(repr, different[:SHOWN_COLUMNS]))}"
