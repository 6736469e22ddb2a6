"""The columns of a cohort's manifest, and the digests of its rows and of the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from medphantom.cohorts.records import ATTRIBUTE_PREFIX, LABEL_PREFIX, CohortSchema
from medphantom.core.errors import CohortError
from medphantom.core.folders import canonical_json, json_digest

SCHEMA_FILE = "cohort.json"
MANIFEST_FILE = "manifest.parquet"
ARRAYS_FOLDER = "arrays.zarr"

STORAGE_COLUMNS = ("group", "index", "mask_group", "mask_index")  # the location of a row is not part of its content

_NEEDED = ("image_id", "patient", "split", "group", "index", "digest", "channels", "inverted", "shape")
_GROUP = r"^[0-9]{1,9}(x[0-9]{1,9}){1,3}_[a-z]{3,8}[0-9]{0,3}$"

_FIXED_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("image_id", pa.string()),
    ("patient", pa.string()),
    ("study", pa.string()),
    ("split", pa.string()),
    ("group", pa.string()),
    ("index", pa.int64()),
    ("digest", pa.string()),
    ("channels", pa.int8()),
    ("inverted", pa.bool_()),
    ("shape", pa.list_(pa.int32())),
    ("spacing_mm", pa.list_(pa.float64())),
    ("affine", pa.list_(pa.float64())),
    ("modality", pa.string()),
    ("voi_center", pa.float64()),
    ("voi_width", pa.float64()),
    ("text", pa.string()),
    ("mask_group", pa.string()),
    ("mask_index", pa.int64()),
    ("mask_digest", pa.string()),
    ("near_duplicate_of", pa.string()),
    ("bundle_digest", pa.string()),
    ("prompt_json", pa.string()),
    ("seed", pa.int64()),
)


def manifest_schema(schema: CohortSchema) -> pa.Schema:
    """Return the Arrow schema of ``manifest.parquet``: fixed, then ``label:`` boolean, then ``attr:`` columns."""
    fields = [pa.field(name, kind) for name, kind in _FIXED_COLUMNS]
    fields += [pa.field(LABEL_PREFIX + name, pa.bool_()) for name in schema.labels]
    for spec in schema.attributes:
        kind = pa.float64() if spec.kind == "continuous" else pa.string()
        fields.append(pa.field(ATTRIBUTE_PREFIX + spec.name, kind))
    return pa.schema(fields)


def group_name(shape: Sequence[int], dtype: np.dtype[Any]) -> str:
    """Return the name of the Zarr array for images of one shape and dtype, such as ``512x512_int16``."""
    return f"{'x'.join(str(size) for size in shape)}_{dtype.name}"


def require_usable_rows(rows: pl.DataFrame, schema: CohortSchema, file: Path) -> None:
    """Refuse rows with values that no cohort has, before they are used.

    Raises:
        CohortError: With the names of the file and the column.
    """
    for column, wrong in _wrong(rows.columns, schema):
        if rows.select(wrong.fill_null(value=False).any()).item():
            raise CohortError(f"{file} contains invalid values in its column {column}", "create the cohort again")


def _wrong(columns: Sequence[str], schema: CohortSchema) -> Iterator[tuple[str, pl.Expr]]:
    """Yield each column with an expression of its invalid values."""
    for name in _NEEDED:
        yield name, pl.col(name).is_null()
    for name in ("index", "mask_index", "seed"):
        yield name, pl.col(name) < 0
    for name in ("group", "mask_group"):
        yield name, ~pl.col(name).str.contains(_GROUP)
    yield "channels", ~pl.col("channels").is_in([1, 3])
    yield "mask_group", pl.col("mask_group").is_null() != pl.col("mask_index").is_null()
    yield "mask_group", pl.col("mask_group").is_null() != pl.col("mask_digest").is_null()
    yield "bundle_digest", pl.col("bundle_digest").is_null() != pl.col("prompt_json").is_null()
    yield "bundle_digest", pl.col("bundle_digest").is_null() != pl.col("seed").is_null()
    yield "voi_width", pl.col("voi_width").is_null() != pl.col("voi_center").is_null()
    sides = pl.lit(schema.spatial_dims) + (pl.col("channels") == 3).cast(pl.Int64)
    inner, spacings = pl.element(), pl.col("spacing_mm")
    yield "shape", pl.col("shape").list.len().cast(pl.Int64) != sides
    yield "shape", pl.col("shape").list.eval(inner.is_null() | (inner < 1)).list.any()
    yield (
        "group",
        pl.col("group").str.split("_").list.first() != pl.col("shape").cast(pl.List(pl.String)).list.join("x"),
    )
    yield "spacing_mm", spacings.list.len() != schema.spatial_dims
    yield "spacing_mm", spacings.list.eval(inner.is_null() | ~inner.is_finite() | (inner <= 0)).list.any()
    yield "affine", pl.col("affine").list.len() != 16
    yield "affine", pl.col("affine").list.eval(inner.is_null() | ~inner.is_finite()).list.any()
    for name in ("voi_center", "voi_width"):
        yield name, ~pl.col(name).is_finite()
    continuous = {ATTRIBUTE_PREFIX + spec.name for spec in schema.attributes if spec.kind == "continuous"}
    for name in columns:
        if name in continuous:
            yield "of an attribute", ~pl.col(name).is_finite()


def row_hash(row: dict[str, Any]) -> bytes:
    """Return the hash of a row's content, without the location of its arrays."""
    content = {name: value for name, value in row.items() if name not in STORAGE_COLUMNS}
    return hashlib.sha256(canonical_json(content).encode()).digest()


def origin_digest(schema: CohortSchema) -> str:
    """Return the digest of the identity key's name, which is stored beside that of the cohort and is no part of it."""
    origin = schema.origin
    return json_digest(None if origin is None else origin.model_dump(mode="json"))


def cohort_digest(schema: CohortSchema, row_hashes: Sequence[bytes]) -> str:
    """Return the digest of canonical schema and rows in any order; rows include the digests of their pixels.

    A plan that was not recorded is left out, so that cohorts from before it was keep their digest.
    """
    left_out = {"origin"} if schema.plan is not None else {"origin", "plan"}
    digest = hashlib.sha256(canonical_json(schema.model_dump(mode="json", exclude=left_out)).encode())
    for row_hash in sorted(row_hashes):
        digest.update(row_hash)
    return digest.hexdigest()
