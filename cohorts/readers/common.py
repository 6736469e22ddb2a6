"""Common results and rules of all readers: exact dtypes, luminance, rejections.

Neither this module nor the readers import a data frame library or know cohorts: readers run in worker processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from medphantom.cohorts.records import Voi
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

LUMINANCE_PER_MILLE = (299, 587, 114)  # ITU-R BT.601
INTEGER_DTYPES = ("int16", "uint16", "int32", "uint32")

HALF_A_VOXEL = 0.5
NEVER_A_BOMB = 32 * 2**20  # bytes: whatever decodes to less is decoded
PIXELS_AT_ONCE = 2**20
EXACT_IN_DOUBLE = 2**53

NOT_A_FILES_FAULT = (KeyboardInterrupt, SystemExit, MemoryError)
"""Exceptions that must pass when a reader catches everything else: Rust codecs raise panics, which are no
``Exception``.
"""

Kind = Literal["dicom", "nifti", "picture", "npz"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options that readers need; small, since they are sent to the workers with every task."""

    spatial_dims: int
    color: str
    split_frames: bool
    min_side: int
    min_slices: int
    max_bytes: int
    near_duplicates: bool
    max_expansion: int = 200


@dataclass(slots=True)
class DecodedImage:
    """One decoded image; fields as in :class:`~medphantom.cohorts.records.ImageRecord`.

    Attributes:
        frame: Index of the frame, page or row within its file, or of the volume within its series; ``None`` if single.
        labels: Labels that the file itself contains (MedMNIST).
        part: Split that the source assigns (``train``, ``val`` or ``test`` of an archive); empty if there is none.
        orientation: Orientation tag of a picture that was applied to ``pixels``; a mask must have the same.
    """

    pixels: Array
    channels: int = 1
    inverted: bool = False
    spacing_mm: tuple[float, ...] | None = None
    affine: tuple[float, ...] | None = None
    voi: Voi | None = None
    mask: Array | None = None
    frame: int | None = None
    labels: dict[str, bool | None] = field(default_factory=dict)
    part: str = ""
    orientation: int = 1


def require_size(total_bytes: int, options: ReadOptions) -> None:
    """Refuse what would decode to more memory than allowed, before it is decoded."""
    if total_bytes > options.max_bytes:
        raise UnreadableImage(
            Reason.TOO_LARGE, f"decodes to {total_bytes / 2**20:.0f} MiB, allowed are {options.max_bytes / 2**20:.0f}"
        )


def require_plausible(declared_bytes: int, stored_bytes: int, options: ReadOptions) -> None:
    """Refuse a file that declares far more pixels than its bytes can encode, before any of them is decoded."""
    if declared_bytes > NEVER_A_BOMB and declared_bytes > options.max_expansion * stored_bytes:
        raise UnreadableImage(
            Reason.TOO_LARGE,
            f"decodes to more than {options.max_expansion} times its bytes on disk: a decompression bomb, or blank; "
            "max_expansion allows more",
        )


def narrowest(values: Array) -> Array:
    """Return the values in the smallest dtype of a short list that represents each of them exactly.

    int16 comes first (Hounsfield units), then uint16, int32, uint32, float32; integers beyond 32 bits become float64 if
    that represents each of them; all other values are unchanged. The choice depends on the values, not on the
    declared bits: an unsigned 16-bit CT with intercept -1024 fits int16.
    """
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if native.size and np.isfinite(native).all():
        low, high = native.min(), native.max()
        for dtype in map(np.dtype, INTEGER_DTYPES):
            limits = np.iinfo(dtype)
            if limits.min <= low and high <= limits.max:
                narrow = native.astype(dtype)
                if np.array_equal(narrow, native):
                    return narrow
                break  # not whole numbers: no wider integer can hold them either
    if native.size and native.dtype.kind in "iu":  # beyond 32 bits: a comparison with floats would round them alike
        largest = max(abs(int(native.min())), abs(int(native.max())))
        return native.astype(np.float64) if largest <= EXACT_IN_DOUBLE else native
    with np.errstate(over="ignore"):
        single = native.astype(np.float32)
    return single if np.array_equal(single, native, equal_nan=True) else native


def stack_exactly(planes: Sequence[Array]) -> Array:
    """Stack planes of possibly different dtypes into one array that represents every value exactly."""
    dtypes = {plane.dtype for plane in planes}
    if len(dtypes) == 1:
        return np.stack(planes)
    common = np.result_type(*dtypes)
    return narrowest(np.stack([plane.astype(common) for plane in planes]))


def luminance(rgb: Array) -> Array:
    """Return grey values of ``(…, 3)`` colour by ITU-R BT.601, in the dtype of the source.

    Integers are rounded half up in exact arithmetic, so that the result is the same on every machine.
    """
    if rgb.dtype.kind in "iu":
        flat = rgb.reshape(-1, 3)
        found = np.empty(len(flat), rgb.dtype.newbyteorder("="))
        wide = np.int64 if rgb.dtype.itemsize > 2 else np.int32
        for start in range(0, len(flat), PIXELS_AT_ONCE):
            part = flat[start : start + PIXELS_AT_ONCE].astype(wide)
            thousandths = sum(part[:, channel] * weight for channel, weight in enumerate(LUMINANCE_PER_MILLE))
            found[start : start + PIXELS_AT_ONCE] = (thousandths + 500) // 1000
        return found.reshape(rgb.shape[:-1])
    grey: Array = rgb.astype(np.float64) @ (np.array(LUMINANCE_PER_MILLE) / 1000)
    return grey.astype(rgb.dtype.newbyteorder("="))


def settle_color(pixels: Array, options: ReadOptions, *, volume: bool = False) -> tuple[Array, int]:
    """Return colour ``(…, 3)`` as the options require: pixels and number of channels.

    Raises:
        UnreadableImage: If colour is refused, or should be kept in a volume.
    """
    if options.color == "grey":
        return luminance(pixels), 1
    if options.color == "reject":
        if (pixels == pixels[..., :1]).all():  # grey values stored as colour are grey
            return np.ascontiguousarray(pixels[..., 0]), 1
        raise UnreadableImage(Reason.COLOR, "a colour image while color is reject")
    if volume:
        raise UnreadableImage(Reason.COLOR, "volumes are grey: choose color grey")
    return np.ascontiguousarray(pixels), 3


def require_usable(image: DecodedImage, options: ReadOptions) -> None:
    """Refuse an image that is too small, not finite or constant."""
    shape = image.pixels.shape[:-1] if image.channels == 3 else image.pixels.shape
    if len(shape) != options.spatial_dims:
        raise UnreadableImage(Reason.GEOMETRY, f"has {len(shape)} spatial axes, the cohort has {options.spatial_dims}")
    if options.spatial_dims == 3 and shape[0] < options.min_slices:
        raise UnreadableImage(Reason.TOO_SMALL, f"{shape[0]} slices, at least {options.min_slices} are needed")
    if min(shape[-2:]) < options.min_side:
        size = " x ".join(str(side) for side in shape)
        raise UnreadableImage(Reason.TOO_SMALL, f"{size} pixels, at least {options.min_side} a side are needed")
    if image.pixels.dtype.kind not in "iuf":
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"pixels of type {image.pixels.dtype.name}")
    low, high = image.pixels.min(), image.pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnreadableImage(Reason.NOT_FINITE, "the pixels contain NaN or infinity")
    if low == high:
        raise UnreadableImage(Reason.CONSTANT, "all pixels have the same value")


def checked_mask(mask: Array, image: DecodedImage) -> Array:
    """Return a mask as unsigned integers, of the spatial shape of its image.

    Raises:
        UnreadableImage: If the shape differs, or the values are not small integers.
    """
    shape = image.pixels.shape[:-1] if image.channels == 3 else image.pixels.shape
    if mask.shape != shape:
        raise UnreadableImage(Reason.MASK_MISMATCH, f"mask of shape {mask.shape}, image of shape {shape}")
    if mask.dtype.kind not in "iufb" or not np.isfinite(mask).all():
        raise UnreadableImage(Reason.MASK_MISMATCH, "mask values are not integers")
    low, high = float(mask.min()), float(mask.max())
    if low < 0 or high > 65535 or (mask.dtype.kind == "f" and not np.array_equal(mask, np.rint(mask))):
        raise UnreadableImage(Reason.MASK_MISMATCH, "mask values must be integers from 0 to 65535")
    return np.ascontiguousarray(mask.astype(np.uint8 if high < 256 else np.uint16))


def aligned_mask(mask: Array, affine: tuple[float, ...] | None, image: DecodedImage) -> Array:
    """Return a mask aligned with the voxel grid of its volume, if both declare their orientation.

    A NIfTI mask of a DICOM series often has other axis directions; whole-voxel flips and swaps are undone, anything
    else is refused, since a mask is never interpolated.

    Raises:
        UnreadableImage: If the grids differ by more than flips and swaps.
    """
    if affine is None or image.affine is None or mask.ndim != 3:
        return mask
    to_mask = np.linalg.solve(np.reshape(affine, (4, 4)), np.reshape(image.affine, (4, 4)))
    turn = np.rint(to_mask[:3, :3]).astype(int)
    drift = np.abs(to_mask[:3, :3] - turn) @ np.array(image.pixels.shape[-3:])
    if drift.max() > HALF_A_VOXEL or not np.array_equal(np.abs(turn).sum(axis=0), [1, 1, 1]) or abs(turn).max() > 1:
        raise UnreadableImage(Reason.MASK_MISMATCH, "mask and image lie on different grids")
    axes = [int(np.argmax(np.abs(turn[:, axis]))) for axis in range(3)]
    turned = np.transpose(mask, axes)
    signs = [int(turn[axes[axis], axis]) for axis in range(3)]
    turned = turned[tuple(slice(None, None, sign) for sign in signs)]
    first = to_mask[:3, 3]
    expected = [0 if signs[axes.index(axis)] > 0 else mask.shape[axis] - 1 for axis in range(3)]
    if np.abs(first - expected).max() > HALF_A_VOXEL:
        raise UnreadableImage(Reason.MASK_MISMATCH, "mask and image lie at different places")
    return turned
