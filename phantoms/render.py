"""Draw a simulated patient: pixels, masks of findings and organs, and where two drawings differ."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

from medphantom.core.errors import InputError
from medphantom.core.records import Array
from medphantom.phantoms import radiograph, scanner, volume
from medphantom.phantoms.body import Body
from medphantom.phantoms.factors import FINDINGS, ImageFactors, with_factor

SMALLEST_SIDE = 32
DEFAULT_SIZE: dict[Literal[2, 3], int] = {2: 256, 3: 64}

MASK_VALUES: dict[int, str] = {
    0: "background",
    1: "right lung",
    2: "left lung",
    3: "heart",
    4: "consolidation",
    5: "effusion",
    6: "pneumothorax",
    7: "nodule",
    8: "pacemaker",
}
VISIBLE = {2: 0.03, 3: 60.0}  # smallest change of line integral (2-D) or HU (3-D) that counts as seen in a finding mask

Size = int | tuple[int, int, int]


def shape_of(image: ImageFactors, size: Size | None = None) -> tuple[int, ...]:
    """Return the shape of the pixels.

    Args:
        image: Factors of the image.
        size: Side of a radiograph (default 256), side of a volume's slices (default 64, with three quarters as many
            slices), or a volume's ``(D, H, W)``.

    Raises:
        InputError: If a side is below 32 (24 along D), or three sides are given for a radiograph.
    """
    wanted = DEFAULT_SIZE[image.spatial_dims] if size is None else size
    if isinstance(wanted, tuple):
        shape: tuple[int, ...] = wanted
    else:
        shape = (wanted, wanted) if image.spatial_dims == 2 else (round(0.75 * wanted), wanted, wanted)
    if len(shape) != image.spatial_dims or min(shape[-2:]) < SMALLEST_SIDE or min(shape) < 0.75 * SMALLEST_SIDE:
        raise InputError(f"size {wanted} does not suit {image.spatial_dims} dimensions", "give a side of ≥ 32 pixels")
    return shape


def spacing_mm(image: ImageFactors, size: Size | None = None) -> tuple[float, ...]:
    """Return the distance between pixel centres along each axis, at the detector (2-D) or in the body (3-D)."""
    shape = shape_of(image, size)
    if len(shape) == 3:
        return volume.voxel_spacing(image, (shape[0], shape[1], shape[2]))
    return (image.scanner.field_mm / shape[0],) * 2


def noise_free(image: ImageFactors, size: Size | None = None) -> Array:
    """Return the image before noise and detector.

    Returns:
        float32 line integrals ``(H, W)`` (2-D) or HU ``(D, H, W)`` (3-D).
    """
    shape = shape_of(image, size)
    if len(shape) == 3:
        return volume.hounsfield(image, (shape[0], shape[1], shape[2]))
    return radiograph.line_integral(image, shape[0])


def render(image: ImageFactors, size: Size | None = None) -> Array:
    """Return the image as it is stored, except for bit depth and photometric interpretation.

    Equal factors and size give equal pixels on every machine with the same NumPy and SciPy.

    Args:
        image: Factors of the image.
        size: Size as in :func:`shape_of`.

    Returns:
        uint16 ``(H, W)`` over the full scale, bright where dense (2-D), or int16 HU ``(D, H, W)`` (3-D).
    """
    drawn = noise_free(image, size)
    return scanner.develop(image, drawn) if drawn.ndim == 2 else volume.scan(image, drawn)


def changed_region(a: ImageFactors, b: ImageFactors, size: Size | None = None, *, seen: bool = False) -> Array:
    """Return where two images of one patient differ before noise and detector.

    Outside this region the noise-free images are equal bit for bit. With ``seen`` it is widened by the reach of the
    detector's blur: outside that, :func:`render` gives equal pixels, noise included, if both images have the same
    scanner.

    Returns:
        bool array of the image's shape.
    """
    region = noise_free(a, size) != noise_free(b, size)
    return widened(a, region) if seen else region


def widened(image: ImageFactors, region: Array) -> Array:
    """Return a region widened by the reach of the blur along every axis."""
    if region.ndim == 2:
        reach: tuple[int, ...] = (scanner.blur_radius_px(image, region.shape[-1]),) * 2
    else:
        reach = tuple(int(3.0 * sigma + 0.5) for sigma in volume.blur_sigma_voxels(image, region.shape))
    result: Array = ndimage.maximum_filter(region, [2 * r + 1 for r in reach], mode="constant")
    return result


def finding_mask(image: ImageFactors, name: str, size: Size | None = None) -> Array:
    """Return where one finding is visible: where its removal would change the noise-free image noticeably.

    For a pneumothorax this is where density falls (free air), for every other finding where it rises; for cardiomegaly
    it is where the larger heart displaces lung. An absent finding has an empty mask.

    Args:
        image: Factors of the image.
        name: Name of the finding, one of ``FINDINGS``.
        size: Size as in :func:`shape_of`.

    Returns:
        bool array of the image's shape.
    """
    if not image.finding(name).present:
        return np.zeros(shape_of(image, size), dtype=bool)
    return _seen(image, name, noise_free(image, size), size)


def _seen(image: ImageFactors, name: str, drawn: Array, size: Size | None) -> Array:
    added = drawn - noise_free(with_factor(image, f"{name}.severity", 0.0), size)
    return np.asarray((-added if name == "pneumothorax" else added) > VISIBLE[image.spatial_dims])


def organ_masks(image: ImageFactors, size: Size | None = None) -> dict[str, Array]:
    """Return masks of right lung, left lung and heart; in a radiograph they overlap."""
    shape = shape_of(image, size)
    body = Body(image)
    masks: dict[str, Array] = {}
    if len(shape) == 3:
        voxels = volume.voxel_grid(image, (shape[0], shape[1], shape[2]))
        heart = volume.heart_region(body, voxels) >= 0.5
        for sign, name in ((-1, "right lung"), (1, "left lung")):
            masks[name] = (volume.lung_region(body, voxels, sign) >= 0.5) & ~heart
        return {**masks, "heart": heart}
    grid = radiograph.ray_grid(image, shape[0])
    for sign, name in ((-1, "right lung"), (1, "left lung")):
        radius = body.lung_radius(sign * grid.x, grid.y, sign)
        masks[name] = (radius < 1) & (grid.y < body.diaphragm(sign * grid.x, sign)) & (sign * grid.x > 0)
    masks["heart"] = radiograph.heart_thickness(body, grid.x, grid.y) > 0
    return masks


def label_map(image: ImageFactors, size: Size | None = None) -> Array:
    """Return organs and findings as one integer map; where they overlap, the higher :data:`MASK_VALUES` value is kept.

    Returns:
        uint8 array of the image's shape; cardiomegaly has no value of its own, since it is part of the heart.
    """
    labels = np.zeros(shape_of(image, size), dtype=np.uint8)
    organs = organ_masks(image, size)
    drawn = noise_free(image, size)
    for value, name in MASK_VALUES.items():
        if name in organs:
            labels[organs[name]] = value
        elif name in FINDINGS and image.finding(name).present:
            labels[_seen(image, name, drawn, size)] = value
    return labels
