from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medphantom.core.records import Array
from medphantom.quality.data.targets import LabelPredictions
from medphantom.quality.privacy.membership import Patients
from medphantom.quality.privacy.membership import auroc as delong
from medphantom.quality.stats.auroc import auroc_difference, auroc_with_influence, mean_auroc
from medphantom.quality.utility.repeated import Predictions, trained


def sample(total: int, seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    shows = (rng.random(total) < 0.3).astype(int)
    first, second = (shows * lift + rng.standard_normal(total) for lift in (1.0, 0.6))
    return shows, first, second


def test_value_is_that_of_scikit_learn_with_ties_and_influences_cancel() -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        truth, score = rng.integers(0, 2, 40), rng.integers(0, 6, 40).astype(float)
        found = auroc_with_influence(truth, score)
        assert found is not None
        assert found.value == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        assert found.influence.sum() == pytest.approx(0, abs=1e-12)
    assert auroc_with_influence(np.ones(4), np.arange(4)) is None


def test_interval_of_single_images_is_that_of_delong() -> None:
    shows, score, _ = sample(300, 1)
    found = auroc_with_influence(shows, score)
    assert found is not None
    value, interval = delong(Patients(score[shows == 1], score[shows == 0]))
    assert found.value == pytest.approx(value)
    assert found.interval(np.arange(300)) == pytest.approx(interval, abs=0.002)


def test_images_of_one_patient_are_no_further_evidence() -> None:
    shows, first, second = sample(200, 2)
    thrice = [np.repeat(part, 3) for part in (shows, first, second)]
    once = auroc_with_influence(shows, first)
    more = auroc_with_influence(thrice[0], thrice[1])
    other = auroc_with_influence(shows, second)
    assert once is not None
    assert more is not None
    assert other is not None
    owners = np.repeat(np.arange(200), 3)
    assert more.interval(owners) == pytest.approx(once.interval(np.arange(200)), rel=1e-9)
    loose, tight = more.variance(np.arange(600)), more.variance(owners)
    assert tight.value == pytest.approx(3 * loose.value, rel=0.01)
    value, (low, high) = auroc_difference(once, other, np.arange(200))
    assert value == pytest.approx(once.value - other.value)
    assert low < value < high
    same = auroc_difference(once, once, np.arange(200))
    assert same == (0.0, (0.0, 0.0))


def test_scores_of_the_same_images_share_their_error() -> None:
    shows, first, _ = sample(400, 3)
    near = first + 0.1 * np.random.default_rng(4).standard_normal(400)
    a, b = auroc_with_influence(shows, first), auroc_with_influence(shows, near)
    assert a is not None
    assert b is not None
    low, high = auroc_difference(a, b, np.arange(400))[1]
    alone = a.interval(np.arange(400))
    assert alone is not None
    assert high - low < 0.3 * (alone[1] - alone[0])
    assert mean_auroc([a, b]).value == pytest.approx((a.value + b.value) / 2)


def test_perfect_separation_has_one_interval_whoever_asks() -> None:
    """The rule of three over the patients of the smaller side: for images, for patients, and for several trainings."""
    truth = np.repeat([0, 1], [40, 12])
    score = np.arange(52.0)
    expected = (1 - 3 / 12, 1.0)
    alone = auroc_with_influence(truth, score)
    assert alone is not None
    assert alone.interval(np.arange(52)) == pytest.approx(expected)
    assert alone.interval(np.repeat(np.arange(26), 2)) == pytest.approx((0.5, 1.0))  # six patients with positive images
    assert delong(Patients(score[truth == 1], score[truth == 0])) == (1.0, pytest.approx(expected))
    seen = LabelPredictions(truth[:, None], score[:, None], np.arange(52).astype(str))
    assert seen.auroc() == (1.0, pytest.approx(expected))
    trainings = Predictions(np.stack([score, score + 1])[None, :, :, None])
    repeated = trained(trainings, truth[:, None], 0, np.arange(52))
    assert repeated is not None
    assert repeated.interval() == pytest.approx(expected)
    worst = auroc_with_influence(truth, -score)
    assert worst is not None
    assert worst.interval(np.arange(52)) == pytest.approx((0.0, 3 / 12))
    wide = auroc_with_influence(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert wide is not None
    assert wide.interval(np.arange(4)) == (0.0, 1.0)
