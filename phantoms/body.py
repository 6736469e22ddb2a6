"""Geometry of one body in millimetres: factors, age, sex and pose turned into what gets drawn.

Coordinates are those of the standing or lying patient, centred on the chest: ``x`` points to the patient's left (the
image's right), ``y`` from head to foot, ``z`` from back to front. The sign of a side is +1 for left and -1 for right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medphantom.core.records import Array
from medphantom.phantoms.factors import ImageFactors, Side

SIGN: dict[Side, int] = {"right": -1, "left": 1}
LARGEST_HEART_RATIO = 0.70
NODULE_RADIUS_MM = (6.0, 15.0)  # radius = first + second × severity


def smoothstep(values: Array) -> Array:
    """Return 0 below 0, 1 above 1 and a cubic between; it is compact, so the effect of a change is bounded."""
    t = np.clip(values, 0, 1)
    result: Array = t * t
    t *= -2
    t += 3
    result *= t
    return result


def either(condition: Array, yes: float, no: float) -> Array:
    """Return ``np.where`` of two numbers, in single precision and ten times as fast."""
    result: Array = condition * np.float32(yes - no)
    result += np.float32(no)
    return result


@dataclass(frozen=True)
class Body:
    """Geometry of the patient in one image; lengths in mm.

    Attributes:
        image: Factors from which the geometry derives.
    """

    image: ImageFactors

    @cached_property
    def scale(self) -> float:
        """Size of the skeleton relative to the average man."""
        return self.image.anatomy.stature * (1.0 if self.image.sex == "M" else 0.92)

    @cached_property
    def years_over(self) -> float:
        """Years past 45, for changes that come with age."""
        return max(self.image.age - 45.0, 0.0)

    @cached_property
    def half_width(self) -> float:
        """Inner half width of the rib cage at its widest."""
        return 130 * self.scale * (1 + 0.055 * self.image.anatomy.thorax_width)

    @cached_property
    def depth(self) -> float:
        """Inner front-to-back depth of the rib cage; it grows with age (barrel chest)."""
        return 148 * self.scale * (1 + 0.07 * self.image.anatomy.thorax_depth) * (1 + 0.0025 * self.years_over)

    @cached_property
    def fat(self) -> float:
        """Thickness of the fat layer of trunk and arms."""
        return 6 + 34 * self.image.anatomy.adiposity**1.5 + (4 if self.image.sex == "F" else 0)

    @cached_property
    def wall(self) -> float:
        """Thickness of muscle and fat outside the ribs, at the side."""
        return (16 if self.image.sex == "M" else 12) * self.scale + self.fat

    @cached_property
    def apex(self) -> float:
        """Height of the lung apex; kyphosis lowers it with age."""
        return -126 * self.scale + 0.18 * self.years_over

    @cached_property
    def base(self) -> float:
        """Height at which the lungs are widest."""
        return 45 * self.scale

    def dome(self, sign: int) -> float:
        """Return the height of the top of one diaphragm dome; inspiration lowers it, and fat raises it."""
        anatomy = self.image.anatomy
        raised = anatomy.diaphragm_right_mm if sign < 0 else anatomy.diaphragm_left_mm
        breath = 66 * (self.image.pose.inspiration - 0.5)
        return (56 + breath + (12 if sign > 0 else 0) - 16 * anatomy.adiposity) * self.scale - raised

    @cached_property
    def drop(self) -> float:
        """Height difference between the diaphragm's dome and the costophrenic angle."""
        return (30 + 16 * self.image.pose.inspiration) * self.scale

    def front_shift(self, z_mm: float) -> float:
        """Return the lateral shift of a structure ``z_mm`` in front of the centre when the patient is rotated."""
        return z_mm * math.sin(math.radians(self.image.pose.rotation_deg))

    # ------------------------------------------------------------------ lungs

    def lung_centre(self, sign: int) -> float:
        """Return the distance from the midline to the lung's apex."""
        return 48 * self.scale * (1 + 0.05 * sign)

    def lung_outer(self, sign: int) -> float:
        """Return the distance from the midline to the lung's outer wall at its widest level."""
        anatomy = self.image.anatomy
        return self.half_width * (anatomy.right_lung if sign < 0 else anatomy.left_lung) ** 0.5

    def lung_radius(self, a: Array, y: Array, sign: int) -> Array:
        """Return the superelliptic radius of the lung outline in the frontal view: 0 at its axis, 1 at its border.

        Args:
            a: Distance from the midline towards the lung's side, in mm.
            y: Height in body coordinates, in mm.
            sign: Side of the lung, +1 for left and -1 for right.
        """
        centre = self.lung_centre(sign)
        outer = self.lung_outer(sign)
        taper = self.image.anatomy.lung_taper
        across = a - centre
        width = either(across > 0, outer - centre, centre - 9 * self.scale)
        rise = np.maximum(self.base - y, 0) / (self.base - self.apex)
        inward = 0.10 * np.maximum(y - self.base, 0) / 100  # the cage narrows a little below its widest level
        result: Array = (np.abs(across) / width / (1 - inward)) ** taper + rise**taper
        return result ** (1 / taper)

    def diaphragm(self, a: Array, sign: int) -> Array:
        """Return the height of the diaphragm at distance ``a`` from the midline."""
        outer = self.lung_outer(sign)
        centre = 0.48 * outer
        away = (a - centre) / (outer - centre)
        result: Array = self.dome(sign) + self.drop * away * away * either(away > 0, 1, 0.35)
        return result

    @cached_property
    def aeration(self) -> float:
        """Density of aerated lung relative to that at full inspiration."""
        return 1.35 - 0.5 * self.image.pose.inspiration

    # ------------------------------------------------------------------ heart and vessels

    def heart_ratio(self, *, enlarged: bool = True) -> float:
        """Return the cardiothoracic ratio: heart width divided by inner chest width.

        Args:
            enlarged: Whether to include cardiomegaly as given by the factors.
        """
        image = self.image
        own = image.anatomy.heart_ratio + 0.0007 * (image.age - 50) + (0.01 if image.sex == "F" else 0)
        if image.pose.view == "AP" and image.spatial_dims == 2:
            own *= 1.06  # the heart lies farther from the detector
        own *= 1.06 - 0.12 * image.pose.inspiration + 0.02
        severity = image.cardiomegaly.severity if enlarged else 0.0
        return own + severity * max(LARGEST_HEART_RATIO - own, 0.0)

    @cached_property
    def heart_floor(self) -> float:
        """Height at which the heart rests."""
        return 0.5 * (self.dome(-1) + self.dome(1)) + 12 * self.scale

    @cached_property
    def aorta_radius(self) -> float:
        """Radius of the aortic arch; it increases with age."""
        grown = 0.12 * max(self.image.age - 30, 0)
        return max(8.0, (13 + 2 * self.image.anatomy.aorta + grown) * self.scale)

    # ------------------------------------------------------------------ bone

    @cached_property
    def bone(self) -> float:
        """Bone mineral as a multiple of a young adult's; it falls with age, faster in women (osteoporosis)."""
        loss = (0.009 if self.image.sex == "F" else 0.005) * self.years_over
        return self.image.anatomy.rib_contrast * max(1 - loss, 0.35)

    def spine_x(self, y: Array) -> Array:
        """Return the midline of the spine at height ``y``."""
        anatomy = self.image.anatomy
        curve = anatomy.spine_curvature_mm * np.sin(2 * np.pi * ((y + 150) / 420 + anatomy.spine_phase))
        return np.asarray(curve + self.front_shift(-55))

    # ------------------------------------------------------------------ findings

    def nodule_place(self) -> tuple[float, float, float, float]:
        """Return centre (x, y, z) and radius of the nodule; its position is independent of size and other findings."""
        nodule = self.image.nodule
        sign = SIGN[nodule.side]
        centre, outer = self.lung_centre(sign), self.lung_outer(sign)
        radius = NODULE_RADIUS_MM[0] + NODULE_RADIUS_MM[1] * nodule.severity
        top, bottom = self.apex + 42 * self.scale, self.dome(sign) - 22 * self.scale
        y = top + nodule.along * (bottom - top)
        inner = 0.72 * centre
        a = inner + nodule.across * (0.86 * outer - inner)
        z = (nodule.depth - 0.5) * 0.5 * self.depth
        return sign * a, y, z, radius

    def fluid_level(self, sign: int) -> float:
        """Return the height of the surface of an effusion away from the walls."""
        lowest = self.dome(sign) + self.drop + 20 * self.scale
        return lowest - self.image.effusion.severity * 0.75 * (lowest - self.apex)

    def consolidation_place(self) -> tuple[float, float, float, float]:
        """Return centre (distance from the midline, y) and half axes (across, along) of the consolidation."""
        finding = self.image.consolidation
        sign = SIGN[finding.side]
        outer = self.lung_outer(sign)
        share = {"upper": 0.28, "middle": 0.56, "lower": 0.86}[finding.zone]
        y = self.apex + share * (self.dome(sign) - self.apex)
        reach = 21 + 46 * finding.severity
        return 0.55 * outer, y, reach * self.scale, 0.85 * reach * self.scale

    def generator_place(self) -> tuple[float, float]:
        """Return the centre (x, y) of the pacemaker's generator."""
        return SIGN[self.image.pacemaker.side] * 92 * self.scale, self.apex + 58 * self.scale

    def lead_path(self) -> Array:
        """Return points (x, y) of the pacemaker's lead from the generator to the right ventricle, ``(n, 2)``."""
        x, y = self.generator_place()
        s = self.scale
        knots = np.array(
            [
                [x, y],
                [0.62 * x, y - 26 * s],
                [0.25 * x, y - 18 * s],
                [-16 * s, y + 12 * s],
                [-21 * s, self.heart_floor - 75 * s],
                [-16 * s, self.heart_floor - 36 * s],
                [8 * s, self.heart_floor - 18 * s],
                [34 * s, self.heart_floor - 14 * s],
            ]
        )
        fine = np.linspace(0, len(knots) - 1, 400)
        from scipy.interpolate import CubicSpline

        path: Array = CubicSpline(np.arange(len(knots)), knots)(fine)
        return path
