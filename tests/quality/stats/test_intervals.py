from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.stats.auroc import auroc
from medphantom.quality.stats.classification import calibration_error
from medphantom.quality.stats.intervals import mean_interval, patient_bootstrap, proportion_interval


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (7, 10), (597, 600), (600, 600)])
def test_proportions_have_the_textbook_intervals(hits: int, total: int) -> None:
    z, p = stats.norm.ppf(0.975), hits / total
    center, half = p + z**2 / (2 * total), z * np.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    wilson = ((center - half) / (1 + z**2 / total), (center + half) / (1 + z**2 / total))
    assert proportion_interval(hits, total) == pytest.approx(wilson, abs=1e-12)
    low = stats.beta.ppf(0.025, hits, total - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, hits + 1, total - hits) if hits < total else 1.0
    assert proportion_interval(hits, total, "exact") == pytest.approx((low, high), abs=1e-9)


def test_no_trial_has_no_interval() -> None:
    with pytest.raises(UnsupportedClaim, match="no images"):
        proportion_interval(0, 0)


def test_auroc_equals_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        truth, score = rng.integers(0, 2, 40), rng.integers(0, 6, 40).astype(float)
        assert auroc(truth, score) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert auroc(np.ones(4), np.arange(4)) is None


def test_resampling_patients_is_wider_than_resampling_their_images() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.standard_normal(40), 10)
    patients = np.repeat(np.arange(40), 10).astype(str)
    wide = patient_bootstrap(lambda rows: float(values[rows].mean()), patients, draws=400, rng=rng)
    narrow = patient_bootstrap(lambda rows: float(values[rows].mean()), np.arange(400).astype(str), draws=400, rng=rng)
    assert wide is not None
    assert narrow is not None
    assert 2.2 < (wide[1] - wide[0]) / (narrow[1] - narrow[0]) < 4.5  # sqrt(10) in expectation


def test_bootstrap_covers_a_mean_of_patients_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        counts = rng.integers(1, 4, 60)
        values = np.repeat(rng.standard_normal(60), counts)
        owners = np.repeat(np.arange(60), counts).astype(str)
        interval = patient_bootstrap(lambda rows, values=values: float(values[rows].mean()), owners, draws=100, rng=rng)
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    assert covered / 60 > 0.85


def test_bootstrap_of_a_score_that_draws_cannot_support_is_withheld() -> None:
    rng = np.random.default_rng(0)
    assert patient_bootstrap(lambda rows: None, ["a", "b"], draws=20, rng=rng) is None
    assert patient_bootstrap(lambda rows: 1.0, ["a", "b"], draws=20, rng=rng) is None  # no width, no promise
    assert mean_interval(np.array([1.0])) is None
    assert mean_interval(np.array([1.0, 3.0])) == pytest.approx(stats.t.interval(0.95, 1, loc=2, scale=1), rel=1e-9)


def test_an_interval_of_a_calibration_error_holds_its_expectation() -> None:
    """Resampling makes a calibration error larger: the percentile interval misses the value that it belongs to."""
    values = []
    draws = [np.random.default_rng(seed) for seed in range(60)]
    for rng in draws:
        prediction = rng.uniform(0.05, 0.95, 200)
        truth = (rng.uniform(size=200) < prediction).astype(np.int8)

        def error(rows: Array, truth: Array = truth, prediction: Array = prediction) -> float | None:
            return calibration_error(truth[rows], prediction[rows])

        owners = np.arange(200).astype(str)
        value = error(np.arange(200)) or 0.0
        pairs = [patient_bootstrap(error, owners, draws=150, rng=rng, around=around) for around in (value, None)]
        values.append((value, *pairs))
    expected = np.mean([value for value, _, _ in values])
    covered = sum(pair is not None and pair[0] <= expected <= pair[1] for _, pair, _ in values)
    plain = sum(pair is not None and pair[0] <= expected <= pair[1] for _, _, pair in values)
    assert covered >= 54
    assert plain < covered
    assert all(pair is not None and pair[0] <= value <= pair[1] for value, pair, _ in values)
