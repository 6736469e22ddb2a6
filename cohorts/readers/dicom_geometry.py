"""From slice positions to regular volumes: stacks, order, spacing and the voxel-to-world matrix.

Coordinates are DICOM's patient system, LPS+ in mm (PS3.3 C.7.6.2.1.1), until :func:`volume_affine` turns them to RAS+.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from cohorts.errors import Reason, UnreadableImage
from cohorts.records import Array

SAME_PLACE_MM = 0.01
SAME_DIRECTION = 1e-3
IRREGULAR_SHARE = 0.05  # of the slice distance; acquisition software rounds positions
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Plane:
    """Where one slice lies.

    Attributes:
        position: ImagePositionPatient, centre of the first pixel.
        orientation: ImageOrientationPatient: direction of increasing column index, then of increasing row index.
        spacing_mm: PixelSpacing: between rows, then between columns.
        size: rows, columns.
        traits: what may tell apart slices of several stacks in one series (echo, acquisition, time, b-value …).
    """

    position: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    traits: tuple[Hashable, ...] = ()


@dataclass(frozen=True, slots=True)
class Stack:
    """One regular volume: which planes, in order, and the geometry of its ``(D, H, W)`` array."""

    order: tuple[int, ...]
    affine: tuple[float, ...]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Planes that form no volume, and why."""

    planes: tuple[int, ...]
    detail: str


def find_stacks(planes: Sequence[Plane], min_slices: int) -> tuple[list[Stack], list[Leftover]]:
    """Sort the planes of one series into regular volumes.

    Planes are grouped by orientation, spacing and size; a group with several planes at one position is split by the
    first trait that tells them apart (PS3.3 C.7.6.2 does not forbid several stacks in a series).

    Args:
        planes: the planes of one series, in a reproducible order.
        min_slices: groups of fewer planes are left over.

    Returns:
        Volumes in the order of their first plane, and what is left.
    """
    stacks: list[Stack] = []
    leftovers: list[Leftover] = []
    for group in _parallel_groups(planes):
        try:
            parts = _split_repeated_positions(planes, group)
        except UnreadableImage as error:
            leftovers.append(Leftover(tuple(group), error.detail))
            continue
        for part in parts:
            try:
                stacks.append(_regular_stack(planes, part, min_slices))
            except UnreadableImage as error:
                leftovers.append(Leftover(tuple(part), error.detail))
    stacks.sort(key=lambda stack: min(stack.order))
    return stacks, leftovers


def slice_normal(orientation: Sequence[float]) -> Array:
    """Unit normal of a plane.

    Raises:
        UnreadableImage: the two directions are not perpendicular unit vectors.
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
        plane: the first slice.
        step: displacement from one slice to the next, LPS+; not parallel to the normal when the gantry was tilted.
    """
    across, down = np.array(plane.orientation[:3]), np.array(plane.orientation[3:6])
    matrix = np.eye(4)
    matrix[:3, 0] = LPS_TO_RAS @ step
    matrix[:3, 1] = LPS_TO_RAS @ (down * plane.spacing_mm[0])
    matrix[:3, 2] = LPS_TO_RAS @ (across * plane.spacing_mm[1])
    matrix[:3, 3] = LPS_TO_RAS @ np.array(plane.position)
    return tuple(float(value) + 0.0 for value in matrix.ravel())


def _parallel_groups(planes: Sequence[Plane]) -> list[list[int]]:
    groups: list[list[int]] = []
    for index, plane in enumerate(planes):
        for group in groups:
            first = planes[group[0]]
            same = (
                first.size == plane.size
                and np.allclose(first.spacing_mm, plane.spacing_mm, rtol=1e-3, atol=0)
                and np.abs(np.subtract(first.orientation, plane.orientation)).max() < SAME_DIRECTION
            )
            if same:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _split_repeated_positions(planes: Sequence[Plane], group: Sequence[int]) -> list[list[int]]:
    """Split a group until no position occurs twice in a part."""
    if _places_differ(planes, group):
        return [list(group)]
    at_place: dict[Hashable, list[int]] = defaultdict(list)
    for index in group:
        at_place[_place(planes[index])].append(index)
    varying = [
        trait
        for trait in range(len(planes[group[0]].traits))
        if any(len({planes[i].traits[trait] for i in same}) > 1 for same in at_place.values())
    ]
    for chosen in [*[(trait,) for trait in varying], tuple(varying)]:
        parts: dict[Hashable, list[int]] = defaultdict(list)
        for index in group:
            parts[tuple(planes[index].traits[trait] for trait in chosen)].append(index)
        if len(parts) > 1 and all(_places_differ(planes, part) for part in parts.values()):
            return list(parts.values())
    raise UnreadableImage(Reason.GEOMETRY, "several slices at one position; no header tells them apart")


def _place(plane: Plane) -> tuple[int, ...]:
    return tuple(round(value / SAME_PLACE_MM / 2) for value in plane.position)


def _places_differ(planes: Sequence[Plane], group: Sequence[int]) -> bool:
    along = np.sort(_projections(planes, group))
    return bool(np.all(np.diff(along) > SAME_PLACE_MM))


def _projections(planes: Sequence[Plane], group: Sequence[int]) -> Array:
    normal = slice_normal(planes[group[0]].orientation)
    projected: Array = np.array([planes[i].position for i in group], dtype=float) @ normal
    return projected


def _regular_stack(planes: Sequence[Plane], part: Sequence[int], min_slices: int) -> Stack:
    if len(part) < min_slices:
        raise UnreadableImage(Reason.GEOMETRY, f"a stack of {len(part)} slices, at least {min_slices} are needed")
    order = [part[i] for i in np.argsort(_projections(planes, part), kind="stable")]
    positions = np.array([planes[i].position for i in order], dtype=float)
    gaps = np.diff(positions @ slice_normal(planes[order[0]].orientation))
    usual = float(np.median(gaps))
    if np.abs(gaps - usual).max() > max(IRREGULAR_SHARE * usual, SAME_PLACE_MM):
        missing = "slices are missing" if gaps.max() > 1.5 * usual else "slice distances differ"
        raise UnreadableImage(Reason.GEOMETRY, f"{missing}: gaps from {gaps.min():.2f} to {gaps.max():.2f} mm")
    step = (positions[-1] - positions[0]) / (len(order) - 1)
    line = positions[0] + np.arange(len(order))[:, np.newaxis] * step
    if np.linalg.norm(positions - line, axis=1).max() > max(IRREGULAR_SHARE * usual * len(order) ** 0.5, SAME_PLACE_MM):
        raise UnreadableImage(Reason.GEOMETRY, "slice positions do not lie on a line")
    first = planes[order[0]]
    spacing = (float(np.linalg.norm(step)), float(first.spacing_mm[0]), float(first.spacing_mm[1]))
    return Stack(order=tuple(order), affine=volume_affine(first, step), spacing_mm=spacing)
