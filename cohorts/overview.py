"""Overview of a cohort: counts per split, rare labels, and a preview of the network input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.readers.common import luminance
from medphantom.cohorts.records import ATTRIBUTE_PREFIX, LABEL_PREFIX, LEFT_OUT_SPLIT, SPLITS, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.core.records import Array

GAP, CAPTION = 4, 12
SHEET_LIMIT = 400  # images on one sheet


@dataclass(frozen=True)
class Overview:
    """Counts of a cohort.

    Attributes:
        splits: Images and patients per split.
        labels: Present, absent and missing images per label and split, and patients with the label.
        attributes: Images with a value per attribute and split, and for continuous ones mean, minimum and maximum.
        categories: Images per categorical attribute, category and split.
        shapes: Images per array shape and dtype.
        warnings: Warnings about rare labels or overlapping splits.
    """

    splits: pl.DataFrame
    labels: pl.DataFrame
    attributes: pl.DataFrame
    categories: pl.DataFrame
    shapes: pl.DataFrame
    warnings: tuple[str, ...]


def overview(cohort: Cohort) -> Overview:
    """Count labels and attributes per split."""
    rows = cohort.manifest
    return Overview(
        splits=rows.group_by("split").agg(images=pl.len(), patients=pl.col("patient").n_unique()).sort(_split_order()),
        labels=_label_counts(cohort),
        attributes=_attribute_counts(cohort),
        categories=_category_counts(cohort),
        shapes=rows.group_by("group").agg(images=pl.len()).sort("images", descending=True),
        warnings=cohort_warnings(cohort),
    )


def cohort_warnings(cohort: Cohort) -> tuple[str, ...]:
    """Return warnings before training on a real cohort; none for synthetic ones."""
    if cohort.schema.kind != "real":
        return ()
    return (*_split_warnings(cohort), *_rare_label_warnings(cohort), *_near_duplicate_warnings(cohort))


def left_out_sentence(cohort: Cohort) -> str | None:
    """Report how many real images are used for neither training nor scores, and why; ``None`` if there are none."""
    total = len(cohort.rows(LEFT_OUT_SPLIT)) if cohort.schema.kind == "real" else 0
    if not total:
        return None
    return (
        f"{total} real images outside train nearly repeat a training image of another patient and were left out of "
        "every score, of the copy search and of utility"
    )


def contact_sheet(
    cohort: Cohort,
    rows: Sequence[int],
    preprocess: Preprocess | None = None,
    *,
    columns: int = 6,
    side: int = 128,
) -> Image.Image:
    """Draw the source view beside the network view of some images, in one picture.

    The source view is the image through its own VOI window, else through its 0.5th to 99.5th percentile, with large
    values bright and masks outlined; of a volume the middle slice. The network view is the output of ``Preprocess``,
    enlarged.

    Args:
        cohort: Cohort that is shown.
        rows: Row numbers; at most 400 are drawn.
        preprocess: Preprocessing of the network; ``None`` draws only the source view.
        columns: Number of images per line.
        side: Side of one view in pixels.

    Returns:
        RGB picture of all views.
    """
    chosen = list(rows)[:SHEET_LIMIT]
    views = 1 if preprocess is None else 2
    width, height = views * side + GAP, side + CAPTION + GAP
    lines = max(1, -(-len(chosen) // columns))
    sheet = Image.new("RGB", (columns * width + GAP, lines * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, record in enumerate(cohort.records(chosen)):
        left, top = GAP + place % columns * width, GAP + place // columns * height
        sheet.paste(_tile(source_view(record), side), (left, top))
        if preprocess is not None:
            network = preprocess.apply(record.pixels, record.channels, inverted=record.inverted)
            sheet.paste(_tile(_network_view(network), side), (left + side, top))
        present = [name for name, value in record.labels.items() if value]
        caption = f"{chosen[place]} {record.split} {' '.join(present)}"
        draw.text((left, top + side), caption[: views * side // 6], fill="black")
    return sheet


def source_view(record: ImageRecord) -> Array:
    """Return an image for display, ``(H, W, 3)`` uint8: large values bright, middle slice of a volume, mask drawn."""
    pixels, mask = record.pixels, record.mask
    if len(record.spatial_shape) == 3:
        middle = pixels.shape[0] // 2
        pixels, mask = pixels[middle], None if mask is None else mask[middle]
    low, high = display_range(record)
    unit = np.clip((pixels.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)
    if record.inverted:
        unit = 1 - unit
    grey = np.rint(unit * 255).astype(np.uint8)
    rgb = grey if record.channels == 3 else np.repeat(grey[..., np.newaxis], 3, axis=-1)
    if mask is not None:
        inner = np.zeros(mask.shape, dtype=bool)
        inner[1:-1, 1:-1] = (
            (mask[1:-1, 1:-1] == mask[:-2, 1:-1])
            & (mask[1:-1, 1:-1] == mask[2:, 1:-1])
            & (mask[1:-1, 1:-1] == mask[1:-1, :-2])
            & (mask[1:-1, 1:-1] == mask[1:-1, 2:])
        )
        rgb[(mask > 0) & ~inner] = (255, 160, 0)
    return rgb


def display_range(record: ImageRecord) -> tuple[float, float]:
    """Return source values shown as black and white: all 8 bits, else the VOI window, else percentiles 0.5 and 99.5."""
    if record.pixels.dtype == np.uint8:
        return 0.0, 255.0
    if record.voi is not None:
        # PS3.3 C.11.2.1.2.1, linear: from center - 0.5 - (width - 1) / 2 to center - 0.5 + (width - 1) / 2
        half = max(record.voi.width - 1, 1e-6) / 2
        return record.voi.center - 0.5 - half, record.voi.center - 0.5 + half
    values = luminance(record.pixels) if record.channels == 3 else record.pixels
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(high)


def _network_view(network: Array) -> Array:
    planes = network[:, network.shape[1] // 2] if network.ndim == 4 else network
    unit = np.rint((np.clip(planes, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.moveaxis(unit if len(unit) == 3 else np.repeat(unit, 3, axis=0), 0, -1)


def _tile(view: Array, side: int) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(view))
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    tile = Image.new("RGB", (side, side), (32, 32, 48))
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    tile.paste(picture.resize(size, resample), ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile


def _split_order() -> pl.Expr:
    return pl.col("split").replace_strict({name: n for n, name in enumerate(SPLITS)}, default=len(SPLITS))


def _label_counts(cohort: Cohort) -> pl.DataFrame:
    parts = []
    for name in cohort.schema.labels:
        stated = pl.col(LABEL_PREFIX + name)
        counts = cohort.manifest.group_by("split").agg(
            present=stated.sum().cast(pl.Int64),
            absent=(~stated).sum().cast(pl.Int64),
            not_observed=stated.is_null().sum().cast(pl.Int64),
            patients_present=pl.col("patient").filter(stated).n_unique().cast(pl.Int64),
        )
        parts.append(counts.sort(_split_order()).select(pl.lit(name).alias("label"), pl.all()))
    return pl.concat(parts) if parts else pl.DataFrame(schema={"label": pl.String, "split": pl.String})


def _attribute_counts(cohort: Cohort) -> pl.DataFrame:
    parts = []
    for spec in cohort.schema.attributes:
        column = pl.col(ATTRIBUTE_PREFIX + spec.name)
        number = column if spec.kind == "continuous" else pl.lit(None, dtype=pl.Float64)
        counts = cohort.manifest.group_by("split").agg(
            stated=column.is_not_null().sum().cast(pl.Int64),
            not_observed=column.is_null().sum().cast(pl.Int64),
            mean=number.mean(),
            lowest=number.min(),
            highest=number.max(),
        )
        parts.append(counts.sort(_split_order()).select(pl.lit(spec.name).alias("attribute"), pl.all()))
    return pl.concat(parts) if parts else pl.DataFrame(schema={"attribute": pl.String, "split": pl.String})


def _category_counts(cohort: Cohort) -> pl.DataFrame:
    parts = []
    for spec in cohort.schema.attributes:
        if spec.kind == "categorical":
            column = ATTRIBUTE_PREFIX + spec.name
            counts = cohort.manifest.group_by(category=column, split="split").agg(images=pl.len())
            parts.append(counts.sort("category", _split_order()).select(pl.lit(spec.name).alias("attribute"), pl.all()))
    return pl.concat(parts) if parts else pl.DataFrame(schema={"attribute": pl.String, "category": pl.String})


def _split_warnings(cohort: Cohort) -> list[str]:
    patients = cohort.manifest["patient"].n_unique()
    empty = [split for split in SPLITS if not cohort.rows(split)]
    if not empty:
        return []
    return [f"no image in {', '.join(empty)}: {patients} patients are too few, or the split leaves it empty"]


def _rare_label_warnings(cohort: Cohort) -> list[str]:
    found = []
    for name in cohort.schema.labels:
        with_label = cohort.manifest.filter(pl.col(LABEL_PREFIX + name))
        present = set(with_label["split"].unique())
        lacking = [split for split in SPLITS if split not in present]
        if lacking:
            total = with_label["patient"].n_unique()
            found.append(
                f"label {name!r} is too rare to split: no patient with it in {', '.join(lacking)} ({total} in all)"
            )
    return found


def _near_duplicate_warnings(cohort: Cohort) -> list[str]:
    rows = cohort.manifest.select("image_id", "patient", "split", "near_duplicate_of")
    pairs = rows.drop_nulls("near_duplicate_of").join(
        rows.select(near_duplicate_of="image_id", other_patient="patient", other_split="split"), on="near_duplicate_of"
    )
    if pairs.is_empty():
        return []
    patients = cast("int", (pairs["patient"] != pairs["other_patient"]).sum())
    splits = cast("int", (pairs["split"] != pairs["other_split"]).sum())
    known = cohort.schema.patients == "known"
    across = (
        f"{patients} of them across patients, {splits} across splits" if known else f"{splits} of them across splits"
    )
    return [f"{len(pairs)} images nearly repeat an earlier one, {across}"]
