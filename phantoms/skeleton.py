"""Bone along each ray, in millimetres of cortical bone: ribs as projected hoops, spine, collarbones, shoulders."""

from __future__ import annotations

import math

import numpy as np

from medphantom.core.records import Array
from medphantom.phantoms.body import Body, smoothstep


def bone_thickness(body: Body, x: Array, y: Array) -> Array:
    """Return the thickness of cortical bone along each ray of a radiograph in mm."""
    total = ribs(body, x, y) + spine(body, x, y) + clavicles(body, x, y) + shoulders(body, x, y)
    return np.asarray(total * np.float32(body.bone))


def ribs(body: Body, x: Array, y: Array) -> Array:
    """Return the ribs of the back (steep, strong) and of the front (shallow, faint).

    A rib is a tilted hoop around an elliptic cage: seen from the front, its height falls with
    1 - sqrt(1 - ξ²), ξ the distance from the spine over the cage's half width at that height.
    """
    anatomy = body.image.anatomy
    s = body.scale
    cage = body.half_width * (1 + 2.2 / body.half_width) * _cage_profile(body, y)
    back_x = x - 0.65 * body.spine_x(y)
    front_x = x - body.front_shift(50)
    spacing = anatomy.rib_spacing_mm * s * (0.94 + 0.06 * body.image.pose.inspiration)
    drop = anatomy.rib_drop_mm * s
    first = body.apex - 4 * s
    back = _hoop(back_x, y, cage, (first, spacing, drop), anatomy.rib_pairs, half=5.6 * s, front=False)
    front = _hoop(front_x, y, cage, (first, spacing, drop), min(anatomy.rib_pairs, 8), half=6.6 * s, front=True)
    return np.asarray(4.6 * back + 2.2 * front)


def _cage_profile(body: Body, y: Array) -> Array:
    """Return the half width of the rib cage at height ``y`` relative to its widest level."""
    rise = np.maximum(body.base - y, 0) / (body.base - body.apex + 14 * body.scale)
    rounded = np.maximum(1 - np.minimum(rise, 1) ** 2.6, 0.02) ** (1 / 2.6)
    return np.asarray(rounded * (1 - 0.09 * np.maximum(y - body.base, 0) / 100))


def _hoop(
    x: Array, y: Array, cage: Array, course: tuple[float, float, float], pairs: int, *, half: float, front: bool
) -> Array:
    """Return the cross-section of the nearest rib at each ray, all ribs at once: 1 at a rib's bright cortex.

    ``course`` holds the height of the first rib, the spacing and the drop of the ribs.
    """
    first, spacing, drop = course
    xi = np.abs(x) / cage
    root = np.sqrt(np.maximum(1 - xi * xi, 0.004))
    fall = drop * (1 + 0.85 * root) if front else drop * (1 - root) - 9 * np.sin(np.pi * np.minimum(xi, 1))
    number = (y - first - fall) / spacing
    nearest = np.floor(number)
    steep = np.minimum(drop * xi / root / cage, 2.5)
    away = np.abs(number - nearest - 0.5) * spacing / np.sqrt(1 + steep * steep)
    tube = np.maximum(1 - (away / half) ** 2, 0)
    shell = np.sqrt(tube) - 0.45 * np.sqrt(np.maximum(1 - (away / (0.72 * half)) ** 2, 0))
    through = np.minimum(1 / root, 3.2)  # along the side wall the ray runs through the rib
    there = (nearest >= 0) & (nearest < pairs) & (xi < 1)
    fade = smoothstep((xi - 0.42) / 0.22) if front else smoothstep((xi - 0.06) / 0.08)
    floating = 1 - 0.6 * smoothstep((number - 8) / 2)
    return np.asarray(shell * through * there * fade * floating * 1.35)


def spine(body: Body, x: Array, y: Array) -> Array:
    """Return the vertebral bodies with discs between them, pedicles and spinous processes."""
    s = body.scale
    u = x - body.spine_x(y)
    t = (y + 170) / 340
    pitch = (20 + 9 * t) * s
    half = (15 + 8 * t) * s
    phase = ((y + 170) / s - 0.0002 * (y + 170) ** 2) / 25 * 1.0
    level = phase - np.floor(phase) - 0.5
    plate = smoothstep((0.44 - np.abs(level)) / 0.07)
    inside = smoothstep((half - np.abs(u)) / (4 * s))
    rim = 0.4 * smoothstep(1 - np.abs(np.abs(u) - half + 3 * s) / (3 * s))
    spot = ((np.abs(u) - 0.62 * half) / (3.4 * s)) ** 2 + ((level + 0.12) * pitch / (4.5 * s)) ** 2
    process = (u / (3.0 * s)) ** 2 + ((level - 0.2) * pitch / (8 * s)) ** 2
    return np.asarray(
        inside * (4 + 5 * plate) + 4 * rim * plate + 5 * smoothstep(1.4 - spot) + 4 * smoothstep(1.3 - process)
    )


def clavicles(body: Body, x: Array, y: Array) -> Array:
    """Return two S-shaped collarbones from the breastbone to the shoulders."""
    s = body.scale
    slope = body.image.anatomy.shoulder_slope
    lordotic = 8 if body.image.pose.view == "AP" else 0
    u = x - body.front_shift(58)
    a = np.abs(u) / s
    t = (a - 12) / 140
    height = body.apex / s + 24 - lordotic - (38 - 26 * slope) * t - 8 * np.sin(2 * np.pi * np.minimum(t, 1))
    away = np.abs(y / s - height) / 1.06
    half = 6.6 - 1.6 * np.sin(np.pi * np.clip(t, 0, 1))
    tube = np.sqrt(np.maximum(1 - (away / half) ** 2, 0))
    tube -= 0.45 * np.sqrt(np.maximum(1 - (away / (0.65 * half)) ** 2, 0))
    return np.asarray(15 * tube * smoothstep(t * 12) * smoothstep((1.05 - t) * 14))


def shoulders(body: Body, x: Array, y: Array) -> Array:
    """Return shoulder blades (rotated outwards in PA, over the lungs in AP) and heads and shafts of the upper arms."""
    s = body.scale
    out = 0.0 if body.image.pose.view == "PA" else -16.0
    a = np.abs(x) / s
    v = y / s
    tilt = math.radians(13)
    u0, v0 = a - 146 - out, v + 52
    along = math.cos(tilt) * v0 + math.sin(tilt) * u0
    across = math.cos(tilt) * u0 - math.sin(tilt) * v0
    width = np.maximum(30 - 0.24 * (along + 60), 4)
    q = (across / width) ** 2
    plate = smoothstep((1 - q) * 3) * smoothstep((62 - np.abs(along)) / 14)
    ridge = smoothstep(1 - np.abs(np.abs(across) - 0.86 * width) / 4.5) * smoothstep((60 - np.abs(along)) / 14)
    head = np.sqrt(np.maximum(1 - ((a - 180) / 24) ** 2 - ((v + 96) / 25) ** 2, 0))
    shaft_x = 182 + (v + 90) * 0.20
    shaft = np.sqrt(np.maximum(1 - ((a - shaft_x) / 12) ** 2, 0)) * (v > -92)
    shaft -= 0.45 * np.sqrt(np.maximum(1 - ((a - shaft_x) / 7.5) ** 2, 0)) * (v > -92)
    return np.asarray(2.2 * plate + 3.2 * ridge + 14 * head + 12 * shaft)
