"""What counts as independent: generators and seeds each do, differences to shared real trainings do not."""

from __future__ import annotations

import numpy as np
import pytest

from medphantom.core.records import Array
from medphantom.quality.stats.auroc import Auroc
from medphantom.quality.utility.repeated import RepeatedScore, seed_variance

PATIENTS = 50


def of_values(values_GS: Array) -> RepeatedScore:
    """Trainings that differ only at random: every patient is as hard as the others."""
    rows = tuple(tuple(Auroc(float(value), np.zeros(PATIENTS)) for value in row) for row in values_GS)
    return RepeatedScore(rows, np.arange(PATIENTS).astype(str))


def test_more_generators_do_not_make_the_shared_real_trainings_more() -> None:
    one = np.random.default_rng(0).normal(0, 0.01, (1, 5))
    alone, ten = seed_variance(one), seed_variance(np.repeat(one, 10, axis=0))
    assert ten.value == pytest.approx(alone.value)
    assert ten.freedom == pytest.approx(alone.freedom) == 4


def test_trainings_of_one_generator_are_one_unit() -> None:
    per_generator = np.random.default_rng(1).normal(0, 0.01, (4, 1))
    found = seed_variance(np.repeat(per_generator, 8, axis=1))
    assert found.value == pytest.approx(per_generator.var(ddof=1) / 4)
    assert found.freedom == pytest.approx(3)


@pytest.mark.parametrize("generators", [1, 2, 10])
def test_where_synthetic_images_change_nothing_few_p_values_are_small(generators: int) -> None:
    """Counted as independent, the differences gave p < .05 in .09 of such studies with two generators, .41 with ten."""
    rng = np.random.default_rng(2)
    small = 0
    for _ in range(1000):
        real, mixed = rng.normal(0.8, 0.01, (1, 5)), rng.normal(0.8, 0.01, (generators, 5))
        small += of_values(mixed).less(of_values(real)).plain()[2] < 0.05
    assert small / 1000 < 0.07  # 1.5 % more than .05 is three standard errors


def test_a_true_gain_is_still_found() -> None:
    rng = np.random.default_rng(3)
    real, mixed = rng.normal(0.8, 0.01, (1, 5)), rng.normal(0.85, 0.01, (3, 5))
    assert of_values(mixed).less(of_values(real)).plain()[2] < 0.01
