"""The columns of a cohort's manifest, and the digests of its rows and of the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from cohorts.folders import canonical_json
from cohorts.records import ATTRIBUTE_PREFIX, LABEL_PREFIX, CohortSchema

SCHEMA_FILE = "cohort.json"
MANIFEST_FILE = "manifest.parquet"
ARRAYS_FOLDER = "arrays.zarr"

STORAGE_COLUMNS = ("group", "index", "mask_group", "mask_index")  # where a row lies is not what it is

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
    """Arrow schema of ``manifest.parquet``: fixed columns, then ``label:`` booleans, then ``attr:`` columns."""
    fields = [pa.field(name, kind) for name, kind in _FIXED_COLUMNS]
    fields += [pa.field(LABEL_PREFIX + name, pa.bool_()) for name in schema.labels]
    for spec in schema.attributes:
        kind = pa.float64() if spec.kind == "continuous" else pa.string()
        fields.append(pa.field(ATTRIBUTE_PREFIX + spec.name, kind))
    return pa.schema(fields)


def row_hash(row: dict[str, Any]) -> bytes:
    """Hash of what a row says, without where its arrays lie."""
    content = {name: value for name, value in row.items() if name not in STORAGE_COLUMNS}
    return hashlib.sha256(canonical_json(content).encode()).digest()


def cohort_digest(schema: CohortSchema, row_hashes: Sequence[bytes]) -> str:
    """Digest of canonical schema and rows in any order; pixels enter through the rows' pixel digests."""
    digest = hashlib.sha256(canonical_json(schema.model_dump(mode="json", exclude={"origin"})).encode())
    for row_hash in sorted(row_hashes):
        digest.update(row_hash)
    return digest.hexdigest()
