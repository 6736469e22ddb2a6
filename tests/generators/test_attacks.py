"""Membership attacks and light edits on real networks: an overfitted one is detected, another one is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.preprocess import Preprocess, network_images
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.generators.attacks import LOSS, PROXIMAL, membership_scores
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.edits import edited
from medphantom.generators.generate import reconstruct
from medphantom.generators.train import train_generator
from medphantom.quality.privacy.membership import Patients, auroc
from tests.generators.tiny import SIDE, make_cohort, tiny_config


def areas(bundle: GeneratorBundle, cohort: Cohort) -> dict[str, float]:
    splits = [("train", True), ("holdout", False), ("test", False), ("val", False)]
    rows = [row for split, _ in splits for row in cohort.rows(split)]
    member = np.array([learned for split, learned in splits for _ in cohort.rows(split)])
    scores = membership_scores(bundle, cohort, rows)
    patients = cohort.patients(rows)
    return {attack: auroc(Patients.of(found, patients, member))[0] for attack, found in scores.items()}


def test_an_overfitted_generator_discloses_its_patients(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort", total=24)
    config = tiny_config()
    memorising = config.denoiser_fit.model_copy(
        update={"steps": 200, "batch_size": 8, "learning_rate": 3e-3, "validate_every": 0, "checkpoint_every": 200}
    )
    config = config.model_copy(update={"denoiser_fit": memorising})
    preprocess = Preprocess.for_cohort(cohort, (SIDE, SIDE))
    bundle = train_generator(cohort, preprocess, config, tmp_path / "bundle", work=tmp_path / "work")
    found = areas(bundle, cohort)
    assert set(found) == {LOSS, PROXIMAL}
    assert found[LOSS] > 0.8
    assert found[PROXIMAL] > 0.65


def test_one_that_saw_each_image_a_few_times_hardly_does(bundle: GeneratorBundle, cohort: Cohort) -> None:
    found = areas(bundle, cohort)
    assert found[LOSS] < 0.7
    assert found[PROXIMAL] < 0.7


def test_scores_are_the_same_again_and_in_any_company(bundle: GeneratorBundle, cohort: Cohort) -> None:
    rows = cohort.rows("train")[:11]
    whole, alone = membership_scores(bundle, cohort, rows), membership_scores(bundle, cohort, rows[4:5])
    for attack, scores in whole.items():
        assert scores.shape == (11,)
        np.testing.assert_allclose(scores[4], alone[attack][0], rtol=1e-4)
        np.testing.assert_array_equal(scores, membership_scores(bundle, cohort, rows)[attack])


def test_a_light_edit_is_a_copy_and_a_strong_one_is_not(
    bundle: GeneratorBundle, cohort: Cohort, preprocess: Preprocess
) -> None:
    images = network_images(cohort, cohort.rows("train")[:9], preprocess)
    rebuilt, light, strong = reconstruct(bundle, images), edited(bundle, images), edited(bundle, images, strength=0.9)

    def distance(one: np.ndarray) -> float:
        return float(np.abs(one - rebuilt).mean())

    assert light.shape == images.shape
    assert light.dtype == np.float32
    assert np.abs(light).max() <= 1
    assert 0 < distance(light) < 0.6 * distance(strong)
    np.testing.assert_array_equal(light, edited(bundle, images))
    assert not np.array_equal(light, edited(bundle, images, seed=1))
    with pytest.raises(InputError, match="images must have shape"):
        edited(bundle, images[:, :, :-1])
