"""One scene in several number formats is one scene: read equally where a file declares its range, else refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.preprocess import Percentile, Preprocess, Window, network_images
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.scale import check_same_scale, reading_of
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError
from medphantom.core.records import Array
from tests.cohorts.files import structure

SIZE = (32, 32)
EIGHT = Preprocess(size=SIZE)
HU = Preprocess(size=SIZE, intensity=Window(low=-1000, high=400), stored_dtype="int16")
SCENES = [structure(seed, SIZE, "float64", 1) for seed in range(6)]  # 0…1


def cohort(
    path: Path, images: list[Array], *, kind: str = "real", inverted: bool = False, modality: str | None = None
) -> Cohort:
    with CohortWriter(path, CohortSchema.model_validate({"kind": kind})) as writer:
        for number, pixels in enumerate(images):
            writer.add(ImageRecord(str(number), str(number), pixels, "train", inverted=inverted, modality=modality))
    return Cohort.open(path)


def whole(high: float, dtype: str, low: float = 0) -> list[Array]:
    """The scenes with black at ``low`` and white at ``high``; through 8 bits first, so that copies are exact."""
    eight = [np.rint(scene * 255) / 255 for scene in SCENES]
    values = [low + scene * (high - low) for scene in eight]
    return [value.astype(dtype) if dtype.startswith("float") else np.rint(value).astype(dtype) for value in values]


def seen(one: Cohort, preprocess: Preprocess, reference: Cohort, **more: tuple[float, float]) -> Array:
    reading = reading_of(one, preprocess, reference=reference, stated=more.get("stated"))
    return network_images(one, one.rows(), reading.of(preprocess))


@pytest.mark.parametrize(
    ("low", "high", "dtype", "ends"),
    [
        (0, 255, "uint8", (0, 255)),
        (0, 65535, "uint16", (0, 65535)),
        (0, 16383, "uint16", (0, 16383)),
        (0, 4095, "uint16", (0, 4095)),
        (0, 1023, "uint16", (0, 1023)),
        (0, 255, "uint16", (0, 255)),
        (0, 255, "int16", (0, 255)),
        (0, 255, "float32", (0, 255)),
        (0, 1, "float32", (0, 1)),
        (-1, 1, "float32", (-1, 1)),
        (-0.02, 1.03, "float32", (0, 1)),
    ],
)
def test_copies_that_declare_black_and_white_are_read_equally(
    tmp_path: Path, low: float, high: float, dtype: str, ends: tuple[float, float]
) -> None:
    real = cohort(tmp_path / "real", whole(255, "uint8"))
    same = cohort(tmp_path / "same", whole(high, dtype, low))
    reading = reading_of(same, EIGHT, reference=real)
    assert (reading.intensity.low, reading.intensity.high) == ends
    assert reading.rule == ("window" if ends == (0, 255) else "full range")
    tolerance = 0.06 if high == 1.03 else 0.001
    assert seen(same, EIGHT, real) == pytest.approx(network_images(real, real.rows(), EIGHT), abs=tolerance)


def test_dark_images_of_16_bits_are_not_taken_for_bright_ones_of_12(tmp_path: Path) -> None:
    real = cohort(tmp_path / "real", whole(15, "uint8"))  # 16 of 255: dark
    dark = cohort(tmp_path / "dark", whole(15 * 257, "uint16"))  # the same in 16 bits, where 12 would do
    assert reading_of(dark, EIGHT, reference=real).intensity == Window(low=0, high=65535)
    assert seen(dark, EIGHT, real) == pytest.approx(network_images(real, real.rows(), EIGHT), abs=0.001)
    bright = cohort(tmp_path / "bright", whole(255, "uint8"))
    with pytest.raises(InputError, match="use 9 of 16 bits, with no sure white") as caught:
        reading_of(cohort(tmp_path / "odd", whole(300, "uint16")), EIGHT, reference=bright)
    assert "\n" not in str(caught.value)


def test_a_turned_direction_is_kept_in_every_format(tmp_path: Path) -> None:
    real = cohort(tmp_path / "real", whole(255, "uint8"))
    turned = cohort(tmp_path / "turned", [65535 - image for image in whole(65535, "uint16")], inverted=True)
    assert seen(turned, EIGHT, real) == pytest.approx(network_images(real, real.rows(), EIGHT), abs=0.001)


def test_percentiles_of_each_image_fit_every_format(tmp_path: Path) -> None:
    preprocess = Preprocess(size=SIZE, intensity=Percentile())
    real = cohort(tmp_path / "real", whole(900, "float32", -40))
    same = cohort(tmp_path / "same", whole(255, "uint8"))
    assert reading_of(same, preprocess, reference=real).rule == "percentiles"
    assert seen(same, preprocess, real) == pytest.approx(network_images(real, real.rows(), preprocess), abs=0.02)
    with pytest.raises(InputError, match=r"leave assess\.synthetic_range out"):
        reading_of(same, preprocess, reference=real, stated=(0, 1))
    made = cohort(tmp_path / "made", whole(255, "uint8"), kind="synthetic")
    assert reading_of(made, preprocess, reference=real).intensity == Window(low=0, high=255)  # as it was stored


@pytest.mark.parametrize(
    ("high", "dtype", "low", "message"),
    [
        (255, "uint8", 0, r"have 8 bits, 0…255, and the real ones are read from -1000…400; say what .*synthetic_range"),
        (1624, "uint16", 24, r"hold values of about .* \(uint16\), and the real ones are read from -1000…400"),
        (33168, "uint16", 31768, r"\(uint16\), and the real ones are read from -1000…400"),  # an offset of 32768
        (1, "float32", 0, r"\(float32\), and the real ones are read from -1000…400"),
        (1, "float32", -1, r"\(float32\), and the real ones are read from -1000…400"),
    ],
)
def test_hounsfield_units_meet_only_hounsfield_units(
    tmp_path: Path, high: float, dtype: str, low: float, message: str
) -> None:
    real = cohort(tmp_path / "real", whole(600, "int16", -1000), modality="CT")
    other = cohort(tmp_path / "other", whole(high, dtype, low))
    with pytest.raises(InputError, match=message) as caught:
        reading_of(other, HU, reference=real)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("high", "dtype", "low", "stated"),
    [
        (255, "uint8", 0, (-1000, 600)),
        (65535, "uint16", 0, (-1000, 600)),
        (1600, "uint16", 0, (-1000, 64535)),
        (1, "float32", 0, (-1000, 600)),
        (600, "float32", -1000, (0, 1)),
    ],
)
def test_the_values_of_the_ends_may_be_given(
    tmp_path: Path, high: float, dtype: str, low: float, stated: tuple[float, float]
) -> None:
    real = cohort(tmp_path / "real", whole(600, "int16", -1000), modality="CT")
    same = cohort(tmp_path / "same", whole(high, dtype, low))
    assert reading_of(same, HU, reference=real, stated=stated).rule == "stated"
    expected = network_images(real, real.rows(), HU)
    assert seen(same, HU, real, stated=stated) == pytest.approx(expected, abs=0.005)


def test_the_same_unit_is_read_through_the_window_whatever_the_padding(tmp_path: Path) -> None:
    real = cohort(tmp_path / "real", whole(600, "int16", -1000), modality="CT")
    padded = whole(650, "float32", -1000)
    for image in padded:
        image[:4] = -2000
    other = cohort(tmp_path / "other", padded)
    assert reading_of(other, HU, reference=real).intensity == HU.intensity


def test_8_bit_radiographs_refuse_values_without_black_and_white(tmp_path: Path) -> None:
    real = cohort(tmp_path / "real", whole(255, "uint8"))
    with pytest.raises(InputError, match=r"hold values of about .*\(int16\), and the real ones are read from 0…255"):
        reading_of(cohort(tmp_path / "ct", whole(600, "int16", -1000)), EIGHT, reference=real)
    mixed = cohort(tmp_path / "mixed", [*whole(255, "uint8")[:3], *whole(65535, "uint16")[3:]])
    with pytest.raises(InputError, match=r"several number formats \(uint16, uint8\)"):
        reading_of(mixed, EIGHT, reference=real)


def test_what_a_generator_stored_is_read_as_it_was_stored(tmp_path: Path) -> None:
    real = cohort(tmp_path / "real", whole(600, "int16", -1000), modality="CT")
    made = cohort(tmp_path / "made", [HU.undo(HU.apply(image)) for image in real.pixels(real.rows())], kind="synthetic")
    reading = reading_of(made, HU, reference=real)
    assert (reading.rule, reading.intensity) == ("stored", HU.intensity)
    with pytest.raises(InputError, match=r"that say it themselves; leave assess\.synthetic_range out"):
        reading_of(made, HU, reference=real, stated=(0, 1))
    other = cohort(tmp_path / "of_another_generator", whole(255, "uint8"), kind="synthetic")
    with pytest.raises(InputError, match="have 8 bits"):
        reading_of(other, HU, reference=real)


def test_a_generator_meets_only_images_of_its_own_scale(tmp_path: Path) -> None:
    def check(one: Cohort, preprocess: Preprocess) -> None:
        check_same_scale(one, preprocess, called="real images", remedy="leave the bundle out")

    eight = cohort(tmp_path / "eight", whole(255, "uint8"))
    sixteen = cohort(tmp_path / "sixteen", whole(65535, "uint16"))
    ct = cohort(tmp_path / "ct", whole(600, "int16", -1000), modality="CT")
    check(eight, EIGHT)
    check(ct, HU)
    with pytest.raises(InputError, match=r"real images span 0…65535 \(uint16\), the generator was trained on .* 0…255"):
        check(sixteen, EIGHT)
    with pytest.raises(InputError, match="leave the bundle out"):
        check(ct, EIGHT)
    with pytest.raises(InputError, match="have 8 bits"):
        check(eight, HU)
