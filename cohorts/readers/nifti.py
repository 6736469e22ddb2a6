"""NIfTI files: source values with their scaling, and the affine, as ``(D, H, W)`` volumes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medphantom.cohorts.readers import nifti_header
from medphantom.cohorts.readers.common import (
    EXACT_IN_DOUBLE,
    NOT_A_FILES_FAULT,
    DecodedImage,
    ReadOptions,
    narrowest,
    require_size,
)
from medphantom.cohorts.readers.nifti_header import is_nifti
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

__all__ = ["gunzipped_head", "is_nifti", "read_mask", "read_shape", "read_volumes"]

GZIP_MAGIC = b"\x1f\x8b"
HEAD_BYTES = 4096  # of a compressed file: more than its first 540 bytes need
LARGEST_ITEM = 8  # bytes: 128-bit floats depend on the machine
VOLUME_AXES = 3

Result = TypeVar("Result")


def gunzipped_head(path: Path, length: int) -> bytes:
    """Return the first bytes of a gzip file's content, up to where it is truncated or damaged."""
    with path.open("rb") as stream:
        packed = stream.read(HEAD_BYTES)
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, length)
    except zlib.error:
        return b""


def read_volumes(path: Path, options: ReadOptions) -> list[DecodedImage]:
    """Return the volumes of a NIfTI file: one, or one per entry of the fourth axis.

    The axes are reversed, from NIfTI's ``(i, j, k)`` to ``(k, j, i)``, so that the last one runs fastest in memory and
    the first one counts slices, as in volumes from DICOM; the affine's columns are reversed too. An image with a single
    slice is two-dimensional if the cohort contains images. Spacing and affine are in mm.

    Raises:
        UnreadableImage: If the file is damaged, truncated, too large, not an image, or contradicts itself.
    """
    return _carefully(lambda: _volumes(path, options))


def _volumes(path: Path, options: ReadOptions) -> list[DecodedImage]:
    header, values = _load(path, options, nifti_header.require_image)
    sizes = nifti_header.shape_of(header)
    spatial, extra = sizes[:VOLUME_AXES], sizes[VOLUME_AXES:]
    if len(spatial) < 2 or any(size > 1 for size in extra[1:]):
        raise UnreadableImage(
            Reason.GEOMETRY, f"{values.ndim} axes do not form a volume: a fifth axis contains vectors"
        )
    columns = values.reshape(*spatial, -1)
    total = columns.shape[-1]
    if total > 1 and not options.split_frames:
        raise UnreadableImage(Reason.GEOMETRY, f"{total} volumes along a fourth axis while frames is reject")
    flat = options.spatial_dims == 2 and (len(spatial) == 2 or spatial[2] == 1)
    spacing, affine = (nifti_header.flat_spacing(header), None) if flat else nifti_header.placement(header)
    found = []
    for number in range(total):
        volume = np.ascontiguousarray(columns[..., number].T)
        found.append(
            DecodedImage(
                pixels=volume.reshape(volume.shape[-2:]) if flat else volume,
                spacing_mm=None if spacing is None else tuple(reversed(spacing[: volume.ndim])),
                affine=None if affine is None or len(spatial) < VOLUME_AXES else _reversed_affine(affine),
                voi=nifti_header.window(header),
                frame=number if total > 1 else None,
            )
        )
    return found


def read_mask(path: Path, options: ReadOptions) -> tuple[Array, tuple[float, ...] | None]:
    """Return a label volume ``(D, H, W)`` and its affine, as :func:`read_volumes` returns them."""
    return _carefully(lambda: _mask(path, options))


def _mask(path: Path, options: ReadOptions) -> tuple[Array, tuple[float, ...] | None]:
    header, values = _load(path, options, nifti_header.require_labels)
    if values.ndim < 2 or int(np.prod(values.shape[VOLUME_AXES:])) != 1:
        raise UnreadableImage(Reason.MASK_MISMATCH, f"a mask of {values.ndim} axes")
    sizes = nifti_header.shape_of(header)[:VOLUME_AXES]
    squeezed = values.reshape(sizes)
    flat = len(sizes) == 2 or sizes[-1] == 1
    affine = None if flat else nifti_header.placement(header)[1]
    return np.ascontiguousarray(squeezed.T), None if affine is None else _reversed_affine(affine)


def read_shape(path: Path) -> tuple[tuple[int, ...], int]:
    """Return the shape as in the file, and the bytes that its values need.

    Raises:
        UnreadableImage: If the header contradicts itself, or is half of a pair of files.
    """

    def facts() -> tuple[tuple[int, ...], int]:
        header = nifti_header.parse_header(_head(path))
        shape = nifti_header.shape_of(header)
        return shape, int(np.prod(shape, dtype=object)) * header.get_data_dtype().itemsize

    return _carefully(facts)


def _carefully(read: Callable[[], Result]) -> Result:
    """Run a reader; whatever a damaged file raises becomes a rejection."""
    try:
        return read()
    except (UnreadableImage, *NOT_A_FILES_FAULT):
        raise
    except EOFError:  # of gzip
        raise UnreadableImage(Reason.TRUNCATED, "the compressed file ends before its voxels do") from None
    except (gzip.BadGzipFile, zlib.error):
        raise UnreadableImage(Reason.UNDECODABLE, "the compressed file is damaged") from None
    except Exception as error:  # a broken file may raise anything
        raise UnreadableImage(Reason.UNDECODABLE, f"cannot be read as NIfTI ({type(error).__name__})") from None


def _load(path: Path, options: ReadOptions, check: Callable[[Any], None]) -> tuple[Any, Array]:
    """Return header and scaled values in an exact dtype, with axes as in the file."""
    header = nifti_header.parse_header(_head(path))
    dtype = header.get_data_dtype()
    shape = nifti_header.shape_of(header)
    require_size(int(np.prod(shape, dtype=object)) * dtype.itemsize, options)
    if dtype.kind not in "iuf" or dtype.itemsize > LARGEST_ITEM:
        kind = {"V": "colour", "c": "complex numbers"}.get(dtype.kind, f"{dtype.name} numbers")
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"voxels of {kind}")
    check(header)
    scaling = nifti_header.scaling(header)
    stored = np.empty(int(np.prod(shape)), dtype)
    with _stream(path) as stream:
        stream.seek(nifti_header.voxel_offset(header))
        _fill(stream, stored)
    raw = stored.reshape(shape, order="F").astype(dtype.newbyteorder("="), copy=False)
    if scaling is not None:
        return header, _scaled(raw, *scaling)
    return header, narrowest(raw) if raw.dtype.kind in "iu" and raw.dtype.itemsize == LARGEST_ITEM else raw


def _scaled(raw: Array, slope: float, intercept: float) -> Array:
    if raw.dtype.kind in "iu" and raw.dtype.itemsize == LARGEST_ITEM:
        low, high = int(raw.min()), int(raw.max())
        if max(abs(low), abs(high)) > EXACT_IN_DOUBLE:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "scaled 64-bit numbers that no float holds exactly")
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(np.float64)
        values *= slope  # in place: a volume may be large
        values += intercept
        return narrowest(values)


def _fill(stream: Any, stored: Array) -> None:
    """Read exactly the declared voxels, and a compressed file to its end, which has the checksum."""
    view = stored.view(np.uint8).data
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])
        if not count:
            raise UnreadableImage(
                Reason.TRUNCATED, f"the file ends after {done} of {len(view)} bytes of its declared voxels"
            )
        done += count
    if isinstance(stream, gzip.GzipFile):
        stream.read(1)


def _head(path: Path) -> bytes:
    if _gzipped(path):
        return gunzipped_head(path, nifti_header.NIFTI2_BYTES)
    with path.open("rb") as stream:
        return stream.read(nifti_header.NIFTI2_BYTES)


def _stream(path: Path) -> Any:
    return gzip.open(path, "rb") if _gzipped(path) else path.open("rb")


def _gzipped(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == GZIP_MAGIC


def _reversed_affine(affine: Sequence[Sequence[float]] | Array) -> tuple[float, ...]:
    return tuple(float(value) for value in np.asarray(affine)[:, [2, 1, 0, 3]].ravel())
