"""Line integrals of attenuation through one body: the input of the detector.

Beer–Lambert: the detector receives I = I0·exp(-L), L = Σ μ_i·t_i with t_i the thickness of material i along the ray
(parallel rays, one effective energy). Scatter and beam hardening are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from medphantom.core.records import Array
from medphantom.phantoms.body import SIGN, Body, either, smoothstep
from medphantom.phantoms.factors import ImageFactors
from medphantom.phantoms.skeleton import bone_thickness
from medphantom.phantoms.texture import fractal, splat, vessel_tree

# Linear attenuation at 60 keV in 1/mm: mass attenuation × density (Hubbell & Seltzer, NISTIR 5632, tables 2 and 4;
# compositions and densities of ICRU Report 44).
MU_SOFT = 0.2048 * 1.06 / 10
MU_LUNG = 0.2053 * 0.26 / 10  # inflated lung
MU_BONE = 0.3148 * 1.92 / 10  # cortical bone
MU_METAL = 0.7661 * 4.54 / 10  # titanium

COARSEST_MM = 3.2  # lines finer than this would alias: coarser images are averaged from a finer drawing
POINT_STEP_MM = 3.5  # mean distance between neighbouring points of a vessel
RETROCARDIAC = 0.85  # share of the lung's depth that heart and vessels can displace


@dataclass(frozen=True)
class Grid:
    """Where the rays of an image pass through the body.

    Attributes:
        x: Body x coordinate of each ray, ``(side, side)`` float32, mm.
        y: Body y coordinate of each ray, ``(side, side)`` float32, mm.
        spacing: Distance between rays in body coordinates, mm.
        to_pixels: Matrix that maps body coordinates to (row, column).
    """

    x: Array
    y: Array
    spacing: float
    to_pixels: tuple[float, float, float, float]

    def pixel_of(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return rows and columns of body points."""
        cos, sin, row0, column0 = self.to_pixels
        return (cos * y - sin * x) / self.spacing + row0, (cos * x + sin * y) / self.spacing + column0


@lru_cache(maxsize=16)
def _centres(side: int, field_mm: float) -> Array:
    return ((np.arange(side, dtype=np.float32) + 0.5) / side - 0.5) * np.float32(field_mm)


def ray_grid(image: ImageFactors, side: int) -> Grid:
    """Return the rays of an image with ``side`` × ``side`` pixels."""
    pose = image.pose
    magnified = pose.magnification * (1.05 if pose.view == "AP" else 1.0)
    angle = math.radians(pose.tilt_deg)
    cos, sin = math.cos(angle), math.sin(angle)
    line = _centres(side, image.scanner.field_mm) / np.float32(magnified)
    u = line[None, :] - np.float32(pose.shift_x_mm)
    v = line[:, None] - np.float32(pose.shift_y_mm)
    spacing = image.scanner.field_mm / side / magnified
    x = np.float32(cos) * u - np.float32(sin) * v
    y = np.float32(sin) * u + np.float32(cos) * v
    row0 = (pose.shift_y_mm - float(line[0])) / spacing
    column0 = (pose.shift_x_mm - float(line[0])) / spacing
    return Grid(x, y, spacing, (cos, sin, row0, column0))


def oversampling(image: ImageFactors, size: int) -> int:
    """Return how many rays are averaged per pixel along each axis."""
    return max(1, math.ceil(image.scanner.field_mm / size / COARSEST_MM - 1e-9))


def line_integral(image: ImageFactors, size: int) -> Array:
    """Return the line integral L = Σ μ·t of every pixel, without noise and detector.

    Args:
        image: Factors of the image.
        size: Side of the image in pixels, at least 32.

    Returns:
        Dimensionless float32 ``(size, size)``: 0 in air, about 2 in lung, 5 behind the spine.
    """
    times = oversampling(image, size)
    grid = ray_grid(image, size * times)
    total = _attenuation(Body(image), grid)
    if times > 1:
        total = total.reshape(size, times, size, times).mean(axis=(1, 3), dtype=np.float32)
    return total


def _attenuation(body: Body, grid: Grid) -> Array:
    x, y = grid.x, grid.y
    total = soft_tissue(body, x, y) * np.float32(MU_SOFT)
    mediastinum = mediastinal_thickness(body, x, y)
    vessels = lung_vessels(body, grid)
    for sign in (-1, 1):
        beside = np.flatnonzero((sign * x).max(axis=0) > 0)  # columns that this side's lung can reach
        part = np.s_[:, beside[0] : beside[-1] + 1]
        total[part] += _one_lung(body, (x[part], y[part]), sign, mediastinum[part], vessels[part])
    total = np.maximum(total, 0)
    total -= trachea(body, x, y) * np.float32(MU_SOFT)
    total += bone_thickness(body, x, y) * np.float32(MU_BONE - MU_SOFT)
    total += metal_thickness(body, grid) * np.float32(MU_METAL)
    return np.maximum(total, 0)


def _one_lung(body: Body, at: tuple[Array, Array], sign: int, mediastinum: Array, vessels: Array) -> Array:
    """Return how the line integral changes where one lung and its content replace soft tissue."""
    x, y = at
    lung = lung_maps(body, x, y, sign)
    filled, free, collapse = pleura_and_airspace(body, x, y, sign, lung)
    open_mm = np.maximum(lung.thickness - mediastinum, (1 - RETROCARDIAC) * lung.thickness)
    airy = 1 - filled
    density = MU_LUNG * body.aeration * (1 + 0.07 * lung.texture) * collapse * (1 - free)
    solid = np.minimum(vessels * (1 - free), open_mm)  # vessels take the place of airy lung
    change = (open_mm - solid) * (airy * (density - MU_SOFT))
    return change + nodule_line(body, x, y, sign)


# ---------------------------------------------------------------------- soft tissue


def soft_tissue(body: Body, x: Array, y: Array) -> Array:
    """Return the thickness of the body along each ray: trunk, shoulders, neck, arms and breasts."""
    s = body.scale
    ax = np.abs(x)
    anatomy = body.image.anatomy
    flare = smoothstep((20 * s - y) / (150 * s)) * 190 * s
    waist = 0.12 * np.maximum(y - 70 * s, 0) * (1 - anatomy.adiposity)
    half = body.half_width + body.wall + flare - waist
    deep = body.depth + 2 * (20 * s + body.fat)
    front_back = deep + (128 * s + body.fat - deep) * smoothstep((-50 * s - y) / (90 * s))
    front_back -= 40 * s * smoothstep((ax - 90 * s) / (80 * s)) * smoothstep((-20 * s - y) / (60 * s))
    slope = 46 + 30 * anatomy.shoulder_slope
    top = body.apex + (-62 + slope * smoothstep((ax / s - 42) / 130)) * s - 14 * anatomy.adiposity
    trunk = front_back * np.sqrt(np.maximum(1 - (ax / half) ** 3, 0))
    trunk *= np.sqrt(np.minimum(np.maximum((y - top) / (60 * s), 0), 1))
    neck = (118 * s + body.fat) * np.sqrt(np.maximum(1 - (ax / (62 * s + 0.5 * body.fat)) ** 2, 0))
    neck *= smoothstep((-60 * s - y) / 60)
    arm = _capsule(ax, y, (174 * s, -92 * s), (206 * s + body.fat, 120 * s), 38 * s + 0.8 * body.fat)
    total = np.maximum(np.maximum(trunk, neck), arm)
    total *= 1 + 0.02 * fractal(x, y, anatomy.texture_seed, 1.3)
    if body.image.sex == "F":
        total += breasts(body, ax, y)
    return np.asarray(total - stomach(body, x, y))


def breasts(body: Body, ax: Array, y: Array) -> Array:
    """Return the thickness of breast tissue: half ellipsoids with a sharp lower edge."""
    size = body.image.anatomy.breast_size
    s = body.scale
    across = (ax - (74 + 8 * size) * s) / ((44 + 26 * size) * s)
    down = y - (28 + 22 * size) * s
    along = down / either(down > 0, (34 + 22 * size) * s, (62 + 24 * size) * s)
    inside = np.maximum(1 - across * across - along * along, 0)
    return np.asarray((8 + 40 * size) * s * np.where(down > 0, np.sqrt(inside), inside))


def stomach(body: Body, x: Array, y: Array) -> Array:
    """Return the thickness of gas under the left dome and in the colon."""
    gas = body.image.anatomy.stomach_gas
    s = body.scale
    place = body.dome(1) + (18 + 12 * gas) * s
    wobble = 0.25 * fractal(x, y, body.image.anatomy.texture_seed + 3, 1.6)
    bubble = 1 - ((x - 62 * s) / ((16 + 26 * gas) * s)) ** 2 - ((y - place) / ((8 + 12 * gas) * s)) ** 2
    colon = 0.6 - ((x - 98 * s) / (26 * s)) ** 2 - ((y - place - 42 * s) / (20 * s)) ** 2 + 2 * wobble
    shape = np.sqrt(np.maximum(bubble + wobble, 0)) * 46 + np.sqrt(np.maximum(colon, 0)) * 24 * gas
    return np.asarray(shape * gas * s)


def _capsule(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float], radius: float) -> Array:
    """Return the thickness of a round limb between two points."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    squared = (x - start[0] - along * dx) ** 2 + (y - start[1] - along * dy) ** 2
    return np.asarray(2 * np.sqrt(np.maximum(radius * radius - squared, 0)))


# ---------------------------------------------------------------------- mediastinum


def heart_thickness(body: Body, x: Array, y: Array, *, enlarged: bool = True) -> Array:
    """Return the thickness of the heart: two ellipsoids with the cardiothoracic ratio times the chest's width."""
    s = body.scale
    width = body.heart_ratio(enlarged=enlarged) * 2 * body.half_width
    left, right = 0.655 * width, 0.345 * width
    shift = body.front_shift(40)
    tilt = math.radians(body.image.anatomy.heart_tilt_deg)
    cos, sin = math.cos(tilt), math.sin(tilt)
    oval = 0.74 - 0.35 * max(body.heart_ratio(enlarged=enlarged) - 0.45, 0)  # a large heart grows more wide than tall
    long = 0.41 * width / math.hypot(cos, oval * sin)
    centre_x = left - 0.41 * width
    centre_y = body.heart_floor - 0.78 * long * math.hypot(sin, oval * cos)
    u, v = x - shift - centre_x, y - centre_y
    along, across = cos * u + sin * v, -sin * u + cos * v
    ventricle = 1 - (along / long) ** 2 - (across / (oval * long)) ** 2
    wide, tall = 0.5 * right + 16 * s, 0.42 * width
    rest = body.heart_floor - 0.55 * tall
    atrium = 1 - ((x - shift + right - wide) / wide) ** 2 - ((y - rest) / tall) ** 2
    reach = 1.9 * long
    chamber = np.sqrt(np.maximum(atrium, 0)) * smoothstep((y - rest + tall) / (0.8 * tall))
    return np.asarray(reach * np.maximum(np.sqrt(np.maximum(ventricle, 0)), 0.8 * chamber))


def mediastinal_thickness(body: Body, x: Array, y: Array) -> Array:
    """Return the thickness of heart, great vessels and hila, which displace the lung beside them."""
    s = body.scale
    shift = body.front_shift(15)
    u = x - shift
    aorta = body.aorta_radius
    arch_x, arch_y = 17 * s + 0.45 * aorta, body.apex + 66 * s
    trunk_half = either(u > 0, 17 * s, 20 * s + 0.25 * aorta) + 10 * s * smoothstep((y - arch_y) / (70 * s))
    trunk = 70 * s * np.sqrt(np.maximum(1 - (u / trunk_half) ** 2, 0)) * smoothstep((y - body.apex + 18 * s) / (40 * s))
    arch = 2.4 * aorta * np.sqrt(np.maximum(1 - ((u - arch_x) / aorta) ** 2 - ((y - arch_y) / (1.1 * aorta)) ** 2, 0))
    descending = 1.9 * aorta * np.sqrt(np.maximum(1 - ((u - arch_x + 5 * s) / (0.92 * aorta)) ** 2, 0))
    descending *= smoothstep((y - arch_y) / 12)
    pulmonary = 40 * s * np.maximum(1 - ((u - 27 * s) / (19 * s)) ** 2 - ((y - arch_y - 36 * s) / (24 * s)) ** 2, 0)
    vessels = np.maximum(np.maximum(trunk, arch), np.maximum(descending, pulmonary))
    return np.asarray(np.maximum(vessels, heart_thickness(body, x, y)) + hila(body, u, y))


def hilum(body: Body, sign: int) -> tuple[float, float]:
    """Return the distance from the midline and the height of a hilum; the left one is higher."""
    return 34 * body.scale, body.apex + (112 if sign > 0 else 122) * body.scale


def hila(body: Body, u: Array, y: Array) -> Array:
    """Return the thickness of the vessels that converge at the hila."""
    s = body.scale
    total = np.zeros_like(u)
    for sign in (-1, 1):
        away, height = hilum(body, sign)
        a, v = sign * u - away, y - height
        q = ((a + 0.35 * v) / (15 * s)) ** 2 + (v / (30 * s)) ** 2
        total += 24 * s * np.maximum(1 - q, 0)
    return total


def trachea(body: Body, x: Array, y: Array) -> Array:
    """Return the thickness of air in the trachea and the main bronchi."""
    s = body.scale
    carina = body.apex + 84 * s
    u = x - body.front_shift(10) - 2 * s
    tube = 15 * s * np.sqrt(np.maximum(1 - (u / (8 * s)) ** 2, 0)) * smoothstep((carina - y) / (8 * s))
    down = y - carina
    fork = np.abs(u) - either(u > 0, 1.25, 0.8) * down
    bronchi = 9 * s * np.sqrt(np.maximum(1 - (fork / (7 * s)) ** 2, 0))
    bronchi *= smoothstep(down / (4 * s)) * smoothstep((40 * s - down) / (20 * s))
    return np.asarray(np.maximum(tube, bronchi))


# ---------------------------------------------------------------------- lungs and their findings


@dataclass(frozen=True)
class LungMaps:
    """One lung in the frontal view.

    Attributes:
        a: Distance from the midline towards the lung's side.
        radius: Relative radius, from 0 at the lung's axis to 1 at its border.
        thickness: Depth of the chest cavity in mm, before heart and vessels displace any of it.
        texture: Fine structure that is fixed to the lung.
    """

    a: Array
    radius: Array
    thickness: Array
    texture: Array


def lung_maps(body: Body, x: Array, y: Array, sign: int) -> LungMaps:
    """Return the geometry of one lung; behind the dome a thin recess reaches below the diaphragm's outline."""
    s = body.scale
    a = sign * x
    radius = body.lung_radius(a, y, sign)
    above = body.diaphragm(a, sign) - y
    rim = np.sqrt(np.maximum(1 - radius**4, 0))
    dome = 0.17 * np.minimum(np.maximum(1 + above / (36 * s), 0), 1)
    dome += 0.20 * smoothstep(above / (5 * s)) + 0.63 * np.sqrt(np.minimum(np.maximum(above / (55 * s), 0), 1))
    tall = 0.50 + 0.50 * smoothstep((y - body.apex) / (120 * s))
    thickness = body.depth * 0.92 * tall * rim * dome
    breath = (y - body.apex) / (body.dome(sign) - body.apex) * 170
    texture = fractal(x, breath, body.image.anatomy.texture_seed + 1, 0.7)
    return LungMaps(a, radius, np.asarray(thickness), texture)


def pleura_and_airspace(body: Body, x: Array, y: Array, sign: int, lung: LungMaps) -> tuple[Array, Array, Array]:
    """Return the content of one side of the chest.

    Returns:
        Filled: share of the lung's depth that is fluid (effusion, consolidation), 0…1.
        free: share of the lung's depth that is free air without lung (pneumothorax), 0…1.
        collapse: density of the remaining lung relative to an expanded one.
    """
    image = body.image
    filled, free = np.zeros_like(x), np.zeros_like(x)
    collapse = np.ones_like(x)
    if image.consolidation.present and SIGN[image.consolidation.side] == sign:
        filled = consolidated(body, x, y, sign, lung)
    if image.pneumothorax.present and SIGN[image.pneumothorax.side] == sign:
        free, collapse, line = pleural_air(body, y, lung)
        filled = np.maximum(filled * (1 - free), line)
    if image.effusion.present and SIGN[image.effusion.side] == sign:
        fluid = pleural_fluid(body, y, sign, lung)
        filled = np.maximum(filled, fluid)
        free = free * (1 - fluid)
    return filled, free, collapse


def pleural_fluid(body: Body, y: Array, sign: int, lung: LungMaps) -> Array:
    """Return the share of fluid: it settles at the base, and its surface rises at the walls (meniscus)."""
    s = body.scale
    to_wall = np.maximum(body.lung_outer(sign) - lung.a, 0)
    to_middle = np.maximum(lung.a - 12 * s, 0)
    climb = min(1.0, 0.35 + body.image.effusion.severity) * s
    surface = body.fluid_level(sign) - climb * (30 * np.exp(-to_wall / (26 * s)) + 9 * np.exp(-to_middle / (16 * s)))
    return smoothstep((y - surface) / (26 * s))


def pleural_air(body: Body, y: Array, lung: LungMaps) -> tuple[Array, Array, Array]:
    """Return free air between chest wall and lung, the collapse of that lung, and the pleural line between them."""
    severity = body.image.pneumothorax.severity
    high = 1 - 0.75 * smoothstep((y - body.apex - 20 * body.scale) / (190 * body.scale))
    border = 1 - (0.10 + 0.55 * severity) * high
    mm = body.half_width * 0.6
    beyond = (lung.radius - border) * mm
    free = smoothstep(beyond / 3.0)
    line = 0.30 * smoothstep(1 - np.abs(beyond) / 2.6)
    squeezed = 1 + 0.55 * severity * smoothstep(1 + (lung.radius - border) / 0.75)
    return free, squeezed, line


def consolidated(body: Body, x: Array, y: Array, sign: int, lung: LungMaps) -> Array:
    """Return the share of the lung's depth without air: an irregular patch that spares some bronchi."""
    finding = body.image.consolidation
    a0, y0, across, along = body.consolidation_place()
    rough = fractal(x, y, finding.shape_seed, 1.8)
    q = ((lung.a - a0) / across) ** 2 + ((y - y0) / along) ** 2
    core = smoothstep((1.35 - q + 0.38 * rough) / 1.5) * (q < 2.6)
    fine = 1 - 0.16 * np.abs(fractal(x, y, finding.shape_seed + 1, 0.45))
    return np.asarray(0.75 * finding.density * core * np.maximum(fine, 0.4))


def nodule_line(body: Body, x: Array, y: Array, sign: int) -> Array:
    """Return the line integral that a nodule adds: a ball of soft tissue that replaces air."""
    nodule = body.image.nodule
    if not nodule.present or SIGN[nodule.side] != sign:
        return np.zeros_like(x)
    cx, cy, _, radius = body.nodule_place()
    squared = (x - cx) ** 2 + (y - cy) ** 2
    ball = 2 * np.sqrt(np.maximum(radius**2 - squared, 0))
    return np.asarray(ball * (MU_SOFT * nodule.contrast - MU_LUNG))


def lung_vessels(body: Body, grid: Grid) -> Array:
    """Return the thickness of the lung vessels, drawn as points along their branches and blurred to their width."""
    s = body.scale
    layers: list[list[tuple[Array, Array, Array]]] = [[], []]
    for sign in (-1, 1):
        points, radius = vessel_tree(body.image.anatomy.vessel_seed, sign)
        away, height = hilum(body, sign)
        reach = either(points[:, 1] < 0, height - body.apex, body.dome(sign) + 0.6 * body.drop - height)
        a = away + points[:, 0] * (body.lung_outer(sign) - away)
        v = height + points[:, 1] * reach + 16 * s * points[:, 2]  # vessels leave the hilum along its whole height
        row, column = grid.pixel_of(sign * a + body.front_shift(5), v)
        volume = np.pi * (radius * s) ** 2 * (POINT_STEP_MM * s) / grid.spacing**2
        cut = len(radius) // 4
        for layer, part in zip(layers, (np.s_[:cut], np.s_[cut:]), strict=True):
            layer.append((row[part], column[part], volume[part]))
    total = np.zeros_like(grid.x)
    for layer, sigma in zip(layers, (1.5, 0.8), strict=True):
        row, column, volume = (np.concatenate(arrays) for arrays in zip(*layer, strict=True))
        drawn = splat((row, column), volume, grid.x.shape)
        total += ndimage.gaussian_filter(drawn, max(sigma * s / grid.spacing, 0.35), truncate=2.5)
    return total


def metal_thickness(body: Body, grid: Grid) -> Array:
    """Return the thickness of metal of a pacemaker: a flat rounded box and its leads."""
    device = body.image.pacemaker
    if not device.present:
        return np.zeros_like(grid.x)
    s = body.scale
    cx, cy = body.generator_place()
    box = (np.abs(grid.x - cx) / (24 * s)) ** 4 + (np.abs(grid.y - cy) / (20 * s)) ** 4
    total = (3.6 + 1.6 * (grid.y > cy - 6 * s)) * smoothstep((1 - box) * 3)
    path = body.lead_path()
    leads = [path] if device.severity < 0.5 else [path, path[: int(0.74 * len(path))] + np.array([5.0 * s, 0])]
    for lead in leads:
        row, column = grid.pixel_of(lead[:, 0], lead[:, 1])
        steps = np.hypot(*np.gradient(lead, axis=0).T)
        drawn = splat((row, column), 2.0 * steps / grid.spacing**2, grid.x.shape)
        total = total + ndimage.gaussian_filter(drawn, max(0.8 / grid.spacing, 0.3), truncate=3)
    return np.asarray(total)
