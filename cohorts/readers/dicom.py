"""DICOM pixels after the modality LUT: frames as images, series and multi-frame files as volumes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from medphantom.cohorts.readers.common import (
    NOT_A_FILES_FAULT,
    DecodedImage,
    ReadOptions,
    require_size,
    settle_color,
    stack_exactly,
)
from medphantom.cohorts.readers.dicom_checks import require_described
from medphantom.cohorts.readers.dicom_decode import stored_frames, valid_bits
from medphantom.cohorts.readers.dicom_file import (
    MEASURES,
    ORIENTATION,
    code_of,
    functional_group,
    has_pixels,
    integer_of,
    items_of,
    no_pixels,
    numbers_of,
    open_dicom,
    quietly,
    stating,
)
from medphantom.cohorts.readers.dicom_geometry import Plane, slice_normal
from medphantom.cohorts.readers.dicom_header import make_plane, plane_of, rank_of, spacing_of, trait_of
from medphantom.cohorts.readers.dicom_meaning import Meaning, meaning_of, require_one_meaning
from medphantom.cohorts.readers.dicom_stacks import find_stacks
from medphantom.cohorts.readers.dicom_values import (
    is_inverted,
    modality_values,
    padding_of,
    palette_colors,
    voi_of,
    without_padding,
)
from medphantom.cohorts.records import Voi
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

FRAME_TRAITS = (
    ("FrameContentSequence", "StackID"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRDiffusionSequence", "DiffusionGradientDirectionSequence", "DiffusionGradientOrientation"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("MRModifierSequence", "InversionTimes"),
    ("MRImageFrameTypeSequence", "FrameType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
)
"""Paths through the functional groups of a frame (PS3.3 C.7.6.16.2, C.8.13.5), as ``STACK_TRAITS`` of single frames."""

FRAME_RANKS = (
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("FrameContentSequence", "FrameAcquisitionDateTime"),
)


def read_images(path: Path, options: ReadOptions) -> list[DecodedImage]:
    """Return the frames of one file as images.

    Raises:
        UnreadableImage: If there are no pixels, they cannot be decoded, or their header contradicts itself.
    """
    with quietly():
        ds = open_dicom(path)
        decoded = _decode(ds, path, options, volume=False)
        total = len(decoded.planes)
        if total > 1 and not options.split_frames:
            raise UnreadableImage(Reason.GEOMETRY, f"{total} frames while frames is reject")
        return [
            DecodedImage(
                pixels=without_padding([plane], [mask], inverted=decoded.inverted)[0],
                channels=decoded.channels,
                inverted=decoded.inverted,
                spacing_mm=spacing_of(stating(ds, number, MEASURES) or ds),
                voi=voi_of(ds, number),
                frame=number if total > 1 else None,
            )
            for number, (plane, mask) in enumerate(zip(decoded.planes, decoded.padding, strict=True))
        ]


def read_series(paths: Sequence[Path], options: ReadOptions) -> DecodedImage:
    """Return one volume from slices that are already in order; the caller knows their geometry.

    Raises:
        UnreadableImage: If a slice cannot be decoded, or slices contradict each other.
    """
    slices: list[_Decoded] = []
    voi: Voi | None = None
    total = 0
    with quietly():
        for number, path in enumerate(paths):
            ds = open_dicom(path)
            slices.append(_decode(ds, path, options, volume=True))
            total += sum(plane.nbytes for plane in slices[-1].planes)
            require_size(total, options)
            if number == len(paths) // 2:
                voi = voi_of(ds, 0)
    planes = [plane for part in slices for plane in part.planes]
    inverted = {part.inverted for part in slices}
    if (
        len(inverted) > 1
        or len({plane.shape for plane in planes}) > 1
        or len({not part.meanings for part in slices}) > 1
    ):
        raise UnreadableImage(Reason.GEOMETRY, "slices of one series differ in size or photometric interpretation")
    require_one_meaning([meaning for part in slices for meaning in part.meanings])
    padding = [mask for part in slices for mask in part.padding]
    pixels = stack_exactly(without_padding(planes, padding, inverted=slices[0].inverted))
    return DecodedImage(pixels=pixels, inverted=slices[0].inverted, voi=voi)


def read_volumes(path: Path, options: ReadOptions) -> tuple[list[DecodedImage], list[str]]:
    """Return the volumes of one multi-frame file, and why frames of it belong to none.

    Raises:
        UnreadableImage: If the frames have no positions, or cannot be decoded.
    """
    with quietly():
        ds = open_dicom(path)
        planes = _frame_planes(ds)
        stacks, leftovers = find_stacks(planes, options.min_slices)
        if not stacks:
            raise UnreadableImage(Reason.GEOMETRY, leftovers[0].detail if leftovers else "frames have no positions")
        decoded = _decode(ds, path, options, volume=True)
        volumes = []
        for number, stack in enumerate(stacks):
            chosen = [decoded.planes[i] for i in stack.order]
            require_one_meaning([decoded.meanings[i] for i in stack.order] if decoded.meanings else [])
            padding = [decoded.padding[i] for i in stack.order]
            volumes.append(
                DecodedImage(
                    pixels=stack_exactly(without_padding(chosen, padding, inverted=decoded.inverted)),
                    inverted=decoded.inverted,
                    spacing_mm=stack.spacing_mm,
                    affine=stack.affine,
                    voi=voi_of(ds, stack.order[len(stack.order) // 2]),
                    frame=number if len(stacks) > 1 else None,
                )
            )
        return volumes, [leftover.detail for leftover in leftovers]


@dataclass(slots=True)
class _Decoded:
    """Planes of one file after the modality LUT (or in colour), each in its smallest exact dtype.

    Attributes:
        planes: Planes of the file, one per frame.
        padding: Mask of the pixels of each plane that the header declares as padding.
        channels: Number of channels, 1, or 3 in colour.
        inverted: Whether small values are bright.
        meanings: Meaning of each plane's values as the header declares it; empty for colour.
    """

    planes: list[Array]
    padding: list[Array | None]
    channels: int
    inverted: bool
    meanings: list[Meaning]


def _decode(ds: pydicom.Dataset, path: Path, options: ReadOptions, *, volume: bool) -> _Decoded:
    if not has_pixels(ds):
        raise no_pixels(path, "a DICOM object without pixel data")
    frames = max(1, integer_of(ds, "NumberOfFrames"))
    plane_bytes = integer_of(ds, "Rows") * integer_of(ds, "Columns") * max(1, integer_of(ds, "SamplesPerPixel"))
    require_size(plane_bytes * frames * max(1, integer_of(ds, "BitsAllocated") // 8), options)
    require_described(ds)
    try:
        cells = stored_frames(ds, frames)
        stored = valid_bits(cells, ds)
        inverted = is_inverted(ds)
        if cells.ndim == 3 and code_of(ds, "PhotometricInterpretation") != "PALETTE COLOR":
            planes = [modality_values(stored[i], ds, i) for i in range(frames)]
            padding = [padding_of(cells[i], stored[i], ds) for i in range(frames)]
            meanings = [meaning_of(ds, i) for i in range(frames)] if volume else []
            return _Decoded(planes, padding, 1, inverted, meanings)
        colors = stored if cells.ndim == 4 else palette_colors(stored, ds)
    except (UnreadableImage, *NOT_A_FILES_FAULT):
        raise
    except BaseException as error:  # LUTs may raise anything
        detail = f"pixel data cannot be decoded ({type(error).__name__})"
        raise UnreadableImage(Reason.UNDECODABLE, detail) from None
    settled = [settle_color(plane, options, volume=volume) for plane in colors]
    return _Decoded([pixels for pixels, _ in settled], [None] * frames, settled[0][1], inverted, [])


def _frame_planes(ds: pydicom.Dataset) -> list[Plane]:
    frames = max(1, integer_of(ds, "NumberOfFrames"))
    size = (integer_of(ds, "Rows"), integer_of(ds, "Columns"))
    offsets = numbers_of(ds, "GridFrameOffsetVector", frames)
    planes = []
    for number in range(frames):
        if offsets is not None:
            plane = _dose_plane(ds, size, offsets[number])
        else:
            where = functional_group(ds, number, "PlanePositionSequence")
            direction, measures = stating(ds, number, ORIENTATION), stating(ds, number, MEASURES)
            traits, ranks = _frame_traits(ds, number)
            plane = make_plane(where, direction, measures, size, traits=traits, ranks=ranks)
        if plane is None:
            raise UnreadableImage(Reason.GEOMETRY, "frames have no positions")
        planes.append(plane)
    return planes


def _dose_plane(ds: pydicom.Dataset, size: tuple[int, int], offset: float) -> Plane | None:
    """Return a plane of a dose grid: offset along the normal (PS3.3 C.8.8.3.2)."""
    plane = plane_of(ds, size)
    if plane is None:
        return None
    moved = np.array(plane.position) + offset * slice_normal(plane.orientation)
    return Plane((float(moved[0]), float(moved[1]), float(moved[2])), plane.orientation, plane.spacing_mm, size)


def _frame_traits(ds: pydicom.Dataset, frame: int) -> tuple[tuple[Hashable, ...], tuple[float | None, ...]]:
    traits = [(_inner(ds, frame, path), path[-1]) for path in FRAME_TRAITS]
    ranks = [(_inner(ds, frame, path), path[-1]) for path in FRAME_RANKS]
    return (
        tuple(() if group is None else trait_of(group, keyword) for group, keyword in traits),
        (*(None if group is None else rank_of(group, keyword) for group, keyword in ranks), float(frame)),
    )


def _inner(ds: pydicom.Dataset, frame: int, path: Sequence[str]) -> pydicom.Dataset | None:
    """Return the data set with the last keyword of a path: a functional group, or a sequence in it."""
    group = functional_group(ds, frame, path[0])
    for keyword in path[1:-1]:
        items = () if group is None else items_of(group, keyword)
        group = items[0] if items else None
    return group
