"""Where one slice lies, and the voxel-to-world matrix of several.

Coordinates are DICOM's patient system, LPS+ in mm (PS3.3 C.7.6.2.1.1), until :func:`volume_affine` turns them to RAS+.
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
    """Where one slice lies.

    Attributes:
        position: ImagePositionPatient, centre of the first pixel.
        orientation: ImageOrientationPatient: direction of increasing column index, then of increasing row index.
        spacing_mm: PixelSpacing: between rows, then between columns.
        size: Rows, columns.
        traits: What slices of one volume have in common and slices of another may not (b-value, echo, acquisition …),
            in the order in which they order volumes; ``()`` for one that is not stated.
        ranks: Numbers that may differ within a volume but order the slices at each position in turn (trigger time,
            time of day); the last one is the number of the instance or frame.
    """

    position: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    traits: tuple[Hashable, ...] = ()
    ranks: tuple[float | None, ...] = ()


def slice_normal(orientation: Sequence[float]) -> Array:
    """Unit normal of a plane.

    Raises:
        UnreadableImage: The two directions are not perpendicular unit vectors.
    """
    across, down = np.array(orientation[:3], dtype=float), np.array(orientation[3:6], dtype=float)
    lengths = np.linalg.norm([across, down], axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(float(across @ down)) > 0.01:
        raise UnreadableImage(Reason.GEOMETRY, "slice directions are no perpendicular unit vectors")
    normal: Array = np.cross(across, down)
    return normal / np.linalg.norm(normal)


def volume_affine(plane: Plane, step: Array) -> tuple[float, ...]:
    """Row-major 4x4 matrix from ``(slice, row, column)`` indices to RAS+ mm (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1).

    Args:
        plane: The first slice.
        step: Displacement from one slice to the next, LPS+; not parallel to the normal when the gantry was tilted.
    """
    across, down = np.array(plane.orientation[:3]), np.array(plane.orientation[3:6])
    matrix = np.eye(4)
    matrix[:3, 0] = LPS_TO_RAS @ step
    matrix[:3, 1] = LPS_TO_RAS @ (down * plane.spacing_mm[0])
    matrix[:3, 2] = LPS_TO_RAS @ (across * plane.spacing_mm[1])
    matrix[:3, 3] = LPS_TO_RAS @ np.array(plane.position)
    return tuple(float(value) + 0.0 for value in matrix.ravel())
