"""NIfTI files: source values with their scaling, and the affine, as ``(D, H, W)`` volumes."""

from __future__ import annotations

import gzip
import logging
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cohorts.errors import Reason, UnreadableImage
from cohorts.readers.common import DecodedImage, ReadOptions, narrowest, require_size
from cohorts.records import Array

MAGIC_OFFSET = 344
NIFTI1_MAGIC = b"n+1\x00"
NIFTI2_HEAD = (b"\x1c\x02\x00\x00n+2\x00", b"\x00\x00\x02\x1cn+2\x00")


def is_nifti(head: bytes) -> bool:
    """Whether the first 348 (uncompressed) bytes are those of a single-file NIfTI-1 or NIfTI-2 image."""
    return head[MAGIC_OFFSET : MAGIC_OFFSET + 4] == NIFTI1_MAGIC or head[:8] in NIFTI2_HEAD


def gunzipped_head(path: Path, length: int) -> bytes:
    """The first bytes of what a gzip file holds; empty when it is broken."""
    try:
        with gzip.open(path, "rb") as stream:
            return stream.read(length)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""


def read_volumes(path: Path, options: ReadOptions) -> list[DecodedImage]:
    """The volumes of a NIfTI file: one, or one per entry of the fourth axis.

    The axes are reversed, from NIfTI's ``(i, j, k)`` to ``(k, j, i)``, so that the last one runs fastest in memory and
    the first one counts slices, as in volumes from DICOM; the affine's columns are reversed with them. An image with a
    single slice is taken as two-dimensional where the cohort holds images.

    Raises:
        UnreadableImage: the file is broken, too large, or has axes that are no volume.
    """
    image, values = _load(path, options)
    affine = np.asarray(image.affine, dtype=float)
    spatial = values.shape[:3]
    extra = values.shape[3:]
    if len([size for size in extra if size > 1]) > 1 or len(spatial) < 2:
        raise UnreadableImage(Reason.GEOMETRY, f"{values.ndim} axes are no volume")
    columns = values.reshape(*spatial, -1)
    if columns.shape[-1] > 1 and not options.split_frames:
        raise UnreadableImage(
            Reason.GEOMETRY, f"{columns.shape[-1]} volumes along a fourth axis while frames is reject"
        )
    zooms = [float(abs(zoom)) for zoom in image.header.get_zooms()[:3]]
    flat = options.spatial_dims == 2 and (len(spatial) == 2 or spatial[2] == 1)
    found = []
    for number in range(columns.shape[-1]):
        volume = np.ascontiguousarray(columns[..., number].T)
        found.append(
            DecodedImage(
                pixels=volume.reshape(volume.shape[-2:]) if flat else volume,
                spacing_mm=_reversed_spacing(zooms, flat=flat),
                affine=None if flat or len(spatial) < 3 else _reversed_affine(affine),
                frame=number if columns.shape[-1] > 1 else None,
            )
        )
    return found


def read_mask(path: Path, options: ReadOptions) -> tuple[Array, tuple[float, ...]]:
    """A label volume ``(D, H, W)`` and its affine, as :func:`read_volumes` gives them."""
    image, values = _load(path, options)
    if values.ndim < 2 or int(np.prod(values.shape[3:])) != 1:
        raise UnreadableImage(Reason.MASK_MISMATCH, f"a mask of {values.ndim} axes")
    squeezed = values.reshape(values.shape[:3])
    return np.ascontiguousarray(squeezed.T), _reversed_affine(np.asarray(image.affine, dtype=float))


def read_shape(path: Path) -> tuple[tuple[int, ...], int]:
    """Shape as in the file, and the bytes that its values need."""
    try:
        with warnings.catch_warnings(), _stream(path) as stream:
            warnings.simplefilter("ignore")
            header = (nib.Nifti1Header if _version(path) == 1 else nib.Nifti2Header).from_fileobj(stream)
            shape = tuple(int(size) for size in header.get_data_shape())
            return shape, int(np.prod(shape, dtype=np.int64)) * header.get_data_dtype().itemsize
    except MemoryError:
        raise
    except Exception as error:  # a broken file may raise anything
        raise UnreadableImage(Reason.BROKEN, f"cannot be parsed as NIfTI ({type(error).__name__})") from None


def _load(path: Path, options: ReadOptions) -> tuple[Any, Array]:
    """Image and scaled values in their narrowest exact dtype, axes as in the file."""
    logger = logging.getLogger("nibabel.global")
    before = logger.disabled
    logger.disabled = True  # its messages name the file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _load_quietly(path, options)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # a broken file may raise anything
        raise UnreadableImage(Reason.UNDECODABLE, f"cannot be read as NIfTI ({type(error).__name__})") from None
    finally:
        logger.disabled = before


def _load_quietly(path: Path, options: ReadOptions) -> tuple[Any, Array]:
    loader = nib.Nifti1Image if _version(path) == 1 else nib.Nifti2Image
    # read through a stream: nibabel looks at the file's name otherwise, and refuses NIfTI under another one
    with _stream(path) as stream:
        image = loader.from_stream(stream)
        dtype = image.get_data_dtype()
        require_size(int(np.prod(image.shape, dtype=np.int64)) * dtype.itemsize, options)
        if dtype.kind not in "iuf":
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"voxels of type {dtype}")
        slope, intercept = image.dataobj.slope, image.dataobj.inter
        raw = np.asarray(image.dataobj.get_unscaled())
        if (slope, intercept) == (1.0, 0.0):
            return image, raw.astype(raw.dtype.newbyteorder("="), copy=False)
        return image, narrowest(np.asarray(image.get_fdata(caching="unchanged")))


def _stream(path: Path) -> Any:
    return gzip.open(path, "rb") if _gzipped(path) else path.open("rb")


def _gzipped(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _version(path: Path) -> int:
    if _gzipped(path):
        head = gunzipped_head(path, 8)
    else:
        with path.open("rb") as stream:
            head = stream.read(8)
    return 2 if head in NIFTI2_HEAD else 1


def _reversed_affine(affine: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in affine[:, [2, 1, 0, 3]].ravel())


def _reversed_spacing(zooms: Sequence[float], *, flat: bool) -> tuple[float, ...] | None:
    spacing = tuple(reversed(zooms))[-2:] if flat else tuple(reversed(zooms))
    return spacing if all(np.isfinite(zoom) and zoom > 0 for zoom in spacing) else None
