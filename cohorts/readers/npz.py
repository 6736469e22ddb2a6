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

from medphantom.cohorts.readers.common import NEVER_A_BOMB, DecodedImage, ReadOptions, require_size, settle_color
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

PARTS = ("train", "val", "test")  # their order is the order of rows
ZIP_MAGIC = b"PK\x03\x04"
LOCAL_HEADER_BYTES, NAME_LENGTH_AT = 30, 26  # APPNOTE.TXT 4.3.7
MANY_LABELS = 4096
MANY_MEMBERS = 1000
MOST_EXPANSION = 200
LARGEST_DIRECTORY = 2**20
END_BYTES = 2**16 + 22  # the end of a zip archive with its comment
LARGEST_NPY_HEADER = 2**16
LARGEST_LABELS = 256 * 2**20
RGB_CHANNELS = 3
FEW = 4
"""A first or last axis of up to this length may be channels or slices; only a last axis of 3 is certainly colour."""
LARGEST_ITEM = 8  # bytes: 128-bit floats depend on the machine


@dataclass(frozen=True, slots=True)
class NpzHead:
    """Content of an archive.

    Attributes:
        parts: Number of images by part.
        image_shape: Shape of one image, without a first or last axis of length 1.
        spatial_dims: Number of spatial dimensions, 2 or 3.
        color: Whether the last axis is RGB.
        labels: Label names ``0``, ``1`` … (MedMNIST numbers its classes).
        exclusive: Whether there is one class number per image; else one column of 0 and 1 per label.
    """

    parts: dict[str, int]
    image_shape: tuple[int, ...]
    spatial_dims: int
    color: bool
    labels: tuple[str, ...]
    exclusive: bool


def looks_like_npz(path: Path) -> bool:
    """Return whether the file is a zip archive of ``.npy`` arrays, or the start of a truncated one."""
    if _directory_bytes(path) > LARGEST_DIRECTORY:
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return bool(names) and all(name.endswith(".npy") for name in names)
    except (OSError, zipfile.BadZipFile, ValueError):
        with path.open("rb") as stream:
            head = stream.read(LOCAL_HEADER_BYTES)
            length = int.from_bytes(head[NAME_LENGTH_AT : NAME_LENGTH_AT + 2], "little")
            return head.startswith(ZIP_MAGIC) and stream.read(length).endswith(b".npy")


def read_head(path: Path) -> NpzHead:
    """Return shapes and labels of an archive.

    Raises:
        UnreadableImage: If it is truncated or not a MedMNIST archive, contains Python objects that would have to be
            unpickled, or images or further arrays of unknown meaning.
    """
    with _archive(path) as archive:
        members = archive.namelist()
        if len(members) > MANY_MEMBERS:
            raise UnreadableImage(Reason.TOO_LARGE, f"an archive of more than {MANY_MEMBERS} members")
        if len(set(members)) < len(members):
            raise UnreadableImage(Reason.BROKEN, "two members of the archive have one name")
        for name in sorted(members):  # any member that would be unpickled condemns the archive, needed or not
            with archive.open(name) as stream:
                _npy_header(stream)
        parts = [part for part in PARTS if f"{part}_images.npy" in members]
        if not parts:
            raise UnreadableImage(Reason.NOT_AN_IMAGE, "no member train_images, val_images or test_images")
        _require_known_members(members)
        counts, shapes, labels = {}, set(), []
        for part in parts:
            shape, dtype = _member_header(archive, f"{part}_images.npy")
            if dtype.kind not in "uif" or dtype.itemsize > LARGEST_ITEM:
                raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"images of type {dtype}: save them as uint8")
            counts[part] = shape[0] if shape else 0
            shapes.add(_image_shape(shape[1:]))
            if f"{part}_labels.npy" in members and counts[part]:
                labels.append(_labels(archive, part, shape[0]))
        _require_plausible_rows(archive, counts, path.stat().st_size)
        if len(shapes) > 1 or len(labels) not in {0, len(parts)}:
            raise UnreadableImage(Reason.BROKEN, "the parts of the archive differ in shape or labels")
    image_shape = shapes.pop()
    color = len(image_shape) > 2 and image_shape[-1] == RGB_CHANNELS
    names, exclusive = _label_names(labels)
    return NpzHead(counts, image_shape, len(image_shape) - color, color, names, exclusive)


def _directory_bytes(path: Path) -> int:
    """Return the size of the member list according to the archive's end (APPNOTE.TXT 4.3.16); 0 if not declared."""
    with path.open("rb") as stream:
        total = stream.seek(0, 2)
        stream.seek(max(0, total - END_BYTES))
        end = stream.read()
    place = end.rfind(b"PK\5\6")
    if place < 0 or len(end) < place + 22:
        return 0
    size = int.from_bytes(end[place + 12 : place + 16], "little")
    return total if size == 2**32 - 1 else size  # told in the record of ZIP64: no archive of ours is so large


def _require_plausible_rows(archive: zipfile.ZipFile, counts: dict[str, int], stored_bytes: int) -> None:
    """Refuse archives that declare more images than they can hold, such as endless rows of a blank picture."""
    declared = 0
    for part, total in counts.items():
        shape, dtype = _member_header(archive, f"{part}_images.npy")
        if min(shape, default=0) < 1:
            raise UnreadableImage(Reason.BROKEN, "a part of the archive without images")
        declared += total * int(np.prod(shape[1:], dtype=object)) * dtype.itemsize
    if declared > NEVER_A_BOMB and declared > MOST_EXPANSION * stored_bytes:
        raise UnreadableImage(
            Reason.TOO_LARGE, f"its arrays come to more than {MOST_EXPANSION} times its bytes: a decompression bomb"
        )


def _require_known_members(members: list[str]) -> None:
    known = {f"{part}_{kind}.npy" for part in PARTS for kind in ("images", "labels")}
    others = [name for name in members if name not in known and name.split("_")[0] in PARTS]
    if others:  # masks, second labels, patients: to leave them out in silence would be to misread the images
        raise UnreadableImage(
            Reason.UNSUPPORTED_PIXELS,
            f"further arrays of its parts, neither images nor labels ({len(others)}): leave them out",
        )


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one image without axes of one channel.

    Raises:
        UnreadableImage: If it is not an image, or an axis may be channels or slices.
    """
    if len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    elif len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    spatial = shape[:-1] if len(shape) > 2 and shape[-1] == RGB_CHANNELS else shape
    if len(spatial) not in {2, 3}:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"{len(shape)} axes do not form an image")
    if len(spatial) == 3 and min(spatial[0], spatial[-1]) <= FEW:
        raise UnreadableImage(
            Reason.UNSUPPORTED_PIXELS, f"an axis of at most {FEW} may be channels or slices: save colour as H x W x 3"
        )
    return shape


def read_rows(path: Path, head: NpzHead, options: ReadOptions) -> Iterator[DecodedImage]:
    """Yield the images in order, one in memory at a time; colour that the options refuse raises at once."""
    frame = 0
    with _archive(path) as archive:
        for part, total in head.parts.items():
            labels = _labels(archive, part, total) if head.labels else None
            for row, stored in enumerate(_stored(archive, part, frame, options)):
                pixels = stored.reshape(head.image_shape).astype(stored.dtype.newbyteorder("="))
                channels = 1
                if head.color:
                    pixels, channels = settle_color(pixels, options, volume=head.spatial_dims == 3)
                stated = {} if labels is None else _observed(labels[row], head)
                yield DecodedImage(pixels=pixels, channels=channels, frame=frame, labels=stated, part=part)
                frame += 1


def _stored(archive: zipfile.ZipFile, part: str, first: int, options: ReadOptions) -> Iterator[Array]:
    """Yield the images of one part as stored, one in memory at a time, or all of them if in Fortran order.

    Args:
        archive: Zip archive opened for reading.
        part: Part of the archive, ``train``, ``val`` or ``test``.
        first: Number of images before this part.
        options: Options with the memory limit of one image, or of a whole part in Fortran order.
    """
    name = f"{part}_images.npy"
    shape, dtype = _member_header(archive, name)
    with archive.open(name) as stream:
        _, _, fortran = _npy_header(stream)
        if not fortran:
            item_bytes = int(np.prod(shape[1:], dtype=object)) * dtype.itemsize
            require_size(item_bytes, options)
            for row in range(shape[0]):
                yield np.frombuffer(_exactly(stream, item_bytes, first + row), dtype=dtype).reshape(shape[1:])
            return
    require_size(int(np.prod(shape, dtype=object)) * dtype.itemsize, options)  # the first axis runs fastest
    with archive.open(name) as stream:
        try:
            yield from npy.read_array(stream, allow_pickle=False)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error):
            raise UnreadableImage(Reason.BROKEN, f"damaged or truncated after {first} images") from None


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError):
        # the list of members lies at the end of the file
        raise UnreadableImage(Reason.TRUNCATED, "an archive without its end") from None


def _exactly(stream: IO[bytes], total_bytes: int, frame: int) -> bytes:
    try:
        data = stream.read(total_bytes)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        data = b""
    if len(data) != total_bytes:
        raise UnreadableImage(Reason.BROKEN, f"damaged or truncated after {frame} images")
    return data


class _Again:
    """A stream that returns some bytes that were read from it a second time."""

    def __init__(self, first: bytes, rest: IO[bytes]) -> None:
        self._first = first
        self._rest = rest

    def read(self, total: int) -> bytes:
        """Return the next bytes."""
        given, self._first = self._first[:total], self._first[total:]
        return given + (self._rest.read(total - len(given)) if total > len(given) else b"")


def _npy_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    try:
        version = npy.read_magic(stream)
        if version != (1, 0):  # its length has four bytes, which NumPy would read before it looks at them
            length = stream.read(4)
            if int.from_bytes(length, "little") > LARGEST_NPY_HEADER:
                raise UnreadableImage(Reason.TOO_LARGE, "the header of an array is larger than any")
            stream = _Again(length, stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise UnreadableImage(Reason.BROKEN, f"a member is not an array ({type(error).__name__})") from None
    if dtype.hasobject:
        raise UnreadableImage(Reason.PICKLE, "a member holds Python objects, which would have to be unpickled")
    return shape, dtype, fortran


def _member_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as stream:
        shape, dtype, _ = _npy_header(stream)
    return shape, dtype


def _labels(archive: zipfile.ZipFile, part: str, total: int) -> Array:
    """Return the labels of one part, ``(total, columns)`` int64."""
    name = f"{part}_labels.npy"
    shape, dtype = _member_header(archive, name)
    columns = int(np.prod(shape[1:], dtype=object))
    if total * columns * LARGEST_ITEM > LARGEST_LABELS:
        raise UnreadableImage(Reason.TOO_LARGE, "labels that take more memory than their images may")
    if shape[:1] != (total,) or dtype.kind not in "iubf" or len(shape) > 2 or columns > MANY_LABELS:
        raise UnreadableImage(Reason.BROKEN, f"labels of shape {shape} and type {dtype} for {total} images")
    try:
        with archive.open(name) as stream:
            found: Array = npy.read_array(stream, allow_pickle=False).reshape(total, -1)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UnreadableImage(Reason.BROKEN, f"labels cannot be read ({type(error).__name__})") from None
    if dtype.kind == "f" and not ((np.abs(found) < MANY_LABELS) & (found == np.rint(found))).all():
        raise UnreadableImage(Reason.BROKEN, "labels that are not integers")
    return found.astype(np.int64)


def _label_names(labels: list[Array]) -> tuple[tuple[str, ...], bool]:
    """Return names and whether they are mutually exclusive: one column has class numbers, several have 0 and 1."""
    if not labels:
        return (), False
    low, high = min(int(part.min(initial=0)) for part in labels), max(int(part.max(initial=0)) for part in labels)
    columns = {part.shape[1] for part in labels}
    if len(columns) > 1 or low < 0 or high >= MANY_LABELS or (columns != {1} and high > 1):
        raise UnreadableImage(Reason.BROKEN, "labels are neither class numbers nor columns of 0 and 1")
    single = columns == {1}
    return tuple(str(number) for number in range(high + 1 if single else columns.pop())), single


def _observed(row: Array, head: NpzHead) -> dict[str, bool | None]:
    if head.exclusive:
        return {name: int(row[0]) == number for number, name in enumerate(head.labels)}
    return {name: bool(value) for name, value in zip(head.labels, row, strict=True)}
