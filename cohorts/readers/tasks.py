"""Tasks of worker processes: scan a file, read its content, and return images or typed rejections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medphantom.cohorts.duplicates import thumbnail
from medphantom.cohorts.readers import dicom, dicom_header, nifti, npz, picture
from medphantom.cohorts.readers.common import (
    NEVER_A_BOMB,
    DecodedImage,
    Kind,
    ReadOptions,
    aligned_mask,
    checked_mask,
    require_plausible,
    require_size,
    require_usable,
)
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.folders import file_state, pixel_digest
from medphantom.core.records import Array

SNIFFED_BYTES = 352
MASK_PER_IMAGE_BYTE = 24  # three channels of 64-bit numbers beside an image of bytes
GROUPS_THAT_START_DICOM = {b"\x02\x00", b"\x08\x00", b"\x00\x08"}  # without preamble, little and big endian


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file, or one frame of it, was rejected."""

    reason: Reason
    detail: str
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class ScanJob:
    """A file to scan."""

    root: str
    path: str
    kinds: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class FileHead:
    """Description of a file before its pixels are read.

    Attributes:
        path: Path relative to the source.
        kind: File format; ``None`` if rejected.
        decoded_bytes: Memory that its decoded pixels will need, in bytes.
        axes: Number of spatial axes of a NIfTI or ``.npz`` image; 0 if the format does not declare it.
        state: Size and modification time of the file when it was scanned.
    """

    path: str
    kind: Kind | None = None
    decoded_bytes: int = 0
    axes: int = 0
    dicom: dicom_header.DicomHead | None = None
    npz: npz.NpzHead | None = None
    refusal: Refusal | None = None
    state: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ReadJob:
    """Files that form one image or volume (or one per frame).

    Attributes:
        kind: Format of the files.
        paths: Absolute paths; several are the slices of a volume, in order.
        weight_bytes: Memory that the result needs, in bytes.
        affine: Voxel-to-world matrix of a volume from slices.
        spacing_mm: Spacing of a volume from slices.
        mask: Absolute path of the mask.
        options: Options of the reader.
        states: State of each file from :func:`~medphantom.core.folders.file_state` when it was scanned.
    """

    kind: Kind
    paths: tuple[str, ...]
    options: ReadOptions
    weight_bytes: int = 0
    affine: tuple[float, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    mask: str | None = None
    states: tuple[tuple[int, int] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadyImage:
    """A usable image with all values that take time to compute."""

    image: DecodedImage
    digest: str
    thumbnail: Array | None


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Result of one job."""

    images: list[ReadyImage] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def scan(job: ScanJob) -> FileHead:
    """Determine the kind of a file; never raises."""
    try:
        state = file_state(Path(job.root, job.path))
        return replace(_scan(job), state=state)
    except UnreadableImage as error:
        return FileHead(job.path, refusal=Refusal(error.reason, error.detail))
    except MemoryError:
        return FileHead(job.path, refusal=Refusal(Reason.TOO_LARGE, "its header needs more memory than allowed"))
    except OSError:
        return FileHead(job.path, refusal=Refusal(Reason.BROKEN, "cannot be opened"))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # one file must never stop the others, and codecs in Rust raise panics
        return FileHead(job.path, refusal=Refusal(Reason.BROKEN, f"cannot be parsed ({type(error).__name__})"))


def read(job: ReadJob) -> ReadResult:
    """Read the images of a job; never raises. Results of files that changed meanwhile are dropped."""
    mask = (job.mask,) if job.mask is not None else ()
    before = _states(mask)
    result = _read_whatever(job)
    states = _states(job.paths)
    changed = any(then is not None and then != now for then, now in zip(job.states, states, strict=False))
    if changed or before != _states(mask):
        return ReadResult(refusals=[Refusal(Reason.CHANGED, "it or its mask changed while the source was read")])
    return result


def _states(paths: Sequence[str]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            found.append(file_state(Path(path)))
        except OSError:
            found.append(None)
    return found


def _read_whatever(job: ReadJob) -> ReadResult:
    try:
        return _read(job)
    except UnreadableImage as error:
        return ReadResult(refusals=[Refusal(error.reason, error.detail)])
    except MemoryError:
        return ReadResult(refusals=[Refusal(Reason.TOO_LARGE, "decoding needs more memory than allowed")])
    except OSError:
        return ReadResult(refusals=[Refusal(Reason.BROKEN, "cannot be opened")])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # one file must never stop the others, and codecs in Rust raise panics
        return ReadResult(refusals=[Refusal(Reason.BROKEN, f"cannot be read ({type(error).__name__})")])


def finish(image: DecodedImage, options: ReadOptions) -> ReadyImage:
    """Check an image and compute what identifies it.

    Raises:
        UnreadableImage: If it is too small, constant, not finite, or its mask does not fit.
    """
    require_usable(image, options)
    if image.mask is not None:
        image.mask = checked_mask(image.mask, image)
    image.pixels = np.ascontiguousarray(image.pixels)
    small = thumbnail(image.pixels, image.channels, inverted=image.inverted) if options.near_duplicates else None
    return ReadyImage(image, pixel_digest(image.pixels), small)


def sniff(path: Path) -> Kind | None:
    """Return the format of a file by its content."""
    return _kind_of(path, _first_bytes(path))


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(SNIFFED_BYTES)


def _kind_of(path: Path, head: bytes) -> Kind | None:
    if head[128:132] == b"DICM":
        return "dicom"
    if picture.picture_format(head) is not None:
        return "picture"
    if nifti.is_nifti(head) or (head[:2] == b"\x1f\x8b" and nifti.is_nifti(nifti.gunzipped_head(path, SNIFFED_BYTES))):
        return "nifti"
    if head.startswith(npz.ZIP_MAGIC) and npz.looks_like_npz(path):
        return "npz"
    return "dicom" if head[:2] in GROUPS_THAT_START_DICOM and len(head) > 132 else None


def _scan(job: ScanJob) -> FileHead:
    path = Path(job.root, job.path)
    first = _first_bytes(path)
    kind = _kind_of(path, first)
    if kind is None or kind not in job.kinds:
        detail = (
            "not a DICOM, NIfTI, PNG, JPEG, TIFF or .npz file" if kind is None else f"a file of another format ({kind})"
        )
        raise UnreadableImage(Reason.NOT_AN_IMAGE, detail)
    size = path.stat().st_size
    if kind == "dicom":
        head = dicom_header.read_head(path)
        if head.frames > size:
            raise UnreadableImage(Reason.TRUNCATED, "more frames than the file has bytes")
        return FileHead(job.path, kind, head.decoded_bytes, dicom=head)
    if kind == "npz":
        archive = npz.read_head(path)
        return FileHead(job.path, kind, size, archive.spatial_dims, npz=archive)
    if kind == "nifti":
        shape, decoded = nifti.read_shape(path)
        return FileHead(job.path, kind, decoded, len([side for side in shape[:3] if side > 1]))
    return FileHead(job.path, kind, picture.declared_bytes(path, first) or 8 * size)


def _read(job: ReadJob) -> ReadResult:
    result = ReadResult()
    require_size(job.weight_bytes if job.kind != "picture" else 0, job.options)  # pictures know exactly
    require_plausible(job.weight_bytes, _stored_bytes(job.paths), job.options)
    if job.mask is not None:
        _require_modest_mask(Path(job.mask), job.weight_bytes)
    for image in _decoded(job, result.refusals):
        try:
            result.images.append(finish(_with_mask(image, job), job.options))
        except UnreadableImage as error:
            result.refusals.append(Refusal(error.reason, error.detail, image.frame))
    return result


def _stored_bytes(paths: Sequence[str]) -> int:
    return sum(Path(path).stat().st_size for path in paths)


def _require_modest_mask(path: Path, image_bytes: int) -> None:
    """Refuse a mask that declares far more pixels than its image could need, before it is decoded."""
    first = _first_bytes(path)
    kind = _kind_of(path, first)
    declared = 0
    if kind == "nifti":
        declared = nifti.read_shape(path)[1]
    elif kind == "picture":
        declared = picture.declared_bytes(path, first)
    if declared > NEVER_A_BOMB and declared > MASK_PER_IMAGE_BYTE * image_bytes:
        raise UnreadableImage(Reason.MASK_MISMATCH, "a mask that declares far more pixels than its image has")


def _decoded(job: ReadJob, refusals: list[Refusal]) -> list[DecodedImage]:
    paths = [Path(path) for path in job.paths]
    if job.kind == "nifti":
        return nifti.read_volumes(paths[0], job.options)
    if job.kind == "picture":
        return picture.read_pictures(paths[0], job.options)
    if job.affine is not None:
        volume = dicom.read_series(paths, job.options)
        volume.affine, volume.spacing_mm = job.affine, job.spacing_mm
        return [volume]
    if job.options.spatial_dims == 3:
        volumes, leftovers = dicom.read_volumes(paths[0], job.options)
        refusals += [Refusal(Reason.GEOMETRY, detail) for detail in leftovers]
        return volumes
    return dicom.read_images(paths[0], job.options)


def _with_mask(image: DecodedImage, job: ReadJob) -> DecodedImage:
    if job.mask is None:
        return image
    path = Path(job.mask)
    kind = sniff(path)
    affine: tuple[float, ...] | None = None
    orientation = 1
    if kind == "nifti":
        mask, affine = nifti.read_mask(path, job.options)
    elif kind == "picture":
        mask, orientation = picture.read_mask(path, job.options)
    else:
        raise UnreadableImage(Reason.MASK_MISMATCH, "a mask must be NIfTI, PNG or TIFF")
    if orientation != image.orientation:
        raise UnreadableImage(Reason.MASK_MISMATCH, "image and mask carry different orientation tags")
    if image.frame is not None and mask.ndim == job.options.spatial_dims + 1 and image.frame < len(mask):
        mask = mask[image.frame]
    elif mask.ndim == 3 and mask.shape[0] == 1 and job.options.spatial_dims == 2:
        mask = mask[0]
    image.mask = aligned_mask(mask, affine, image)
    return image
