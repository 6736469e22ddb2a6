"""The table beside the images: which row belongs to which file, and what its cells say.

Missing is not absent: an empty cell says nothing about any label, a *no finding* value says that none is present.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from cohorts.errors import InputError, Reason, UnreadableImage
from cohorts.naming import plain_name
from cohorts.options import IngestOptions
from cohorts.readers.dicom_header import years
from cohorts.records import ATTRIBUTE_PREFIX, LABEL_PREFIX, NAME_PATTERN, AttributeSpec
from cohorts.table_join import FileKey, Join, RowIndex

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "path": (
        "file_name", "path", "image_path", "file_path", "image", "file", "filename", "image_file", "Image Index",
        "image_name", "dicom_path", "dicom", "image_id", "dicom_id",
    ),
    "patient": ("patient_id", "patient", "subject_id", "subject", "participant_id", "participant"),
    "study": ("study_id", "study", "study_instance_uid"),
    "uid": ("sop_instance_uid", "sop_uid", "series_instance_uid", "series_uid", "uid"),
    "labels": ("labels", "label", "findings", "finding_labels", "finding", "class", "diagnosis"),
    "mask": ("mask", "mask_path", "mask_file", "segmentation"),
}  # fmt: skip
"""Column names that are looked for, in this order; case, spaces and underscores do not matter."""

USUAL_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "age": ("age", "patient_age", "age_years"),
    "sex": ("sex", "gender", "patient_sex", "patient_gender"),
    "view": ("view", "view_position"),
}
"""Attributes that are taken without being asked for, each under its own name, and the columns they are found in."""

UNITS = {"age": "years"}
MISSING_CELLS = {"", "na", "n/a", "nan", "null", "none", "<na>"}
STATED = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}
UNCERTAIN_CELLS = {"-1", "-1.0"}
MANY_LABELS, MANY_CATEGORIES = 512, 256
NUMERIC_SHARE = 0.9  # a column is continuous when this share of its cells are numbers; the others are reported


@dataclass(slots=True)
class RowContent:
    """What one row says of an image."""

    labels: dict[str, bool | None] = field(default_factory=dict)
    attributes: dict[str, float | str | None] = field(default_factory=dict)
    patient: str = ""
    study: str = ""
    split: str = ""
    text: str | None = None


class Table:
    """A label table, joined to files.

    Attributes:
        path: its file.
        labels: label names in a fixed order.
        exclusive: every labelled row has exactly one label.
        attributes: specs of its attribute columns.
        has_masks: it names masks.
    """

    def __init__(self, path: Path, frame: pl.DataFrame, options: IngestOptions) -> None:
        self.path = path
        self._options = options
        self._frame = frame
        self._columns = {
            role: self._column(role, getattr(options, f"{role}_column"), USUAL_NAMES.get(role, ()))
            for role in ("path", "patient", "study", "uid", "text", "mask")
        }
        self._label_columns = self._find_label_columns()
        self._no_finding = {plain_name(value) for value in options.no_finding}
        self._per_label = len(self._label_columns) > 1 or any(c.startswith(LABEL_PREFIX) for c in self._label_columns)
        self.labels = self._vocabulary()
        self.exclusive = self._is_exclusive()
        self._attribute_columns, self.attributes = self._find_attributes()
        self.has_masks = self._columns["mask"] is not None
        self._cells = {name: frame[name].to_list() for name in self._used_columns()}
        self._join: Join | None = None

    @classmethod
    def read(cls, path: Path, options: IngestOptions) -> Table:
        """Read a CSV, TSV or Parquet file.

        Raises:
            InputError: it cannot be read, is empty, or lacks a column that was named.
        """
        return cls(path, _read_frame(path), options)

    def __len__(self) -> int:
        return self._frame.height

    def bind(self, keys: Sequence[FileKey]) -> float:
        """Join the rows to these files; returns the share of files that have a row.

        Raises:
            InputError: the wanted join lacks its column.
        """
        wanted = self._options.join
        possible: list[Literal["path", "uid", "patient"]] = [
            kind for kind in ("path", "uid", "patient") if self._columns[kind] is not None and wanted in {"auto", kind}
        ]
        if not possible:
            what = "path, uid or patient" if wanted == "auto" else wanted
            raise InputError(
                f"{self.path} has no column of {what} to join by, it has {', '.join(self._frame.columns[:20])}",
                "name it with path_column, uid_column or patient_column",
            )
        joins = [Join(RowIndex(kind, self._cells[str(self._columns[kind])], keys), keys) for kind in possible]
        self._join = max(joins, key=lambda join: join.total_matched)  # the first of equals
        return self._join.total_matched / max(1, len(keys))

    def row_of(self, number: int) -> int:
        """Row of the file with this number in :meth:`bind`'s list.

        Raises:
            UnreadableImage: there is none, or several.
        """
        assert self._join is not None  # noqa: S101 - bind() comes first
        return self._join.row_of(number)

    def total_unmatched(self) -> int:
        """Rows that belong to no file."""
        return len(self) - (0 if self._join is None else self._join.total_rows_used)

    def content(self, row: int) -> RowContent:
        """What a row says.

        Raises:
            UnreadableImage: a cell does not parse; the message names the column, not the cell.
        """
        return RowContent(
            labels=self._labels_of(row),
            attributes={
                spec.name: self._attribute_of(row, column, spec)
                for column, spec in zip(self._attribute_columns, self.attributes, strict=True)
            },
            patient=self._cell("patient", row),
            study=self._cell("study", row),
            text=self._cell("text", row) or None,
        )

    def mask_cell(self, row: int) -> str:
        """Path of the mask that a row names, with forward slashes; empty when it names none."""
        return self._cell("mask", row).replace("\\", "/")

    def mask_paths(self) -> set[str]:
        """Paths of all masks that rows name."""
        if not self.has_masks:
            return set()
        return {os.path.normpath(self.mask_cell(row)) for row in range(len(self))}

    def _column(self, role: str, wanted: str, usual: Iterable[str]) -> str | None:
        if wanted:
            if wanted not in self._frame.columns:
                raise InputError(
                    f"{self.path} has no column {wanted!r}, it has {', '.join(self._frame.columns[:20])}",
                    f"name the column of {role} as the table does",
                )
            return wanted
        by_plain = {plain_name(name): name for name in reversed(self._frame.columns)}
        return next((by_plain[plain_name(name)] for name in usual if plain_name(name) in by_plain), None)

    def _find_label_columns(self) -> list[str]:
        if self._options.label_columns:
            return [str(self._column("labels", name, ())) for name in self._options.label_columns]
        prefixed = [name for name in self._frame.columns if name.startswith(LABEL_PREFIX)]
        if prefixed:
            return prefixed
        found = self._column("labels", "", USUAL_NAMES["labels"])
        return [] if found is None or found in self._columns.values() else [found]

    def _used_columns(self) -> set[str]:
        roles = [name for name in self._columns.values() if name is not None]
        return {*roles, *self._label_columns, *self._attribute_columns}

    def _cell(self, role: str, row: int) -> str:
        column = self._columns[role]
        return "" if column is None else _stripped(self._cells[column][row])

    def _vocabulary(self) -> tuple[str, ...]:
        if self._per_label:
            names = [name.removeprefix(LABEL_PREFIX) for name in self._label_columns]
            found = [name for name in names if plain_name(name) not in self._no_finding]
        elif self._label_columns:
            cells = self._frame[self._label_columns[0]].unique().to_list()
            found = sorted({part for cell in cells for part in self._parts(cell)})
        else:
            return ()
        if len(found) > MANY_LABELS:
            raise InputError(
                f"the label column of {self.path} holds {len(found)} different labels, at most {MANY_LABELS} are taken",
                "name another column with label_columns, or the separator with label_separator",
            )
        if any(not NAME_PATTERN.fullmatch(name) for name in found):
            raise InputError(
                f"a label in {self.path} is longer than 80 characters or holds ':' or control characters",
                "rename it, or name another column with label_columns",
            )
        return tuple(dict.fromkeys(found))

    def _parts(self, cell: str | None) -> list[str]:
        """Label names of a cell, without *no finding*."""
        text = _stripped(cell)
        parts = [part.strip() for part in text.split(self._options.label_separator)]
        return [part for part in parts if part and plain_name(part) not in self._no_finding]

    def _labels_of(self, row: int) -> dict[str, bool | None]:
        if self._per_label:
            return self._stated_labels(row)
        if not self._label_columns:
            return {}
        cell = self._cells[self._label_columns[0]][row]
        if not _stripped(cell):
            return dict.fromkeys(self.labels)
        present = set(self._parts(cell))
        return {name: name in present for name in self.labels}

    def _stated_labels(self, row: int) -> dict[str, bool | None]:
        stated: dict[str, bool | None] = {}
        nothing = False
        for column in self._label_columns:
            name = column.removeprefix(LABEL_PREFIX)
            cell = _stripped(self._cells[column][row]).lower()
            value: bool | None = None
            if cell in STATED:
                value = STATED[cell]
            elif cell in UNCERTAIN_CELLS:
                value = {"missing": None, "present": True, "absent": False}[self._options.uncertain]
            elif cell:
                raise UnreadableImage(Reason.BAD_TABLE_ROW, f"column {name!r} holds neither 1, 0, -1 nor nothing")
            if plain_name(name) in self._no_finding:
                nothing = value is True
            else:
                stated[name] = value
        if nothing:
            return {name: False if value is None else value for name, value in stated.items()}
        return stated

    def _is_exclusive(self) -> bool:
        if self._options.exclusive != "auto":
            return self._options.exclusive
        if not self._label_columns or len(self.labels) < 2:
            return False
        if self._per_label:
            columns = [
                c for c in self._label_columns if plain_name(c.removeprefix(LABEL_PREFIX)) not in self._no_finding
            ]
            if len(columns) < len(self._label_columns):
                return False
            flags = self._frame.select(pl.col(c).str.strip_chars().is_in(["1", "1.0", "true"]) for c in columns)
            return bool((flags.select(pl.sum_horizontal(pl.all().cast(pl.Int32))).to_series() == 1).all())
        cells = [cell for cell in self._frame[self._label_columns[0]].unique().to_list() if _stripped(cell)]
        return all(len(self._parts(cell)) == 1 for cell in cells)

    def _find_attributes(self) -> tuple[list[str], tuple[AttributeSpec, ...]]:
        wanted = self._options.attribute_kinds
        chosen: list[tuple[str, str, str]] = []
        if wanted is not None:
            for name, kind in wanted.items():
                if name in self._frame.columns:
                    chosen.append((name, name, kind))
                else:
                    column = self._column("attributes", name if name not in USUAL_ATTRIBUTES else "", (name,))
                    column = column or self._column("attributes", "", USUAL_ATTRIBUTES[name])
                    if column is not None:  # else the files' headers may know it
                        chosen.append((column, name, kind))
        else:
            prefixed = [name for name in self._frame.columns if name.startswith(ATTRIBUTE_PREFIX)]
            chosen += [(name, name.removeprefix(ATTRIBUTE_PREFIX), "auto") for name in prefixed]
            for name, usual in USUAL_ATTRIBUTES.items():
                column = self._column("attributes", "", usual)
                if column is not None and name not in {taken for _, taken, _ in chosen}:
                    chosen.append((column, name, "auto"))
        return [column for column, _, _ in chosen], tuple(self._spec(*entry) for entry in chosen)

    def _spec(self, column: str, name: str, kind: str) -> AttributeSpec:
        cells = [_stripped(cell) for cell in self._frame[column].unique().to_list()]
        stated = [cell for cell in cells if cell]
        if kind == "auto":
            numbers = sum(_number(cell) is not None for cell in stated)
            kind = "continuous" if stated and numbers >= NUMERIC_SHARE * len(stated) else "categorical"
        if kind == "categorical" and len(stated) > MANY_CATEGORIES:
            raise InputError(
                f"attribute {name!r} in {self.path} has {len(stated)} different values, at most {MANY_CATEGORIES} "
                "are taken",
                f"leave it out, or ask for {name}:continuous",
            )
        if kind == "continuous":
            return AttributeSpec(name=name, kind="continuous", unit=UNITS.get(name, ""))
        return AttributeSpec(name=name, kind="categorical")

    def _attribute_of(self, row: int, column: str, spec: AttributeSpec) -> float | str | None:
        cell = _stripped(self._cells[column][row])
        if not cell:
            return None
        if spec.kind == "categorical":
            return cell
        number = _number(cell)
        if number is None:
            raise UnreadableImage(Reason.BAD_TABLE_ROW, f"column {column!r} holds no number")
        return number


def _stripped(cell: Any) -> str:
    text = "" if cell is None else str(cell).strip()
    return "" if text.lower() in MISSING_CELLS else text


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return years(cell)
    return number if math.isfinite(number) else None


def _read_frame(path: Path) -> pl.DataFrame:
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            frame = pl.read_parquet(path)
        else:
            with path.open("rb") as stream:
                first = stream.readline()
            separator = max((b",", b"\t", b";"), key=first.count).decode()
            frame = pl.read_csv(path, infer_schema=False, encoding="utf8-lossy", separator=separator)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", "check the path of the table") from None
    except (OSError, pl.exceptions.PolarsError):
        raise InputError(f"{path} cannot be read as a table", "give a CSV, TSV or Parquet file") from None
    if frame.height == 0:
        raise InputError(f"{path} has no rows", "give a table with one row per image")
    return frame.select(_as_text(frame[name]) for name in frame.columns)


def _as_text(column: pl.Series) -> pl.Series:
    if column.dtype == pl.List(pl.String):
        return column.list.join("|")
    if column.dtype.is_float() and (column.drop_nulls().drop_nans() % 1 == 0).all():
        return column.fill_nan(None).cast(pl.Int64, strict=False).cast(pl.String)  # ids that a float column made 7.0
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        return pl.Series(column.name, [None] * len(column), dtype=pl.String)
    return column.cast(pl.String)
