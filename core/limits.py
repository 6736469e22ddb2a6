"""Size limits of text that is parsed into nested values, and of Parquet files that are read whole.

Parsers of JSON and Parquet can allocate far more memory than a file has bytes, so these limits are checked first.
"""

from __future__ import annotations

import struct
from pathlib import Path

LARGEST_JSON = 64 * 2**20  # bytes or characters
JSON_NODES = 4_000_000

LARGEST_FOOTER = 32 * 2**20  # bytes of Parquet metadata
MANY_COLUMNS = 4096
MANY_GROUPS = 100_000  # of rows
FEW_ROWS = 2**20
ROWS_PER_BYTE = 8
LARGEST_PARQUET = 2**32  # bytes, before compression
PARQUET_END = 8  # bytes: the length of the footer, and the mark
PARQUET_MARK = b"PAR1"


def require_modest_json(text: str | bytes) -> None:
    """Refuse JSON that would take far more memory than its bytes, before it is parsed.

    Raises:
        ValueError: If it is longer than 64 MiB or has more than 4 million values.
    """
    if isinstance(text, str):
        values = text.count(",") + text.count("[") + text.count("{")
    else:
        values = text.count(b",") + text.count(b"[") + text.count(b"{")
    if len(text) > LARGEST_JSON or values > JSON_NODES:
        raise ValueError("more JSON than the size limit allows")


def why_parquet_is_refused(path: Path) -> str:
    """Return which limit a Parquet file exceeds according to its footer, or an empty string if it exceeds none.

    A repeated value takes no space in a Parquet file, so the number of rows is compared with the number of bytes: a row
    with content of its own takes at least one bit.

    Raises:
        OSError: If the file cannot be read.
        pyarrow.ArrowException: If it is not a Parquet file.
    """
    import pyarrow.parquet as pq  # not in worker processes, which read no tables

    with path.open("rb") as stream:
        total = stream.seek(0, 2)
        stream.seek(max(0, total - PARQUET_END))
        end = stream.read(PARQUET_END)
    if end[4:] == PARQUET_MARK and struct.unpack("<I", end[:4])[0] > LARGEST_FOOTER:
        return f"a footer of more than {LARGEST_FOOTER // 2**20} MiB"
    facts = pq.read_metadata(path)
    if facts.num_columns > MANY_COLUMNS:
        return f"more than {MANY_COLUMNS} columns"
    if facts.num_row_groups > MANY_GROUPS:
        return f"more than {MANY_GROUPS} row groups"
    if facts.num_rows > max(FEW_ROWS, ROWS_PER_BYTE * total):
        return "more rows than its bytes can encode"
    if sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups)) > LARGEST_PARQUET:
        return f"more than {LARGEST_PARQUET // 2**30} GiB before compression"
    return ""
