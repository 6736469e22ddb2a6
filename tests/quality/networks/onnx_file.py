"""A linear classifier as an ONNX file, written field by field (onnx.proto, IR version 8), without the package onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FLOAT = 1


def varint(number: int) -> bytes:
    found = b""
    while True:
        number, low = number >> 7, number & 127
        found += bytes([low | (128 if number else 0)])
        if not number:
            return found


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def node(kind: str, inputs: list[str], output: str) -> bytes:
    return field(1, b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind))


def described(number: int, name: str, shape: list[int | str]) -> bytes:
    dims = b"".join(field(1, field(1 if isinstance(side, int) else 2, side)) for side in shape)
    return field(number, field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, dims))))


def tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(field(1, side) for side in values.shape)
    return field(5, dims + field(2, FLOAT) + field(8, name) + field(9, values.astype("<f4").tobytes()))


def write_linear(path: Path, shape: tuple[int, ...], weights: dict[str, np.ndarray], batch: int | str = "N") -> Path:
    """``images (N, *shape)`` → one output ``(N, 1)`` per name: the flattened image times its weights."""
    graph = node("Flatten", ["images"], "flat") + field(2, "linear")
    graph += b"".join(node("MatMul", ["flat", f"w {name}"], name) for name in weights)
    graph += b"".join(tensor(f"w {name}", values.reshape(-1, 1)) for name, values in weights.items())
    graph += described(11, "images", [batch, *shape])
    graph += b"".join(described(12, name, [batch, 1]) for name in weights)
    path.write_bytes(field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph))
    return path
