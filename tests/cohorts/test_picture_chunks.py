"""PNG chunks and JPEG markers: what they say of the pixels is honoured, or the picture is refused and says why."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from PIL import Image, ImageOps

from medphantom.core.records import Array
from tests.cohorts.files import images_by_path, rejections, structure, take_in, write_png

GREY = structure(1)
RGB = np.stack([structure(1), structure(2), structure(3)], axis=-1)
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: Array, *, depth: int = 8, color_type: int = 0, width: int = 0, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG of rows of bytes, with further chunks before and after its pixels."""
    head = struct.pack(">IIBBBBB", width or rows.shape[1], rows.shape[0], depth, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return PNG_HEAD + chunk(b"IHDR", head) + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def jpeg(pixels: Array = GREY, **how: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **how)
    return stream.getvalue()


def only(tmp_path: Path, data: bytes, **options: Any) -> Array:
    (tmp_path / "s").mkdir(exist_ok=True)
    (tmp_path / "s" / "a").write_bytes(data)
    result = take_in(tmp_path / "s", tmp_path / "c", near_duplicates="off", **options)
    ((_, (image,)),) = images_by_path(result).items()
    return image


def refused(tmp_path: Path, data: bytes) -> tuple[str, str]:
    """Reason and detail of a file, beside one that is taken."""
    write_png(tmp_path / "r" / "good.png", structure(9))
    (tmp_path / "r" / "a").write_bytes(data)
    result = take_in(tmp_path / "r", tmp_path / "refused")
    table = pl.read_parquet(result.private_folder / "rejections.parquet")
    assert table["path"].to_list() == ["a"]
    return table["reason"][0], table["detail"][0]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_is_spread_from_black_to_white(tmp_path: Path, depth: int) -> None:
    numbers = (structure(1, high=2**depth - 1)).astype(np.uint8)
    bits = np.unpackbits(numbers[..., np.newaxis], axis=-1)[..., 8 - depth :].reshape(32, -1)
    data = png(np.packbits(bits, axis=-1), depth=depth, width=32)
    assert np.array_equal(only(tmp_path, data), numbers * (255 // (2**depth - 1)))
    source = tmp_path / "m"
    write_png(source / "images" / "a.png", GREY)
    (source / "masks").mkdir()
    (source / "masks" / "a.png").write_bytes(data)
    mask = take_in(source, tmp_path / "d").cohort.masks([0])[0]
    assert mask is not None
    assert np.array_equal(mask, numbers)  # a class is its number, not a brightness


@pytest.mark.parametrize(("depth", "color_type"), [(8, 0), (16, 0), (8, 2), (4, 0)])
def test_a_transparent_value_is_black_and_adds_no_channel(tmp_path: Path, depth: int, color_type: int) -> None:
    if depth == 4:
        data = png(
            np.packbits(np.unpackbits(GREY[..., None], axis=-1)[..., :4].reshape(32, -1), axis=-1),
            depth=4,
            width=32,
            before=chunk(b"tRNS", struct.pack(">H", 3)),
        )
        expected = np.where(GREY // 16 == 3, 0, GREY // 16 * 17)
    elif color_type == 2:
        data = png(RGB.reshape(32, -1), color_type=2, width=32, before=chunk(b"tRNS", struct.pack(">3H", *RGB[4, 5])))
        expected = np.where((RGB[4, 5] == RGB).all(-1, keepdims=True), 0, RGB)
    else:
        values = structure(4, high=2**depth - 1, dtype=f"u{depth // 8}")
        data = png(
            values.astype(f">u{depth // 8}"), depth=depth, before=chunk(b"tRNS", struct.pack(">H", values[4, 5]))
        )
        expected = np.where(values == values[4, 5], 0, values)
    found = only(tmp_path, data, color="keep")
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("color_type", [2, 4, 6])
def test_sixteen_bits_and_several_channels_are_refused(tmp_path: Path, color_type: int) -> None:
    wide = structure(1, (32, 32 * {2: 3, 4: 2, 6: 4}[color_type]), "uint16", 65535).astype(">u2")
    assert refused(tmp_path, png(wide, depth=16, color_type=color_type, width=32))[0] == "unsupported_pixels"


def test_an_interlaced_png_is_whole_or_truncated(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 1)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [b"\0" + row.tobytes() for x, y, dx, dy in passes for row in GREY[y::dy, x::dx]]

    def made(kept: int) -> bytes:
        data = chunk(b"IDAT", zlib.compress(b"".join(rows[:kept])))
        return PNG_HEAD + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")

    assert np.array_equal(only(tmp_path, made(len(rows))), GREY)
    assert refused(tmp_path, made(len(rows) - 1))[0] == "truncated"


def test_gamma_and_profiles_change_no_value(tmp_path: Path) -> None:
    before = chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"sBIT", b"\5") + chunk(b"bKGD", b"\0\7")
    assert np.array_equal(only(tmp_path, png(GREY, before=before)), GREY)


def whole_png() -> bytes:
    return png(GREY)


def test_missing_rows_are_never_black(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY[:20]))  # in itself a whole stream
    assert refused(tmp_path, PNG_HEAD + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")) == (
        "truncated",
        "a PNG whose rows end before the picture does",
    )


@pytest.mark.parametrize("end", [-1, -3, -12, -13, -200])
def test_a_png_that_was_cut_off_is_truncated(tmp_path: Path, end: int) -> None:
    assert refused(tmp_path, whole_png()[:end])[0] == "truncated"


def test_a_png_that_was_altered_is_undecodable(tmp_path: Path) -> None:
    stored = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY), 0)
    whole = whole_png()
    head = whole[: whole.index(b"IDAT") - 4]
    altered = bytearray(head + chunk(b"IDAT", stored) + chunk(b"IEND", b""))
    altered[len(head) + 300] ^= 1  # a pixel: only checksums can tell
    assert refused(tmp_path, bytes(altered)) == ("undecodable", "a PNG chunk whose checksum is wrong")


def test_an_animation_is_refused_and_one_frame_is_a_picture(tmp_path: Path) -> None:
    assert np.array_equal(only(tmp_path, png(GREY, before=chunk(b"acTL", struct.pack(">II", 1, 0)))), GREY)
    assert refused(tmp_path, png(GREY, before=chunk(b"acTL", struct.pack(">II", 2, 0))))[0] == "unsupported_pixels"


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"optimize": True}])
@pytest.mark.parametrize("color", [False, True])
def test_jpegs_are_pillows_and_whole(tmp_path: Path, how: dict[str, Any], color: bool) -> None:
    data = jpeg(RGB if color else GREY, quality=95, **how)
    assert np.array_equal(only(tmp_path, data, color="keep"), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("end", "closed"),
    [(-1, False), (-2, False), *[(end, closed) for end in (-40, -200, 400) for closed in (False, True)]],
)
def test_a_jpeg_that_was_cut_off_is_truncated(tmp_path: Path, progressive: bool, end: int, closed: bool) -> None:
    """Also where a tool has put an end behind what was left, so that decoders fill the rest with grey."""
    cut = jpeg(structure(1, (64, 64)), quality=95, progressive=progressive)[:end]
    assert refused(tmp_path, cut + (b"\xff\xd9" if closed else b""))[0] == "truncated"


def test_twelve_bits_are_refused_for_what_they_are(tmp_path: Path) -> None:
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 1], data[frame + 4] = 0xC1, 12
    assert refused(tmp_path, bytes(data)) == ("unsupported_pixels", "a JPEG of 12 bits a sample: convert it to PNG")


def test_inks_are_believed_where_a_marker_says_how_they_are_stored(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(RGB).convert("CMYK").save(stream, "JPEG", quality=100)
    data = stream.getvalue()
    found = only(tmp_path, data, color="keep")
    assert np.array_equal(found, np.asarray(Image.open(stream).convert("RGB")))
    assert np.abs(found.astype(int) - RGB).mean() < 3
    place = data.index(b"\xff\xee")
    length = int.from_bytes(data[place + 2 : place + 4], "big")
    reason, detail = refused(tmp_path, data[:place] + data[place + 2 + length :])
    assert (reason, "unknown meaning" in detail) == ("unsupported_pixels", True)


def test_several_pictures_in_one_jpeg_are_never_only_the_first(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "MPO", save_all=True, append_images=[Image.fromarray(structure(5))])
    assert refused(tmp_path, stream.getvalue()) == ("unsupported_pixels", "a JPEG that holds several pictures")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_lies_as_one_sees_it(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    stream = io.BytesIO()
    Image.fromarray(structure(1, (24, 32))).save(stream, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(stream)))
    assert np.array_equal(only(tmp_path, stream.getvalue()), expected)


def test_a_mask_lies_as_its_picture_or_is_refused(tmp_path: Path) -> None:
    mask = (structure(5, (24, 32)) > 128).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    for name, tagged in (("a", True), ("b", False)):
        for folder, pixels in (("images", structure(ord(name), (24, 32))), ("masks", mask)):
            (tmp_path / "s" / folder).mkdir(parents=True, exist_ok=True)
            how: dict[str, Any] = {"exif": exif} if tagged or folder == "images" else {}
            Image.fromarray(pixels).save(tmp_path / "s" / folder / f"{name}.png", **how)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert rejections(result) == {"images/b.png": "mask_mismatch"}
    found = result.cohort.masks([0])[0]
    assert found is not None
    assert np.array_equal(found, np.rot90(mask, -1))


def mask_of(folder: Path, data: bytes, suffix: str = "png") -> Array | str:
    """What a mask file gives beside a picture of its size: its numbers, else the reason why it is refused."""
    write_png(folder / "s" / "images" / "a.png", structure(11))
    write_png(folder / "s" / "images" / "b.png", structure(12))
    write_png(folder / "s" / "masks" / "b.png", (CLASSES > 1).astype(np.uint8))
    (folder / "s" / "masks" / f"a.{suffix}").write_bytes(data)
    result = take_in(folder / "s", folder / "c")
    refused_paths = rejections(result)
    if refused_paths:
        return refused_paths["images/a.png"]
    (row,) = [row for row, found in enumerate(result.cohort.records()) if np.array_equal(found.pixels, structure(11))]
    mask = result.cohort.masks([row])[0]
    assert mask is not None
    return mask


CLASSES = structure(8, high=3)
CLEAR_BACKGROUND = np.where(CLASSES == 0, 0, 255).astype(np.uint8)
CLEAR_CLASS = np.where(CLASSES == 3, 100, 255).astype(np.uint8)
CLEAR = [np.full_like(CLASSES, 128), CLEAR_CLASS, np.full_like(CLASSES, 254)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [np.full_like(CLASSES, 255), CLEAR_BACKGROUND, *CLEAR])
def test_opacity_never_changes_the_numbers_of_a_mask(tmp_path: Path, channels: int, alpha: Array) -> None:
    samples = np.stack([*[CLASSES] * channels, alpha], axis=-1)
    tags = {"extrasamples": ["unassalpha"], "metadata": None, "planarconfig": "contig"}
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, photometric="minisblack" if channels == 1 else "rgb", **tags)
    data = {
        "png": png(samples.reshape(32, -1), width=32, color_type=4 if channels == 1 else 6),
        "tif": stream.getvalue(),
    }
    for suffix, encoded in data.items():
        found = mask_of(tmp_path / suffix, encoded, suffix)
        if any(alpha is clear for clear in CLEAR):
            assert found == "mask_mismatch"
        else:
            assert np.array_equal(found, CLASSES)


@pytest.mark.parametrize("depth", [2, 8])
@pytest.mark.parametrize("hidden", [0, 2])
def test_a_transparent_number_is_no_class(tmp_path: Path, depth: int, hidden: int) -> None:
    bits = np.unpackbits(CLASSES[..., None], axis=-1)[..., 8 - depth :]
    rows = np.packbits(bits.reshape(32, -1), axis=-1)
    found = mask_of(tmp_path, png(rows, depth=depth, width=32, before=chunk(b"tRNS", struct.pack(">H", hidden))))
    assert found == "mask_mismatch" if hidden else np.array_equal(found, CLASSES)


def test_a_mask_of_inks_or_in_jpeg_within_a_tiff_is_refused(tmp_path: Path) -> None:
    for name, mode, how in (("inks", "CMYK", "raw"), ("blurred", "L", "jpeg")):
        stream = io.BytesIO()
        Image.fromarray(CLASSES).convert(mode).save(stream, "TIFF", compression=how)
        assert mask_of(tmp_path / name, stream.getvalue(), "tif") == "mask_mismatch"


def test_a_mask_in_jpeg_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_png(tmp_path / "s" / "images" / f"{name}.png", structure(ord(name)))
    write_png(tmp_path / "s" / "masks" / "a.png", (GREY > 99).astype(np.uint8))
    (tmp_path / "s" / "masks" / "b.jpg").write_bytes(jpeg((GREY > 99).astype(np.uint8)))
    assert rejections(take_in(tmp_path / "s", tmp_path / "c")) == {"images/b.png": "mask_mismatch"}


@pytest.mark.parametrize("data", [PNG_HEAD + b" broken", PNG_HEAD + chunk(b"IDAT", b""), png(GREY, color_type=5)])
def test_what_only_begins_like_a_png_is_undecodable(tmp_path: Path, data: bytes) -> None:
    assert refused(tmp_path, data)[0] == "undecodable"


@pytest.mark.parametrize("entries", [3, 4])
def test_every_palette_index_has_a_colour(tmp_path: Path, entries: int) -> None:
    palette = chunk(b"PLTE", bytes(range(10, 10 + 3 * entries)))
    data = png(CLASSES, color_type=3, before=palette)
    if entries == 4:
        assert only(tmp_path, data).shape == (32, 32)
    else:
        assert refused(tmp_path, data) == ("undecodable", "a PNG with palette indices beyond its palette")


def test_pictures_without_rows_say_so(tmp_path: Path) -> None:
    empty = png(GREY[:0], width=32)
    assert refused(tmp_path, empty) == ("undecodable", "a PNG without rows or columns")
    (tmp_path / "jpeg").mkdir()
    encoded = jpeg()
    at = encoded.find(b"\xff\xc0") + 5
    assert "no rows or columns" in refused(tmp_path / "jpeg", encoded[:at] + b"\0\0" + encoded[at + 2 :])[1]
