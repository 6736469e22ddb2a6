"""Near duplicates: found through what copying does to an image, silent about images that are only similar."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from medphantom.cohorts.duplicates import NEAR_CORRELATION, NearDuplicates, similarity, thumbnail
from medphantom.core.records import Array
from tests.cohorts.files import structure


def picture(seed: int) -> Array:
    return structure(seed, (96, 80))


def recompressed(pixels: Array) -> Array:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


COPIES = {
    "recompressed": recompressed,
    "half size": lambda pixels: np.asarray(Image.fromarray(pixels).resize((40, 48))),
    "darker": lambda pixels: (pixels * 0.6 + 20).astype(np.uint8),
    "inverted": lambda pixels: 255 - pixels,
    "16 bit": lambda pixels: pixels.astype(np.uint16) * 200,
    "blurred": lambda pixels: ndimage.gaussian_filter(pixels.astype(float), 1.0),
    "noisy": lambda pixels: pixels + np.random.default_rng(0).normal(0, 10, pixels.shape),
}


def _take(search: NearDuplicates, thumb: Array) -> list[int]:
    near = search.similar(thumb)
    search.add(thumb)
    return near


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_among_many_others(kind: str) -> None:
    search = NearDuplicates(2)
    for seed in range(300):
        assert _take(search, thumbnail(picture(seed))) == []
    assert _take(search, thumbnail(COPIES[kind](picture(123)), inverted=kind == "inverted")) == [123]


def test_other_images_are_not_near() -> None:
    for changed in (picture(1)[:, ::-1], np.rot90(picture(1)), 255 - picture(1), np.roll(picture(1), 20, axis=0)):
        assert similarity(thumbnail(picture(1)), thumbnail(changed)[np.newaxis])[0] < 0.5


def test_images_that_share_only_their_coarse_shading_are_not_near() -> None:
    rows, columns = np.mgrid[0:96, 0:80]
    shading = 200 * np.exp(-((rows - 48.0) ** 2 + (columns - 40.0) ** 2) / 2500)  # as a body against air
    one, other = shading + 0.1 * picture(1), shading + 0.1 * picture(2)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > NEAR_CORRELATION
    assert similarity(thumbnail(one), thumbnail(other)[np.newaxis])[0] < NEAR_CORRELATION - 0.02


def test_colour_is_compared_by_luminance() -> None:
    grey = picture(1)
    assert np.array_equal(thumbnail(np.repeat(grey[..., np.newaxis], 3, axis=-1), 3), thumbnail(grey))


def test_volumes() -> None:
    volumes = [structure(seed, (12, 30, 28), "int16", 900) for seed in range(40)]
    search = NearDuplicates(3)
    assert all(_take(search, thumbnail(volume)) == [] for volume in volumes)
    assert _take(search, thumbnail(volumes[7] * 2 + 5)) == [7]
    assert thumbnail(structure(1, (4, 9, 9))).shape == thumbnail(volumes[0]).shape  # fewer slices than cells


def test_images_without_structure_are_nobodys_copy() -> None:
    search = NearDuplicates(2)
    flat = np.full((32, 32), 7.0)
    flat[0, 0] += 1e-12
    assert not thumbnail(flat).any()
    assert _take(search, thumbnail(flat)) == []
    assert _take(search, thumbnail(flat)) == []


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), gain=st.floats(0.01, 100), offset=st.floats(-1e4, 1e4))
def test_thumbnails_do_not_see_gain_and_offset(seed: int, gain: float, offset: float) -> None:
    one, other = thumbnail(picture(seed)), thumbnail(picture(seed) * gain + offset)
    assert np.abs(one.astype(int) - other).max() <= 1


def test_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(0)
    one, others = rng.integers(-127, 127, 256).astype(np.int8), rng.integers(-127, 127, (5, 256)).astype(np.int8)
    assert similarity(one, others) == pytest.approx([np.corrcoef(one, other)[0, 1] for other in others])
