"""The position of one slice, and the voxel-to-world matrix of several.

Coordinates are in DICOM's patient system, LPS+ in mm (PS3.3 C.7.6.2.1.1), until :func:`volume_affine` converts to RAS+.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Plane:
    """Geometry of one slice.

    Attributes:
        position: ImagePositionPatient, the centre of the first pixel.
        orientation: ImageOrientationPatient: direction of increasing column index, then of increasing row index.
        spacing_mm: PixelSpacing: between rows, then between columns.
        size: Number of rows and columns.
        traits: Values that slices of one volume share and those of another may not (b-value, echo, acquisition …), in
            the order in which they sort volumes; ``()`` for a missing one.
        ranks: Numbers that may differ within a volume but order the slices at each position (trigger time, time of
            day); the last one is the number of the instance or frame.
    """

    position: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    traits: tuple[Hashable, ...] = ()
    ranks: tuple[float | None, ...] = ()


def slice_normal(orientation: Sequence[float]) -> Array:
    """Return the unit normal of a plane.

    Raises:
        UnreadableImage: If the two directions are not perpendicular unit vectors.
    """
    across, down = np.array(orientation[:3], dtype=float), np.array(orientation[3:6], dtype=float)
    lengths = np.linalg.norm([across, down], axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(float(across @ down)) > 0.01:
        raise UnreadableImage(Reason.GEOMETRY, "slice directions are not perpendicular unit vectors")
    normal: Array = np.cross(across, down)
    return normal / np.linalg.norm(normal)


def volume_affine(plane: Plane, step: Array) -> tuple[float, ...]:
    """Return the 4x4 matrix from ``(slice, row, column)`` indices to RAS+ mm (PS3.3 equation C.7.6.2.1-1), row-major.

    Args:
        plane: Geometry of the first slice.
        step: Displacement from one slice to the next, LPS+; not parallel to the normal if the gantry was tilted.
    """
    across, down = np.array(plane.orientation[:3]), np.array(plane.orientation[3:6])
    matrix = np.eye(4)
    matrix[:3, 0] = LPS_TO_RAS @ step
    matrix[:3, 1] = LPS_TO_RAS @ (down * plane.spacing_mm[0])
    matrix[:3, 2] = LPS_TO_RAS @ (across * plane.spacing_mm[1])
    matrix[:3, 3] = LPS_TO_RAS @ np.array(plane.position)
    return tuple(float(value) + 0.0 for value in matrix.ravel())
