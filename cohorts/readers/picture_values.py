"""Common steps for decoded PNG, JPEG and TIFF files: one page, opacity, sample depths and orientation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medphantom.cohorts.readers.common import narrowest
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

UPRIGHT = 1
ORIENTATION_TAG = 274
TRANSPOSED, UPSIDE_DOWN, MIRRORED = {5, 6, 7, 8}, {3, 4, 7, 8}, {2, 3, 6, 7}  # rows first, then their ends


@dataclass(frozen=True, slots=True)
class Page:
    """One decoded page in its intended orientation.

    Attributes:
        values: Source values, ``(H, W)`` or ``(H, W, 3)``.
        inverted: Whether small values are bright.
        orientation: Orientation tag (TIFF 6.0, Exif 2.32; 1 to 8) that was applied; 1 if there was none.
    """

    values: Array
    inverted: bool = False
    orientation: int = UPRIGHT


def turned(values: Array, orientation: int) -> Array:
    """Return rows and columns in the orientation of the tag: mirrored and rotated by quarter turns."""
    if orientation in TRANSPOSED:
        values = values.swapaxes(0, 1)
    return values[:: -1 if orientation in UPSIDE_DOWN else 1, :: -1 if orientation in MIRRORED else 1]


def known_orientation(value: object) -> int:
    """Return the tag's value; 1 for anything that the standard does not define."""
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT


def native(values: Array) -> Array:
    """Return values in native byte order, without half precision or unnecessary doubles."""
    if values.dtype.kind == "f":
        return narrowest(values) if values.dtype.itemsize == 8 else values.astype(np.float32)
    if values.dtype.itemsize == 8:
        return narrowest(values)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def widened(samples: Array, bits: int) -> Array:
    """Return grey samples of 1, 2 or 4 bits spread over 0 to 255: 0 and 255; steps of 85; steps of 17."""
    return samples.astype(np.uint8) * np.uint8(255 // (2**bits - 1))


def first_or_rgb(values: Array) -> Array:
    """Return ``(H, W)`` for a single channel, else the channels."""
    return values[..., 0] if values.shape[-1] == 1 else values


def on_black(values: Array) -> Array:
    """Apply the last channel as opacity over black; opaque pictures keep their values."""
    color, alpha = first_or_rgb(values[..., :-1]), values[..., -1]
    full = _opaque(values)
    if (alpha == full).all():
        return np.ascontiguousarray(color)
    opacity = alpha.astype(np.float64) / full
    mixed = color * (opacity if color.ndim == 2 else opacity[..., np.newaxis])
    return (np.rint(mixed) if values.dtype.kind in "iu" else mixed).astype(values.dtype)


def opaque_numbers(values: Array) -> Array:
    """Return the numbers of a mask with an opacity channel as stored, never multiplied by it.

    For the number 0 any opacity is allowed: many tools draw a transparent background.

    Raises:
        UnreadableImage: If a class is not fully opaque, so that its number may not be intended.
    """
    numbers, alpha = values[..., :-1], values[..., -1:]
    require_opaque(numbers, alpha == _opaque(values))
    return np.ascontiguousarray(first_or_rgb(numbers))


def require_opaque(numbers: Array, opaque: Array) -> None:
    """Refuse a mask in which a number other than 0 is not opaque.

    Args:
        numbers: Mask numbers of any shape.
        opaque: Whether each number is opaque; broadcast to that shape.

    Raises:
        UnreadableImage: If there is such a number.
    """
    if ((numbers != 0) & ~opaque).any():
        raise UnreadableImage(Reason.MASK_MISMATCH, "a mask with transparent classes: save it without transparency")


def _opaque(values: Array) -> float:
    return float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1.0
