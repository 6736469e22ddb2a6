"""What must stay equal when a factor changes, what must grow with it, and the closed forms behind the pixels."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medphantom.core.errors import InputError
from medphantom.phantoms.body import SIGN, Body
from medphantom.phantoms.factors import FINDINGS, ImageFactors, with_factor
from medphantom.phantoms.population import simulate
from medphantom.phantoms.radiograph import MU_LUNG, MU_SOFT, line_integral, ray_grid
from medphantom.phantoms.render import (
    MASK_VALUES,
    changed_region,
    finding_mask,
    label_map,
    noise_free,
    organ_masks,
    render,
    shape_of,
    spacing_mm,
)
from medphantom.phantoms.scanner import blur_radius_px, develop, noisy

SIZE = 64
numbers = st.integers(0, 500)
severities = st.floats(0.05, 1.0)


def healthy(number, dims=2):
    image = next(simulate(1, seed=9, spatial_dims=dims, start=number)).images[0]
    for name in FINDINGS:
        image = with_factor(image, f"{name}.severity", 0.0)
    return image


def upright(number):
    """A healthy patient in a straight position, so that image and body coordinates agree."""
    image = healthy(number)
    for path, value in {
        "pose.rotation_deg": 0.0, "pose.tilt_deg": 0.0, "pose.shift_x_mm": 0.0, "pose.shift_y_mm": 0.0,
        "pose.magnification": 1.0, "pose.view": "PA", "pose.inspiration": 0.6,
    }.items():  # fmt: skip
        image = with_factor(image, path, value)
    return image


# ---------------------------------------------------------------------- determinism


@pytest.mark.parametrize(("dims", "shape", "dtype"), [(2, (64, 64), np.uint16), (3, (48, 64, 64), np.int16)])
def test_equal_factors_give_equal_pixels(dims, shape, dtype):
    image = next(simulate(1, seed=2, spatial_dims=dims)).images[0]
    copy = ImageFactors.model_validate_json(image.model_dump_json())
    pixels = render(image, 64)
    assert pixels.shape == shape
    assert pixels.dtype == dtype
    assert np.array_equal(pixels, render(copy, 64))
    assert not np.array_equal(pixels, render(with_factor(image, "scanner.noise_seed", 1), 64))


def test_sizes_that_do_not_suit_are_refused():
    image = healthy(0)
    for size in (31, (64, 64, 64)):
        with pytest.raises(InputError, match="does not suit 2 dimensions"):
            render(image, size)
    assert shape_of(image) == (256, 256)
    assert shape_of(healthy(0, 3), (24, 32, 40)) == (24, 32, 40)
    assert render(image, 32).shape == (32, 32)


def test_phantoms_need_no_torch_and_no_pydicom():
    code = (
        "import sys; import medphantom.phantoms.population, medphantom.phantoms.render;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'monai', 'pydicom', 'polars', 'zarr')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------- what stays when a factor changes


@settings(max_examples=25, deadline=None)
@given(numbers, st.sampled_from(FINDINGS), severities, st.floats(0, 8))
def test_pixels_outside_the_changed_region_are_equal_noise_included(number, name, severity, blur_mm):
    absent = with_factor(healthy(number), "scanner.blur_mm", blur_mm)
    present = with_factor(absent, f"{name}.severity", severity)
    region = changed_region(absent, present, SIZE)
    seen = changed_region(absent, present, SIZE, seen=True)
    assert region.any()
    assert not (region & ~seen).any()
    assert np.array_equal(render(absent, SIZE)[~seen], render(present, SIZE)[~seen])
    assert region.mean() < 0.6


@settings(max_examples=20, deadline=None)
@given(numbers, st.sampled_from(("effusion", "pneumothorax", "nodule", "consolidation")), severities)
def test_a_finding_stays_on_its_side(number, name, severity):
    absent = healthy(number)
    present = with_factor(absent, f"{name}.severity", severity)
    x = ray_grid(absent, SIZE).x
    region = changed_region(absent, present, SIZE)
    margin = 2 * spacing_mm(absent, SIZE)[0]
    assert not region[SIGN[getattr(present, name).side] * x < -margin].any()


@settings(max_examples=15, deadline=None)
@given(numbers, st.integers(0, 2**31 - 1), st.floats(0, 1), st.floats(0, 1))
def test_the_place_of_an_absent_finding_does_not_matter(number, shape_seed, across, along):
    image = healthy(number)
    moved = image
    for path, value in {
        "effusion.side": "left", "pneumothorax.side": "left", "nodule.side": "left", "nodule.across": across,
        "nodule.along": along, "nodule.contrast": 2.0, "consolidation.side": "left", "consolidation.zone": "upper",
        "consolidation.shape_seed": shape_seed, "consolidation.density": 1.0, "pacemaker.side": "right",
    }.items():  # fmt: skip
        moved = with_factor(moved, path, value)
    assert np.array_equal(render(image, SIZE), render(moved, SIZE))


@settings(max_examples=10, deadline=None)
@given(numbers, st.floats(0, 4), st.floats(0, 0.3))
def test_the_scanner_does_not_change_the_patient(number, blur_mm, noise):
    image = healthy(number)
    other = with_factor(with_factor(image, "scanner.blur_mm", blur_mm), "scanner.noise", noise)
    assert np.array_equal(noise_free(image, SIZE), noise_free(other, SIZE))


def test_blur_reach_is_no_larger_than_needed():
    """A detector without blur changes exactly the changed region; with blur, the claimed reach is attained."""
    image = with_factor(upright(3), "scanner.noise", 0.0)
    nodule = with_factor(image, "nodule.severity", 0.6)
    sharp = [with_factor(i, "scanner.blur_mm", 0.0) for i in (image, nodule)]
    assert blur_radius_px(sharp[0], 128) == 0
    changed = render(sharp[0], 128) != render(sharp[1], 128)
    region = changed_region(*sharp, 128)
    assert not (changed & ~region).any()
    assert (changed & region).sum() > 0.9 * region.sum()
    soft = [with_factor(i, "scanner.blur_mm", 4.0) for i in (image, nodule)]
    assert (render(soft[0], 128) != render(soft[1], 128)).sum() > 1.2 * region.sum()


def test_a_smaller_image_is_the_average_of_a_larger_one():
    image = next(simulate(1, seed=5)).images[0]
    fine = line_integral(image, 128)
    assert np.allclose(line_integral(image, 64), fine.reshape(64, 2, 64, 2).mean(axis=(1, 3)), atol=1e-5)


# ---------------------------------------------------------------------- what must follow a factor


@settings(max_examples=15, deadline=None)
@given(numbers, st.lists(st.integers(2, 10).map(lambda n: n / 10), min_size=2, max_size=4, unique=True))
def test_effusion_raises_the_attenuation_of_its_side_and_never_lowers_it(number, levels):
    image = healthy(number)
    drawn = [
        noise_free(with_factor(image, "effusion.severity", level), SIZE).astype(float)
        for level in (0.0, *sorted(levels))
    ]
    for less, more in pairwise(drawn):
        assert (more - less).min() > -1e-4
        assert (more - less).max() > 0.03


@pytest.mark.parametrize("number", [1, 4, 7])
def test_effusion_level_raises_the_mean_of_the_lower_zone(number):
    image = upright(number)
    lung = organ_masks(image, 128)[f"{image.effusion.side} lung"]
    rows = np.flatnonzero(lung.any(axis=1))
    lung[: rows[0] + 2 * len(rows) // 3] = False  # the lower third of the lung
    means = [
        noise_free(with_factor(image, "effusion.severity", level), 128)[lung].mean() for level in (0, 0.15, 0.3, 0.45)
    ]
    assert means == sorted(set(means))
    assert means[-1] > means[0] + 0.3


@pytest.mark.parametrize("number", [1, 4, 7])
def test_pneumothorax_darkens_more_and_more_of_the_lung(number):
    image = upright(number)
    areas = [
        int(finding_mask(with_factor(image, "pneumothorax.severity", s), "pneumothorax", SIZE).sum())
        for s in (0.0, 0.2, 0.5, 0.9)
    ]
    assert areas[0] == 0
    assert areas == sorted(set(areas))


@pytest.mark.parametrize(("name", "least"), [("nodule", 4), ("consolidation", 20), ("cardiomegaly", 20)])
def test_masks_grow_with_severity(name, least):
    image = upright(6)
    areas = [
        int(finding_mask(with_factor(image, f"{name}.severity", s), name, SIZE).sum()) for s in (0.0, 0.3, 0.6, 1.0)
    ]
    assert areas[0] == 0
    assert areas[1] >= least
    assert areas == sorted(set(areas))


@settings(max_examples=10, deadline=None)
@given(numbers, st.floats(0, 1))
def test_heart_width_over_chest_width_is_the_cardiothoracic_ratio(number, severity):
    image = with_factor(upright(number), "cardiomegaly.severity", severity)
    body = Body(image)
    columns = np.flatnonzero(organ_masks(image, 256)["heart"].any(axis=0))
    width_mm = (columns[-1] - columns[0] + 1) * spacing_mm(image, 256)[0]
    assert width_mm == pytest.approx(body.heart_ratio() * 2 * body.half_width, abs=6)


def test_cardiomegaly_passes_the_clinical_threshold():
    """A cardiothoracic ratio above .5 in a PA image is the textbook's cardiomegaly."""
    ratios = {
        severity: [Body(with_factor(upright(n), "cardiomegaly.severity", severity)).heart_ratio() for n in range(40)]
        for severity in (0.0, 0.5, 1.0)
    }
    assert np.mean(np.array(ratios[0.0]) < 0.5) > 0.9
    assert np.mean(np.array(ratios[0.5]) > 0.5) > 0.95
    assert ratios[1.0] == pytest.approx([0.70] * 40)


@settings(max_examples=10, deadline=None)
@given(numbers, severities, st.floats(0.5, 2.5))
def test_a_nodule_adds_the_line_integral_of_a_ball(number, severity, contrast):
    """2·sqrt(r² - d²) of soft tissue in place of air, at every ray."""
    image = with_factor(with_factor(upright(number), "nodule.contrast", contrast), "nodule.severity", severity)
    x, y, _, radius = Body(image).nodule_place()
    grid = ray_grid(image, 128)
    ball = 2 * np.sqrt(np.maximum(radius**2 - (grid.x - x) ** 2 - (grid.y - y) ** 2, 0))
    added = line_integral(image, 128) - line_integral(with_factor(image, "nodule.severity", 0.0), 128)
    assert np.allclose(added, ball * (contrast * MU_SOFT - MU_LUNG), atol=2e-4)


def test_age_and_sex_act_on_the_same_anatomy():
    image = with_factor(with_factor(upright(2), "sex", "F"), "anatomy.breast_size", 0.7)
    young, old = Body(with_factor(image, "age", 25.0)), Body(with_factor(image, "age", 85.0))
    assert old.bone < 0.8 * young.bone
    assert old.aorta_radius > young.aorta_radius + 3
    assert old.heart_ratio() > young.heart_ratio() + 0.02
    chest = np.s_[30:50, 8:56]
    woman, man = line_integral(image, SIZE)[chest], line_integral(with_factor(image, "sex", "M"), SIZE)[chest]
    assert (woman - man).max() > 0.5  # breast shadow over the lower zones


def test_breathing_in_lowers_the_diaphragm_and_darkens_the_lung():
    out, deep = (with_factor(upright(5), "pose.inspiration", value) for value in (0.1, 0.9))
    assert Body(deep).dome(1) > Body(out).dome(1) + 30
    lung = organ_masks(out, SIZE)["left lung"] & ~organ_masks(deep, SIZE)["heart"] & ~organ_masks(out, SIZE)["heart"]
    upper = lung & (np.arange(SIZE)[:, None] < 25)
    assert noise_free(deep, SIZE)[upper].mean() < noise_free(out, SIZE)[upper].mean()


# ---------------------------------------------------------------------- scanner


def test_noise_follows_photon_statistics():
    """Relative noise is 1/sqrt(photons): its log-domain deviation doubles with each 2·ln 2 of line integral."""
    image = with_factor(healthy(0), "scanner.noise", 0.05)
    spacing = spacing_mm(image, 256)[0]
    for integral in (3.2, 3.2 + 2 * math.log(2)):
        flat = np.full((256, 256), integral, dtype=np.float32)
        expected = 0.05 * 3.0 / spacing * math.exp(0.5 * (integral - 3.2))
        assert np.std(noisy(image, flat) - flat) == pytest.approx(expected, rel=0.02)


def test_the_contrast_curve_keeps_the_order_of_densities():
    image = with_factor(with_factor(healthy(0), "scanner.noise", 0.0), "scanner.blur_mm", 0.0)
    image = with_factor(with_factor(image, "scanner.marker", "none"), "scanner.collimation_mm", (0, 0, 0, 0))
    ramp = np.tile(np.linspace(0, 7, 64, dtype=np.float32), (64, 1))
    row = develop(image, ramp)[32].astype(int)
    assert row[0] == 0
    assert (np.diff(row) > 0).all()


# ---------------------------------------------------------------------- volumes


@settings(max_examples=6, deadline=None)
@given(numbers, st.sampled_from(FINDINGS), severities)
def test_volumes_change_only_where_the_finding_is(number, name, severity):
    absent = healthy(number, 3)
    present = with_factor(absent, f"{name}.severity", severity)
    seen = changed_region(absent, present, 48, seen=True)
    assert seen.any()
    assert seen.mean() < 0.5
    assert np.array_equal(render(absent, 48)[~seen], render(present, 48)[~seen])


def test_volumes_hold_the_hounsfield_units_of_their_tissues():
    image = with_factor(healthy(1, 3), "pacemaker.severity", 0.8)
    drawn = noise_free(image, 64)
    organs = organ_masks(image, 64)
    assert np.median(drawn[organs["right lung"]]) == pytest.approx(-830, abs=70)
    assert np.median(drawn[organs["heart"]]) == pytest.approx(44, abs=25)
    assert drawn[:, 0, :].max() == pytest.approx(-1000, abs=1)  # air in front of the patient
    places = {name: np.argwhere(mask)[:, 1].mean() for name, mask in organs.items()}
    assert places["heart"] < places["right lung"] - 2  # the heart lies in front
    assert drawn.max() > 2000


def test_fluid_sinks_and_air_rises_in_a_patient_on_the_back():
    image = healthy(8, 3)
    lung = np.argwhere(organ_masks(image, 64)[f"{image.effusion.side} lung"])[:, 1].mean()
    fluid = np.argwhere(finding_mask(with_factor(image, "effusion.severity", 0.3), "effusion", 64))[:, 1].mean()
    assert fluid > lung + 3  # H runs from front to back
    lung = np.argwhere(organ_masks(image, 64)[f"{image.pneumothorax.side} lung"])[:, 1].mean()
    air = np.argwhere(finding_mask(with_factor(image, "pneumothorax.severity", 0.3), "pneumothorax", 64))[:, 1].mean()
    assert air < lung - 3


def test_a_nodule_has_the_volume_of_a_ball():
    image = healthy(3, 3)
    for path, value in {"nodule.severity": 1.0, "nodule.across": 0.5, "nodule.along": 0.4, "nodule.depth": 0.5}.items():
        image = with_factor(image, path, value)
    radius = Body(image).nodule_place()[3]
    voxels = finding_mask(image, "nodule", 96).sum() * math.prod(spacing_mm(image, 96))
    assert voxels == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.2)


# ---------------------------------------------------------------------- label maps


@pytest.mark.parametrize("dims", [2, 3])
def test_label_maps_hold_organs_and_present_findings_only(dims):
    image = healthy(4, dims)
    assert set(np.unique(label_map(image, 64))) == {0, 1, 2, 3}
    names = {name: value for value, name in MASK_VALUES.items()}
    ill = with_factor(with_factor(image, "effusion.severity", 0.6), "nodule.severity", 0.8)
    labels = label_map(ill, 64)
    assert set(np.unique(labels)) == {0, 1, 2, 3, names["effusion"], names["nodule"]}
    assert np.array_equal(labels == names["nodule"], finding_mask(ill, "nodule", 64))


def test_right_is_on_the_left_of_the_image():
    masks = organ_masks(upright(0), 64)
    right, left = (np.argwhere(masks[f"{side} lung"])[:, 1].mean() for side in ("right", "left"))
    assert right < 32 < left
    assert np.argwhere(masks["heart"])[:, 1].mean() > 32  # the heart points to the patient's left
