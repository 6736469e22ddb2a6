"""What a network sees: windows that invert exactly, sizes that keep what they promise, directions that agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medphantom.cohorts.preprocess import Percentile, Preprocess, Window, fit_to_size, network_images
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError
from tests.cohorts.files import structure


def test_a_window_over_8_bits_inverts_on_every_value() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    preprocess = Preprocess(size=(16, 16), intensity=Window(low=0, high=255))
    seen = preprocess.apply(values)
    assert seen.dtype == np.float32
    assert seen.shape == (1, 16, 16)
    assert (seen.min(), seen.max()) == (-1, 1)
    assert np.array_equal(preprocess.undo(seen), values)


def test_a_hounsfield_window_inverts_on_every_value_inside_and_clips_outside() -> None:
    values = np.arange(-2048, 2048, dtype=np.int16).reshape(64, 64)
    preprocess = Preprocess(size=(64, 64), intensity=Window(low=-1000, high=1000), stored_dtype="int16")
    assert np.array_equal(preprocess.undo(preprocess.apply(values)), values.clip(-1000, 1000))


def test_the_full_int16_range_inverts_on_every_value() -> None:
    values = np.arange(-32768, 32768).astype(np.int16).reshape(256, 256)
    preprocess = Preprocess(size=(256, 256), intensity=Window(low=-32768, high=32767), stored_dtype="int16")
    assert np.array_equal(preprocess.undo(preprocess.apply(values)), values)


@settings(max_examples=60, deadline=None)
@given(low=st.integers(-2000, 2000), width=st.integers(1, 8000), seed=st.integers(0, 99))
def test_any_window_of_whole_numbers_inverts(low: int, width: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(low, low + width + 1, (8, 8)).astype(np.int16)
    preprocess = Preprocess(size=(8, 8), intensity=Window(low=low, high=low + width), stored_dtype="int16")
    assert np.array_equal(preprocess.undo(preprocess.apply(values)), values)
    seen = preprocess.apply(values, inverted=True)
    assert np.array_equal(seen, -preprocess.apply(values))
    assert np.array_equal(preprocess.undo(seen, inverted=True), values)


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.01, 1000), offset=st.floats(-1e4, 1e4))
def test_percentiles_do_not_see_gain_and_offset(gain: float, offset: float) -> None:
    preprocess = Preprocess(size=(32, 32), intensity=Percentile(low=1, high=99))
    values = structure(1).astype(np.float64)
    assert np.allclose(preprocess.apply(values * gain + offset), preprocess.apply(values), atol=2e-3)


def test_percentiles_clip_the_share_that_they_say() -> None:
    seen = Preprocess(size=(100, 100), intensity=Percentile(low=5, high=90)).apply(
        np.arange(10_000.0).reshape(100, 100)
    )
    assert (seen == -1).mean() == pytest.approx(0.05, abs=0.001)
    assert (seen == 1).mean() == pytest.approx(0.10, abs=0.001)


def test_padding_is_black_in_both_photometric_directions() -> None:
    preprocess = Preprocess(size=(32, 32), intensity=Window(low=0, high=255))
    for inverted in (False, True):
        seen = preprocess.apply(structure(1, (16, 32)), inverted=inverted)
        assert np.all(seen[:, :8] == -1)
        assert np.all(seen[:, 24:] == -1)
        assert seen[:, 8:24].max() > 0


@pytest.mark.parametrize(
    ("fit", "expected"),
    [("pad", (1.0, 1.0)), ("crop", (0.5, 0.5)), ("stretch", (0.5, 1.0)), ("native", (2.0, 2.0))],
)
def test_spacing_follows_the_scale(fit: str, expected: tuple[float, float]) -> None:
    preprocess = Preprocess.model_validate({"size": (64, 32), "fit": fit})
    # 16 x 16 pixels of 2 mm onto 64 x 32: scaled by 2, by 4, by 4 and 2, or not at all
    assert preprocess.spacing_after((16, 16), (2.0, 2.0)) == expected
    assert preprocess.apply(structure(1, (16, 16))).shape == (1, 64, 32)
    assert preprocess.spacing_after((16, 16), None) is None


@pytest.mark.parametrize(("fit", "shape"), [("native", (24, 16, 10)), ("stretch", (24, 16, 10)), ("pad", (20, 20, 10))])
def test_a_volume_stays_where_it_is_in_the_world(fit: str, shape: tuple[int, ...]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[0.0, 0.1, -1.0], [0.0, -0.9, 0.0], [3.0, 0.0, 0.1]]
    affine[:3, 3] = [12.0, -7.0, 90.0]
    preprocess = Preprocess.model_validate({"size": (12, 16, 16), "fit": fit})
    ball, at = np.zeros(shape, np.uint8), [side // 2 + 1 for side in shape]
    ball[tuple(slice(a - 2, a + 3) for a in at)] = 255
    seen = preprocess.apply(ball)[0] + 1
    middle = [float((seen * grid).sum() / seen.sum()) for grid in np.indices(seen.shape)]
    after = np.reshape(preprocess.affine_after(shape, tuple(affine.ravel())), (4, 4))
    assert np.allclose((after @ [*middle, 1])[:3], (affine @ [*at, 1])[:3], atol=0.5)  # a tenth of a voxel
    lengths = np.linalg.norm(after[:3, :3], axis=0) / np.linalg.norm(affine[:3, :3], axis=0)
    assert preprocess.spacing_after(shape, (1.0, 1.0, 1.0)) == pytest.approx(tuple(lengths))
    assert preprocess.affine_after(shape, None) is None


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(8, 50),
    width=st.integers(8, 50),
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    fit=st.sampled_from(["pad", "crop", "stretch", "native"]),
)
def test_any_image_fits(height: int, width: int, size: tuple[int, int], fit: str) -> None:
    preprocess = Preprocess.model_validate({"size": size, "fit": fit})
    seen = preprocess.apply(structure(3, (height, width)))
    assert seen.shape == (1, *size)
    assert np.abs(seen).max() <= 1
    mask = (structure(4, (height, width)) > 128).astype(np.uint8) * 3
    assert set(np.unique(preprocess.apply_mask(mask))) <= {0, 3}  # labels are never mixed


@pytest.mark.parametrize("shape", [(40, 30), (10, 40, 30)])
def test_native_keeps_the_grid_and_cuts_or_pads_around_the_centre(shape: tuple[int, ...]) -> None:
    values = structure(1, shape).astype(np.float32)
    size = (8, *(32, 32))[-len(shape) :]
    fitted = fit_to_size(values, size, "native", border=-5)
    assert np.array_equal(fitted[..., 1:31], values[(slice(1, 9),) * (len(shape) - 2) + (slice(4, 36),)])
    assert np.all(fitted[..., 0] == -5)


def test_shrinking_averages_instead_of_skipping() -> None:
    fine = np.tile([0, 255, 255, 0], (64, 16)).astype(np.uint8)  # stripes: looking at the middle of four gives white
    for shape, size in (((64, 64), (16, 16)), ((64, 64, 64), (16, 16, 16))):
        values = np.broadcast_to(fine, shape).copy()
        seen = Preprocess(size=size, fit="stretch", intensity=Window(low=0, high=255)).apply(values)
        inner = seen[(0, *(slice(2, -2),) * len(size))]
        assert np.abs(inner).max() < 0.25


def test_channels() -> None:
    rgb = np.stack([structure(1), structure(2), structure(3)], axis=-1)
    grey = Preprocess(size=(32, 32)).apply(rgb, 3)
    expected = (rgb @ [0.299, 0.587, 0.114]) / 127.5 - 1
    assert np.allclose(grey[0], expected, atol=1e-5)
    assert np.array_equal(
        Preprocess(size=(32, 32), channels=3).undo(Preprocess(size=(32, 32), channels=3).apply(rgb, 3)), rgb
    )
    repeated = Preprocess(size=(32, 32), channels=3).apply(structure(1))
    assert np.array_equal(repeated[0], repeated[2])


@pytest.mark.parametrize(("size", "shape"), [((16, 16), (8, 16, 16)), ((16, 16, 16), (16, 16))])
def test_dimensions_must_agree(size: tuple[int, ...], shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"spatial axes, but preprocess\.size has"):
        Preprocess(size=size).apply(structure(1, shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (7, 16)}, "sides of ≥ 8 pixels"),
        ({"size": (16,)}, "must be 2 or 3 sides"),
        ({"size": (16, 16), "intensity": {"kind": "window", "low": 3, "high": 3}}, "window.high must be > window.low"),
        ({"size": (16, 16), "intensity": {"kind": "gamma"}}, "gamma"),
        ({"size": (16, 16), "fit": "squash"}, "squash"),
    ],
)
def test_fields_that_break_a_rule_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocess.model_validate(fields)


def cohort_of(path: Path, records: list[ImageRecord], dims: int = 2) -> Cohort:
    with CohortWriter(path, CohortSchema.model_validate({"spatial_dims": dims})) as writer:
        for record in records:
            writer.add(record)
    return Cohort.open(path)


def test_a_cohort_is_seen_row_by_row_whatever_its_shapes_and_directions(tmp_path: Path) -> None:
    rgb = np.stack([structure(1), structure(2), structure(3)], axis=-1)
    cohort = cohort_of(
        tmp_path / "c",
        [
            ImageRecord("a", "p", structure(1), "train"),
            ImageRecord("b", "p", 255 - structure(1), "train", inverted=True),
            ImageRecord("c", "p", rgb, "train", channels=3),
            ImageRecord("d", "p", structure(4, (20, 40)), "train"),
        ],
    )
    preprocess = Preprocess.for_cohort(cohort, (32, 32))
    seen = network_images(cohort, [3, 1, 0, 2], preprocess)
    assert np.array_equal(seen[0], preprocess.apply(structure(4, (20, 40))))
    assert np.allclose(seen[1], seen[2], atol=1e-6)  # bone is bright in both
    assert np.array_equal(seen[3], preprocess.apply(rgb, 3))


@pytest.mark.parametrize(
    ("dtype", "modality", "dims", "expected"),
    [
        ("uint8", None, 2, ("window", "uint8")),
        ("int16", "CT", 2, ("window", "int16")),
        ("uint16", "CR", 2, ("percentile", "uint8")),
        ("int16", "MR", 3, ("percentile", "uint8")),
    ],
)
def test_sensible_defaults(
    tmp_path: Path, dtype: str, modality: str | None, dims: int, expected: tuple[str, str]
) -> None:
    pixels = structure(1, (16,) * dims, dtype)
    cohort = cohort_of(tmp_path / "c", [ImageRecord("a", "p", pixels, "train", modality=modality)], dims)
    chosen = Preprocess.for_cohort(cohort, (16,) * dims)
    assert (chosen.intensity.kind, chosen.stored_dtype) == expected
    assert chosen.fit == ("native" if dims == 3 else "pad")
    assert Preprocess.model_validate_json(chosen.model_dump_json()) == chosen
