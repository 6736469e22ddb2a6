"""How large a text may be that is parsed into nested values, and a Parquet file that is read whole.

Parsers of JSON and Parquet give out far more memory than a file has bytes; these checks come first.
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
        ValueError: it is longer than 64 MiB, or holds more than 4 million values.
    """
    if isinstance(text, str):
        values = text.count(",") + text.count("[") + text.count("{")
    else:
        values = text.count(b",") + text.count(b"[") + text.count(b"{")
    if len(text) > LARGEST_JSON or values > JSON_NODES:
        raise ValueError("more JSON than is read")


def why_parquet_is_refused(path: Path) -> str:
    """What a Parquet file declares too much of, by its footer alone; empty where it is modest.

    A repeated value takes no room in a Parquet file, so rows are weighed against bytes: a row that says anything of its
    own takes at least a bit.

    Raises:
        OSError: it cannot be read.
        pyarrow.ArrowException: it is no Parquet file.
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
        return "more rows than its bytes can tell apart"
    if sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups)) > LARGEST_PARQUET:
        return f"more than {LARGEST_PARQUET // 2**30} GiB before compression"
    return ""
