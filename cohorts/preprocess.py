"""Preprocessing of images for a network: intensity window, size and channels; applied on reading, undone at export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator
from scipy import ndimage

from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.records import Array, Frozen

SMALLEST_SIDE = 8


class Window(Frozen):
    """Maps source values from ``low`` to ``high`` to -1…1, clipping values outside; invertible.

    Attributes:
        kind: Kind of intensity mapping, ``window``.
        low: Source value that becomes black.
        high: Source value that becomes white.
    """

    kind: Literal["window"] = "window"
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if not self.high > self.low:
            raise ValueError(f"window.high must be > window.low, got {self.low}…{self.high}")
        return self


class Percentile(Frozen):
    """Maps each image's own percentiles to -1…1, for modalities without units (MR); absolute values are lost.

    Attributes:
        kind: Kind of intensity mapping, ``percentile``.
        low: Percentile that becomes black.
        high: Percentile that becomes white.
    """

    kind: Literal["percentile"] = "percentile"
    low: Annotated[float, Field(ge=0, lt=50)] = 0.5
    high: Annotated[float, Field(gt=50, le=100)] = 99.5


class Preprocess(Frozen):
    """Configuration of how source values become network input, and back.

    Attributes:
        size: Spatial size of the network input, ``(H, W)`` or ``(D, H, W)``.
        intensity: Intensity mapping, :class:`Window` or :class:`Percentile`.
        fit: How images are fitted to ``size``: ``pad`` keeps the whole image and its aspect ratio (border at -1),
            ``crop`` fills the frame and crops the longer side, ``stretch`` ignores the aspect ratio, ``native`` keeps
            the pixel grid and crops or pads it around the centre (for volumes whose spacing must not change).
        channels: Number of channels, 1 or 3; a grey image is repeated, a colour image becomes luminance (ITU-R BT.601).
        stored_dtype: Data type in which generated images are stored.
    """

    size: tuple[int, ...]
    intensity: Annotated[Window | Percentile, Field(discriminator="kind")] = Window(low=0, high=255)
    fit: Literal["pad", "crop", "stretch", "native"] = "pad"
    channels: Literal[1, 3] = 1
    stored_dtype: Literal["uint8", "uint16", "int16", "float32"] = "uint8"

    @model_validator(mode="after")
    def _supported_size(self) -> Preprocess:
        if len(self.size) not in {2, 3} or min(self.size) < SMALLEST_SIDE:
            raise ValueError(f"preprocess.size must be 2 or 3 sides of ≥ {SMALLEST_SIDE} pixels, got {self.size}")
        return self

    @classmethod
    def for_cohort(cls, cohort: Cohort, size: Sequence[int], **overrides: Any) -> Preprocess:
        """Return a suitable preprocessing: full range of 8-bit images, a CT window in HU, else percentiles per image.

        Args:
            cohort: Cohort whose ``train`` rows decide (metadata only).
            size: Spatial size of the network input.
            overrides: Fields to set instead.
        """
        rows = cohort.manifest
        dtypes = {str(group).rsplit("_", 1)[-1] for group in rows["group"].unique()}
        if dtypes == {"uint8"}:
            chosen: dict[str, Any] = {"intensity": Window(low=0, high=255)}
        elif set(rows["modality"].unique()) == {"CT"}:
            chosen = {"intensity": Window(low=-1000, high=1000), "stored_dtype": "int16"}
        else:
            chosen = {"intensity": Percentile(), "stored_dtype": "uint8"}
        if cohort.schema.spatial_dims == 3:
            chosen["fit"] = "native"
        return cls(size=tuple(size), **{**chosen, **overrides})

    def apply(self, pixels: Array, source_channels: int = 1, *, inverted: bool = False) -> Array:
        """Return the network input of one image.

        Args:
            pixels: Source values, ``(*spatial)`` or ``(H, W, 3)`` if ``source_channels == 3``.
            source_channels: Number of channels of the source, 1 or 3.
            inverted: Whether small source values are bright (MONOCHROME1); they are inverted, so that bone is always
                bright.

        Returns:
            float32 array ``(channels, *size)`` in -1…1, large values bright.

        Raises:
            InputError: If the number of spatial axes differs from that of ``size``.
        """
        values = np.asarray(pixels, dtype=np.float32)
        spatial = values.ndim - (1 if source_channels == 3 else 0)
        if spatial != len(self.size):
            raise InputError(f"an image has {spatial} spatial axes, but preprocess.size has {len(self.size)}")
        planes = np.moveaxis(values, -1, 0) if source_channels == 3 else values[np.newaxis]
        if self.channels == 1 and source_channels == 3:
            planes = np.tensordot(np.array([[0.299, 0.587, 0.114]], dtype=np.float32), planes, axes=1)
        low, high = self._range(planes)
        scaled = np.clip((planes - low) / max(high - low, 1e-12), 0, 1) * 2 - 1
        if inverted:
            scaled = -scaled
        fitted = np.stack([fit_to_size(plane, self.size, self.fit, border=-1.0) for plane in scaled])
        if self.channels == 3 and source_channels == 1:
            fitted = np.repeat(fitted, 3, axis=0)
        result: Array = np.clip(fitted, -1, 1).astype(np.float32)
        return result

    def apply_mask(self, mask: Array) -> Array:
        """Return the mask on the network's grid by nearest neighbour; ``(*size)`` of the mask's dtype, border 0."""
        return fit_to_size(mask, self.size, self.fit, border=0, nearest=True)

    def undo(self, network: Array, *, inverted: bool = False) -> Array:
        """Return source values of network output, on the network's grid.

        With a percentile intensity the absolute values are unknown: the result spans the full range of
        ``stored_dtype`` (0…1 for float32).

        Args:
            network: Network output, float ``(channels, *size)`` in -1…1.
            inverted: Whether to return values of a MONOCHROME1 source, where small ones are bright. Generated images
                are stored with bright values large, so they do not need it.

        Returns:
            ``stored_dtype`` array, ``(*size)`` or ``(*size, 3)``.
        """
        signed = -np.asarray(network, dtype=np.float64) if inverted else np.asarray(network, dtype=np.float64)
        unit = (np.clip(signed, -1, 1) + 1) / 2
        dtype = np.dtype(self.stored_dtype)
        if isinstance(self.intensity, Window):
            low, high = self.intensity.low, self.intensity.high
        else:
            low, high = (0.0, 1.0) if dtype.kind == "f" else (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
        values = low + unit * (high - low)
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        stored: Array = values.astype(dtype)
        return np.moveaxis(stored, 0, -1) if self.channels == 3 else stored[0]

    def spacing_after(self, shape: Sequence[int], spacing_mm: Sequence[float] | None) -> tuple[float, ...] | None:
        """Return the pixel spacing on the network's grid of an image of spatial ``shape`` with ``spacing_mm``."""
        return None if spacing_mm is None else spacing_on_grid(shape, spacing_mm, self.size, self.fit)

    def affine_after(self, shape: Sequence[int], affine: Sequence[float] | None) -> tuple[float, ...] | None:
        """Return the row-major 4x4 voxel-to-world matrix on the network's grid of a volume of ``shape`` with
        ``affine``.
        """
        if affine is None:
            return None
        matrix = np.asarray(affine, dtype=float).reshape(4, 4)
        moved = matrix.copy()
        for axis, (zoom, offset) in enumerate(_placed(shape, self.size, self.fit)):
            first = (0.5 - offset) / zoom - 0.5  # in source pixels: where the grid's first pixel lies
            moved[:3, axis] = matrix[:3, axis] / zoom
            moved[:3, 3] += matrix[:3, axis] * first
        return tuple(float(value) for value in moved.ravel())

    def _range(self, planes: Array) -> tuple[float, float]:
        if isinstance(self.intensity, Window):
            return self.intensity.low, self.intensity.high
        low, high = np.percentile(planes, [self.intensity.low, self.intensity.high])
        return float(low), float(high)


def _scale_factors(shape: Sequence[int], size: Sequence[int], fit: str) -> tuple[float, ...]:
    ratios = [new / old for new, old in zip(size, shape, strict=True)]
    if fit == "native":
        return (1.0,) * len(ratios)
    if fit == "stretch":
        return tuple(ratios)
    chosen = min(ratios) if fit == "pad" else max(ratios)
    return (chosen,) * len(ratios)


def spacing_on_grid(
    shape: Sequence[int], spacing_mm: Sequence[float], size: Sequence[int], fit: str
) -> tuple[float, ...]:
    """Return the spacing of an image of spatial ``shape`` with ``spacing_mm`` after it is brought to ``size``."""
    return tuple(float(s) / zoom for s, (zoom, _) in zip(spacing_mm, _placed(shape, size, fit), strict=True))


def _placed(shape: Sequence[int], size: Sequence[int], fit: str) -> list[tuple[float, int]]:
    """Return for each axis its enlargement, and the number of pixels before its first one (< 0 if cropped)."""
    placed = []
    for old, new, factor in zip(shape, size, _scale_factors(shape, size, fit), strict=True):
        scaled = max(1, round(old * factor))
        extra = new - scaled
        before = abs(extra) // 2
        placed.append((scaled / old, before if extra > 0 else -before))
    return placed


def fit_to_size(plane: Array, size: Sequence[int], fit: str, *, border: float, nearest: bool = False) -> Array:
    """Resize one plane or volume, then crop or pad it around its centre to exactly ``size``.

    Args:
        plane: Plane or volume of values, ``(*spatial)``.
        size: Requested size along each axis.
        fit: How the values are fitted, as in :class:`Preprocess`.
        border: Value of padded pixels.
        nearest: Whether to use nearest neighbour (masks) instead of antialiased linear interpolation.
    """
    placed = _placed(plane.shape, size, fit)
    scaled = [round(old * zoom) for old, (zoom, _) in zip(plane.shape, placed, strict=True)]
    resized = _resize(plane, scaled, nearest=nearest)
    for axis, (wanted, (_, offset)) in enumerate(zip(size, placed, strict=True)):
        extra = wanted - resized.shape[axis]
        if extra > 0:
            widths = [(0, 0)] * resized.ndim
            widths[axis] = (offset, extra - offset)
            resized = np.pad(resized, widths, constant_values=border)
        elif extra < 0:
            resized = np.take(resized, range(-offset, wanted - offset), axis=axis)
    return resized


def _resize(plane: Array, size: Sequence[int], *, nearest: bool) -> Array:
    if tuple(size) == plane.shape:
        return plane
    if plane.ndim == 2 and not nearest:
        image = Image.fromarray(np.asarray(plane, dtype=np.float32), mode="F")
        return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))  # antialiased when it shrinks
    zoom = [new / old for new, old in zip(size, plane.shape, strict=True)]
    smooth = plane
    if not nearest:
        sigma = [max(0.0, (1 / factor - 1) / 2) for factor in zoom]  # antialias when it shrinks
        smooth = ndimage.gaussian_filter(plane, sigma)
    order = 0 if nearest else 1
    result: Array = ndimage.zoom(smooth, zoom, order=order, mode="nearest", grid_mode=True)
    return result


def network_images(cohort: Cohort, rows: Sequence[int], preprocess: Preprocess) -> Array:
    """Return network input of many rows: float32 ``(n, channels, *size)`` in -1…1.

    Raises:
        InputError: If there is no such row, or something else than a cohort and a preprocessing is given.
    """
    if not isinstance(preprocess, Preprocess) or not hasattr(cohort, "manifest"):
        got = f"{type(cohort).__name__} and {type(preprocess).__name__}"
        raise InputError(f"a Cohort and a Preprocess were expected, got {got}", "open the cohort first")
    images = np.empty((len(rows), preprocess.channels, *preprocess.size), dtype=np.float32)
    channels, inverted = cohort.manifest["channels"], cohort.manifest["inverted"]
    for start in range(0, len(rows), 256):
        batch = list(rows[start : start + 256])
        for offset, (row, pixels) in enumerate(zip(batch, cohort.pixels(batch), strict=True)):
            images[start + offset] = preprocess.apply(pixels, int(channels[row]), inverted=bool(inverted[row]))
    return images
