"""MedMNIST archives: ``<part>_images`` and ``<part>_labels`` arrays in a ``.npz``, read row by row, never unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from cohorts.errors import Reason, UnreadableImage
from cohorts.readers.common import DecodedImage, ReadOptions, require_size, settle_color
from cohorts.records import Array

PARTS = ("train", "val", "test")  # their order is the order of rows; the parts themselves are not used as splits
ZIP_MAGIC = b"PK\x03\x04"
MANY_LABELS = 4096


@dataclass(frozen=True, slots=True)
class NpzHead:
    """What an archive holds.

    Attributes:
        parts: part → number of images.
        image_shape: shape of one image.
        spatial_dims: 2 or 3.
        color: whether the last axis is RGB.
        labels: label names ``0``, ``1`` … (MedMNIST numbers its classes).
        exclusive: one class per image, as a number; else one column of 0 and 1 per label.
    """

    parts: dict[str, int]
    image_shape: tuple[int, ...]
    spatial_dims: int
    color: bool
    labels: tuple[str, ...]
    exclusive: bool


def looks_like_npz(path: Path) -> bool:
    """Whether the file is a zip archive whose members are ``.npy`` arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return bool(names) and all(name.endswith(".npy") for name in names)
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def read_head(path: Path) -> NpzHead:
    """Shapes and labels of an archive.

    Raises:
        UnreadableImage: it is no MedMNIST archive, or hides Python objects that would have to be unpickled.
    """
    with _archive(path) as archive:
        members = set(archive.namelist())
        for name in sorted(members):  # any member that would be unpickled condemns the archive, needed or not
            with archive.open(name) as stream:
                _npy_header(stream)
        parts = [part for part in PARTS if f"{part}_images.npy" in members]
        if not parts:
            raise UnreadableImage(Reason.NOT_AN_IMAGE, "no member train_images, val_images or test_images")
        counts, shapes, labels = {}, set(), []
        for part in parts:
            shape, dtype = _member_header(archive, f"{part}_images.npy")
            if dtype.kind not in "uif" or len(shape) < 3:
                raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"images of type {dtype} and {len(shape)} axes")
            counts[part] = shape[0]
            shapes.add(shape[1:])
            if f"{part}_labels.npy" in members:
                labels.append(_labels(archive, part, shape[0]))
        if len(shapes) > 1 or len(labels) not in {0, len(parts)}:
            raise UnreadableImage(Reason.BROKEN, "the parts of the archive differ in shape or labels")
    image_shape = shapes.pop()
    color = len(image_shape) > 2 and image_shape[-1] == 3
    names, exclusive = _label_names(labels)
    return NpzHead(counts, image_shape, len(image_shape) - color, color, names, exclusive)


def read_rows(path: Path, head: NpzHead, options: ReadOptions) -> Iterator[DecodedImage]:
    """The images in order, one in memory at a time; colour that the options refuse raises at once."""
    frame = 0
    with _archive(path) as archive:
        for part, total in head.parts.items():
            labels = _labels(archive, part, total) if head.labels else None
            with archive.open(f"{part}_images.npy") as stream:
                shape, dtype, fortran = _npy_header(stream)
                if fortran:
                    raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "arrays in Fortran order")
                item_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
                require_size(item_bytes, options)
                for row in range(total):
                    data = _exactly(stream, item_bytes, frame)
                    pixels = np.frombuffer(data, dtype=dtype).reshape(shape[1:])
                    pixels = pixels.astype(dtype.newbyteorder("="))
                    channels = 1
                    if head.color:
                        pixels, channels = settle_color(pixels, options, volume=head.spatial_dims == 3)
                    stated = {} if labels is None else _stated(labels[row], head)
                    yield DecodedImage(pixels=pixels, channels=channels, frame=frame, labels=stated)
                    frame += 1


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError):
        raise UnreadableImage(Reason.BROKEN, "a damaged archive") from None


def _exactly(stream: IO[bytes], total_bytes: int, frame: int) -> bytes:
    try:
        data = stream.read(total_bytes)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        data = b""
    if len(data) != total_bytes:
        raise UnreadableImage(Reason.BROKEN, f"damaged or truncated after {frame} images")
    return data


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise UnreadableImage(Reason.BROKEN, f"a member is no array ({type(error).__name__})") from None
    if dtype.hasobject:
        raise UnreadableImage(Reason.PICKLE, "a member holds Python objects, which would have to be unpickled")
    return shape, dtype, fortran


def _member_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as stream:
        shape, dtype, _ = _npy_header(stream)
    return shape, dtype


def _labels(archive: zipfile.ZipFile, part: str, total: int) -> Array:
    """Labels of one part, ``(total, columns)`` int64."""
    name = f"{part}_labels.npy"
    shape, dtype = _member_header(archive, name)
    columns = int(np.prod(shape[1:], dtype=np.int64))
    if shape[:1] != (total,) or dtype.kind not in "iub" or len(shape) > 2 or columns > MANY_LABELS:
        raise UnreadableImage(Reason.BROKEN, f"labels of shape {shape} and type {dtype} for {total} images")
    try:
        with archive.open(name) as stream:
            return npy.read_array(stream, allow_pickle=False).reshape(total, -1).astype(np.int64)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UnreadableImage(Reason.BROKEN, f"labels cannot be read ({type(error).__name__})") from None


def _label_names(labels: list[Array]) -> tuple[tuple[str, ...], bool]:
    """Names and whether they exclude each other: one column holds class numbers, several hold 0 and 1."""
    if not labels:
        return (), False
    low, high = min(int(part.min(initial=0)) for part in labels), max(int(part.max(initial=0)) for part in labels)
    columns = {part.shape[1] for part in labels}
    if len(columns) > 1 or low < 0 or high >= MANY_LABELS or (columns != {1} and high > 1):
        raise UnreadableImage(Reason.BROKEN, "labels are neither class numbers nor columns of 0 and 1")
    single = columns == {1}
    return tuple(str(number) for number in range(high + 1 if single else columns.pop())), single


def _stated(row: Array, head: NpzHead) -> dict[str, bool | None]:
    if head.exclusive:
        return {name: int(row[0]) == number for number, name in enumerate(head.labels)}
    return {name: bool(value) for name, value in zip(head.labels, row, strict=True)}
