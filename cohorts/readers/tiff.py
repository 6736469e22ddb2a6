"""TIFF files: the tags of each page that define its samples are applied, or the file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from medphantom.cohorts.readers import tiff_bytes
from medphantom.cohorts.readers.common import ReadOptions, require_size
from medphantom.cohorts.readers.picture_values import (
    ORIENTATION_TAG,
    Page,
    first_or_rgb,
    known_orientation,
    native,
    on_black,
    opaque_numbers,
    turned,
    widened,
)
from medphantom.cohorts.readers.tiff_directory import directories
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

_PHOTOMETRIC = tifffile.PHOTOMETRIC
COLOR_SAMPLES = {
    _PHOTOMETRIC.MINISWHITE: 1,
    _PHOTOMETRIC.MINISBLACK: 1,
    _PHOTOMETRIC.RGB: 3,
    _PHOTOMETRIC.PALETTE: 1,
    _PHOTOMETRIC.SEPARATED: 4,
    _PHOTOMETRIC.YCBCR: 3,
}
GREY = {_PHOTOMETRIC.MINISWHITE, _PHOTOMETRIC.MINISBLACK}
FAX = {tifffile.COMPRESSION.CCITTRLE, tifffile.COMPRESSION.CCITT_T4, tifffile.COMPRESSION.CCITT_T6}
BY_PILLOW = FAX | {tifffile.COMPRESSION.JPEG}
ALPHA = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}
INK_SET_TAG, CMYK_INKS, GDAL_NODATA_TAG = 332, 1, 42113
WHOLE_SLIDE = ("is_svs", "is_ndpi", "is_scn", "is_philips", "is_bif", "is_avs", "is_qpi", "is_indica")
"""Slide scanner formats: beside the slide they contain a picture of its label, which may name a patient."""


def read(path: Path, options: ReadOptions) -> list[Page]:
    """Return the pages of a TIFF, each in its intended orientation; reduced copies of a page are left out.

    Raises:
        UnreadableImage: If the file is truncated, its pages are channels or times of one image, or a page has samples
            of unknown meaning or that are not decoded exactly.
    """
    return _read(path, options, numbers=False)


def read_numbers(path: Path, options: ReadOptions) -> list[Page]:
    """Return the numbers of a mask as stored: palette indices, and samples of few bits without spreading them."""
    pages = _read(path, options, numbers=True)
    if any(page.inverted for page in pages):
        raise UnreadableImage(Reason.MASK_MISMATCH, "a mask that is MinIsWhite: its background may be 0 or the largest")
    return pages


def _read(path: Path, options: ReadOptions, *, numbers: bool) -> list[Page]:
    listed = directories(path).total
    with tifffile.TiffFile(path, _multifile=False) as tiff:
        if len(tiff.pages) < listed or not listed:
            raise UnreadableImage(Reason.UNDECODABLE, "a TIFF directory that cannot be read")
        pages = list(tiff.pages)  # before the series are requested, which may leave pages without their own tags
        if any(not page.imagewidth or not page.imagelength for page in pages):
            raise UnreadableImage(Reason.UNDECODABLE, "a TIFF page without rows or columns")
        _require_plain_pages(tiff, pages, options)
        kept = [page for page in pages if not page.is_reduced]
        if not kept:
            raise UnreadableImage(Reason.NO_PIXELS, "a TIFF of reduced copies only")
        bits = sum(page.imagewidth * page.imagelength * page.samplesperpixel * _bits(page) for page in kept)
        require_size(bits // 8, options)
        return [_page(page, path, numbers=numbers) for page in kept]


def declared_bytes(path: Path) -> int:
    """Return the decoded size that the pages of a TIFF declare, without reduced copies; 0 if it will be refused."""
    try:
        return directories(path).declared_bytes
    except UnreadableImage as error:
        if error.reason is Reason.TOO_LARGE:
            raise
        return 0


def _bits(page: Any) -> int:
    return max(8, page.bitspersample) if isinstance(page.bitspersample, int) else 8


def _require_plain_pages(tiff: Any, pages: list[Any], options: ReadOptions) -> None:
    """Refuse pages that are channels of one image, times of a volume, or parts of a slide scanner's file."""
    if any(getattr(tiff, name, False) for name in WHOLE_SLIDE):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a whole-slide file, which may picture the slide's label")
    held = sum(page.imagewidth * page.imagelength * page.samplesperpixel * page.imagedepth for page in pages)
    total = 0
    for series in tiff.series:
        sizes = dict(zip(series.axes, series.shape, strict=True))
        if sizes.get("C", 1) > 1:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "pages that are channels of one image, not RGB")
        if sizes.get("T", 1) > 1 and options.spatial_dims == 3:
            raise UnreadableImage(Reason.GEOMETRY, "pages that are times, not slices")
        lengths = zip(series.axes, series.shape, strict=True)
        if options.spatial_dims == 3 and sum(length > 1 and axis not in "YXS" for axis, length in lengths) > 1:
            raise UnreadableImage(Reason.GEOMETRY, "pages along several axes, of which not all can be slices")
        total += int(np.prod(series.shape, dtype=object))
    if total > held:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "more images than the directories of the TIFF list")


def _page(page: Any, path: Path, *, numbers: bool) -> Page:
    photometric = page.photometric
    _require_known_samples(page)
    tag = page.tags.get(ORIENTATION_TAG)
    orientation = known_orientation(None if tag is None else int(tag.value))
    inverted = photometric == _PHOTOMETRIC.MINISWHITE
    if numbers and page.compression == tifffile.COMPRESSION.JPEG:
        raise UnreadableImage(Reason.MASK_MISMATCH, "a mask in JPEG, which blurs class numbers")
    if page.compression in BY_PILLOW:
        return Page(_by_pillow(page, path, numbers=numbers), inverted, orientation)  # Pillow has turned it
    values = native(tiff_bytes.stored_samples(page))
    _require_data(page, values)
    return Page(turned(_meant(page, values, numbers=numbers), orientation), inverted, orientation)


def _require_known_samples(page: Any) -> None:
    wanted = COLOR_SAMPLES.get(page.photometric)
    if wanted is None:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a TIFF photometric interpretation that is not read")
    if page.imagedepth != 1:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a TIFF page that is several slices deep")
    if page.photometric == _PHOTOMETRIC.YCBCR and page.compression != tifffile.COMPRESSION.JPEG:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a YCbCr TIFF that is not compressed as JPEG")
    further = page.samplesperpixel - wanted
    alpha = further == 1 and len(page.extrasamples) == 1 and page.extrasamples[0] in ALPHA
    if further and not (alpha and page.photometric in {_PHOTOMETRIC.MINISBLACK, _PHOTOMETRIC.RGB}):
        raise UnreadableImage(
            Reason.UNSUPPORTED_PIXELS, f"{page.samplesperpixel} samples per pixel, not all of them of known meaning"
        )
    if page.compression in BY_PILLOW:
        plain = page.bitspersample == (1 if page.compression in FAX else 8)
        if not plain or further or page.photometric in {_PHOTOMETRIC.PALETTE, _PHOTOMETRIC.SEPARATED}:
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a compressed TIFF that is not decoded exactly")


def _require_data(page: Any, values: Array) -> None:
    """Refuse pixels that GDAL's tag marks as no data: they are not tissue, and cannot be left out here."""
    tag = page.tags.get(GDAL_NODATA_TAG)
    try:
        nothing = float(str(tag.value).strip("\0 ")) if tag is not None else np.nan
    except ValueError:
        return
    if (values == nothing).any():
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "pixels that the file marks as no data")


def _meant(page: Any, samples: Array, *, numbers: bool) -> Array:
    """Return stored samples ``(H, W, S)`` as grey or RGB."""
    values = first_or_rgb(samples)
    if page.photometric == _PHOTOMETRIC.PALETTE:
        return values if numbers else _through_palette(values, np.asarray(page.colormap))
    if page.photometric == _PHOTOMETRIC.SEPARATED:
        if numbers:
            raise UnreadableImage(Reason.MASK_MISMATCH, "a mask in inks: store class numbers as grey values")
        return _from_inks(page, values)
    if page.samplesperpixel > COLOR_SAMPLES[page.photometric]:
        if numbers:
            return opaque_numbers(values)
        associated = page.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA  # colours are on black already
        return first_or_rgb(values[..., :-1]) if associated else on_black(values)
    if page.bitspersample < 8 and not numbers:
        return widened(values, page.bitspersample)
    return values


def _from_inks(page: Any, values: Array) -> Array:
    ink_set = page.tags.get(INK_SET_TAG)
    if values.dtype != np.uint8 or (ink_set is not None and int(ink_set.value) != CMYK_INKS):
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "inks that are not CMYK of 8 bits")
    return np.asarray(Image.fromarray(np.ascontiguousarray(values), "CMYK").convert("RGB"))


def _through_palette(indices: Array, colormap: Array) -> Array:
    """Return colours of a TIFF palette, in 8 bits if its 16-bit entries are no finer."""
    rgb: Array = np.moveaxis(colormap[:, indices], 0, -1)
    if (colormap % 257 == 0).all():
        return (rgb // 257).astype(np.uint8)
    return (rgb >> 8).astype(np.uint8) if (colormap % 256 == 0).all() else rgb.astype(np.uint16)


def _by_pillow(page: Any, path: Path, *, numbers: bool) -> Array:
    """Return a page in JPEG or fax code, 8 bits or 1 bit per sample; Pillow applies its orientation tag."""
    tiff_bytes.require_segments(page, len(page.dataoffsets))
    with Image.open(path, formats=("TIFF",)) as image:
        image.seek(page.index)
        values = np.asarray(image)
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(1 if numbers else 255)
    if page.photometric == _PHOTOMETRIC.MINISWHITE:  # Pillow makes bright what is small; here stored values are kept
        values = 255 - values
    return values
