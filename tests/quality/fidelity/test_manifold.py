from __future__ import annotations

from math import prod

import numpy as np
import pytest
from prdc import compute_prdc
from vendi_score import vendi

from medphantom.core.errors import UnsupportedClaim
from medphantom.quality.fidelity.manifold import manifold_scores, neighbour_radii
from medphantom.quality.fidelity.vendi import vendi_score


def test_radius_is_the_distance_to_the_kth_other_point() -> None:
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_radii(line, 1).tolist() == [[1, 1, 2, 4]]
    assert neighbour_radii(line, 1, 2).tolist() == [[1, 1, 2, 4], [3, 2, 3, 6]]
    with pytest.raises(UnsupportedClaim, match="4 images have fewer than 4 neighbours"):
        neighbour_radii(line, 4)


def test_scores_of_a_toy_by_hand() -> None:
    real, fake = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([[0.5], [2.0], [20.0], [21.0]])
    scores = manifold_scores(real, fake, k=1, k_density=1)
    # radii of real: 1 1 2 4, of fake: 1.5 1.5 1 1
    assert scores.precision == 2 / 4  # .5 and 2 lie in balls of real images
    assert scores.recall == 3 / 4  # 0, 1 and 3 lie in balls of fake images, 7 does not
    assert scores.density == 4 / 4  # .5 lies in the balls of 0 and 1, 2 in those of 1 and 3
    assert scores.coverage == 3 / 4  # the balls of 0, 1 and 3 hold a fake image, that of 7 (3 to 11) none


def test_density_and_coverage_of_equal_distributions_are_the_expected_ones() -> None:
    rng = np.random.default_rng(0)
    n, m, k = 60, 60, 5
    found = np.array([manifold_scores(*rng.standard_normal((2, n, 4))) for _ in range(150)])
    expected = 1 - prod((n - j) / (n + m - j) for j in range(1, k + 1))  # Naeem et al. 2020, lemma 2
    error = found.std(axis=0) / np.sqrt(len(found))
    assert abs(found[:, 3].mean() - expected) < 4 * error[3]
    assert abs(found[:, 2].mean() - 1) < 4 * error[2]


def test_a_lost_mode_costs_recall_and_coverage_and_noise_costs_precision_and_density() -> None:
    rng = np.random.default_rng(1)
    centers = np.array([[0.0] * 4, [8.0] * 4])
    real, honest = (centers[np.arange(200) % 2] + rng.standard_normal((200, 4)) for _ in range(2))
    dropped = centers[0] + rng.standard_normal((200, 4))
    noisy = honest + rng.standard_normal((200, 4)) * 4
    floor, lost, blurry = (manifold_scores(real, part) for part in (honest, dropped, noisy))
    assert lost.recall < 0.6 * floor.recall
    assert lost.coverage < 0.6 * floor.coverage
    assert lost.precision > 0.9 * floor.precision
    assert blurry.precision < 0.5 * floor.precision
    assert blurry.density < 0.5 * floor.density


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 8), (2500, 5000, 4), (400, 400, 64)])
def test_scores_equal_those_of_the_package_of_their_authors(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(2)
    real, fake = np.maximum(rng.standard_normal((n, d)), -1) + 5, rng.standard_normal((m, d)) * 1.1 + 5
    found = manifold_scores(real, fake)
    narrow, wide = (compute_prdc(real, fake, nearest_k=k) for k in (3, 5))
    assert (found.precision, found.recall) == (narrow["precision"], narrow["recall"])
    assert found.density == pytest.approx(wide["density"], rel=1e-12)
    assert found.coverage == wide["coverage"]


def test_vendi_score_equals_that_of_the_package_of_its_authors() -> None:
    rng = np.random.default_rng(3)
    for total, size in ((300, 20), (3000, 50)):
        features = np.maximum(rng.standard_normal((total, size)), 0) @ rng.standard_normal((size, size))
        assert vendi_score(features) == pytest.approx(vendi.score_dual(features, normalize=True), rel=1e-6)
    assert vendi_score(np.ones((10, 4))) == pytest.approx(1, abs=1e-9)
    assert vendi_score(np.eye(6)) == pytest.approx(6, rel=1e-12)
