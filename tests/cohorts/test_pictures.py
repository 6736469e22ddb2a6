"""PNG, JPEG and TIFF: every pixel format keeps its values or is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medphantom.core.records import Array
from tests.cohorts.files import images_by_path, reasons, rejections, structure, take_in, write_png

GREY = structure(1)
RGB = np.stack([structure(1), structure(2), structure(3)], axis=-1)


def png(path: Path, depth: int, color_type: int, rows: Array) -> None:
    """A PNG of a kind that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], depth, color_type, 0, 0, 0)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )


def only(tmp_path: Path, **options: object) -> Array:
    result = take_in(tmp_path, tmp_path.parent / f"{tmp_path.name}-c", near_duplicates="off", **options)
    ((_, (image,)),) = images_by_path(result).items()
    return image


@pytest.mark.parametrize("kind", ["grey", "grey16", "palette", "grey+alpha", "rgb+alpha", "opaque", "bits", "jpeg"])
def test_pillow_formats(tmp_path: Path, kind: str) -> None:
    alpha = np.full((32, 32), 255, np.uint8)
    alpha[:, :16] = 51  # a fifth
    fifth = np.where(alpha == 255, 1.0, 0.2)
    if kind == "jpeg":
        Image.fromarray(GREY).save(tmp_path / "a.jpg", quality=95)
        assert np.array_equal(only(tmp_path), np.asarray(Image.open(tmp_path / "a.jpg")))
        return
    made: dict[str, tuple[Image.Image, Array]] = {
        "grey": (Image.fromarray(GREY), GREY),
        "grey16": (Image.fromarray(structure(4, dtype="uint16", high=65535)), structure(4, dtype="uint16", high=65535)),
        "palette": (Image.fromarray(RGB).quantize(16), np.asarray(Image.fromarray(RGB).quantize(16).convert("RGB"))),
        "grey+alpha": (Image.fromarray(np.stack([GREY, alpha], -1), "LA"), np.rint(GREY * fifth)),
        "rgb+alpha": (Image.fromarray(np.dstack([RGB, alpha])), np.rint(RGB * fifth[..., np.newaxis])),
        "opaque": (Image.fromarray(np.dstack([RGB, alpha * 0 + 255])), RGB),
        "bits": (Image.fromarray(GREY > 128), (GREY > 128) * 255),
    }
    image, expected = made[kind]
    image.save(tmp_path / "a.png")
    found = only(tmp_path, color="keep")
    assert np.array_equal(found, expected)
    assert found.dtype == (np.uint16 if kind == "grey16" else np.uint8)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.array_equal(only(tmp_path, color="keep"), np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB")))


def test_pictures_that_would_lose_values_or_are_broken_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "s"
    write_png(source / "good.png", GREY)
    png(source / "rgb16.png", 16, 2, structure(1, (32, 96), "uint16", 65535).astype(">u2"))
    whole = (source / "good.png").read_bytes()
    (source / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(GREY).save(tmp_path / "a.jpg")
    (source / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])
    png(source / "bomb.png", 8, 0, np.zeros((1, 1), np.uint8))
    bomb = bytearray((source / "bomb.png").read_bytes())
    bomb[16:24] = struct.pack(">II", 60000, 60000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    (source / "bomb.png").write_bytes(bytes(bomb))
    write_png(source / "small.png", structure(5, (7, 40)))
    result = take_in(source, tmp_path / "c")
    assert rejections(result) == {
        "bomb.png": "too_large",
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "rgb16.png": "unsupported_pixels",
        "small.png": "too_small",
    }
    assert reasons(take_in(source, tmp_path / "d", min_side=4, color="reject")).get("too_small") is None


@pytest.mark.parametrize(
    ("values", "how"),
    [
        (structure(1, dtype="uint16", high=65535), {}),
        (structure(1, dtype="int16", high=999) - 500, {}),
        (structure(1).astype(np.float32) / 7, {}),
        (structure(1), {"compression": "zlib"}),
        (structure(1), {"bigtiff": True}),
        (structure(1, dtype="uint16", high=65535), {"byteorder": ">"}),
        (RGB, {"photometric": "rgb"}),
        (np.moveaxis(RGB, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    ],
)
def test_tiff_values(tmp_path: Path, values: Array, how: dict[str, object]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, **how)
    expected = RGB if "photometric" in how else values
    found = only(tmp_path, color="keep")
    assert np.array_equal(found, expected)
    assert found.dtype == np.dtype(values.dtype.name)


def test_compressed_tiff_goes_through_pillow_to_the_same_values(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert np.array_equal(only(tmp_path), GREY)


def test_tiff_pages_are_images_or_the_slices_of_a_volume(tmp_path: Path) -> None:
    pages = np.stack([structure(seed, dtype="uint16", high=4095) for seed in range(5)])
    (tmp_path / "s").mkdir()
    tifffile.imwrite(tmp_path / "s" / "a.tif", pages, photometric="minisblack")
    images = images_by_path(take_in(tmp_path / "s", tmp_path / "c"))["a.tif"]
    assert np.array_equal(np.stack(images), pages)
    volume = take_in(tmp_path / "s", tmp_path / "d", spatial_dims=3).cohort
    assert np.array_equal(volume.pixels([0])[0], pages)


def test_min_is_white_is_kept_and_reported(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    tifffile.imwrite(tmp_path / "s" / "a.tif", GREY, photometric="miniswhite")
    sixteen = structure(2, dtype="uint16", high=65535)
    tifffile.imwrite(tmp_path / "s" / "b.tif", sixteen, photometric="miniswhite")
    with Image.open(tmp_path / "s" / "a.tif") as image:
        image.save(tmp_path / "s" / "c.tif", compression="tiff_lzw")  # Pillow turned it on reading
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    first, second, third = cohort.records()
    assert np.array_equal(first.pixels, GREY)
    assert np.array_equal(second.pixels, sixteen)
    assert np.array_equal(third.pixels, 255 - GREY)
    assert [first.inverted, second.inverted, third.inverted] == [True, True, False]
    assert third.near_duplicate_of == first.image_id  # they look the same


def test_tiff_palette(tmp_path: Path) -> None:
    colormap = np.stack([np.arange(256) * 257, np.arange(256)[::-1] * 257, np.full(256, 257)]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="palette", colormap=colormap)
    expected = np.stack([GREY, 255 - GREY, np.ones_like(GREY)], axis=-1)
    assert np.array_equal(only(tmp_path, color="keep"), expected)


def test_picture_masks_keep_their_numbers(tmp_path: Path) -> None:
    source = tmp_path / "s"
    mask = (GREY // 100).astype(np.uint8)
    for number, name in enumerate("abcd"):
        write_png(source / "images" / f"{name}.png", structure(number))
    write_png(source / "masks" / "a.png", mask)
    palette = Image.fromarray(mask, mode="P")
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    palette.save(source / "masks" / "b_mask.png")
    tifffile.imwrite(source / "masks" / "c.tif", mask)
    write_png(source / "masks" / "d.png", RGB)
    result = take_in(source, tmp_path / "c")
    assert rejections(result) == {"images/d.png": "mask_mismatch"}
    assert all(np.array_equal(found, mask) for found in result.cohort.masks([0, 1, 2]))
    assert result.cohort.schema.mask_values == {0: "background", 1: "1", 2: "2"}


def test_folders_are_classes_below_split_folders(tmp_path: Path) -> None:
    for number in range(24):
        part, name = ("train", "test")[number % 2], ("normal", "pneumonia", "other")[number % 3]
        write_png(tmp_path / "s" / part / name / "deep" / f"{number}.png", structure(number))
    schema = take_in(tmp_path / "s", tmp_path / "c", folders="classes").cohort.schema
    assert schema.labels == ("normal", "other", "pneumonia")
    assert schema.exclusive
    assert take_in(tmp_path / "s", tmp_path / "d", folders="ignore").cohort.schema.labels == ()


def test_patients_out_of_paths(tmp_path: Path) -> None:
    for number in range(6):
        write_png(tmp_path / "s" / f"patient{number // 2:05d}" / f"view{number % 2}.png", structure(number))
    assert take_in(tmp_path / "s", tmp_path / "a", folders="ignore").cohort.schema.patients == "per_image"
    cohort = take_in(tmp_path / "s", tmp_path / "c", patient_pattern=r"(patient\d+)/").cohort
    assert cohort.schema.patients == "known"
    assert cohort.manifest["patient"].n_unique() == 3
