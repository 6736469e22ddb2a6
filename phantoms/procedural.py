"""Images that show no anatomy: procedural textures and shapes, from which a network learns what images are like.

Networks that learn from such images represent real ones surprisingly well (Baradad et al. 2021, "Learning to see by
looking at noise"), and no patient is needed for them. Every image is a function of (seed, kind, number) alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from medphantom.core.randomness import stream
from medphantom.core.records import Array

Rng = np.random.Generator


def procedural_image(seed: int, kind: str, number: int, side: int) -> Array:
    """Draw one image.

    Args:
        seed: Seed of the whole set.
        kind: Kind of image, one of :data:`KINDS`.
        number: Number of the image among those of its kind.
        side: Side in pixels.

    Returns:
        float32 ``(side, side)`` in 0…1.
    """
    rng = stream(seed, "procedural", kind, number)
    return _developed(rng, _normalised(KINDS[kind](rng, side)))


def coloured_noise(rng: Rng, side: int) -> Array:
    """Gaussian noise whose amplitude falls as one over a power of the frequency, perhaps along a direction."""
    return _noise(rng, side, rng.uniform(0.6, 2.2), stretch=float(np.exp(rng.normal(0, 0.35))))


def dead_leaves(rng: Rng, side: int) -> Array:
    """Shapes of all sizes that cover each other (Lee, Mumford & Huang 2001), each grey or textured."""
    image = np.full((side, side), rng.random(), np.float32)
    low, high = side * rng.uniform(0.015, 0.05), side * rng.uniform(0.15, 0.45)
    shape = rng.choice(["ellipse", "box", "polygon", "mixed"])
    textured = rng.random() < 0.5
    grain = _noise(rng, side, rng.uniform(0.5, 1.8)) if textured else None
    for _ in range(int(rng.integers(40, 260))):
        # density of radii r⁻³: no scale is preferred
        radius = float((low**-2 - rng.random() * (low**-2 - high**-2)) ** -0.5)
        centre = rng.uniform(-0.1, 1.1, 2) * side
        what = str(rng.choice(["ellipse", "box", "polygon"])) if shape == "mixed" else str(shape)
        region, inside = _shape(rng, side, centre, radius, what)
        if inside.size:
            grey = np.float32(rng.random())
            paint = grey if grain is None else grey + np.float32(0.12) * grain[region]
            image[region] = np.where(inside, paint, image[region])
    return image


def ellipses(rng: Rng, side: int) -> Array:
    """A large ellipse that holds smaller ones, whose values add up (in the manner of Shepp & Logan 1974)."""
    image = np.zeros((side, side), np.float32)
    whole = side * rng.uniform(0.3, 0.48)
    region, inside = _shape(rng, side, side * rng.uniform(0.44, 0.56, 2), whole, "ellipse")
    image[region] += inside * np.float32(rng.uniform(0.3, 1.0))
    body = image > 0
    for _ in range(int(rng.integers(4, 40))):
        radius = whole * float(np.exp(rng.uniform(np.log(0.03), np.log(0.6))))
        region, inside = _shape(rng, side, side / 2 + rng.normal(0, 0.35, 2) * whole, radius, "ellipse")
        image[region] += inside * np.float32(rng.normal(0, 0.35))
    soft = _noise(rng, side, rng.uniform(1.0, 2.0)) * np.float32(rng.uniform(0, 0.12))
    rim = ndimage.gaussian_filter(body.astype(np.float32), max(1.0, side * 0.01))
    found: Array = np.where(body, image + soft, 0) + (rim * (1 - rim) * rng.uniform(0, 4)).astype(np.float32)
    return found


def cells(rng: Rng, side: int) -> Array:
    """Discs that hardly overlap, with rims, nuclei and granules, on a bright or a dark ground."""
    image = _noise(rng, side, 1.8) * np.float32(rng.uniform(0.0, 0.08))
    radius = side * float(np.exp(rng.uniform(np.log(0.05), np.log(0.42))))
    taken: list[tuple[Array, float]] = []
    for _ in range(200):
        r = radius * rng.uniform(0.8, 1.2)
        centre = rng.uniform(0, side, 2)
        if any(np.hypot(*(centre - other)) < 0.9 * (r + size) for other, size in taken):
            continue
        taken.append((centre, r))
        region, inside = _shape(rng, side, centre, r, "ellipse", flattening=0.25)
        image[region] += inside * np.float32(rng.uniform(0.35, 0.6))
        for _ in range(int(rng.integers(0, 4))):
            spot = centre + rng.normal(0, 0.35, 2) * r
            where, blob = _shape(rng, side, spot, r * rng.uniform(0.06, 0.4), "ellipse")
            image[where] += blob * np.float32(rng.normal(0.2, 0.2))
        if len(taken) > 40:
            break
    return image if rng.random() < 0.5 else -image


def tubes(rng: Rng, side: int) -> Array:
    """Curved tubes of varying width that add up, such as bones, ribs and vessels."""
    image = _noise(rng, side, 2.0) * np.float32(0.1)
    grid_y, grid_x = np.mgrid[:side, :side].astype(np.float32)
    for _ in range(int(rng.integers(3, 18))):
        angle, bend = rng.uniform(0, np.pi), rng.normal(0, 1.2) / side
        middle = rng.uniform(0.1, 0.9, 2) * side
        along = (grid_x - middle[0]) * np.cos(angle) + (grid_y - middle[1]) * np.sin(angle)
        across = -(grid_x - middle[0]) * np.sin(angle) + (grid_y - middle[1]) * np.cos(angle) + bend * along**2
        width = side * float(np.exp(rng.uniform(np.log(0.012), np.log(0.14))))
        width_here = width * (1 + rng.uniform(0, 0.5) * (along / side) ** 2)
        profile = np.sqrt(np.clip(1 - (across / width_here) ** 2, 0, 1))  # what X-rays see of a cylinder
        if rng.random() < 0.6:  # hollow, as bones are
            profile -= np.float32(rng.uniform(0.3, 0.8)) * np.sqrt(
                np.clip(1 - (across / (0.7 * width_here)) ** 2, 0, 1)
            )
        ends = 1 / (1 + np.exp((np.abs(along) - side * rng.uniform(0.1, 0.8)) / (0.02 * side)))
        image += (np.float32(rng.uniform(0.2, 0.8)) * profile * ends).astype(np.float32)
    return image


def speckle(rng: Rng, side: int) -> Array:
    """Layers seen through multiplicative Rayleigh speckle, as in ultrasound (Burckhardt 1978), perhaps in a sector."""
    layers = np.clip(ndimage.gaussian_filter(dead_leaves(rng, side), side * rng.uniform(0.005, 0.03)), 0, None)
    size = (rng.uniform(0.4, 1.0) * side / 64, rng.uniform(0.6, 2.2) * side / 64)
    field = [ndimage.gaussian_filter(rng.standard_normal((side, side)), size) for _ in range(2)]
    echo = np.hypot(*field)
    image = np.log1p(6 * layers * echo / echo.mean())
    if rng.random() < 0.5:
        y, x = np.mgrid[:side, :side] / side
        image *= (np.abs(np.arctan2(x - 0.5, y + 0.08)) < rng.uniform(0.5, 0.8)) & (np.hypot(x - 0.5, y) < 0.97)
    return image.astype(np.float32)


KINDS: dict[str, Callable[[Rng, int], Array]] = {
    "coloured noise": coloured_noise,
    "dead leaves": dead_leaves,
    "ellipses": ellipses,
    "cells": cells,
    "tubes": tubes,
    "speckle": speckle,
}


def _noise(rng: Rng, side: int, power: float, stretch: float = 1.0) -> Array:
    """Noise of unit variance with spectrum f^(-power)."""
    white = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
    fy, fx = np.fft.fftfreq(side)[:, None] * stretch, np.fft.rfftfreq(side)[None] / stretch
    frequency = np.sqrt(fy**2 + fx**2)
    frequency[0, 0] = np.inf
    made = np.fft.irfft2(white / frequency**power, s=(side, side))
    found: Array = (made / made.std()).astype(np.float32)
    return found


def _shape(
    rng: Rng, side: int, centre: Array, radius: float, what: str, *, flattening: float = 0.7
) -> tuple[tuple[slice, slice], Array]:
    """Return the box of a shape and which of its pixels are inside."""
    reach = radius * 1.5
    low = np.clip(np.floor(centre - reach), 0, side).astype(int)
    high = np.clip(np.ceil(centre + reach) + 1, 0, side).astype(int)
    region = (slice(low[0], high[0]), slice(low[1], high[1]))
    y, x = np.mgrid[region].astype(np.float32)
    angle, flat = rng.uniform(0, np.pi), 1 - flattening * rng.random()
    u = (x - centre[1]) * np.cos(angle) + (y - centre[0]) * np.sin(angle)
    v = (-(x - centre[1]) * np.sin(angle) + (y - centre[0]) * np.cos(angle)) / flat
    if what == "ellipse":
        return region, u**2 + v**2 < radius**2
    if what == "box":
        return region, (np.abs(u) < radius) & (np.abs(v) < radius)
    corners = int(rng.integers(3, 8))
    turn = np.arctan2(v, u) % (2 * np.pi / corners) - np.pi / corners
    return region, np.hypot(u, v) * np.cos(turn) < radius * np.cos(np.pi / corners)


def _normalised(image: Array) -> Array:
    """Scale to 0…1 by the percentiles 0.5 and 99.5, as images are windowed."""
    low, high = np.percentile(image, (0.5, 99.5))
    found: Array = np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    return found


def _developed(rng: Rng, image: Array) -> Array:
    """What scanners do: curve, contrast, inversion, blur, noise, and a black frame around the field of view."""
    side = len(image)
    made = image ** float(np.exp(rng.normal(0, 0.45)))
    if rng.random() < 0.25:
        made = 1 - made
    if rng.random() < 0.4:
        made = ndimage.gaussian_filter(made, rng.uniform(0.3, 1.4) * side / 128)
    if rng.random() < 0.5:
        grain = _noise(rng, side, rng.choice([0.0, 0.0, 0.5]))
        made = made + np.float32(np.exp(rng.uniform(np.log(0.005), np.log(0.08)))) * grain
    low = rng.uniform(0, 0.3) if rng.random() < 0.4 else 0.0
    high = rng.uniform(0.55, 1) if rng.random() < 0.4 else 1.0
    made = low + (high - low) * np.clip(made, 0, 1)
    if rng.random() < 0.35:
        region, inside = _shape(
            rng, side, np.full(2, side / 2), side * rng.uniform(0.38, 0.52), str(rng.choice(["ellipse", "box"]))
        )
        frame = np.zeros((side, side), bool)
        frame[region] = inside
        made = np.where(frame, made, 0)
    return np.clip(made, 0, 1).astype(np.float32)
