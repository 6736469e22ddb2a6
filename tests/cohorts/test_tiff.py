"""TIFF tags: what they say of the samples is honoured exactly, or the file is refused and says why."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from PIL import Image, ImageOps

from medphantom.core.records import Array
from tests.cohorts.files import images_by_path, structure, take_in, write_png

GREY = structure(1)
WIDE = structure(4, dtype="uint16", high=65535)
RGB = np.stack([structure(1), structure(2), structure(3)], axis=-1)
RGB16 = np.stack([structure(seed, dtype="uint16", high=65535) for seed in (1, 2, 3)], axis=-1)
CODES = {"none": 1, "lzw": 5, "adobe_deflate": 8, "packbits": 32773, "lzma": 34925, "zstd": 50000}


def raw(samples: bytes, tags: dict[int, tuple[str, Any]], *, order: str = "<") -> bytes:
    """A TIFF of one strip that says of itself whatever these tags say (tag → struct format and value)."""
    body = samples + b"\0" * (len(samples) % 2)
    places, extra = {}, b""
    full = {273: ("I", 8), 279: ("I", len(samples)), **tags}
    for tag, (kind, value) in sorted(full.items()):
        values = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            places[tag] = struct.pack(f"{order}I", 8 + len(body) + len(extra))
            extra += packed + b"\0" * (len(packed) % 2)
        else:
            places[tag] = packed.ljust(4, b"\0")
    kinds = {"B": 1, "H": 3, "I": 4}
    directory = struct.pack(f"{order}H", len(full))
    for tag, (kind, value) in sorted(full.items()):
        count = len(value) if isinstance(value, tuple) else 1
        directory += struct.pack(f"{order}HHI", tag, kinds[kind], count) + places[tag]
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}I", 8 + len(body) + len(extra)) + body + extra + directory + bytes(4)


def tags_of(height: int, width: int, bits: int | tuple[int, ...], photometric: int = 1, **more: Any) -> dict[int, Any]:
    depth = bits if isinstance(bits, tuple) else (bits,)
    tags = {256: ("I", width), 257: ("I", height), 258: ("H", depth), 259: ("H", 1), 262: ("H", photometric)}
    return {**tags, 277: ("H", len(depth)), 278: ("I", height), **{int(tag[1:]): value for tag, value in more.items()}}


def pillow_tiff(pixels: Array, compression: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", compression=compression, **how)
    return stream.getvalue()


def only(tmp_path: Path, data: bytes, **options: Any) -> Array:
    (tmp_path / "s").mkdir(exist_ok=True)
    (tmp_path / "s" / "a").write_bytes(data)
    result = take_in(tmp_path / "s", tmp_path / "c", near_duplicates="off", **options)
    ((_, (image,)),) = images_by_path(result).items()
    return image


def refused(tmp_path: Path, data: bytes, **options: Any) -> tuple[str, str]:
    """Reason and detail of a file, beside one that is taken."""
    (tmp_path / "r").mkdir(exist_ok=True)
    tifffile.imwrite(tmp_path / "r" / "good.tif", np.stack([structure(n) for n in range(5)]), photometric="minisblack")
    (tmp_path / "r" / "a").write_bytes(data)
    result = take_in(tmp_path / "r", tmp_path / "refused", **options)
    table = pl.read_parquet(result.private_folder / "rejections.parquet")
    assert table["path"].to_list() == ["a"]
    return table["reason"][0], table["detail"][0]


def written(pixels: Array, **how: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **how)
    return stream.getvalue()


def lzw(data: bytes) -> bytes:
    """Bytes as libtiff packs them, out of a TIFF of one row."""
    packed = pillow_tiff(np.frombuffer(data, np.uint8)[np.newaxis], "tiff_lzw")
    with tifffile.TiffFile(io.BytesIO(packed)) as tiff:
        (place,), (size,) = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    return packed[place : place + size]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"])
@pytest.mark.parametrize("pixels", [GREY, WIDE, RGB, GREY.astype(np.float32) / 7], ids=["8", "16", "rgb", "float"])
def test_what_libtiff_packs_comes_back_to_the_last_bit(tmp_path: Path, compression: str, pixels: Array) -> None:
    found = only(tmp_path, pillow_tiff(pixels, compression), color="keep")
    assert np.array_equal(found, pixels)
    assert found.dtype == pixels.dtype


@pytest.mark.parametrize("pixels", [GREY, RGB, WIDE])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_horizontal_predictor_is_undone(tmp_path: Path, pixels: Array, compression: str) -> None:
    data = pillow_tiff(pixels, compression, tiffinfo={317: 2})
    assert np.array_equal(only(tmp_path, data, color="keep"), pixels)


def test_a_floating_point_predictor_is_undone(tmp_path: Path) -> None:
    pixels = GREY.astype(np.float32) / 7 - 3
    assert np.array_equal(only(tmp_path, pillow_tiff(pixels, "tiff_lzw", tiffinfo={317: 3})), pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_colour_of_sixteen_bits_keeps_all_of_them(tmp_path: Path, order: str, predictor: int) -> None:
    values = np.diff(RGB16, axis=1, prepend=RGB16[:, :1] * 0) if predictor == 2 else RGB16
    packed = lzw(values.astype(f"{order}u2").tobytes())
    tags = tags_of(32, 32, (16, 16, 16), 2, t259=("H", 5), t317=("H", predictor))
    assert np.array_equal(only(tmp_path, raw(packed, tags, order=order), color="keep"), RGB16)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_grey_of_few_bits(tmp_path: Path, bits: int, white_is_zero: bool, reverse: bool) -> None:
    numbers = structure(1, (32, 30), high=2**bits - 1)  # rows that end within a byte
    packed = np.packbits(np.unpackbits(numbers[..., None], axis=-1)[..., 8 - bits :].reshape(32, -1), axis=-1)
    if reverse:  # FillOrder 2: the first pixel in the lowest bit
        packed = np.packbits(np.unpackbits(packed[..., None], axis=-1)[..., ::-1].reshape(32, -1), axis=-1)
    tags = tags_of(32, 30, bits, 0 if white_is_zero else 1, t266=("H", 2 if reverse else 1))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a").write_bytes(raw(packed.tobytes(), tags))
    (record,) = take_in(tmp_path / "s", tmp_path / "c").cohort.records()
    assert np.array_equal(record.pixels, numbers * (255 // (2**bits - 1)))
    assert record.inverted == white_is_zero


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "group4", "jpeg"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_min_is_white_means_the_same_in_every_compression(
    tmp_path: Path, compression: str, white_is_zero: bool
) -> None:
    pixels = GREY > 128 if compression == "group4" else GREY
    data = pillow_tiff(pixels, compression, quality=100) if compression == "jpeg" else pillow_tiff(pixels, compression)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        place = tiff.pages[0].tags[262].valueoffset
    data = data[:place] + struct.pack("<H", 0 if white_is_zero else 1) + data[place + 2 :]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a").write_bytes(data)
    (record,) = take_in(tmp_path / "s", tmp_path / "c").cohort.records()
    assert record.inverted == white_is_zero
    difference = np.abs(record.pixels.astype(int) - pixels.astype(int) * (255 if pixels.dtype == bool else 1))
    assert difference.max() <= (3 if compression == "jpeg" else 0)


@pytest.mark.parametrize("how", [{"tile": (16, 16)}, {"rowsperstrip": 5}, {"bigtiff": True}, {"byteorder": ">"}])
@pytest.mark.parametrize("pixels", [WIDE[:30, :27], RGB16[:30, :27]], ids=["grey", "rgb"])
def test_layouts(tmp_path: Path, how: dict[str, Any], pixels: Array) -> None:
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    assert np.array_equal(only(tmp_path, written(pixels, photometric=photometric, **how), color="keep"), pixels)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_separate_planes(tmp_path: Path, compression: str | None) -> None:
    planes = np.moveaxis(RGB16, -1, 0)
    data = written(planes, photometric="rgb", planarconfig="separate", compression=compression, rowsperstrip=7)
    assert np.array_equal(only(tmp_path, data, color="keep"), RGB16)


def test_only_what_is_called_opacity_is_opacity(tmp_path: Path) -> None:
    alpha = np.full((32, 32, 1), 255, np.uint8)
    alpha[:, :16] = 51  # a fifth
    four = np.concatenate([RGB, alpha], axis=-1)
    bands = written(four, photometric="rgb", extrasamples=["unspecified"])
    assert refused(tmp_path, bands)[0] == "unsupported_pixels"
    found = only(tmp_path, written(four, photometric="rgb", extrasamples=["unassalpha"]), color="keep")
    assert np.array_equal(found, np.rint(RGB * np.where(alpha == 255, 1.0, 0.2)))


def test_colours_that_were_put_on_black_are_kept(tmp_path: Path) -> None:
    four = np.concatenate([RGB, GREY[..., None]], axis=-1)
    found = only(tmp_path, written(four, photometric="rgb", extrasamples=["assocalpha"]), color="keep")
    assert np.array_equal(found, RGB)


@pytest.mark.parametrize(
    "bands", [{"t338": ("H", 0)}, {}, {"t258": ("H", (8,) * 5), "t277": ("H", 5), "t338": ("H", (2, 0))}]
)
def test_bands_of_unknown_meaning_are_refused(tmp_path: Path, bands: dict[str, Any]) -> None:
    tags = {**tags_of(32, 32, (8,) * 4, 2), **{int(tag[1:]): value for tag, value in bands.items()}}
    assert refused(tmp_path, raw(RGB.tobytes() * 2, tags))[0] == "unsupported_pixels"


@pytest.mark.parametrize(
    "tags",
    [
        tags_of(32, 32, 12),
        tags_of(32, 32, 24, t339=("H", 3)),
        tags_of(16, 32, 64, t339=("H", 6)),  # complex
        tags_of(32, 32, 16, t339=("H", 4)),  # undefined
        tags_of(32, 32, (8, 8, 8), 8),  # CIE L*a*b*
        tags_of(32, 32, (8, 8, 8), 6),  # YCbCr, uncompressed
        tags_of(32, 32, 8, 4),  # transparency mask
        tags_of(32, 32, 8, 32803),  # colour filter array
        tags_of(32, 32, (16,) * 4, 5),  # inks of 16 bits
        tags_of(32, 32, (8,) * 4, 5, t332=("H", 2)),  # inks that are not CMYK
        tags_of(32, 32, 8, t259=("H", 34712)),  # JPEG 2000
        tags_of(32, 32, 8, t259=("H", 6)),  # JPEG as of TIFF 6.0
        tags_of(32, 32, 8, t279=("I", 0)),  # a strip that is left out
        tags_of(32, 32, 8, t32997=("I", 2)),  # two images deep
        tags_of(32, 32, (5, 6, 5), 2),
    ],
)
def test_what_is_not_read_exactly_is_refused(tmp_path: Path, tags: dict[int, Any]) -> None:
    assert refused(tmp_path, raw(RGB16.tobytes() * 4, tags))[0] == "unsupported_pixels"


def test_signed_and_half_precision(tmp_path: Path) -> None:
    signed = GREY.astype(np.int8)
    assert np.array_equal(only(tmp_path, raw(signed.tobytes(), tags_of(32, 32, 8, t339=("H", 2)))), signed)


def test_pixels_that_are_no_data_are_refused(tmp_path: Path) -> None:
    pixels = GREY.astype(np.float32)
    holes = np.where(pixels < 20, np.float32(-9999), pixels)
    marked = written(holes, extratags=[(42113, "s", 0, "-9999", True)])
    assert refused(tmp_path, marked) == ("unsupported_pixels", "pixels that the file marks as no data")
    assert np.array_equal(only(tmp_path, written(pixels, extratags=[(42113, "s", 0, "-9999", True)])), pixels)
    (tmp_path / "n").mkdir()
    write_png(tmp_path / "n" / "good.png", structure(3))
    (tmp_path / "n" / "a.tif").write_bytes(written(np.where(pixels < 20, np.nan, pixels).astype(np.float32)))
    table = pl.read_parquet(take_in(tmp_path / "n", tmp_path / "d").private_folder / "rejections.parquet")
    assert table["reason"].to_list() == ["not_finite"]


@pytest.mark.parametrize("axes", ["CYX", "CZYX", "ZCYX", "TZCYX"])
@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
@pytest.mark.parametrize("dims", [2, 3])
def test_channels_are_no_slices(tmp_path: Path, axes: str, kind: str, dims: int) -> None:
    if kind == "imagej" and axes == "CZYX":
        axes = "ZCYX"  # the order in which ImageJ stores them
    shape = {"T": 2, "Z": 4, "C": 2, "Y": 32, "X": 32}
    pixels = structure(1, (8 * 2, 32, 32))[: int(np.prod([shape[axis] for axis in axes[:-2]]))]
    how: dict[str, Any] = {"imagej": {"imagej": True}, "ome": {"ome": True}, "shaped": {}}[kind]
    stack = pixels.reshape([shape[axis] for axis in axes])
    data = written(stack, photometric="minisblack", metadata={"axes": axes}, **how)
    assert refused(tmp_path, data, spatial_dims=dims)[0] == "unsupported_pixels"


def test_times_are_images_but_no_slices(tmp_path: Path) -> None:
    stack = np.stack([structure(seed) for seed in range(20, 26)])
    data = written(stack, imagej=True, metadata={"axes": "TYX"})
    assert refused(tmp_path, data, spatial_dims=3)[0] == "geometry"
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a").write_bytes(data)
    assert np.array_equal(np.stack(images_by_path(take_in(tmp_path / "s", tmp_path / "c"))["a"]), stack)


def test_axes_of_unknown_meaning_are_not_all_slices(tmp_path: Path) -> None:
    volumes = structure(5, (2, 6, 16, 16))
    for name in "431":
        (tmp_path / name).mkdir()
    detail = refused(tmp_path / "4", written(volumes, photometric="minisblack"), spatial_dims=3)
    assert detail == ("geometry", "pages along several axes, of which not all can be slices")
    one = written(volumes[0], photometric="minisblack")
    assert np.array_equal(only(tmp_path / "3", one, spatial_dims=3), volumes[0])
    single = written(volumes[:1], photometric="minisblack")
    assert np.array_equal(only(tmp_path / "1", single, spatial_dims=3), volumes[0])


def test_a_page_without_columns_says_so(tmp_path: Path) -> None:
    found = refused(tmp_path, raw(GREY.tobytes(), tags_of(32, 0, 8)))
    assert found == ("undecodable", "a TIFF page without rows or columns")


def test_slices_of_a_hyperstack_are_slices(tmp_path: Path) -> None:
    stack = np.stack([structure(seed) for seed in range(20, 26)])
    data = written(stack, imagej=True, metadata={"axes": "ZYX"})
    assert np.array_equal(only(tmp_path, data, spatial_dims=3), stack)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("end", [-1, -30, 600, 100, 9])
def test_a_tiff_that_was_cut_off_is_truncated(tmp_path: Path, compression: str, end: int) -> None:
    assert refused(tmp_path, pillow_tiff(GREY, compression)[:end])[0] == "truncated"


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_pages_that_were_cut_off_are_not_lost_in_silence(tmp_path: Path, bigtiff: bool, share: float) -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, bigtiff=bigtiff) as writer:
        for seed in range(6):
            writer.write(structure(seed, (32 + seed, 32)), contiguous=False)
    whole = stream.getvalue()
    assert refused(tmp_path, whole[: int(len(whole) * share)])[0] == "truncated"


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    data = raw(GREY.tobytes(), tags_of(32, 32, 8))
    place = data[4:8]
    assert refused(tmp_path, data[:-4] + place)[0] == "undecodable"


def test_a_damaged_strip_is_undecodable(tmp_path: Path) -> None:
    tags = tags_of(32, 32, 8, t259=("H", 5))
    assert refused(tmp_path, raw(lzw(GREY[:20].tobytes()), tags))[0] == "undecodable"
    short = tags_of(32, 32, 8)
    (tmp_path / "r" / "good.tif").unlink()
    write_png(tmp_path / "q" / "good.png", GREY)
    (tmp_path / "q" / "a.tif").write_bytes(raw(GREY[:20].tobytes(), short))
    table = pl.read_parquet(take_in(tmp_path / "q", tmp_path / "d").private_folder / "rejections.parquet")
    assert table["reason"].to_list() == ["undecodable"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_a_tiff_lies_as_one_sees_it_whatever_its_compression(
    tmp_path: Path, orientation: int, compression: str
) -> None:
    data = pillow_tiff(structure(1, (24, 32)), compression, tiffinfo={274: orientation})
    plain = Image.open(io.BytesIO(pillow_tiff(structure(1, (24, 32)), compression)))
    plain.getexif()[274] = orientation
    assert np.array_equal(only(tmp_path, data), np.asarray(ImageOps.exif_transpose(plain)))


def test_a_mask_keeps_its_numbers_in_every_depth_and_palette(tmp_path: Path) -> None:
    numbers = structure(1, high=3)
    packed = np.packbits(np.unpackbits(numbers[..., None], axis=-1)[..., 6:].reshape(32, -1), axis=-1).tobytes()
    palette = tuple(int(v) for v in np.random.default_rng(1).integers(0, 65535, 12))
    files = {
        "bits": raw(packed, tags_of(32, 32, 2)),
        "palette": raw(packed, tags_of(32, 32, 2, 3, t320=("H", palette))),
        "white": raw(packed, tags_of(32, 32, 2, 0)),
    }
    for seed, (name, data) in enumerate(files.items()):
        write_png(tmp_path / "s" / "images" / f"{name}.png", structure(seed + 5))
        (tmp_path / "s" / "masks").mkdir(exist_ok=True)
        (tmp_path / "s" / "masks" / f"{name}.tif").write_bytes(data)
    result = take_in(tmp_path / "s", tmp_path / "c")
    table = pl.read_parquet(result.private_folder / "rejections.parquet")
    assert dict(zip(table["path"], table["reason"], strict=True)) == {"images/white.png": "mask_mismatch"}
    assert all(mask is not None and np.array_equal(mask, numbers) for mask in result.cohort.masks([0, 1]))


def test_files_of_slide_scanners_may_picture_a_label(tmp_path: Path) -> None:
    found = refused(tmp_path, written(RGB, photometric="rgb", description="Aperio Image Library v11", metadata=None))
    assert (found[0], "whole-slide" in found[1]) == ("unsupported_pixels", True)
