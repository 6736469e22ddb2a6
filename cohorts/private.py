"""Private records of an ingestion: source file and patient of each image, and rejected files with reasons."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from medphantom.cohorts.readers.tasks import Refusal
from medphantom.core.errors import CohortError
from medphantom.core.folders import publishing
from medphantom.core.guard import reading

REJECTIONS_FILE = "rejections.parquet"
LINKS_FILE = "links.parquet"
ROWS_PER_WRITE = 4096

_REJECTIONS = pa.schema(
    [("path", pa.string()), ("frame", pa.int64()), ("reason", pa.string()), ("detail", pa.string())]
)
_LINKS = pa.schema(
    [
        ("path", pa.string()),
        ("role", pa.string()),
        ("frame", pa.int64()),
        ("image_id", pa.string()),
        ("patient_id", pa.string()),
        ("patient", pa.string()),
    ]
)


def private_path(cohort: Path) -> Path:
    """Return the private folder of a cohort, which is beside it and never inside it."""
    return cohort.with_name(f"{cohort.name}.private")


class PrivateFolder(AbstractContextManager["PrivateFolder"]):
    """Writes the private folder of one ingestion atomically, readable by its owner only.

    ``rejections.parquet`` lists rejected files (with ``frame`` if only one frame was rejected); ``links.parquet`` lists
    the use of every other file: ``role`` is ``image`` (with image id, patient id and pseudonym), ``mask`` or ``table``.

    Args:
        path: Folder that is created.
    """

    def __init__(self, path: Path) -> None:
        self._publishing = publishing(path)
        self._tables: list[_RowWriter] = []

    def __enter__(self) -> Self:
        folder = self._publishing.__enter__()
        self._tables = [_RowWriter(folder / REJECTIONS_FILE, _REJECTIONS), _RowWriter(folder / LINKS_FILE, _LINKS)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for table in self._tables:
                table.close()
        except BaseException as late:
            self._publishing.__exit__(type(late), late, late.__traceback__)
            raise
        self._publishing.__exit__(kind, error, traceback)

    def reject(self, path: str, refusal: Refusal) -> None:
        """Record that a file, or one frame of it, was rejected."""
        self._tables[0].add(
            path=printable(path), frame=refusal.frame, reason=refusal.reason.value, detail=refusal.detail
        )

    def link(
        self,
        path: str,
        role: str,
        *,
        image_id: str = "",
        frame: int | None = None,
        patient_id: str = "",
        patient: str = "",
    ) -> None:
        """Record the use of a file."""
        self._tables[1].add(
            path=printable(path),
            role=role,
            frame=frame,
            image_id=image_id or None,
            patient_id=printable(patient_id) or None,
            patient=patient or None,
        )


def read_links(file: Path) -> pl.DataFrame:
    """Return the use of each file.

    Raises:
        CohortError: If the file is damaged.
    """
    return _read(file, _LINKS)


def read_rejections(file: Path) -> pl.DataFrame:
    """Return the rejected files.

    Raises:
        CohortError: If the file is damaged.
    """
    return _read(file, _REJECTIONS)


def _read(file: Path, schema: pa.Schema) -> pl.DataFrame:
    with reading(file, CohortError, "is damaged", "ingest the source again"):
        if not pq.read_schema(file).equals(schema):
            raise CohortError(f"{file} has other columns than such a file has", "ingest the source again")
        return pl.read_parquet(file, glob=False)


class _RowWriter:
    """Writes rows to a Parquet file that only its owner can read."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._schema = schema
        self._rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        self._rows.append(row)
        if len(self._rows) >= ROWS_PER_WRITE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()


def printable(path: str) -> str:
    """Return a path as text: bytes of its name that are not UTF-8 are written as escapes."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
