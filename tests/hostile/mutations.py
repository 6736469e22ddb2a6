"""Small changes to valid files: bits, spans and words of their formats, and other values where a structure is known."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MOST_BYTES = 2**20
DEEP = 20_000

STRINGS = (
    "",
    " ",
    "a" * 300,
    "\0",
    "x\0y",
    "\ud800",
    "é\udcff",
    "..",
    "../..",
    "../../etc/passwd",
    "/dev/zero",
    "~nosuch",
    "~",
    "C:\\x",
    "%s%n",
    "${HOME}",
    "${NO_SUCH}",
    "\u202eexe",
    "\u0085",
    "\x1b[31m",
    "=1+1",
    "nan",
    "inf",
    "-0",
    "1e999",
    "null",
    "'",
    '"',
    "<script>",
    "_" * 5000,
    "a/" * 200,
    "\u0130",
    "\ufeff",
    "\r\n",
    "16x16_uint8/..",
    "1/0",
    "{}",
    "[]",
)
NUMBERS = (
    0,
    -1,
    1,
    2,
    3,
    7,
    255,
    256,
    2**31,
    2**32,
    2**53,
    2**63,
    2**64,
    -(2**63),
    10**30,
    10**400,
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": ""}, [0] * 50, {"a": {"a": {}}}, [[[[1]]]])

WORDS: dict[str, tuple[bytes, ...]] = {
    "json": (
        b"null",
        b"NaN",
        b"Infinity",
        b"-1",
        b"1e999",
        b"9" * 5000,
        b"[[]]",
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b"{}",
        b"[]",
        b'"\\ud800"',
        b'"\\u0000"',
        b"true",
        b'"' + b"a" * 300 + b'"',
        b"\xff\xfe",
        b",",
        b":",
        b"}",
        b"]",
        b'"',
    ),
    "yaml": (
        b"!!int abc",
        b"!!float x",
        b"!!binary x",
        b"!!timestamp x",
        b"!!set {a}",
        b"!!python/object:os.system x",
        b"&a [*a]",
        b"&a {b: *a}",
        b"*a",
        b"<<: *a",
        b"&a {<<: *a}",
        b"? [a]",
        b"- ",
        b": ",
        b"[" * 2000,
        b"{a: " * 500,
        b"9" * 5000,
        b"0x" + b"f" * 5000,
        b"1:1:1:1",
        b"2001-99-99",
        b'"\\ud800"',
        b'"\\0"',
        b"~nosuch",
        b"~",
        b"..",
        b"\t",
        b"\0",
        b"\xff",
        b"|\n",
        b">\n",
        b"---\n",
        b"...\n",
        b"%YAML 9\n",
        b"null",
        b".nan",
        b".inf",
        b"-1",
        b"1e999",
        b"{}",
        b"[]",
        b"'",
        b"#",
        b"a: b\n",
        b"workers: 0\n",
        b"true",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"!",
        b"@",
        b"`",
        b"\n",
        b"    ",
    ),
    "text": (
        b",",
        b";",
        b"\t",
        b"|",
        b'"',
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"sep=,\n",
        b"=1+1",
        b"a" * 300,
        b"..",
        b"/dev/zero",
        b"~nosuch",
        b"9" * 5000,
        b"nan",
        b"1e999",
        b"-1",
        b",,,,",
        b"\xe2\x80\xae",
        b"''",
        b"PAR1",
        b"PK\3\4",
        b"\xed\xa0\x80",
        b"[" * 2000,
    ),
    "parquet": (
        b"PAR1",
        b"\x15\x00",
        b"\x15\xfe\xff\xff\xff\x0f",
        b"\x19\xfc",
        b"\xff" * 8,
        b"\0" * 8,
        b"\x18\x00",
        b"ARROW:schema",
        b"\x80" * 9,
        b"\x2c",
        b"\x4c",
        b"\xf5\xff\xff\xff\x0f",
    ),
    "binary": (
        b"\xff" * 4,
        b"\0" * 4,
        b"\x7f\xff\xff\xff",
        b"\x80\0\0\0",
        b"\xff\xff\xff\x7f",
        b"\xfe\xff\x00\xe0",
        b"\xfe\xff\xdd\xe0\0\0\0\0",
        b"\x28\0\x10\0US\2\0\xff\xff",
        b"\x28\0\x08\0IS\6\x00999999",
        b"\xe0\x7f\x10\0OW\0\0\xff\xff\xff\xff",
        b"UN",
        b"SQ",
        b"DICM",
        b"1.2.840.10008.1.2.4.90",
        b"IHDR",
        b"IDAT",
        b"PLTE",
        b"tRNS",
        b"acTL",
        b"iCCP",
        b"zTXt",
        b"IEND",
        b"\xff\xd8",
        b"\xff\xc0",
        b"\xff\xda",
        b"\xff\xc4",
        b"\xff\xdd",
        b"II*\0",
        b"MM\0*",
        b"n+1\0",
        b"\x5c\x01\0\0",
        b"PK\1\2",
        b"PK\5\6",
        b"\x93NUMPY\1\0",
        b"|O",
        b"<f8",
        b"True",
        b"(99999,99999)",
        b"\x1f\x8b",
        b"__metadata__",
        b'"dtype":"F64"',
        b'"shape":[9999999999]',
        b'"data_offsets":[0,9]',
        b"[" * DEEP,
    ),
}
WORDS["safetensors"] = WORDS["binary"]


def mutated(data: bytes, form: str, rng: random.Random) -> bytes:
    """Other bytes than ``data``.

    Args:
        data: a valid file.
        form: ``json``, ``lines`` (of JSON), ``yaml``, ``text``, ``parquet``, ``safetensors`` or ``binary``.
        rng: decides.
    """
    structured = {"json": _json, "lines": _lines, "parquet": _parquet, "safetensors": _safetensors}.get(form)
    if structured is not None and rng.random() < 0.6:
        found = structured(data, rng)
        return found if rng.random() < 0.85 else _bytes(found, form, rng)
    changed = data
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        changed = _bytes(changed, form, rng)
    return changed[:MOST_BYTES]


def odd_string(rng: random.Random) -> str:
    """A text that few expect."""
    return rng.choice(STRINGS)


def _bytes(data: bytes, form: str, rng: random.Random) -> bytes:  # noqa: PLR0911 - one way each
    words = WORDS["json" if form == "lines" else form]
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((1, 2, 4, 16, 64, 256)))
    place: Callable[[bytes], bytes] = lambda middle: data[:start] + middle + data[end:]  # noqa: E731
    match rng.randrange(9):
        case 0 | 1:
            bits = bytearray(data or b"\0")
            for _ in range(rng.choice((1, 1, 4, 32))):
                bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
            return bytes(bits)
        case 2:
            return data[:start]
        case 3:
            return place(data[start:end] * rng.choice((2, 3, 50)))
        case 4:
            return place(b"")
        case 5:
            return data[:start] + rng.choice(words) + data[start:]
        case 6:
            return place(rng.choice(words))
        case 7:
            other = rng.randrange(len(data) + 1)
            return place(data[other : other + end - start])
        case _:
            return place(rng.randbytes(end - start))


# ---- where a structure is known ----


def _json(data: bytes, rng: random.Random) -> bytes:
    tree = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        tree = _other_tree(tree, rng)
    return _dumped(tree, rng)


def _dumped(tree: Any, rng: random.Random) -> bytes:
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.7)
    text = text.replace('"@DEEP@"', "[" * DEEP + "]" * DEEP).replace('"@DIGITS@"', "9" * 5000)
    return text.encode("utf-8", "surrogatepass")


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines()
    place = rng.randrange(len(lines))
    lines[place] = _json(lines[place], rng)
    if rng.random() < 0.2:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return b"\n".join(lines)


def _other_tree(tree: Any, rng: random.Random) -> Any:
    """The tree with one node changed."""
    nodes: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        inner = (
            list(item.items()) if isinstance(item, dict) else list(enumerate(item)) if isinstance(item, list) else []
        )
        nodes += ((item, key) for key, _ in inner)
        waiting += (value for _, value in inner)
    if not nodes or rng.random() < 0.03:
        return _other_value(tree, rng)
    parent, key = rng.choice(nodes)
    choice = rng.random()
    if choice < 0.15:
        del parent[key]
    elif choice < 0.3 and isinstance(parent, dict):
        parent[odd_string(rng)] = parent[key]
    elif choice < 0.35 and isinstance(parent, list):
        parent *= rng.choice((2, 40))
    elif choice < 0.4:
        other = rng.choice(nodes)
        parent[key] = json.loads(json.dumps(other[0].get(other[1]) if isinstance(other[0], dict) else None))
    else:
        parent[key] = _other_value(parent[key], rng)
    return tree


def _other_value(value: Any, rng: random.Random) -> Any:
    choice = rng.random()
    if choice < 0.05:
        return "@DEEP@"
    if choice < 0.1:
        return "@DIGITS@"
    if isinstance(value, bool | None) or choice < 0.3:
        return json.loads(json.dumps(rng.choice(OTHERS)))
    if isinstance(value, int | float):
        return rng.choice(NUMBERS) if choice < 0.8 else odd_string(rng)
    if isinstance(value, str):
        return odd_string(rng) if choice < 0.8 else rng.choice(NUMBERS)
    return rng.choice((*NUMBERS, *STRINGS))


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = _json(data[8 : 8 + length], rng)
    declared = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**31, 2**63, 2**64 - 1))
    return declared.to_bytes(8, "little") + header + data[8 + length :]


def _parquet(data: bytes, rng: random.Random) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    place = rng.randrange(table.num_columns)
    field = table.schema.field(place)
    choice = rng.random()
    if choice < 0.15:
        table = table.drop_columns([field.name])
    elif choice < 0.25:
        table = table.append_column(odd_string(rng).encode("utf-8", "replace").decode(), table.column(place))
    elif choice < 0.35:
        name = odd_string(rng).encode("utf-8", "replace").decode()
        table = table.rename_columns([name if at == place else old for at, old in enumerate(table.column_names)])
    elif choice < 0.45:
        table = table.slice(0, rng.choice((0, 1))) if rng.random() < 0.5 else pa.concat_tables([table, table])
    elif choice < 0.65:
        table = table.set_column(place, field.name, _other_column(table.num_rows, rng))
    else:
        cells = table.column(place).to_pylist()
        for at in rng.sample(range(len(cells)), min(len(cells), rng.choice((1, 1, 3)))):
            cells[at] = _cell_like(cells[at], rng)
        try:
            column = pa.array(cells, type=field.type)
        except (pa.ArrowException, UnicodeError, TypeError, OverflowError, ValueError):
            column = pa.nulls(table.num_rows, field.type)
        table = table.set_column(place, field, column)
    stored = io.BytesIO()
    pq.write_table(table, stored, compression=rng.choice(("zstd", "snappy", "none")))
    return stored.getvalue()


def _cell_like(cell: Any, rng: random.Random) -> Any:
    if isinstance(cell, list):
        return [_cell_like(value, rng) for value in cell] * rng.choice((0, 1, 1, 2))
    if isinstance(cell, bool) or cell is None:
        return rng.choice((None, True, False))
    if isinstance(cell, int):
        return rng.choice((None, 0, -1, 2**31 - 1, 2**40, 2**63 - 1, 1, 3, 100))
    if isinstance(cell, float):
        return rng.choice((None, 0.0, -1.0, 1e308, float("nan"), float("inf"), 1e-320))
    return rng.choice((None, *STRINGS))


def _other_column(rows: int, rng: random.Random) -> pa.Array:
    kinds: tuple[tuple[Any, pa.DataType], ...] = (
        (None, pa.null()),
        (1, pa.int8()),
        (2**60, pa.int64()),
        (1.5, pa.float32()),
        ("x", pa.string()),
        (b"\xff\xfe", pa.binary()),
        (True, pa.bool_()),
        ([1], pa.list_(pa.int64())),
        ({"a": 1}, pa.struct([("a", pa.int64())])),
        (10**17, pa.timestamp("us")),
        (10**6, pa.duration("ns")),
        (40_000, pa.date32()),
        ([("k", 1)], pa.map_(pa.string(), pa.int64())),
        ("x", pa.large_string()),
        (7, pa.time64("ns")),
        ([[None]], pa.list_(pa.list_(pa.null()))),
        (12345, pa.decimal128(38, 2)),
        (2**63, pa.uint64()),
    )
    value, kind = rng.choice(kinds)
    return pa.array([value] * rows, type=kind)
