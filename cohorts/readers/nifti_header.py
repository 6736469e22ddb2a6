"""NIfTI headers (nifti1.h, nifti2.h): layout, scaling, orientation and size of voxels; applied or refused.

Free text of a header (descrip, aux_file, intent_name, db_name, extensions) is never read.
"""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from medphantom.cohorts.records import Voi
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
MAGIC_OFFSET = 344
SINGLE_FILE, PAIR = b"n+1\x00", b"ni1\x00"
NIFTI2_STARTS = (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # its sizeof_hdr, in either byte order
NIFTI2_SINGLE_FILE, NIFTI2_PAIR = b"n+2\x00", b"ni2\x00"
NIFTI2_LINE_ENDS = b"\r\n\x1a\n"  # behind the magic: altered where a transfer took the file for text

MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, metre, millimetre, micrometre
SPATIAL_UNIT_BITS = 0x07

SAME_SPACING = 5e-3
"""Relative difference of pixdim and the affine's columns due to rounding: writers keep two or three decimals."""
HALF_A_VOXEL = 0.5
LARGEST_OFFSET = 64 * 2**20  # bytes of header and extensions, through which a compressed file has to be read
STANDARD_SPACES = {3, 4, 5}  # Talairach, MNI 152, another template: a head may have been stretched to fit
PATIENT_SPACES = {1, 2}  # scanner, aligned to another scan of the patient
SIZED_AXES = 3

IMAGE_INTENTS = {0, 1001, 1011, 2001}  # none, estimate, dimensionless, time series
LABEL_INTENTS = {1002, 1003}  # label, name of a part of the brain
STATISTICS = range(2, 25)  # NIFTI_FIRST_STATCODE to NIFTI_LAST_STATCODE


def is_nifti(head: bytes) -> bool:
    """Return whether the first 348 (uncompressed) bytes are those of NIfTI-1 or NIfTI-2, in one file or as a pair."""
    if head[:4] in NIFTI2_STARTS and head[4:8] in {NIFTI2_SINGLE_FILE, NIFTI2_PAIR}:
        return True
    return head[MAGIC_OFFSET : MAGIC_OFFSET + 4] in {SINGLE_FILE, PAIR}


def parse_header(head: bytes) -> Any:
    """Return the header with nibabel's field names, after checking every field that locates the voxels.

    Args:
        head: At least the first 540 bytes of the file, or all of it.

    Raises:
        UnreadableImage: If the header contradicts itself, is half of a pair, or does not describe an image.
    """
    second = head[:4] in NIFTI2_STARTS
    length = NIFTI2_BYTES if second else NIFTI1_BYTES
    if (head[4:8] if second else head[MAGIC_OFFSET : MAGIC_OFFSET + 4]) in {PAIR, NIFTI2_PAIR}:
        raise UnreadableImage(
            Reason.UNSUPPORTED_PIXELS, "a NIfTI header whose voxels lie in a second file (.hdr and .img): save as .nii"
        )
    if len(head) < length:
        raise UnreadableImage(Reason.TRUNCATED, "the file ends within its header")
    if second and head[8:12] != NIFTI2_LINE_ENDS:
        raise UnreadableImage(Reason.BROKEN, "a transfer changed line ends within the file")
    # nibabel's own checks mend what they find (a negative pixdim, a wrong bitpix); here it is refused
    header = (nib.Nifti2Header if second else nib.Nifti1Header)(head[:length], check=False)
    if int(header["sizeof_hdr"]) != length:
        raise UnreadableImage(Reason.BROKEN, "sizeof_hdr is not the size of a NIfTI header")
    _require_layout(header)
    return header


def _require_layout(header: Any) -> None:
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7 or (header["dim"][1 : axes + 1] < 1).any():
        raise UnreadableImage(Reason.GEOMETRY, "dim has a number of axes or a size that no image has")
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a datatype that the standard does not define") from None
    if dtype.itemsize == 0:  # none, single bits, or 128-bit floats where the machine has none
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "voxels of a datatype that is not read")
    if int(header["bitpix"]) not in {0, 8 * dtype.itemsize}:
        raise UnreadableImage(Reason.BROKEN, "bitpix contradicts datatype")
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or offset % 1:
        raise UnreadableImage(Reason.BROKEN, "vox_offset is not an integer")
    if offset > LARGEST_OFFSET:
        raise UnreadableImage(Reason.TOO_LARGE, "vox_offset lies further on than any extension reaches")
    if offset != 0 and offset < header.single_vox_offset:
        raise UnreadableImage(Reason.BROKEN, "vox_offset points into the header")


def shape_of(header: Any) -> tuple[int, ...]:
    """Return the sizes of all axes, as declared by dim."""
    return tuple(int(size) for size in header["dim"][1 : int(header["dim"][0]) + 1])


def voxel_offset(header: Any) -> int:
    """Return where the voxels begin; 0 means after the header, as in other tools."""
    return int(header["vox_offset"]) or int(header.single_vox_offset)


def scaling(header: Any) -> tuple[float, float] | None:
    """Return scl_slope and scl_inter; ``None`` if stored values are not scaled.

    A slope of 0 means no scaling (nifti1.h), and so does NaN, which nibabel and others write for *none*.

    Raises:
        UnreadableImage: If the slope is infinite, or the intercept is not a number.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return None
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "scl_slope or scl_inter is not a finite number")
    return None if (slope, intercept) == (1.0, 0.0) else (slope, intercept)


def window(header: Any) -> Voi | None:
    """Return cal_min to cal_max, the values that are shown black and white (nifti1.h), if they are declared."""
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if not (np.isfinite(low) and np.isfinite(high)) or high <= low:
        return None
    return Voi(center=(low + high) / 2, width=high - low)


def require_image(header: Any) -> None:
    """Refuse files whose intent_code does not denote an image: statistics, vectors, displacements, label maps,
    surfaces.

    Raises:
        UnreadableImage: If it does not; the message names the kind of content.
    """
    intent = int(header["intent_code"])
    if intent in IMAGE_INTENTS:
        return
    kind = "vectors, matrices or a surface"
    if intent in STATISTICS:
        kind = "a map of statistics"
    elif intent in LABEL_INTENTS:
        kind = "a label map, which may be given as a mask"
    raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"intent_code declares {kind}")


def require_labels(header: Any) -> None:
    """Refuse a mask whose intent_code declares that its numbers are not labels."""
    if int(header["intent_code"]) not in IMAGE_INTENTS | LABEL_INTENTS:
        raise UnreadableImage(Reason.MASK_MISMATCH, "intent_code declares that the mask contains no labels")


def placement(header: Any) -> tuple[tuple[float, ...] | None, Array | None]:
    """Return the voxel size along ``(i, j, k)`` in mm, and the affine ``(4, 4)`` to RAS+ in mm, each if declared.

    The affine is the sform if its code is set, else the qform, else none. nifti1.h does not use pixdim in the sform,
    but pixdim gives the size of the same voxels: if the two contradict each other, an sform to a standard space is
    replaced by a qform in the patient's own space, and anything else is refused.

    Raises:
        UnreadableImage: If sizes, orientation or units contradict each other or are not numbers.
    """
    unit = int(header["xyzt_units"]) & SPATIAL_UNIT_BITS
    if unit not in MM_PER_UNIT:
        raise UnreadableImage(Reason.GEOMETRY, "a unit of length that the standard does not define")
    sizes = np.abs(np.asarray(header["pixdim"][1:4], dtype=float)) if _sizes_stated(header) else None
    affine = _affine(header, sizes)
    if affine is not None:
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        affine = np.diag([MM_PER_UNIT[unit]] * 3 + [1.0]) @ affine
    if sizes is None:
        return None, affine
    return tuple(float(size) * MM_PER_UNIT[unit] for size in sizes), affine


def flat_spacing(header: Any) -> tuple[float, ...] | None:
    """Return the pixel size of a single slice along ``(i, j)`` in mm, if declared; the third axis is ignored.

    Raises:
        UnreadableImage: As for :func:`placement`.
    """
    flat = header.copy()
    if not (np.isfinite(flat["pixdim"][3]) and flat["pixdim"][3] > 0):
        flat["pixdim"][3] = 1
    rows = np.stack([flat["srow_x"], flat["srow_y"], flat["srow_z"]]).astype(float)
    if int(flat["sform_code"]) > 0 and np.isfinite(rows).all():
        # a slice without neighbours has any third column; one along the normal is compatible with everything else
        normal = np.cross(rows[:, 0], rows[:, 1])
        length = np.linalg.norm(normal)
        rows[:, 2] = normal / (length or 1) * float(flat["pixdim"][3])
        flat["srow_x"], flat["srow_y"], flat["srow_z"] = rows
    sizes, _ = placement(flat)
    return None if sizes is None else sizes[:2]


def _sizes_stated(header: Any) -> bool:
    sizes = np.asarray(header["pixdim"][1:4], dtype=float)
    return bool(np.isfinite(sizes).all() and (sizes > 0).all())


def _affine(header: Any, sizes: Array | None) -> Array | None:
    sform, qform = _sform(header), _qform(header)
    if sform is None:
        return qform
    codes = int(header["sform_code"]), int(header["qform_code"])
    columns = np.linalg.norm(sform[:3, :3], axis=0)
    if sizes is not None and not np.allclose(columns, sizes, rtol=SAME_SPACING, atol=0):
        if codes[0] in STANDARD_SPACES and codes[1] in PATIENT_SPACES and qform is not None:
            return qform
        raise UnreadableImage(Reason.GEOMETRY, "pixdim and the affine state different sizes of a voxel")
    if qform is not None and codes[0] == codes[1] and _far_apart(sform, qform, shape_of(header)):
        raise UnreadableImage(Reason.GEOMETRY, "qform and sform state different places in the same space")
    return sform


def _sform(header: Any) -> Array | None:
    if int(header["sform_code"]) <= 0:
        return None
    affine: Array = np.eye(4)
    affine[:3] = [header["srow_x"], header["srow_y"], header["srow_z"]]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or (lengths == 0).any() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise UnreadableImage(Reason.GEOMETRY, "an affine that maps no volume")
    return affine


def _qform(header: Any) -> Array | None:
    """Return the qform if its code is set; it uses pixdim, which then must be valid."""
    if int(header["qform_code"]) <= 0:
        return None
    numbers = [header[name] for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")]
    qfac = float(header["pixdim"][0])
    sound = _sizes_stated(header) and np.isfinite(numbers).all() and qfac in {-1.0, 0.0, 1.0}
    if sound:
        filled = header.copy()
        filled["pixdim"][0] = qfac or 1.0  # nifti1.h: 0 stands for 1
        try:
            return np.asarray(filled.get_qform(), dtype=float)
        except ValueError:  # a quaternion longer than 1
            sound = False
    if int(header["sform_code"]) > 0:
        return None  # the sform says all
    raise UnreadableImage(Reason.GEOMETRY, "a qform without a sound quaternion, qfac or pixdim")


def _far_apart(one: Array, other: Array, shape: tuple[int, ...]) -> bool:
    """Return whether two affines place any corner of the grid more than half a voxel apart."""
    sizes = [*shape, 1, 1][:SIZED_AXES]
    corners = np.array(np.meshgrid(*[[0, size - 1] for size in sizes])).reshape(SIZED_AXES, -1)
    corners = np.concatenate([corners, np.ones((1, corners.shape[1]))])
    voxel = np.linalg.norm(one[:3, :3], axis=0).min()
    return bool(np.linalg.norm((one - other) @ corners, axis=0).max() > HALF_A_VOXEL * voxel)
