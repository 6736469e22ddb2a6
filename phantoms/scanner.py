"""From line integrals to stored pixels: quantum noise, detector blur, contrast curve, shutter and lead marker."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medphantom.core.randomness import stream
from medphantom.core.records import Array
from medphantom.phantoms.factors import ImageFactors

FULL_SCALE = 65535
MIDDLE_L = 3.05  # line integral that becomes middle grey
WIDTH_L = 0.95  # steepness of the contrast curve
NOISE_REFERENCE_L = 3.2  # 15 cm of water at 60 keV
NOISE_REFERENCE_MM = 3.0
BLUR_TRUNCATE = 3.0

_MARKER = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]], dtype=np.float32)  # the letter L


def blur_sigma_px(image: ImageFactors, size: int) -> float:
    """Return the standard deviation of the detector's blur in pixels of an image of side ``size``."""
    return image.scanner.blur_mm * size / image.scanner.field_mm


def blur_radius_px(image: ImageFactors, size: int) -> int:
    """Return the reach of the blur in pixels: beyond it, an unchanged line integral gives an unchanged pixel."""
    sigma = blur_sigma_px(image, size)
    return int(BLUR_TRUNCATE * sigma + 0.5) if sigma > 0.2 else 0


def noisy(image: ImageFactors, integral: Array) -> Array:
    """Add quantum noise to line integrals: relative noise 1/sqrt(photons), photons ∝ exp(-L) × pixel area × dose.

    The noise field depends on the scanner's noise seed and the size only, never on the content of the image.
    """
    size = integral.shape[-1]
    field = stream(image.scanner.noise_seed, "detector noise", size).standard_normal(integral.shape, dtype=np.float32)
    spacing = image.scanner.field_mm / size
    sigma = image.scanner.noise * NOISE_REFERENCE_MM / spacing
    growth = np.exp(0.5 * (np.minimum(integral, 7) - NOISE_REFERENCE_L))
    return np.asarray(integral + np.float32(sigma) * growth * field, dtype=np.float32)


def develop(image: ImageFactors, integral: Array) -> Array:
    """Return the pixels of a radiograph for presentation: uint16 ``(size, size)``, full scale, bright where dense."""
    size = integral.shape[-1]
    seen = noisy(image, integral + marker(image, size))
    sigma = blur_sigma_px(image, size)
    if blur_radius_px(image, size):
        seen = ndimage.gaussian_filter(seen, sigma, truncate=BLUR_TRUNCATE, mode="nearest")
    steep = image.scanner.contrast / WIDTH_L
    grey = 1 / (1 + np.exp(-steep * (seen - MIDDLE_L - image.scanner.gain)))
    dark = 1 / (1 + np.exp(steep * (MIDDLE_L + image.scanner.gain)))
    grey = (grey - dark) / (1 - dark) * shutter(image, size)
    return np.rint(np.clip(grey, 0, 1) * FULL_SCALE).astype(np.uint16)


def shutter(image: ImageFactors, size: int) -> Array:
    """Return 1 within the collimated field and 0 outside."""
    left, right, top, bottom = (round(mm * size / image.scanner.field_mm) for mm in image.scanner.collimation_mm)
    mask = np.zeros((size, size), dtype=np.float32)
    mask[top : size - bottom, left : size - right] = 1
    return mask


def marker(image: ImageFactors, size: int) -> Array:
    """Return the line integral of the lead letter that marks the patient's left, if the site uses one."""
    added = np.zeros((size, size), dtype=np.float32)
    if image.scanner.marker == "none":
        return added
    unit = max(1, round(size * 4.0 / image.scanner.field_mm))
    glyph = np.kron(_MARKER, np.ones((unit, unit), dtype=np.float32)) * 6
    height, width = glyph.shape
    edge = max(1, round(size * 0.045))
    row = edge if image.scanner.marker.startswith("top") else size - edge - height
    column = edge if image.scanner.marker.endswith("left") else size - edge - width
    added[row : row + height, column : column + width] = glyph
    return added
