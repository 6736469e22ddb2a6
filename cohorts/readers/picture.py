"""PNG, JPEG and TIFF files: grey, palette, colour, alpha and CMYK pictures, and multi-page TIFF."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tifffile
from PIL import Image, ImageSequence

from cohorts.errors import Reason, UnreadableImage
from cohorts.readers.common import DecodedImage, ReadOptions, narrowest, require_size, settle_color, stack_exactly
from cohorts.records import Array

MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\x00": "TIFF", b"MM\x00*": "TIFF"}
BIG_TIFF_MAGIC = (b"II+\x00", b"MM\x00+")
_ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
_PNG_DEPTH, _PNG_COLOR_TYPE = 24, 25  # offsets in the IHDR chunk

Result = TypeVar("Result")


def picture_format(head: bytes) -> str | None:
    """``PNG``, ``JPEG`` or ``TIFF`` by the first bytes of a file, else ``None``."""
    if head[:4] in BIG_TIFF_MAGIC:
        return "TIFF"
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def read_pictures(path: Path, options: ReadOptions) -> list[DecodedImage]:
    """The picture of a file, or the pages of a TIFF: as images, or in a cohort of volumes as the slices of one.

    Alpha is applied on black, CMYK becomes RGB; an orientation tag is not applied, so that masks keep fitting.

    Raises:
        UnreadableImage: the file is broken, too large, or of a pixel format that would lose values.
    """
    pages, inverted = _carefully(lambda: _pages(path, options))
    volume = options.spatial_dims == 3 and len(pages) > 1
    if len(pages) > 1 and not volume and not options.split_frames:
        raise UnreadableImage(Reason.GEOMETRY, f"{len(pages)} pages while frames is reject")
    settled = [settle_color(page, options, volume=volume) if page.ndim == 3 else (page, 1) for page in pages]
    if volume:
        if len({pixels.shape for pixels, _ in settled}) > 1:
            raise UnreadableImage(Reason.GEOMETRY, "pages differ in size")
        return [DecodedImage(pixels=stack_exactly([pixels for pixels, _ in settled]), inverted=inverted)]
    return [
        DecodedImage(pixels=pixels, channels=channels, inverted=inverted, frame=number if len(settled) > 1 else None)
        for number, (pixels, channels) in enumerate(settled)
    ]


def read_mask(path: Path, options: ReadOptions) -> Array:
    """A mask: palette indices or grey values of a single-page picture, ``(H, W)``."""
    if picture_format(_head(path)) == "TIFF":
        pages, _ = _carefully(lambda: _pages(path, options))
        masks = [_grey_of(page) for page in pages]
        return masks[0] if len(masks) == 1 else np.stack(masks)
    return _carefully(lambda: _pillow_mask(path, options))


def _carefully(read: Callable[[], Result]) -> Result:
    """Run a reader; whatever a broken file raises becomes a refusal, and nothing is logged."""
    logger = logging.getLogger("tifffile")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except (UnreadableImage, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(Reason.TOO_LARGE, "more pixels than Pillow allows") from None
    except Exception as error:  # a broken file may raise anything
        raise UnreadableImage(Reason.UNDECODABLE, f"cannot be read as a picture ({type(error).__name__})") from None
    finally:
        logger.disabled = before


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(32)


def _pages(path: Path, options: ReadOptions) -> tuple[list[Array], bool]:
    """Pages as ``(H, W)`` or ``(H, W, 3)`` source values, and whether small ones are bright."""
    head = _head(path)
    if picture_format(head) != "TIFF":
        if head[_PNG_DEPTH] == 16 and head[_PNG_COLOR_TYPE] in {2, 4, 6} and head.startswith(b"\x89PNG"):
            raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, "a 16-bit PNG with colour or alpha would lose 8 bits")
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            require_size(image.width * image.height * len(image.getbands()) * 2, options)
            return [_pillow_page(image)], False
    with tifffile.TiffFile(path) as tiff:
        pages = [page for page in tiff.pages if not page.is_reduced]
        first = pages[0]
        require_size(int(first.size) * len(pages) * max(1, first.bitspersample // 8), options)
        if _needs_pillow(pages):
            return _pillow_tiff(path)
        inverted = first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        return [_tiff_page(page) for page in pages], inverted


def _needs_pillow(pages: list[Any]) -> bool:
    """Whether tifffile alone cannot decode (LZW, JPEG and others need a compiled helper that Pillow has)."""
    plain = {tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE}
    return any(
        page.compression not in plain
        or page.predictor != tifffile.PREDICTOR.NONE
        or page.photometric == tifffile.PHOTOMETRIC.YCBCR
        for page in pages
    )


def _pillow_page(image: Image.Image) -> Array:
    """Source values of one Pillow image, grey ``(H, W)`` or colour ``(H, W, 3)``."""
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return _on_black(np.asarray(image.convert("LA" if image.mode in {"LA", "La"} else "RGBA")))
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in {"L", "F", "I"} or image.mode.startswith("I;16"):
        return _native(np.asarray(image))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _pillow_tiff(path: Path) -> tuple[list[Array], bool]:
    with Image.open(path, formats=("TIFF",)) as image:
        white_is_zero = image.tag_v2.get(262) == 0  # type: ignore[attr-defined]  # a TiffImageFile
        pages = [_pillow_page(page) for page in ImageSequence.Iterator(image)]
    turned = [255 - page if white_is_zero and page.dtype == np.uint8 else page for page in pages]  # Pillow turns 8 bits
    return turned, white_is_zero


def _tiff_page(page: Any) -> Array:
    values = _native(page.asarray())
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif page.axes not in {"YX", "YXS"}:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"TIFF axes {page.axes}")
    if values.dtype == bool or page.bitspersample == 1:
        values = values.astype(np.uint8) * np.uint8(255)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        return _through_palette(values, np.asarray(page.colormap))
    if values.ndim == 2:
        return values
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED and values.dtype == np.uint8 and values.shape[-1] == 4:
        return np.asarray(Image.fromarray(np.ascontiguousarray(values), "CMYK").convert("RGB"))
    if values.shape[-1] in {2, 4} and page.photometric != tifffile.PHOTOMETRIC.SEPARATED:
        associated = tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
        return _first_or_rgb(values[..., :-1]) if associated else _on_black(values)
    if values.shape[-1] not in {1, 3}:
        raise UnreadableImage(Reason.UNSUPPORTED_PIXELS, f"{values.shape[-1]} samples per pixel")
    return _first_or_rgb(values)


def _native(values: Array) -> Array:
    """Little differences of storage removed: native byte order, no half precision, no needless doubles."""
    if values.dtype.kind == "f":
        return narrowest(values) if values.dtype.itemsize == 8 else values.astype(np.float32)
    if values.dtype.itemsize == 8:
        return narrowest(values)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _first_or_rgb(values: Array) -> Array:
    return values[..., 0] if values.shape[-1] == 1 else values


def _on_black(values: Array) -> Array:
    """Apply the last channel as opacity over black; opaque pictures keep their values."""
    color, alpha = _first_or_rgb(values[..., :-1]), values[..., -1]
    full = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1.0
    if (alpha == full).all():
        return np.ascontiguousarray(color)
    opacity = alpha.astype(np.float64) / full
    mixed = color * (opacity if color.ndim == 2 else opacity[..., np.newaxis])
    return (np.rint(mixed) if values.dtype.kind in "iu" else mixed).astype(values.dtype)


def _through_palette(indices: Array, colormap: Array) -> Array:
    """Colours of a TIFF palette, 8-bit where its 16-bit entries hold no more."""
    rgb: Array = np.moveaxis(colormap[:, indices], 0, -1)
    if (colormap % 257 == 0).all():
        return (rgb // 257).astype(np.uint8)
    return (rgb >> 8).astype(np.uint8) if (colormap % 256 == 0).all() else rgb.astype(np.uint16)


def _pillow_mask(path: Path, options: ReadOptions) -> Array:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        require_size(image.width * image.height * len(image.getbands()) * 2, options)
        if image.mode == "P":
            return np.asarray(image)
        return _grey_of(_pillow_page(image))


def _grey_of(values: Array) -> Array:
    if values.ndim == 2:
        return values
    if not (values == values[..., :1]).all():
        raise UnreadableImage(Reason.MASK_MISMATCH, "a mask in colour: store class numbers as grey values")
    return np.ascontiguousarray(values[..., 0])
