"""A chest in three dimensions: CT-like Hounsfield units of the same simulated bodies, in supine position.

Axes are ``(D, H, W)``: foot to head, front to back, the patient's right to left, as axial DICOM slices stack. Depths of
lungs and heart come from the same frontal maps that the radiograph integrates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medphantom.core.randomness import stream
from medphantom.core.records import Array
from medphantom.phantoms.body import SIGN, Body, smoothstep
from medphantom.phantoms.factors import ImageFactors
from medphantom.phantoms.radiograph import POINT_STEP_MM, heart_thickness, hilum
from medphantom.phantoms.texture import fractal, splat, vessel_tree

AIR_HU, LUNG_HU, FAT_HU, SOFT_HU, FLUID_HU, LIVER_HU = -1000.0, -860.0, -100.0, 42.0, 12.0, 62.0
SPONGY_HU, CORTEX_HU, METAL_HU = 230.0, 900.0, 3000.0
LOWEST_HU, HIGHEST_HU = -1024, 3071
HEIGHT_SHARE = 0.75  # the field of view is lower than wide


@dataclass(frozen=True)
class Voxels:
    """Body coordinates of the voxels of one volume, mm; ``p`` points from front to back.

    Attributes:
        x: Coordinates from right to left, ``(1 or D, 1 or H, W)``.
        y: Coordinates from head to foot, ``(D, 1, 1 or W)``.
        p: Coordinates from front to back, ``(1, H, 1 or W)``.
        spacing: Distance between voxels along D, H and W.
    """

    x: Array
    y: Array
    p: Array
    spacing: tuple[float, float, float]

    def edge(self, depth_mm: Array) -> Array:
        """Return a soft border: 1 where ``depth_mm`` (distance inside a surface) exceeds half a voxel, 0 outside."""
        return smoothstep(depth_mm / np.float32(self.spacing[1]) + 0.5)


def voxel_spacing(image: ImageFactors, shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return the distance between voxel centres along D, H and W in mm."""
    field = image.scanner.field_mm
    return HEIGHT_SHARE * field / shape[0], field / shape[1], field / shape[2]


def voxel_grid(image: ImageFactors, shape: tuple[int, int, int]) -> Voxels:
    """Return where the voxels of a volume lie in the body; the patient may be rotated and shifted on the table."""
    spacing = voxel_spacing(image, shape)
    d, h, w = (
        (np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(mm) for n, mm in zip(shape, spacing, strict=True)
    )
    pose = image.pose
    angle = math.radians(pose.rotation_deg)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    u = (w - np.float32(pose.shift_x_mm))[None, None, :]
    v = h[None, :, None] - np.float32(8)
    y = np.float32(6) - d[:, None, None] - np.float32(pose.shift_y_mm)
    return Voxels(cos * u + sin * v, y, cos * v - sin * u, spacing)


def hounsfield(image: ImageFactors, shape: tuple[int, int, int]) -> Array:
    """Return the noise-free density of every voxel.

    Args:
        image: Factors of the volume.
        shape: Shape of the volume, ``(D, H, W)``.

    Returns:
        float32 array ``(D, H, W)`` in HU.
    """
    body = Body(image)
    voxels = voxel_grid(image, shape)
    density = _trunk(body, voxels)
    for sign in (-1, 1):
        inside = lung_region(body, voxels, sign)
        density += inside * (_lung_filling(body, voxels, sign) - density)
    density = _mediastinum(body, voxels, density)
    density = _skeleton(body, voxels, density)
    density = _device(body, voxels, density)
    return np.asarray(density, dtype=np.float32)


def scan(image: ImageFactors, density: Array) -> Array:
    """Return the volume as the scanner reconstructs it, with blur, noise, table and rounding; int16 HU.

    The noise field depends on the scanner's noise seed and the shape only.
    """
    sigma = blur_sigma_voxels(image, density.shape)
    seen = ndimage.gaussian_filter(density, sigma, truncate=3.0, mode="nearest")
    rng = stream(image.scanner.noise_seed, "scanner noise", *density.shape)
    field = ndimage.gaussian_filter(rng.standard_normal(density.shape, dtype=np.float32), (0, 0.6, 0.6), truncate=3.0)
    seen += np.float32(900 * image.scanner.noise) * field + np.float32(12 * image.scanner.gain)
    return np.rint(np.clip(seen, LOWEST_HU, HIGHEST_HU)).astype(np.int16)


def blur_sigma_voxels(image: ImageFactors, shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Return the standard deviation of the scanner's blur along D, H and W in voxels."""
    d, h, w = voxel_spacing(image, (shape[0], shape[1], shape[2]))
    blur = image.scanner.blur_mm * 1.6
    return blur / d, blur / h, blur / w


# ---------------------------------------------------------------------- body wall and abdomen


def _trunk(body: Body, voxels: Voxels) -> Array:
    """Return skin, fat, muscle and the organs below the diaphragm, before lungs and mediastinum; also air and table."""
    s = body.scale
    x, y, p = voxels.x, voxels.y, voxels.p
    shoulder = smoothstep((-40 * s - y) / (70 * s))
    half_x = body.half_width + body.wall + 34 * s * shoulder
    half_p = body.depth / 2 + 17 * s + body.fat - 26 * s * shoulder
    neck = smoothstep((body.apex - 4 * s - y) / (44 * s))
    half_x = half_x + (75 * s - half_x) * neck
    radius = (np.abs(x / half_x) ** 2.3 + np.abs(p / half_p) ** 2.3) ** np.float32(1 / 2.3)
    skin = (1 - radius) * half_p
    muscle = voxels.edge(skin - body.fat)
    grain = 10 * fractal(x + 0.31 * y, p + 0.53 * y, body.image.anatomy.texture_seed)
    density = FAT_HU + muscle * (SOFT_HU + grain - FAT_HU)
    if body.image.sex == "F":
        density = _breasts(body, voxels, density, skin)
    density = _abdomen(body, voxels, density, muscle)
    inside = voxels.edge(skin) if body.image.sex == "M" else np.maximum(voxels.edge(skin), density > FAT_HU - 1)
    density = AIR_HU + inside * (density - AIR_HU)
    table = smoothstep(1 - np.abs(p - 0.00035 * x * x - 132 * s - body.fat) / 5) * (np.abs(x) < 190)
    return np.asarray(np.maximum(density, AIR_HU + 820 * table * np.ones_like(y)))


def _breasts(body: Body, voxels: Voxels, density: Array, skin: Array) -> Array:
    """Add fat and gland in front of the chest wall."""
    s, size = body.scale, body.image.anatomy.breast_size
    across = (np.abs(voxels.x) - (70 + 8 * size) * s) / ((44 + 22 * size) * s)
    along = (voxels.y - 22 * s) / ((48 + 20 * size) * s)
    front = (voxels.p + 0.46 * body.depth) / ((16 + 44 * size) * s + body.fat)
    inside = (1 - across**2 - along**2 - front**2 > 0) & (voxels.p < 0) & (skin < body.fat)
    gland = fractal(voxels.x, voxels.p + voxels.y, body.image.anatomy.texture_seed + 7, 0.8) > 0.35
    return np.where(inside, np.where(gland, FAT_HU + 90, FAT_HU), np.where(skin > 0, density, AIR_HU))


def _abdomen(body: Body, voxels: Voxels, density: Array, muscle: Array) -> Array:
    """Return liver on the right, stomach with its gas bubble on the left, and fat between."""
    s = body.scale
    x, y, p = voxels.x, voxels.y, voxels.p
    cavity = 1 - np.abs(x / (body.half_width * 0.97)) ** 2.4 - np.abs(p / (0.47 * body.depth)) ** 2.4
    below = voxels.edge(y - body.dome(-1)) * (cavity > 0) * muscle
    density = density + below * (FAT_HU + 40 - density)
    liver = (x < 28 * s - 0.3 * (y - body.dome(-1))) * below
    density = density + liver * (LIVER_HU - density)
    gas = body.image.anatomy.stomach_gas
    round_ = ((x - 62 * s) / (44 * s)) ** 2 + ((y - body.dome(1) - 44 * s) / (34 * s)) ** 2
    stomach = (round_ + ((p + 0.1 * body.depth) / (46 * s)) ** 2 < 1) & (below > 0)
    bubble = stomach & (p < (-0.34 + 0.3 * gas) * body.depth)
    return np.where(bubble, AIR_HU, np.where(stomach, FLUID_HU + 18, density))


# ---------------------------------------------------------------------- lungs and pleura


def _half_depth(body: Body, voxels: Voxels, sign: int) -> Array:
    """Return half the depth of the pleural cavity over the frontal view."""
    radius = body.lung_radius(sign * voxels.x, voxels.y, sign)
    tall = 0.50 + 0.50 * smoothstep((voxels.y - body.apex) / (120 * body.scale))
    return np.asarray(0.47 * body.depth * tall * np.sqrt(np.maximum(1 - radius**4, 0)))


def lung_region(body: Body, voxels: Voxels, sign: int) -> Array:
    """Return one pleural cavity with a soft border, 0…1 ``(D, H, W)``; the diaphragm falls towards back and sides."""
    half = _half_depth(body, voxels, sign)
    back = voxels.p / (0.47 * body.depth)
    floor = body.diaphragm(sign * voxels.x, sign) + body.drop * back * back * np.where(back > 0, 1.0, 0.45)
    centre = np.float32(0.02 * body.depth)
    walls = voxels.edge(half - np.abs(voxels.p - centre))
    return np.asarray(walls * voxels.edge(0.7 * (floor - voxels.y)) * (half > 0), dtype=np.float32)


def _lung_filling(body: Body, voxels: Voxels, sign: int) -> Array:
    """Return the density of the content of one pleural cavity: lung, vessels and findings."""
    image = body.image
    x, y, p = voxels.x, voxels.y, voxels.p
    lung = LUNG_HU + 160 * (body.aeration - 1) + 55 * (p / body.depth) + np.zeros_like(x + y)
    lung = lung + 14 * fractal(x + 0.4 * y, p + 0.3 * y, image.anatomy.texture_seed + 1, 0.8)
    lung = np.minimum(lung + _vessels(body, voxels, sign), SOFT_HU)
    if image.nodule.present and SIGN[image.nodule.side] == sign:
        cx, cy, cz, radius = body.nodule_place()
        away = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (p + cz) ** 2)
        lung = lung + voxels.edge(radius - away) * (SOFT_HU * image.nodule.contrast - lung)
    if image.consolidation.present and SIGN[image.consolidation.side] == sign:
        lung = lung + _consolidated(body, voxels, sign) * (SOFT_HU - 8 - lung)
    if image.pneumothorax.present and SIGN[image.pneumothorax.side] == sign:
        severity = image.pneumothorax.severity
        border = (-0.46 + 0.62 * severity) * body.depth - 0.25 * severity * np.abs(np.abs(x) - 60 * body.scale)
        lung = np.minimum(lung + 180 * severity, SOFT_HU)
        lung = lung + voxels.edge(border - p) * (AIR_HU - lung)  # air rises to the front
    if image.effusion.present and SIGN[image.effusion.side] == sign:
        low = smoothstep((y - body.apex) / (200 * body.scale))
        depth = (0.12 + 0.68 * image.effusion.severity) * (0.25 + 0.75 * low)
        surface = (0.49 - depth) * body.depth - 0.10 * np.abs(np.abs(x) - 60 * body.scale)
        lung = lung + voxels.edge(p - surface) * (FLUID_HU - lung)  # fluid sinks to the back
    return np.asarray(lung)


def _consolidated(body: Body, voxels: Voxels, sign: int) -> Array:
    """Return the share of each voxel that is airless."""
    finding = body.image.consolidation
    a0, y0, across, along = body.consolidation_place()
    x, y, p = voxels.x, voxels.y, voxels.p
    q = ((sign * x - a0) / across) ** 2 + ((y - y0) / along) ** 2 + ((p - 0.08 * body.depth) / (1.1 * across)) ** 2
    rough = fractal(x + 0.45 * p, y + 0.35 * p, finding.shape_seed, 1.8)
    core = smoothstep((1.2 - q + 0.32 * rough) / 0.9) * (q < 2.6)
    return np.asarray(finding.density * core)


def _vessels(body: Body, voxels: Voxels, sign: int) -> Array:
    """Return the HU that vessels add to the lung."""
    s = body.scale
    points, radius = vessel_tree(body.image.anatomy.vessel_seed, sign)
    away, height = hilum(body, sign)
    x = sign * (away + points[:, 0] * (body.lung_outer(sign) - away))
    reach = np.where(points[:, 1] < 0, height - body.apex, body.dome(sign) + 0.6 * body.drop - height)
    y = height + points[:, 1] * reach + 16 * s * points[:, 2]
    p = points[:, 3] * 0.9 * body.depth
    shape = (voxels.y.shape[0], voxels.p.shape[1], voxels.x.shape[2])
    angle = math.radians(body.image.pose.rotation_deg)
    u = math.cos(angle) * x - math.sin(angle) * p + body.image.pose.shift_x_mm
    v = math.sin(angle) * x + math.cos(angle) * p + 8
    d = 6 - y - body.image.pose.shift_y_mm
    at = [c / step + (n - 1) / 2 for c, step, n in zip((d, v, u), voxels.spacing, shape, strict=True)]
    volume = np.pi * (radius * s) ** 2 * (POINT_STEP_MM * s) / math.prod(voxels.spacing)
    share = ndimage.gaussian_filter(splat(at, volume, shape), 0.45, truncate=2.5)
    return np.asarray(np.minimum(1.6 * share, 1) * (SOFT_HU - LUNG_HU))


# ---------------------------------------------------------------------- mediastinum, skeleton, device


def _mediastinum(body: Body, voxels: Voxels, density: Array) -> Array:
    """Add heart, great vessels and trachea; a band of fat separates the two lungs."""
    s = body.scale
    x, y, p = voxels.x, voxels.y, voxels.p
    aorta = body.aorta_radius
    arch_x, arch_y = 17 * s + 0.45 * aorta, body.apex + 66 * s
    chest = smoothstep((y - body.apex + 20 * s) / (20 * s))
    above = np.maximum(body.heart_floor + 6 * s - y, 0) > 0
    half = (17 + 8 * smoothstep((y - arch_y) / (60 * s))) * s
    reach = np.sqrt(np.maximum(1 - (p / (0.47 * body.depth)) ** 2, 0))
    band = voxels.edge(half * reach - np.abs(x)) * chest * above * (reach > 0)
    density = density + band * (FAT_HU + 30 - density)
    for cx, cp, radius, top in (
        (arch_x - 5 * s, 0.24 * body.depth, 0.92 * aorta, arch_y),
        (-8 * s, -0.13 * body.depth, 1.0 * aorta, arch_y),
        (-22 * s, -0.08 * body.depth, 9 * s, body.apex),
        (24 * s, -0.10 * body.depth, 11 * s, arch_y + 22 * s),
    ):
        tube = voxels.edge(radius - np.hypot(x - cx, p - cp)) * voxels.edge(y - top)
        lowest = body.heart_floor + (70 * s if cp > 0 else -18 * s)
        density = density + tube * (y < lowest) * (SOFT_HU + 6 - density)
    bend = (arch_x + 3 * s, 0.03 * body.depth)  # the arch passes the windpipe on its left
    for start, end in (((-8 * s, -0.13 * body.depth), bend), (bend, (arch_x - 5 * s, 0.24 * body.depth))):
        arch = voxels.edge(0.92 * aorta - np.hypot(_distance(x, p, start, end), y - arch_y))
        density = density + arch * (SOFT_HU + 6 - density)
    density = density + heart_region(body, voxels) * (SOFT_HU + 2 - density)
    carina = body.apex + 84 * s
    windpipe = voxels.edge(8.5 * s - np.hypot(x - 2 * s, p - 0.06 * body.depth)) * voxels.edge(carina - y)
    fork = np.abs(np.abs(x - 2 * s) - 1.0 * (y - carina))
    bronchus = voxels.edge(6 * s - np.hypot(0.8 * fork, p - 0.06 * body.depth)) * (y > carina) * (y < carina + 30 * s)
    return np.asarray(density + np.maximum(windpipe, bronchus) * (AIR_HU - density))


def heart_region(body: Body, voxels: Voxels) -> Array:
    """Return the heart with a soft border, 0…1 ``(D, H, W)``; the breastbone flattens its front."""
    thick = heart_thickness(body, voxels.x, voxels.y)
    inside = voxels.edge(0.5 * thick - np.abs(voxels.p + 0.13 * body.depth)) * (thick > 0)
    return np.minimum(inside, smoothstep((0.485 * body.depth + voxels.p) / 4))


def _distance(x: Array, p: Array, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """Return the distance to a line segment within an axial slice."""
    dx, dp = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (p - start[1]) * dp) / (dx * dx + dp * dp), 0, 1)
    return np.asarray(np.hypot(x - start[0] - along * dx, p - start[1] - along * dp))


def _skeleton(body: Body, voxels: Voxels, density: Array) -> Array:
    """Add ribs as tilted hoops, spine with its canal, breastbone and shoulder blades."""
    s, anatomy = body.scale, body.image.anatomy
    x, y, p = voxels.x, voxels.y, voxels.p
    depth = 0.5 * body.depth
    rise = np.minimum(np.maximum(body.base - y, 0) / (body.base - body.apex + 14 * s), 1)
    cage = (1 - rise**2.6 + 0.02) ** np.float32(1 / 2.6)
    radius = np.sqrt((x / (body.half_width * cage + 4 * s)) ** 2 + (p / (depth * (0.35 + 0.65 * cage) + 4 * s)) ** 2)
    shell = smoothstep(1.6 - np.abs(radius - 1.0) * depth * cage / (4 * s))
    number = (y - body.apex + 4 * s - anatomy.rib_drop_mm * s * (1 - p / depth)) / (anatomy.rib_spacing_mm * s)
    away = np.abs(number - np.floor(number) - 0.5) * anatomy.rib_spacing_mm
    rib = shell * smoothstep((7.5 - away) / 3.0) * (number >= 0) * (number < anatomy.rib_pairs) * (p > -0.86 * depth)
    density = density + rib * (0.62 * CORTEX_HU * body.bone - density)
    back = depth + 1 * s
    u = x - anatomy.spine_curvature_mm * np.sin(2 * np.pi * ((y + 150) / 420 + anatomy.spine_phase))
    level = (y + 170) / (25 * s)
    disc = smoothstep((0.42 - np.abs(level - np.floor(level) - 0.5)) / 0.1)
    vertebra = voxels.edge(17 * s - np.hypot(u, (p - back + 22 * s) * 1.15))
    density = density + vertebra * (90 + disc * (SPONGY_HU * body.bone - 20) - density)
    ring = voxels.edge(5 * s - np.abs(np.hypot(u, p - back) - 12 * s)) * (p > back - 8 * s)
    spike = voxels.edge(4.5 * s - np.abs(u)) * (p > back + 8 * s) * (p < back + 30 * s) * disc
    density = density + np.maximum(ring, spike) * (0.55 * CORTEX_HU * body.bone - density)
    sternum = voxels.edge(15 * s - np.abs(x)) * voxels.edge(6 * s - np.abs(p + depth + 3 * s))
    sternum = sternum * (y > body.apex + 20 * s) * (y < body.base + 10 * s)
    density = density + sternum * (1.1 * SPONGY_HU * body.bone - density)
    blade = voxels.edge(3.5 * s - np.abs(p - 0.40 * body.depth + 0.42 * (np.abs(x) - 100 * s)))
    blade = blade * (np.abs(np.abs(x) - 102 * s) < 34 * s) * (y > -112 * s) * (y < -8 * s)
    return np.asarray(density + blade * (0.5 * CORTEX_HU * body.bone - density))


def _device(body: Body, voxels: Voxels, density: Array) -> Array:
    """Add a pacemaker's generator under the skin and its leads."""
    device = body.image.pacemaker
    if not device.present:
        return density
    s = body.scale
    cx, cy = body.generator_place()
    x, y, p = voxels.x, voxels.y, voxels.p
    skin = 0.36 * body.depth
    box = np.maximum(np.maximum(np.abs(x - cx) - 22 * s, np.abs(y - cy) - 19 * s), np.abs(p + skin + 10) - 5)
    density = density + voxels.edge(-box) * (METAL_HU - density)
    path = body.lead_path()
    share = np.linspace(0, 1, len(path))
    places = [-skin - 10, -0.2 * body.depth, -0.08 * body.depth, -0.16 * body.depth]
    depth = np.interp(share, [0, 0.3, 0.6, 1.0], places)
    leads = [path] if device.severity < 0.5 else [path, path[: int(0.74 * len(path))] + np.array([5.0 * s, 0])]
    shape = (y.shape[0], p.shape[1], x.shape[2])
    angle = math.radians(body.image.pose.rotation_deg)
    for lead in leads:
        back = depth[: len(lead)]
        u = math.cos(angle) * lead[:, 0] - math.sin(angle) * back + body.image.pose.shift_x_mm
        v = math.sin(angle) * lead[:, 0] + math.cos(angle) * back + 8
        d = 6 - lead[:, 1] - body.image.pose.shift_y_mm
        at = [c / step + (n - 1) / 2 for c, step, n in zip((d, v, u), voxels.spacing, shape, strict=True)]
        steps = np.hypot(*np.gradient(lead, axis=0).T)
        metal = splat(at, 4.0 * steps / math.prod(voxels.spacing), shape)
        density = density + np.minimum(metal, 1) * (METAL_HU - density)
    return density
