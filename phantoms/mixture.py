"""A mixture of images of many kinds, none of a patient: procedural ones, simulated slices and simulated radiographs."""

from __future__ import annotations

import numpy as np

from medphantom.core.randomness import stream
from medphantom.core.records import Array
from medphantom.phantoms.population import Population, draw_patient
from medphantom.phantoms.procedural import KINDS, procedural_image
from medphantom.phantoms.render import render

SLICE, RADIOGRAPH = "slice", "radiograph"
MIXTURE = (*KINDS, SLICE, RADIOGRAPH)
"""Classes of the mixture, in turn."""
WINDOWS_HU = ((40, 400), (-600, 1500), (0, 2000), (300, 1500))
"""Centre and width of the windows in which slices are seen: soft tissue, lung, all, bone."""


def example(seed: int, number: int, side: int) -> tuple[str, Array]:
    """Draw one image of the mixture.

    Half of the images are seen whole, reduced by means of pixels as a large image is; of the others a part is seen in
    full resolution, so that edges of every sharpness occur.

    Args:
        seed: Seed of the mixture.
        number: Number of the image; its class is that of ``number`` modulo the number of classes.
        side: Side in pixels.

    Returns:
        The class, and float32 ``(side, side)`` in 0…1.
    """
    what = MIXTURE[number % len(MIXTURE)]
    rng = stream(seed, "mixture", number)
    factor = int(rng.choice([1, 2, 2, 3]))
    if what == SLICE:
        return what, _slice(seed, number, side, rng)
    if what == RADIOGRAPH:
        patient = draw_patient(number, seed, 2, Population())
        large = render(patient.images[0], factor * side).astype(np.float32) / 65535
    else:
        large = procedural_image(seed, what, number, factor * side)
    if factor == 1 or rng.random() < 0.5:
        return what, large.reshape(side, factor, side, factor).mean((1, 3))
    top, left = rng.integers(0, (factor - 1) * side + 1, 2)
    return what, large[top : top + side, left : left + side]


def _slice(seed: int, number: int, side: int, rng: np.random.Generator) -> Array:
    """Return a slice of a simulated volume in one of the usual windows, perhaps from the side."""
    patient = draw_patient(number, seed, 3, Population())
    volume = render(patient.images[0], side).astype(np.float32)
    depth = len(volume)
    if rng.random() < 0.7:
        plane = volume[int(rng.integers(depth // 6, depth - depth // 6))]
    else:  # coronal: slices become lines, padded to a square
        plane = np.zeros((side, side), np.float32) - 1000
        start = (side - depth) // 2
        plane[start : start + depth] = volume[::-1, int(rng.integers(side // 4, 3 * side // 4))]
    centre, width = WINDOWS_HU[int(rng.integers(len(WINDOWS_HU)))]
    return np.clip((plane - centre + width / 2) / width, 0, 1).astype(np.float32)
