"""PNG, JPEG and TIFF files: grey, palette, colour, alpha and CMYK pictures, and multi-page TIFF."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from medphantom.cohorts.readers import jpeg, png, tiff
from medphantom.cohorts.readers.common import (
    NOT_A_FILES_FAULT,
    DecodedImage,
    ReadOptions,
    require_size,
    settle_color,
    stack_exactly,
)
from medphantom.cohorts.readers.picture_values import Page
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.records import Array

MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\x00": "TIFF", b"MM\x00*": "TIFF"}
BIG_TIFF_MAGIC = (b"II+\x00", b"MM\x00+")

Result = TypeVar("Result")


def picture_format(head: bytes) -> str | None:
    """Return ``PNG``, ``JPEG`` or ``TIFF`` by the first bytes of a file, else ``None``."""
    if head[:4] in BIG_TIFF_MAGIC:
        return "TIFF"
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def declared_bytes(path: Path, head: bytes) -> int:
    """Return the decoded size that a picture declares; 0 if its reader will report an error.

    Args:
        path: Path of the file.
        head: First bytes of the file.
    """
    kind = picture_format(head)
    if kind == "PNG":
        return png.declared_bytes(head)
    return jpeg.declared_bytes(path) if kind == "JPEG" else tiff.declared_bytes(path)


def read_pictures(path: Path, options: ReadOptions) -> list[DecodedImage]:
    """Return the picture of a file, or the pages of a TIFF: as images, or in a cohort of volumes as slices of one.

    Alpha is applied on black, CMYK becomes RGB, and an orientation tag is applied, so that an image is upright.

    Raises:
        UnreadableImage: If the file is damaged, truncated, too large, or of a pixel format that would lose values.
    """
    pages = _carefully(lambda: _pages(path, options))
    volume = options.spatial_dims == 3 and len(pages) > 1
    if len(pages) > 1 and not volume and not options.split_frames:
        raise UnreadableImage(Reason.GEOMETRY, f"{len(pages)} pages while frames is reject")
    settled = [_settled(page, options, volume=volume) for page in pages]
    if volume:
        if len({(page.values.shape[:2], page.inverted, page.orientation) for page in pages}) > 1:
            raise UnreadableImage(Reason.GEOMETRY, "pages differ in size, orientation or the direction of brightness")
        first = pages[0]
        pixels = stack_exactly([values for values, _ in settled])
        return [DecodedImage(pixels=pixels, inverted=first.inverted, orientation=first.orientation)]
    return [
        DecodedImage(
            pixels=np.ascontiguousarray(pixels),
            channels=channels,
            inverted=page.inverted,
            orientation=page.orientation,
            frame=number if len(pages) > 1 else None,
        )
        for number, (page, (pixels, channels)) in enumerate(zip(pages, settled, strict=True))
    ]


def read_mask(path: Path, options: ReadOptions) -> tuple[Array, int]:
    """Return a mask ``(H, W)``, or ``(pages, H, W)``, and the orientation tag that was applied to it.

    Its numbers are palette indices or grey values as stored, also below 8 bits per sample.

    Raises:
        UnreadableImage: As for :func:`read_pictures`, and if numbers may differ from those that were drawn.
    """
    pages = _carefully(lambda: _mask_pages(path, options))
    masks = [_grey_of(page.values) for page in pages]
    if len({(mask.shape, page.orientation) for mask, page in zip(masks, pages, strict=True)}) > 1:
        raise UnreadableImage(Reason.MASK_MISMATCH, "a mask whose pages differ in size or orientation")
    return (masks[0] if len(masks) == 1 else stack_exactly(masks)), pages[0].orientation


def _settled(page: Page, options: ReadOptions, *, volume: bool) -> tuple[Array, int]:
    return settle_color(page.values, options, volume=volume) if page.values.ndim == 3 else (page.values, 1)


def _carefully(read: Callable[[], Result]) -> Result:
    """Run a reader; whatever a damaged file raises becomes a rejection, and nothing is logged."""
    logger = logging.getLogger("tifffile")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except (UnreadableImage, *NOT_A_FILES_FAULT):
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(Reason.TOO_LARGE, "more pixels than Pillow allows") from None
    except Exception as error:  # a broken file may raise anything
        if isinstance(error, OSError) and "truncated" in str(error):  # Pillow's word for data that end too early
            raise UnreadableImage(Reason.TRUNCATED, "the file ends before its pixels do") from None
        raise UnreadableImage(Reason.UNDECODABLE, f"cannot be read as a picture ({type(error).__name__})") from None
    finally:
        logger.disabled = before


def _whole(path: Path, options: ReadOptions) -> bytes:
    require_size(path.stat().st_size, options)
    return path.read_bytes()


def _format(path: Path) -> str | None:
    with path.open("rb") as stream:
        return picture_format(stream.read(32))


def _pages(path: Path, options: ReadOptions) -> list[Page]:
    kind = _format(path)
    if kind == "TIFF":
        return tiff.read(path, options)
    return [(png if kind == "PNG" else jpeg).read(_whole(path, options), options)]


def _mask_pages(path: Path, options: ReadOptions) -> list[Page]:
    kind = _format(path)
    if kind == "TIFF":
        return tiff.read_numbers(path, options)
    if kind != "PNG":
        raise UnreadableImage(
            Reason.MASK_MISMATCH, "a mask in JPEG, which blurs class numbers: give PNG, TIFF or NIfTI"
        )
    return [png.read_numbers(_whole(path, options), options)]


def _grey_of(values: Array) -> Array:
    if values.ndim == 2:
        return values
    if not (values == values[..., :1]).all():
        raise UnreadableImage(Reason.MASK_MISMATCH, "a mask in colour: store class numbers as grey values")
    return np.ascontiguousarray(values[..., 0])
