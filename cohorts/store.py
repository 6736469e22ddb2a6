"""A cohort on disk: ``cohort.json``, ``manifest.parquet``, ``arrays.zarr`` (Zarr v3), published by ``digest.json``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import zarr

from medphantom.cohorts.manifest import (
    ARRAYS_FOLDER,
    MANIFEST_FILE,
    SCHEMA_FILE,
    cohort_digest,
    group_name,
    manifest_schema,
    origin_digest,
    require_usable_rows,
    row_hash,
)
from medphantom.cohorts.records import (
    ATTRIBUTE_PREFIX,
    LABEL_PREFIX,
    LEFT_OUT_SPLIT,
    OLD_SPLIT_NAMES,
    SPLITS,
    SYNTHETIC_SPLIT,
    CohortSchema,
    ImageRecord,
    Provenance,
    Voi,
)
from medphantom.core.access import warn_when_open
from medphantom.core.arguments import checked
from medphantom.core.errors import CohortError, InputError
from medphantom.core.folders import DIGEST_FILE, pixel_digest, read_digest, read_json
from medphantom.core.guard import parse_json, parse_model, reading
from medphantom.core.limits import why_parquet_is_refused
from medphantom.core.progress import Progress
from medphantom.core.records import Array

AGAIN = "make the cohort again"


class Cohort:
    """A published, immutable set of images: columnar inside, :class:`ImageRecord` at the edge.

    Attributes:
        path: Folder of the cohort.
        schema: Meaning of the columns.
        digest: Digest of canonical rows and pixels.
    """

    def __init__(self, path: Path, schema: CohortSchema, digest: str, total_rows: int) -> None:
        self.path = path
        self.schema = schema
        self.digest = digest
        self._total_rows = total_rows
        self._arrays: dict[str, zarr.Array] = {}

    @classmethod
    @checked
    def open(cls, path: str | Path) -> Cohort:
        """Open a published cohort.

        Raises:
            CohortError: If the folder is missing, incomplete, truncated or of another version.
        """
        folder = Path(path)
        facts = read_digest(folder, error=CohortError)
        content = read_json(folder / SCHEMA_FILE, error=CohortError)
        said = "does not describe a cohort; create it again"
        schema = parse_model(CohortSchema, content, folder / SCHEMA_FILE, CohortError, said)
        if schema.kind != "synthetic":
            warn_when_open(folder)
        expected = facts.get("total_images")
        if not isinstance(expected, int):
            raise CohortError(f"{folder / DIGEST_FILE} does not say how many images there are", AGAIN)
        with reading(folder / MANIFEST_FILE, CohortError, "is damaged", AGAIN):
            if problem := why_parquet_is_refused(folder / MANIFEST_FILE):
                raise CohortError(f"{folder / MANIFEST_FILE} declares {problem}", AGAIN)
            metadata = pq.read_metadata(folder / MANIFEST_FILE)
            columns = metadata.schema.to_arrow_schema()
        if metadata.num_rows != expected:
            raise CohortError(f"{folder} lists {metadata.num_rows} images, expected {expected}", AGAIN)
        if not columns.equals(manifest_schema(schema)):
            raise CohortError(f"{folder / MANIFEST_FILE} does not have the columns of {SCHEMA_FILE}", AGAIN)
        if facts.get("origin", origin_digest(schema)) != origin_digest(schema):  # older cohorts do not state it
            raise CohortError(f"the origin in {folder / SCHEMA_FILE} was altered", AGAIN)
        return cls(folder, schema, facts["digest"], expected)

    def __len__(self) -> int:
        return self._total_rows

    def __repr__(self) -> str:
        return f"Cohort({self.schema.kind}, {len(self)} images, digest {self.digest[:12]})"

    @cached_property
    def manifest(self) -> pl.DataFrame:
        """All rows, in stored order; columns as in :func:`manifest_schema`.

        They are compared with the digest that the cohort was published under, so that no verb uses, shares or merges
        what was altered; the arrays are compared where they are read.

        Raises:
            CohortError: If the file or the schema is damaged or was altered, or a row has invalid values.
        """
        with reading(self.path / MANIFEST_FILE, CohortError, "is damaged", AGAIN):
            rows = pl.read_parquet(self.path / MANIFEST_FILE, glob=False)
        require_usable_rows(rows, self.schema, self.path / MANIFEST_FILE)
        if rows["split"].is_in(list(self._old_names.values())).any():
            version = f"version {self.schema.format_version}"
            raise CohortError(f"{self.path / MANIFEST_FILE} has split names that no cohort of {version} has", AGAIN)
        if cohort_digest(self.schema, [row_hash(row) for row in rows.iter_rows(named=True)]) != self.digest:
            raise CohortError(f"{SCHEMA_FILE} or {MANIFEST_FILE} of {self.path} was altered", AGAIN)
        return rows.with_columns(pl.col("split").replace(self._old_names))

    @property
    def _old_names(self) -> dict[str, str]:
        """Current name of each split by its name in the version that wrote the files."""
        return OLD_SPLIT_NAMES if self.schema.format_version == 1 else {}

    def rows(self, split: str | None = None) -> list[int]:
        """Return the row numbers of one split (or of all), in stored order.

        Raises:
            InputError: If there is no such split.
        """
        if split is None:
            return list(range(len(self)))
        known = (*SPLITS, LEFT_OUT_SPLIT, SYNTHETIC_SPLIT)
        if split not in known:
            raise InputError(f"there is no split {split!r}", f"one of {', '.join(known)}")
        return [int(i) for i in (self.manifest["split"] == split).arg_true()]

    def patients(self, rows: Sequence[int] | None = None) -> list[str]:
        """Return the patient pseudonym of each row."""
        column = self.manifest["patient"]
        return column.to_list() if rows is None else column.gather(self._known(rows)).to_list()

    def labels(self, rows: Sequence[int] | None = None) -> Array:
        """Return labels as ``(n, len(schema.labels))`` int8: 1 present, 0 absent, -1 missing."""
        columns = [LABEL_PREFIX + name for name in self.schema.labels]
        frame = self.manifest.select(pl.col(c).cast(pl.Int8).fill_null(-1) for c in columns) if columns else None
        table = frame.to_numpy() if frame is not None else np.zeros((len(self), 0), dtype=np.int8)
        return table if rows is None else table[self._known(rows)]

    def attribute(self, name: str, rows: Sequence[int] | None = None) -> list[Any]:
        """Return the values of one attribute, ``None`` if missing."""
        column = self.manifest[ATTRIBUTE_PREFIX + name]
        return column.to_list() if rows is None else column.gather(self._known(rows)).to_list()

    def pixels(self, rows: Sequence[int]) -> list[Array]:
        """Return source values of the given rows, each verified against its digest.

        Raises:
            CohortError: If an array is missing or was altered.
            InputError: If there is no such row.
        """
        return self._read(rows, "group", "index", "digest")

    def masks(self, rows: Sequence[int]) -> list[Array | None]:
        """Return the segmentation of each row, ``None`` if there is none."""
        return self._read(rows, "mask_group", "mask_index", "mask_digest")

    def records(self, rows: Sequence[int] | None = None, batch_size: int = 64) -> Iterator[ImageRecord]:
        """Yield rows as records, read in batches."""
        numbers = list(range(len(self))) if rows is None else list(rows)
        for start in range(0, len(numbers), batch_size):
            batch = numbers[start : start + batch_size]
            for number, pixels, mask in zip(batch, self.pixels(batch), self.masks(batch), strict=True):
                yield self._record(self.manifest.row(number, named=True), pixels, mask)

    def verify(self, progress: Progress | None = None) -> None:
        """Read everything and recompute the digest.

        Args:
            progress: Callback that receives the number of images read.

        Raises:
            CohortError: If anything differs from what was published.
        """
        if len(self.manifest) != len(self):
            raise CohortError(f"{self.path / MANIFEST_FILE} was altered", AGAIN)
        for start in range(0, len(self), 256):
            batch = list(range(start, min(start + 256, len(self))))
            self.pixels(batch)
            self.masks(batch)
            if progress is not None:
                progress(batch[-1] + 1, len(self), "images")

    def _read(self, rows: Sequence[int], group: str, index: str, digest: str) -> list[Any]:
        wanted = self.manifest.select(group, index, digest)[self._known(rows)]
        found: list[Any] = [None] * len(wanted)
        by_group: dict[str, list[tuple[int, int, str]]] = {}
        for place, (name, position, expected) in enumerate(wanted.iter_rows()):
            if name is not None:
                by_group.setdefault(name, []).append((place, position, expected))
        for name, entries in by_group.items():
            entries.sort(key=lambda entry: entry[1])
            with reading(f"an array of {self.path}", CohortError, "was altered or cut", AGAIN):
                block = self._group(name).oindex[[position for _, position, _ in entries]]
            for array, (place, _, expected) in zip(block, entries, strict=True):
                if pixel_digest(array) != expected:
                    raise CohortError(f"an array of {self.path} was altered or is missing", AGAIN)
                found[place] = array
        return found

    def _known(self, rows: Sequence[int]) -> list[int]:
        """Return row numbers that exist; none counts from the end."""
        try:
            numbers = [index(row) for row in rows]
        except TypeError:
            raise InputError("rows must be whole numbers", f"{self.path} has rows 0 to {len(self) - 1}") from None
        wrong = [row for row in (min(numbers, default=0), max(numbers, default=0)) if not 0 <= row < max(len(self), 1)]
        if wrong:
            raise InputError(f"there is no row {wrong[0]}", f"{self.path} has rows 0 to {len(self) - 1}")
        return numbers

    def _group(self, name: str) -> zarr.Array:
        if name not in self._arrays:
            with reading(f"an array group of {self.path}", CohortError, "is missing or was altered", AGAIN):
                opened = zarr.open_array(self.path / ARRAYS_FOLDER / name, mode="r", zarr_format=3)
                if group_name(opened.shape[1:], opened.dtype) != name:
                    raise CohortError(f"an array group of {self.path} contains arrays of another kind", AGAIN)
            self._arrays[name] = opened
        return self._arrays[name]

    def _record(self, row: dict[str, Any], pixels: Array, mask: Array | None) -> ImageRecord:
        def floats(value: list[float] | None) -> tuple[float, ...] | None:
            return None if value is None else tuple(value)

        synthetic = row["bundle_digest"] is not None
        return ImageRecord(
            image_id=row["image_id"],
            patient=row["patient"],
            pixels=pixels,
            split=row["split"],
            study=row["study"],
            channels=row["channels"],
            inverted=row["inverted"],
            spacing_mm=floats(row["spacing_mm"]),
            affine=floats(row["affine"]),
            modality=row["modality"],
            labels={name: row[LABEL_PREFIX + name] for name in self.schema.labels},
            attributes={spec.name: row[ATTRIBUTE_PREFIX + spec.name] for spec in self.schema.attributes},
            text=row["text"],
            mask=mask,
            voi=None if row["voi_center"] is None else Voi(row["voi_center"], row["voi_width"]),
            near_duplicate_of=row["near_duplicate_of"],
            provenance=Provenance(row["bundle_digest"], row["prompt_json"], row["seed"]) if synthetic else None,
        )


def prompt_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the prompt of a synthetic row as a plain dictionary.

    Raises:
        CohortError: If it has none.
    """
    with reading("the prompt of a synthetic image", CohortError, "is not a prompt", AGAIN):
        loaded = parse_json(row["prompt_json"])
    if not isinstance(loaded, dict):
        raise CohortError("the prompt of a synthetic image is not a prompt", AGAIN)
    return loaded
