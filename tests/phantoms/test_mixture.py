"""A mixture of images that show no patient: every kind in turn, the same from the same seed, varied and in range."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medphantom as mp
from medphantom.core.errors import InputError
from medphantom.phantoms.mixture import MIXTURE, example
from medphantom.phantoms.procedural import KINDS, procedural_image


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_follows_from_seed_kind_and_number_alone(kind: str) -> None:
    image = procedural_image(3, kind, 5, 48)
    assert image.shape == (48, 48)
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1
    assert (procedural_image(3, kind, 5, 48) == image).all()
    for other in (procedural_image(4, kind, 5, 48), procedural_image(3, kind, 6, 48)):
        assert np.abs(other - image).mean() > 0.02


def test_coloured_noise_has_a_spectrum_that_falls() -> None:
    """Averaged over many images, since each has a power, a direction and a curve of its own."""
    power = np.zeros(24)
    for number in range(60):
        image = procedural_image(1, "coloured noise", number, 48)
        power += (np.abs(np.fft.rfft(image - image.mean(), axis=1)) ** 2).mean(0)[1:25]
    assert (np.diff(power.reshape(6, 4).mean(1)) < 0).all()
    assert power[0] > 10 * power[-1]


def test_the_kinds_take_turns_and_differ() -> None:
    found = [example(7, number, 32) for number in range(2 * len(MIXTURE))]
    assert [what for what, _ in found] == 2 * list(MIXTURE)
    for _, image in found:
        assert image.shape == (32, 32)
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
    seen = np.stack([image.ravel() for _, image in found])
    assert len(np.unique(seen, axis=0)) == len(found)


def test_a_mixture_is_a_cohort_of_one_class_per_image(tmp_path: Path) -> None:
    made = mp.phantom(tmp_path / "files", 2 * len(MIXTURE), content="mixture", format="png", size=32, seed=7)
    assert made.present == dict.fromkeys(MIXTURE, 2)
    with (tmp_path / "files" / "metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["image", "patient_id", "findings"]
    what, drawn = example(7, 3, 32)
    assert rows[3]["findings"] == what
    stored = np.asarray(Image.open(tmp_path / "files" / rows[3]["image"]))
    np.testing.assert_allclose(stored / 255, drawn, atol=0.5 / 255 + 1e-6)
    with pytest.warns():
        cohort = mp.ingest(
            tmp_path / "files", tmp_path / "cohort", public_phrase="x", near_duplicates="off", min_patients=1
        )
    assert set(cohort.schema.labels) == set(MIXTURE)
    assert cohort.schema.exclusive


@pytest.mark.parametrize("change", [{"format": "dicom"}, {"masks": True}, {"factors": ["anatomy.adiposity"]}], ids=str)
def test_a_mixture_has_no_anatomy(tmp_path: Path, change: dict[str, object]) -> None:
    options = {"content": "mixture", "format": "png", **change}
    with pytest.raises(InputError, match="a mixture has no masks, factors or missing cells; use format png without"):
        mp.phantom(tmp_path / "files", 8, **options)
    assert not (tmp_path / "files").exists()
