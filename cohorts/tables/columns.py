"""The roles of a table's columns, by the names that public data sets and export tools use, and by their cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.split_names import cell_split
from medphantom.cohorts.tables.cells import STATED, YES_OR_NO, flag, is_rounded_id, observed_text
from medphantom.cohorts.tables.file import TableFile, clean_name
from medphantom.core.errors import InputError
from medphantom.core.naming import is_nobody, plain_id, plain_name, plain_text

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "path": (
        "file_name", "path", "image_path", "file_path", "image", "file", "filename", "image_file", "Image Index",
        "image_name", "image_filename", "img", "img_path", "dicom_path", "dicom", "image_id", "isic_id", "dicom_id",
    ),
    "patient": ("patient_id", "patient", "subject_id", "subject", "participant_id", "participant"),
    "study": ("study_id", "study", "study_instance_uid", "study_uid"),
    "uid": ("sop_instance_uid", "sop_uid", "series_instance_uid", "series_uid", "uid"),
    "labels": (
        "labels", "label", "findings", "finding_labels", "finding_label", "finding", "class_name", "class",
        "diagnosis", "dx", "target", "disease",
    ),
    "mask": ("mask", "mask_path", "mask_file", "segmentation"),
    "split": ("split", "subset", "partition", "set", "dataset_split"),
}  # fmt: skip
"""Column names that are searched in this order; case, spaces and punctuation do not matter."""

USUAL_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "age": ("age", "patient_age", "age_years", "age_approx"),
    "sex": ("sex", "gender", "patient_sex", "patient_gender", "PatientSex_DICOM"),
    "view": ("view", "view_position", "AP/PA", "projection", "ViewPosition_DICOM"),
    "frontal_lateral": ("Frontal/Lateral",),
    "body_part": ("body_part", "body_part_examined", "anatom_site_general", "anatom_site_general_challenge",
                  "localization"),
}  # fmt: skip
"""Attributes that are used by default, each under its own name, and the columns in which they are found."""

ROLE_WORDS = {plain_name(word) for word in (
    "patient", "patients", "pat", "control", "controls", "ctrl", "ctl", "hc", "case", "cases", "healthy", "diseased",
    "sick", "ill", "normal", "abnormal", "affected", "unaffected", "volunteer", "volunteers", "healthy control",
    "healthy controls", "healthy volunteer", "healthy volunteers", "subject", "participant", "proband", "donor",
    "relative", "sibling", "human", "animal", "phantom", "adult", "child", "treated", "untreated", "treatment",
    "placebo", "intervention", "positive", "negative", "kontrolle", "kontrollen", "gesund", "krank", "probanden",
    "témoin", "témoins", "malade", "sain", "paciente", "sano", "enfermo", "paziente", "controllo", "пациент",
    "контроль", "患者", "对照", "對照", "健常者", "환자", "대조군",
)}  # fmt: skip
"""Roles of people in a study; in a column named *patient* they tell who is ill, and do not identify anyone."""
MANY_ROWS = 5  # of one word, or of 0 and 1, which no longer may be the names of a few people

BOX_COLUMNS = {plain_name(name) for name in (
    "x", "y", "w", "h", "width", "height", "x_min", "y_min", "x_max", "y_max", "x1", "y1", "x2", "y2", "bbox",
    "bounding_box", "Bbox [x", "h]",
)}  # fmt: skip
_BOXES = ({"x", "y", "width", "height"}, {"x", "y", "w", "h"}, {"xmin", "ymin", "xmax", "ymax"},
          {"x1", "y1", "x2", "y2"}, {"bbox"}, {"boundingbox"}, {"bboxx"})  # fmt: skip
NEVER_LABELS = BOX_COLUMNS | {plain_name(name) for name in (
    "id", "index", "no", "number", "row", "count", "lesion_id", "rad_id", "reader_id", "class_id", "label_id", "fold",
    "seed", "exact", "value_slope", "value_intercept", "follow-up", "follow-up #", "is_train", "is_test", "is_valid",
    "modality", "image_id", "near_duplicate_of", "bundle_digest", "prompt", "text",
)}  # fmt: skip
"""Columns of 0 and 1 that are not labels: box coordinates, counters, and those of our own export."""


class Columns:
    """The columns of one table: found by role, read as cells.

    Args:
        path: Path of the table, for messages.
        table: Content of the file.
        options: Ingestion options with the names of columns.

    Attributes:
        roles: Column by role, for ``path``, ``patient``, ``study``, ``uid``, ``text``, ``mask`` and ``split``.
        remarks: Remarks on cells of these columns that are not used.
    """

    def __init__(self, path: Path, table: TableFile, options: IngestOptions) -> None:
        self.path = path
        self.frame = table.frame
        self._repeated = table.repeated
        self._unreadable = table.unreadable
        self.remarks: list[str] = []
        self.roles: dict[str, str | None] = {
            role: self.find(role, getattr(options, f"{role}_column"), USUAL_NAMES.get(role, ()))
            for role in ("path", "patient", "study", "uid", "text", "mask", "split")
        }
        if table.short_rows:
            self.remarks.append(f"{table.short_rows} rows end before the header does: their last cells are empty")
        if table.headers:
            self.remarks.append(
                f"{table.headers} lines repeat the column names and are no rows: files that were put together"
            )
        for column, kind in table.unreadable.items():
            self.remarks.append(f"column {column!r}: cells of the type {kind} cannot be read, it is not used")
        self._splits(options)

    def find(self, role: str, wanted: str, usual: Iterable[str]) -> str | None:
        """Return the column that an option names, else the first usual one with content; ``None`` if there is none.

        If none of the usual ones has content, it is the first.

        Raises:
            InputError: If the named column is missing or has an unreadable type, or two columns have the name.
        """
        names = self.frame.columns
        if wanted:
            clean = clean_name(wanted)
            if clean not in names:
                raise InputError(
                    f"{self.path} has no column {wanted!r}, it has {', '.join(names[:20])}",
                    f"name the column of {role} as the table does",
                )
            return self._readable(self._only(clean))
        empty = None
        for name in usual:
            fitting = [column for column in names if plain_name(column) == plain_name(name)]
            if role in {"patient", "split"}:  # to overlook whose images they are would cost more than to stop
                fitting = [self._readable(column) for column in fitting]
            fitting = [column for column in fitting if column not in self._unreadable]
            if any(not self.frame[column].equals(self.frame[fitting[0]]) for column in fitting[1:]):
                named = " and ".join(map(repr, fitting[:2]))
                raise InputError(f"{self.path} has the columns {named}, which are one name", "rename one of them")
            found = self._only(fitting[0]) if fitting else None
            if found is not None and self._states(found, role):
                if role not in {"patient", "study"} or self._names_somebody(found, role):
                    return found
                continue
            empty = empty or found
        return empty

    def refuse_if_identifying(self, column: str, remedy: str) -> None:
        """Refuse to publish a column that identifies the patient, study or file of a row.

        Raises:
            InputError: If the column has that role.
        """
        for role in ("patient", "study", "uid", "path", "mask"):
            if self.roles[role] == column:
                what = f"column {column!r} of {self.path} is the column of {role}, which is never published"
                raise InputError(what, remedy)

    def cells(self, column: str) -> list[str]:
        """Return the text of each row; empty if it is missing."""
        series = self.frame[column]
        texts = {cell: observed_text(cell) for cell in series.unique().to_list()}
        return [texts[cell] for cell in series.to_list()]

    def counts(self, column: str) -> Counter[str]:
        """Count rows by text, except missing ones."""
        found: Counter[str] = Counter()
        for cell, total in self.frame[column].drop_nulls().value_counts().iter_rows():
            found[observed_text(cell)] += total
        found.pop("", None)
        return Counter(dict(sorted(found.items())))

    def ids(self, role: str) -> list[str]:
        """Return identifiers of a role, comparable with those of files; empty if missing or unreliable."""
        column = self.roles[role]
        if column is None:
            return [""] * self.frame.height
        cells = self.cells(column)
        rounded = 0 if role == "path" else sum(map(is_rounded_id, cells))
        if rounded:
            note = f"column {column!r}: {rounded} identifiers are rounded numbers (1.2E+11) and are not used"
            self.remarks += [note] if note not in self.remarks else []
        if role == "path":  # a file may be called 1.0, and the join settles whether it is 1
            return [plain_text(cell) for cell in cells]
        nobody = sum(bool(cell) and is_nobody(cell) for cell in cells)
        if nobody:
            note = f"column {column!r}: {nobody} cells say unknown or the like and name nobody"
            self.remarks += [note] if note not in self.remarks else []
        plain = {cell: "" if is_rounded_id(cell) or is_nobody(cell) else plain_id(cell) for cell in set(cells)}
        return [plain[cell] for cell in cells]

    def raw(self, role: str) -> list[str]:
        """Return cells of a role as written, without outer spaces: paths of files, and reports."""
        column = self.roles[role]
        if column is None:
            return [""] * self.frame.height
        return [
            cell.strip() if observed_text(cell) and cell is not None else "" for cell in self.frame[column].to_list()
        ]

    @property
    def has_boxes(self) -> bool:
        """Return whether rows are boxes in images, several per image."""
        plain = {plain_name(name) for name in self.frame.columns}
        return any(corners <= plain for corners in _BOXES)

    def others(self, used: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the names of unused columns: those of boxes, and the rest."""
        rest = [name for name in self.frame.columns if name not in used]
        boxes = [name for name in rest if self.has_boxes and plain_name(name) in BOX_COLUMNS]
        return boxes, [name for name in rest if name not in boxes]

    def _states(self, column: str, role: str) -> bool:
        """Return whether any cell of a column has content; for identifiers, whether one identifies anybody."""
        texts = map(observed_text, self.frame[column])
        names = role in {"patient", "study", "uid"}
        return any(text and not (names and is_nobody(text)) for text in texts)

    def _names_somebody(self, column: str, role: str) -> bool:
        """Return whether an unnamed column may identify people: its cells are not flags or roles in a study."""
        counts = self.counts(column)
        many = sum(counts.values()) >= MANY_ROWS
        flags = all(cell.casefold() in YES_OR_NO or plain_name(cell) in ROLE_WORDS for cell in counts)
        numbers = many and all(flag(cell, {**STATED, **YES_OR_NO}) is not None for cell in counts)
        word = many and len(counts) == 1 and not any(sign.isdigit() for sign in next(iter(counts)))
        if not (flags or numbers or word):
            return True
        held = "one and the same word" if word else "yes and no, or roles such as patient and control"
        self.remarks.append(
            f"column {column!r}: its cells say {held}, which tells no {role} from another: it is not used as "
            f"the column of {role}; {role}_column names it if it is"
        )
        return False

    def _readable(self, column: str) -> str:
        if column in self._unreadable:
            raise InputError(
                f"column {column!r} of {self.path} has the type {self._unreadable[column]}, which cannot be read",
                "write its cells as text or numbers",
            )
        return column

    def _only(self, column: str) -> str:
        if column in self._repeated:
            raise InputError(f"{self.path} has several columns {column!r} with different cells", "rename or drop one")
        return column

    def _splits(self, options: IngestOptions) -> None:
        """Check that a column of splits has split words in at least half of its cells; other cells are missing."""
        column = self.roles["split"]
        if column is None:
            return
        words = self.counts(column)
        strange = sum(count for word, count in words.items() if not cell_split(word))
        if strange and options.split_column:
            raise InputError(f"column {column!r} of {self.path} has {strange} cells that name no split",
                             "write train, val, holdout or test")  # fmt: skip
        total = sum(words.values())
        if 2 * strange > total or not words:
            self.roles["split"] = None
        elif strange:
            self.remarks.append(f"column {column!r}: {strange} of {total} cells name no split and are not stated")
