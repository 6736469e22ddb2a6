"""From slice positions to regular volumes: which planes form one, their order, and the order of several volumes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from medphantom.cohorts.readers.dicom_geometry import Plane, slice_normal, volume_affine
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

SAME_PLACE_MM = 0.01
SAME_DIRECTION = 1e-3
IRREGULAR_SHARE = 0.05  # of the slice distance; acquisition software rounds positions
TRAITS_TOGETHER = 3  # as b-value, direction and echo: more at once would tell any slices apart
UNLIKE = "slices at the places of one volume differ in size or pixel spacing"
REPEATED = "several slices at one position; no header tells them apart"


@dataclass(frozen=True, slots=True)
class Stack:
    """One regular volume: its planes in order, and the geometry of its ``(D, H, W)`` array."""

    order: tuple[int, ...]
    affine: tuple[float, ...]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Planes that form no volume, and the reason."""

    planes: tuple[int, ...]
    detail: str


def find_stacks(planes: Sequence[Plane], min_slices: int) -> tuple[list[Stack], list[Leftover]]:
    """Sort the planes of one series into regular volumes.

    Planes are grouped by orientation, spacing and size; a group with several planes at one position is split by what
    distinguishes them (:func:`_split_repeated_positions`; PS3.3 C.7.6.2 does not forbid several stacks in a series).

    Args:
        planes: Planes of one series, in a reproducible order.
        min_slices: Smallest number of planes of a volume; smaller groups are left over.

    Returns:
        Volumes, and what is left over. Those at the same positions are in the order of what distinguishes them, such as
        b-value, direction and time; else in the order of their first plane.
    """
    stacks: list[Stack] = []
    leftovers: list[Leftover] = []
    groups = _parallel_groups(planes)
    for group in groups:
        try:
            parts = _split_repeated_positions(planes, group)
        except UnreadableImage as error:
            leftovers.append(Leftover(tuple(group), error.detail))
            continue
        for part in parts:
            try:
                stacks.append(_regular_stack(planes, part, min_slices))
            except UnreadableImage as error:
                alike = not any(other is not group and _fill_gaps(planes, part, other) for other in groups)
                leftovers.append(Leftover(tuple(part), error.detail if alike else UNLIKE))
    return stacks, leftovers


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


def _fill_gaps(planes: Sequence[Plane], part: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether planes of another size or spacing fill the gaps of a part that is not a volume.

    Both have the same direction, neither ends before the other begins, and no position has a plane of both.
    """
    directions = [planes[group[0]].orientation for group in (part, other)]
    if np.abs(np.subtract(directions[0], directions[1])).max() >= SAME_DIRECTION:
        return False
    normal = slice_normal(directions[0])
    ours, theirs = (np.sort([np.dot(planes[i].position, normal) for i in group]) for group in (part, other))
    apart = np.abs(ours[:, np.newaxis] - theirs).min()
    reach = 1.5 * float(np.median(np.diff(max(ours, theirs, key=len)))) if max(len(ours), len(theirs)) > 1 else 0.0
    return bool(apart > SAME_PLACE_MM and ours[0] <= theirs[-1] + reach and theirs[0] <= ours[-1] + reach)


def _split_repeated_positions(planes: Sequence[Plane], group: Sequence[int]) -> list[list[int]]:
    """Split a group until no position occurs twice in a part, into as few parts as possible.

    It splits by traits alone (b-value and gradient direction, temporal position, echo …), then by traits and, if these
    leave several slices at a position, by the first rank that orders them (trigger time, time of day, number).

    Raises:
        UnreadableImage: If nothing distinguishes the slices at one position.
    """
    at_place = _at_places(planes, group)
    most = max(map(len, at_place))
    if most == 1:
        return [list(group)]
    varying = [
        trait
        for trait in range(len(planes[group[0]].traits))
        if any(len({planes[i].traits[trait] for i in same}) > 1 for same in at_place)
    ]
    choices = [chosen for total in range(1, TRAITS_TOGETHER + 1) for chosen in combinations(varying, total)]
    for ranked, tried in ((False, choices), (True, [*reversed(choices), ()])):
        for chosen in tried:
            parts = list(_parts(planes, group, chosen, ranked=ranked))
            if len(parts) == most and all(max(map(len, _at_places(planes, part))) == 1 for part in parts):
                return parts
    raise UnreadableImage(Reason.GEOMETRY, REPEATED)


def _parts(
    planes: Sequence[Plane], group: Sequence[int], chosen: tuple[int, ...], *, ranked: bool
) -> Iterator[list[int]]:
    """Return parts of equal traits in their order; with ``ranked``, each of them is split further by a rank."""
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for index in group:
        alike[tuple(planes[index].traits[trait] for trait in chosen)].append(index)
    for part in sorted(alike.values(), key=lambda part: _order_of(planes, part)):
        yield from _by_rank(planes, part) if ranked else [part]


def _order_of(planes: Sequence[Plane], part: Sequence[int]) -> list[tuple[object, ...]]:
    """Return the sort key of a part: each trait that is equal in all of it, numbers before text."""
    order: list[tuple[object, ...]] = []
    for values in zip(*(planes[i].traits for i in part), strict=True):
        value = values[0] if len(set(values)) == 1 and isinstance(values[0], tuple) else ()
        numbers = all(isinstance(entry, float) for entry in value)
        order.append((0, *value) if numbers else (1, *map(str, value)))
    return order


def _by_rank(planes: Sequence[Plane], part: list[int]) -> list[list[int]]:
    """Split a part by the first rank that orders the slices at each position: volume *k* gets the *k*-th of each.

    A number of the instance or frame is used only if it is unambiguous: it runs through one volume after the other, or
    through all slices of one position after the other.
    """
    at_place = _at_places(planes, part)
    total = len(at_place[0])
    if total == 1 or any(len(same) != total for same in at_place):
        return [part]
    last = len(planes[part[0]].ranks) - 1
    for rank in range(last + 1):
        value = {index: planes[index].ranks[rank] for index in part}
        if None in value.values() or any(len({value[i] for i in same}) != total for same in at_place):
            continue
        ordered = [sorted(same, key=lambda index: value[index] or 0.0) for same in at_place]
        volumes = [list(volume) for volume in zip(*ordered, strict=True)]
        if rank < last or _runs_apart(volumes, value) or _runs_apart(ordered, value):
            return volumes
    return [part]


def _runs_apart(groups: Sequence[Sequence[int]], value: dict[int, float | None]) -> bool:
    """Return whether the numbers of each group do not overlap those of any other."""
    spans = sorted((min(value[i] or 0.0 for i in group), max(value[i] or 0.0 for i in group)) for group in groups)
    return all(before[1] < after[0] for before, after in pairwise(spans))


def _at_places(planes: Sequence[Plane], group: Sequence[int]) -> list[list[int]]:
    """Return the slices at each position along the normal."""
    along = _projections(planes, group)
    places: list[list[int]] = []
    before = -np.inf
    for number in np.argsort(along, kind="stable"):
        if along[number] - before > SAME_PLACE_MM:
            places.append([])
        places[-1].append(group[number])
        before = float(along[number])
    return places


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
