"""The copy test: its false-positive rate holds for any kind of images, and few copies among many are detected."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medphantom.core.errors import UnsupportedClaim
from medphantom.quality.privacy.contrast import NullDistribution, find_copies

TRAIN_BLOCKS = 5


def scores(rng: np.random.Generator, total: int, *, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarities of images that are no copies: each has its own level of similarity, to the nearest of M by an
    extreme value.
    """
    common = rng.normal(1.0, 0.3 * spread, total)
    blocks = common[:, None] + 0.12 * spread * rng.gumbel(size=(total, TRAIN_BLOCKS))
    holdout = common + 0.12 * spread * rng.gumbel(size=total)
    return blocks.max(axis=1), blocks[:, 0], holdout


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_honest_sets_are_accused_no_more_often_than_the_level_says(spread: float) -> None:
    rng = np.random.default_rng(0)
    accused = sum(find_copies(*scores(rng, 200, spread=spread), blocks=TRAIN_BLOCKS).p_value < 0.05 for _ in range(300))
    assert accused <= stats.binom.ppf(0.999, 300, 0.05)


@pytest.mark.parametrize(("copies", "least"), [(2, 15), (3, 28), (6, 49)])
def test_few_copies_among_many_are_seen(copies: int, least: int) -> None:
    rng = np.random.default_rng(1)
    seen = 0
    for _ in range(50):
        train, block, holdout = scores(rng, 600)
        train[:copies] = holdout[:copies] + rng.uniform(1.6, 3.0, copies)
        found = find_copies(train, block, holdout, blocks=TRAIN_BLOCKS)
        seen += found.p_value < 0.01 and bool((found.p_values < 0.01)[:copies].all())
    assert seen >= least


def test_copies_that_lie_in_the_block_do_not_hide_the_others() -> None:
    """The block is training too: its copies are closer to train, and the null distribution uses the other side only."""
    rng = np.random.default_rng(2)
    train, block, holdout = scores(rng, 400)
    train[:8] = block[:8] = holdout[:8] + 2.0
    assert find_copies(train, block, holdout, blocks=TRAIN_BLOCKS).p_values[:8].max() < 0.01


def mean_p_value(values: np.ndarray, contrasts: list[float]) -> np.ndarray:
    model = NullDistribution.of(values)
    assert model.weights.sum() == pytest.approx(1)
    found: np.ndarray = model.weights @ model.exceeds(np.array(contrasts))
    return found


def test_the_p_value_is_counted_and_extrapolates_as_the_values_do() -> None:
    rng = np.random.default_rng(3)
    far = mean_p_value(rng.exponential(1.0, 4000), [1.0, 10.0])
    assert far[0] == pytest.approx(np.exp(-1), rel=0.05)
    assert np.exp(-10) / 2 < far[1] < 5 * np.exp(-10)
    assert mean_p_value(rng.exponential(1.0, 60), [10.0])[0] > 10 * np.exp(-10)  # nine values do not know so well
    heavy = mean_p_value(stats.genpareto.rvs(0.2, size=4000, random_state=0), [20.0])
    assert heavy[0] == pytest.approx(stats.genpareto.sf(20.0, 0.2), rel=0.7)
    values = rng.normal(size=500)
    found = mean_p_value(values, np.sort(values).tolist())
    assert (np.diff(found) <= 1e-12).all()
    with pytest.raises(
        UnsupportedClaim, match="49 images are too few for a test of single images; at least 50 are required"
    ):
        NullDistribution.of(values[:49])


def test_a_set_closer_to_the_holdout_is_no_copy() -> None:
    rng = np.random.default_rng(4)
    train, block, holdout = scores(rng, 300)
    assert find_copies(train - 0.5, block - 0.5, holdout, blocks=TRAIN_BLOCKS).p_value > 0.5
