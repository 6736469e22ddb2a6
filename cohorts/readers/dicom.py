"""DICOM pixels after the modality LUT: frames as images, series and multi-frame files as volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut

from cohorts.errors import Reason, UnreadableImage
from cohorts.readers.common import (
    NOT_A_FILES_FAULT,
    DecodedImage,
    ReadOptions,
    narrowest,
    require_size,
    settle_color,
    stack_exactly,
)
from cohorts.readers.dicom_geometry import Plane, find_stacks, slice_normal
from cohorts.readers.dicom_header import (
    functional_group,
    has_pixels,
    integer_of,
    make_plane,
    numbers_of,
    open_dicom,
    plane_of,
    quietly,
    spacing_of,
)
from cohorts.records import Array, Voi

FRAME_TRAITS = (
    ("FrameContentSequence", "StackID"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
)


def read_images(path: Path, options: ReadOptions) -> list[DecodedImage]:
    """The frames of one file as images.

    Raises:
        UnreadableImage: there are no pixels, or they cannot be decoded.
    """
    with quietly():
        ds = open_dicom(path)
        planes, channels = _decode(ds, options, volume=False)
        if len(planes) > 1 and not options.split_frames:
            raise UnreadableImage(Reason.GEOMETRY, f"{len(planes)} frames while frames is reject")
        return [
            DecodedImage(
                pixels=plane,
                channels=channels,
                inverted=_inverted(ds),
                spacing_mm=spacing_of(_measures(ds, number)),
                voi=_voi(ds, number),
                frame=number if len(planes) > 1 else None,
            )
            for number, plane in enumerate(planes)
        ]


def read_series(paths: Sequence[Path], options: ReadOptions) -> DecodedImage:
    """One volume from slices that are already in order; the caller knows their geometry.

    Raises:
        UnreadableImage: a slice cannot be decoded, or slices contradict each other.
    """
    planes: list[Array] = []
    inverted: set[bool] = set()
    voi: Voi | None = None
    with quietly():
        for number, path in enumerate(paths):
            ds = open_dicom(path)
            frames, _ = _decode(ds, options, volume=True)
            planes += frames
            inverted.add(_inverted(ds))
            if number == len(paths) // 2:
                voi = _voi(ds, 0)
    if len(inverted) > 1 or len({plane.shape for plane in planes}) > 1:
        raise UnreadableImage(Reason.GEOMETRY, "slices of one series differ in size or photometric interpretation")
    return DecodedImage(pixels=stack_exactly(planes), inverted=inverted.pop(), voi=voi)


def read_volumes(path: Path, options: ReadOptions) -> tuple[list[DecodedImage], list[str]]:
    """The volumes of one multi-frame file, and why frames of it belong to none.

    Raises:
        UnreadableImage: the frames have no positions, or cannot be decoded.
    """
    with quietly():
        ds = open_dicom(path)
        planes = _frame_planes(ds)
        stacks, leftovers = find_stacks(planes, options.min_slices)
        if not stacks:
            raise UnreadableImage(Reason.GEOMETRY, leftovers[0].detail if leftovers else "frames have no positions")
        pixels, _ = _decode(ds, options, volume=True)
        volumes = [
            DecodedImage(
                pixels=stack_exactly([pixels[i] for i in stack.order]),
                inverted=_inverted(ds),
                spacing_mm=stack.spacing_mm,
                affine=stack.affine,
                voi=_voi(ds, stack.order[len(stack.order) // 2]),
                frame=number if len(stacks) > 1 else None,
            )
            for number, stack in enumerate(stacks)
        ]
        return volumes, [leftover.detail for leftover in leftovers]


def _decode(ds: pydicom.Dataset, options: ReadOptions, *, volume: bool) -> tuple[list[Array], int]:
    """Planes after the modality LUT (or in colour), each in its narrowest exact dtype, and the number of channels."""
    if not has_pixels(ds):
        raise UnreadableImage(Reason.NO_PIXELS, "a DICOM object without pixel data")
    frames = max(1, integer_of(ds, "NumberOfFrames"))
    plane_bytes = integer_of(ds, "Rows") * integer_of(ds, "Columns") * max(1, integer_of(ds, "SamplesPerPixel"))
    require_size(plane_bytes * frames * max(1, integer_of(ds, "BitsAllocated") // 8), options)
    try:
        stacked, color = _frames(ds, frames)
        planes = list(stacked) if color else [_after_modality_lut(stacked[i], ds, i) for i in range(frames)]
    except NOT_A_FILES_FAULT:
        raise
    except BaseException as error:  # decoders and LUTs may raise anything
        syntax = ds.file_meta.TransferSyntaxUID
        name = "a private transfer syntax" if syntax.is_private else syntax.name
        detail = f"pixel data cannot be decoded ({name}; {type(error).__name__})"
        raise UnreadableImage(Reason.UNDECODABLE, detail) from None
    if not color:
        return planes, 1
    if stacked.shape[-1] != 3:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"{stacked.shape[-1]} samples per pixel")
    settled = [settle_color(plane, options, volume=volume) for plane in planes]
    return [pixels for pixels, _ in settled], settled[0][1]


def _frames(ds: pydicom.Dataset, frames: int) -> tuple[Array, bool]:
    """Decoded frames ``(F, H, W)``, or ``(F, H, W, samples)`` and true in colour (YBR and palette become RGB)."""
    raw = ds.pixel_array
    palette = str(ds.get("PhotometricInterpretation", "")) == "PALETTE COLOR"
    if palette:
        raw = apply_color_lut(raw, ds)[..., :3]
    color = palette or integer_of(ds, "SamplesPerPixel") > 1
    grid = (frames, int(ds.Rows), int(ds.Columns))
    return raw.reshape((*grid, raw.shape[-1]) if color else grid), color


def _after_modality_lut(plane: Array, ds: pydicom.Dataset, frame: int) -> Array:
    """The output of pydicom's modality LUT, exactly, in the narrowest dtype that loses nothing.

    Enhanced objects carry the rescale of each frame in their functional groups (PS3.3 C.7.6.16.2.9), where pydicom's
    function does not look by itself, so it is given that group.
    """
    source = ds
    if "ModalityLUTSequence" not in ds and "RescaleSlope" not in ds:
        source = functional_group(ds, frame, "PixelValueTransformationSequence") or ds
    values = apply_modality_lut(plane, source)
    native = plane.astype(plane.dtype.newbyteorder("="), copy=False)
    if values is plane or np.array_equal(values, plane):
        return native
    return narrowest(values) if values.dtype.kind == "f" else values.astype(values.dtype.newbyteorder("="), copy=False)


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
            direction = functional_group(ds, number, "PlaneOrientationSequence")
            measures = functional_group(ds, number, "PixelMeasuresSequence")
            plane = make_plane(where, direction, measures, size, _frame_traits(ds, number))
        if plane is None:
            raise UnreadableImage(Reason.GEOMETRY, "frames have no positions")
        planes.append(plane)
    return planes


def _dose_plane(ds: pydicom.Dataset, size: tuple[int, int], offset: float) -> Plane | None:
    """A plane of a dose grid: offset along the normal (PS3.3 C.8.8.3.2)."""
    plane = plane_of(ds, size)
    if plane is None:
        return None
    moved = np.array(plane.position) + offset * slice_normal(plane.orientation)
    return Plane((float(moved[0]), float(moved[1]), float(moved[2])), plane.orientation, plane.spacing_mm, size)


def _frame_traits(ds: pydicom.Dataset, frame: int) -> tuple[str, ...]:
    groups = [(functional_group(ds, frame, sequence), keyword) for sequence, keyword in FRAME_TRAITS]
    return tuple("" if group is None else str(group.get(keyword, "")) for group, keyword in groups)


def _measures(ds: pydicom.Dataset, frame: int) -> pydicom.Dataset:
    return functional_group(ds, frame, "PixelMeasuresSequence") or ds


def _voi(ds: pydicom.Dataset, frame: int) -> Voi | None:
    """The first VOI window (PS3.3 C.11.2), of the frame or the whole."""
    group = functional_group(ds, frame, "FrameVOILUTSequence") or ds
    center, width = numbers_of(group, "WindowCenter"), numbers_of(group, "WindowWidth")
    return Voi(center[0], width[0]) if center and width and width[0] > 0 else None


def _inverted(ds: pydicom.Dataset) -> bool:
    return str(ds.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1"
