"""Export of a cohort to files for other tools: PNG or NIfTI, in one folder per class or with a ``metadata.csv``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import polars as pl
from PIL import Image

from medphantom.cohorts.overview import display_range
from medphantom.cohorts.readers.common import EXACT_IN_DOUBLE, narrowest
from medphantom.cohorts.records import ATTRIBUTE_PREFIX, LABEL_PREFIX, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.folders import publishing, write_json
from medphantom.core.progress import Progress
from medphantom.core.records import Array
from medphantom.core.spreadsheet import GUARD, GUARD_FACT, GUARD_NOTE, guarded

METADATA_FILE = "metadata.csv"
FACTS_FILE = "export.json"
LARGEST_ROUNDING = "largest_rounding"  # in it
IMAGES, MASKS = "images", "masks"
INT16_OFFSET = 32768
NIFTI1_LONGEST = 32767  # its axes are counted in 16 bits; NIfTI-2 counts in 64
RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
MAPPING_NOTE = "source value = value_slope * stored value + value_intercept; exact: no value was rounded or clipped"

Format = Literal["png", "nifti"]
Layout = Literal["auto", "labels", "table"]
Values = Literal["source", "display"]


@dataclass(frozen=True, slots=True)
class Stored:
    """Values as stored in a file, and their mapping back to source values.

    Attributes:
        array: Stored values, of which large ones are bright.
        slope: Slope of ``source = slope * stored + intercept``.
        intercept: Intercept of that mapping.
        exact: Whether the mapping restores every source value.
        rounding: Largest deviation from the source, as a share of the source's range; 0 if exact.
    """

    array: Array
    slope: float
    intercept: float
    exact: bool
    rounding: float = 0.0


def export_cohort(
    cohort: Cohort,
    out: str | Path,
    *,
    format: Format = "png",  # noqa: A002 - the option's name on the command line
    layout: Layout = "auto",
    values: Values = "source",
    rows: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a cohort as image files and a ``metadata.csv``.

    The table has ``file_name``, patient pseudonym, split, the mapping back to source values, one ``label:`` column of
    1 / 0 / empty per label, ``attr:`` columns, masks, text, and for synthetic images prompt, seed and bundle digest:
    ingestion reads it back without options. ``export.json`` describes the columns. Texts that a spreadsheet would
    execute are written after an apostrophe (see :mod:`medphantom.core.spreadsheet`), which reading removes. A folder of
    synthetic images is made to be shared, so its permissions follow the umask; one of real images or of their edits is
    readable by its owner only.

    Args:
        cohort: Cohort that is exported.
        out: Folder that is created.
        format: File format: ``png`` (8 bits if the values fit, else 16) for images, ``nifti`` for images and volumes.
        layout: Folder layout: ``labels`` puts each image into a folder named after its class (classes must be mutually
            exclusive), ``table`` into ``images/``; ``auto`` uses class folders if the classes allow it.
        values: Stored values: ``source`` keeps every value if the format can (signed 16-bit is stored with an offset of
            32768, as in DeepLesion), ``display`` writes 8 bits through the VOI window, else percentiles 0.5 and 99.5.
        rows: Row numbers to export; all by default.
        progress: Callback that receives the number of images written.

    Returns:
        Path of the folder.

    Raises:
        InputError: If the format cannot hold these images, or the layout does not fit the labels.
        ResourceError: If the disk is full or cannot be written.
    """
    folder = Path(out)
    schema = cohort.schema
    if format == "png" and schema.spatial_dims == 3:
        raise InputError("PNG cannot hold volumes", "export with --format nifti")
    if format == "nifti" and 3 in set(cohort.manifest["channels"]):
        raise InputError("NIfTI export holds grey images only", "export with --format png")
    numbers = list(range(len(cohort))) if rows is None else list(rows)
    if not numbers:
        raise InputError("there is no image to export", "choose rows or a split that has some")
    folders = _label_folders(cohort, numbers, layout)
    write = _write_png if format == "png" else _write_nifti
    with publishing(folder, shared=schema.kind == "synthetic") as partial:
        table: list[dict[str, Any]] = []
        largest = 0.0
        for done, record in enumerate(cohort.records(numbers), 1):
            stored = stored_values(record, values) if format == "png" or values == "display" else _turned(record)
            largest = max(largest, stored.rounding)
            table.append(_write_record(record, stored, partial, folders, write))
            if progress is not None:
                progress(done, len(numbers), "writing images")
        guarded(pl.DataFrame(table, infer_schema_length=None)).write_csv(partial / METADATA_FILE)
        write_json(
            partial / FACTS_FILE, {**_facts(cohort, folders, format, values, len(numbers)), LARGEST_ROUNDING: largest}
        )
    return folder


def stored_values(record: ImageRecord, values: Values = "source") -> Stored:
    """Return values for a PNG: 8 or 16 bits, large ones bright (MONOCHROME1 is inverted), exact if 16 bits suffice.

    Args:
        record: Image that is stored.
        values: Stored values, as in :func:`export_cohort`.
    """
    pixels = record.pixels
    if values == "display":
        low, high = display_range(record)
        return _scaled(pixels, *((high, low) if record.inverted else (low, high)), np.dtype(np.uint8))
    if record.channels == 3 and pixels.dtype != np.uint8:  # PNG writers hold colour in 8 bits
        full = 65535.0 if pixels.dtype == np.uint16 else float(pixels.max())
        return _scaled(pixels, 0.0, full, np.dtype(np.uint8))
    low, high = pixels.min().item(), pixels.max().item()
    base = {"uint8": 0, "uint16": 0, "int16": -INT16_OFFSET}.get(pixels.dtype.name, low)
    if pixels.dtype.kind not in "iu" or high - base > 65535:
        return _scaled(pixels, *((high, low) if record.inverted else (low, high)), np.dtype(np.uint16))
    dtype = np.uint8 if pixels.dtype == np.uint8 else np.uint16
    wide = pixels if pixels.dtype.itemsize == 8 else pixels.astype(np.int64)
    shifted = wide - wide.dtype.type(base)
    held = abs(base) + 65535 <= EXACT_IN_DOUBLE  # the mapping back is written and computed in double precision
    if not record.inverted:
        return Stored(shifted.astype(dtype), 1.0, float(base), exact=held)
    top = _top(high) if pixels.dtype.kind == "u" and base == 0 else 65535
    return Stored((wide.dtype.type(top) - shifted).astype(dtype), -1.0, float(base + top), exact=held)


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Return a folder name for each label that no file system takes for a path, a device or another label's folder."""
    names: dict[str, str] = {}
    taken = {METADATA_FILE.lower(), FACTS_FILE.lower(), MASKS, IMAGES}
    for label in labels:
        safe = re.sub(r"[^\w +.-]", "_", label).strip(" .")[:80].strip(" .") or "label"
        if safe.split(".")[0].lower() in RESERVED_NAMES or safe[0] in "+-":  # a formula, or an option, to other tools
            safe = f"label {safe}"
        name, count = safe, 1
        while name.lower() in taken:
            count += 1
            name = f"{safe}-{count}"
        taken.add(name.lower())
        names[label] = name
    return names


def _label_folders(cohort: Cohort, rows: Sequence[int], layout: Layout) -> dict[str, str] | None:
    """Return the folder of each label, or ``None`` for the table layout."""
    if layout == "table":
        return None
    labels = cohort.labels(rows)
    one_each = bool(cohort.schema.labels) and bool((labels.clip(min=0).sum(axis=1) == 1).all())
    if cohort.schema.exclusive and one_each:
        return folder_names(cohort.schema.labels)
    if layout == "labels":
        raise InputError("the labels of this cohort are not mutually exclusive", "export with --layout table")
    return None


def _write_record(
    record: ImageRecord,
    stored: Stored,
    folder: Path,
    folders: dict[str, str] | None,
    write: Callable[[Path, ImageRecord, Array], str],
) -> dict[str, Any]:
    """Write one image and its mask; return its row of the table."""
    place = IMAGES if folders is None else next(folders[name] for name, value in record.labels.items() if value)
    name = re.sub(r"[^\w-]", "_", record.image_id)
    row: dict[str, Any] = {
        "file_name": f"{place}/{write(folder / place / name, record, stored.array)}",
        "image_id": record.image_id,
        "patient": record.patient,
        "study": record.study,
        "split": record.split,
        "modality": record.modality,
        "value_slope": stored.slope,
        "value_intercept": stored.intercept,
        "exact": stored.exact,
        "spacing_mm": None if record.spacing_mm is None else " ".join(str(float(mm)) for mm in record.spacing_mm),
        "voi_center": None if record.voi is None else float(record.voi.center),
        "voi_width": None if record.voi is None else float(record.voi.width),
    }
    if record.mask is not None:
        row["mask"] = f"{MASKS}/{write(folder / MASKS / name, record, record.mask)}"
    for label, value in record.labels.items():
        row[LABEL_PREFIX + label] = None if value is None else int(value)
    for attribute, stated in record.attributes.items():
        row[ATTRIBUTE_PREFIX + attribute] = stated
    row["text"] = record.text
    row["near_duplicate_of"] = record.near_duplicate_of
    if record.provenance is not None:
        row["prompt"] = record.provenance.prompt_json
        row["seed"] = record.provenance.seed
        row["bundle_digest"] = record.provenance.bundle_digest
    return row


def _write_png(path: Path, record: ImageRecord, values: Array) -> str:
    del record
    path.parent.mkdir(exist_ok=True)
    file = path.with_name(f"{path.name}.png")
    Image.fromarray(np.ascontiguousarray(values)).save(file, compress_level=4)
    return file.name


def _write_nifti(path: Path, record: ImageRecord, values: Array) -> str:
    """Write the axes reversed, ``(D, H, W)`` to NIfTI's ``(i, j, k)``, which the reader reverses again."""
    path.parent.mkdir(exist_ok=True)
    file = path.with_name(f"{path.name}.nii.gz")
    turned = _as_nifti_holds_it(values.T if values.ndim == 3 else values.T[..., np.newaxis])
    affine = None
    if record.affine is not None:
        affine = np.reshape(record.affine, (4, 4))[:, [2, 1, 0, 3]]
    kind = nib.Nifti1Image if max(turned.shape) <= NIFTI1_LONGEST else nib.Nifti2Image
    image = kind(np.asfortranarray(turned), affine, dtype=turned.dtype)  # 64 bits have to be requested
    if record.affine is None and record.spacing_mm is not None:
        zooms = tuple(reversed(record.spacing_mm))
        image.header.set_zooms(zooms if len(zooms) == 3 else (*zooms, 1.0))
    image.header.set_xyzt_units("mm")
    nib.save(image, file)
    return file.name


def _as_nifti_holds_it(values: Array) -> Array:
    """Return the values in a dtype that NIfTI has (nifti1.h): half precision becomes single.

    64-bit integers, which few tools read, are stored in the smallest type that holds each of them; those beyond 2**53
    are unchanged.
    """
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return narrowest(values) if values.dtype.kind in "iu" and values.dtype.itemsize == 8 else values


def _turned(record: ImageRecord) -> Stored:
    """Return values for a NIfTI file, of any dtype: those of a MONOCHROME1 image are inverted, others are kept."""
    pixels = record.pixels
    if not record.inverted:
        return Stored(pixels, 1.0, 0.0, exact=True)
    if pixels.dtype.kind == "f":
        return Stored(-pixels, -1.0, 0.0, exact=True)
    if pixels.dtype.kind == "i":
        return Stored(np.invert(pixels), -1.0, -1.0, exact=True)  # -1 - x, within the same type
    top = _top(pixels.max().item())
    return Stored(pixels.dtype.type(top) - pixels, -1.0, float(top), exact=float(top) == top)


def _top(largest: int) -> int:
    """Return the largest value of the bits that an unsigned image uses, at least 8."""
    return max(2 ** int(largest).bit_length() - 1, 255)


def _scaled(pixels: Array, black: float, white: float, dtype: np.dtype[Any]) -> Stored:
    """Map values from ``black`` to ``white`` to the whole range of ``dtype``; the direction may be inverted."""
    top = int(np.iinfo(dtype).max)
    slope = (white - black) / top if white != black else 1.0
    whole = np.rint((pixels.astype(np.float64) - black) / slope)
    stored = np.clip(whole, 0, top).astype(dtype)
    error = float(np.abs(stored * slope + black - pixels).max())
    return Stored(stored, slope, black, exact=error == 0, rounding=error / abs(_range(pixels)) if error else 0.0)


def _range(pixels: Array) -> float:
    return float(pixels.max()) - float(pixels.min()) or math.inf


def _facts(cohort: Cohort, folders: dict[str, str] | None, form: Format, values: Values, total: int) -> dict[str, Any]:
    schema = cohort.schema
    return {
        "cohort_digest": cohort.digest,
        "kind": schema.kind,
        "patients": schema.patients,
        "total_images": total,
        "format": form,
        "values": values,
        "mapping": MAPPING_NOTE,
        GUARD_FACT: GUARD,
        "texts": GUARD_NOTE,
        "label_folders": folders,
        "mask_values": {str(value): name for value, name in schema.mask_values.items()},
        "attributes": [spec.model_dump(mode="json") for spec in schema.attributes],
    }
