from __future__ import annotations

import numpy as np
import pytest

from medphantom.core.errors import UnsupportedClaim
from medphantom.quality.fidelity.dominance import LARGEST_SHARE, dominant_share
from medphantom.quality.fidelity.frechet import frechet_distance
from medphantom.quality.fidelity.kernel import kernel_distance
from medphantom.quality.networks.radiomics import FARTHEST, NUM_FEATURES, Radiomics, raw_features
from tests.quality.scenes import blurred, images


def test_features_of_a_chessboard_and_of_plain_grey_are_the_textbook_ones() -> None:
    board = np.indices((32, 32)).sum(axis=0) % 2 * 2.0 - 1
    plain = np.zeros((32, 32))
    found = raw_features(np.stack([board, plain])[:, None].astype(np.float32))
    assert found.shape == (2, NUM_FEATURES)
    mean, deviation, skewness, kurtosis = found[0, :4]
    assert (mean, deviation) == pytest.approx((0.5, 0.5))
    assert (skewness, kurtosis) == pytest.approx((0, 1))
    entropy, uniformity = found[0, 8:10]
    assert (entropy, uniformity) == pytest.approx((1, 0.5))  # two grey levels, one bit
    contrast_next = found[0, 13]
    assert contrast_next == pytest.approx((31**2 + 31**2) / 4)  # beside: the other grey; across a corner: the same
    assert found[1, 1] == 0
    assert found[1, 13] == 0
    assert np.isfinite(found).all()


def test_blur_noise_and_contrast_each_move_the_distance_and_other_images_of_the_kind_do_not() -> None:
    rng = np.random.default_rng(0)
    reference, some, others = (images(160, rng)[0] for _ in range(3))
    network = Radiomics(reference)
    real = network.features(some)
    floor = frechet_distance(network.features(others), real)
    for faulty in (blurred(others), np.clip(others + 0.1 * rng.standard_normal(others.shape), -1, 1), 0.8 * others):
        assert frechet_distance(network.features(faulty.astype(np.float32)), real) > 3 * floor
    assert kernel_distance(network.features(others), real).value < 0.05
    assert network.features(some).std() == pytest.approx(1, abs=0.3)


def test_volumes_are_seen_by_their_middle_slices_and_few_references_are_refused() -> None:
    rng = np.random.default_rng(1)
    volume = rng.uniform(-1, 1, (1, 1, 12, 14, 16)).astype(np.float32)
    other = volume.copy()
    other[:, :, 0, 0, 0] = 0.123  # touches no middle slice
    assert np.array_equal(raw_features(volume), raw_features(other))
    with pytest.raises(UnsupportedClaim, match="3 are too few"):
        Radiomics(np.zeros((3, 1, 16, 16), np.float32))


def test_nearly_blank_images_do_not_outweigh_the_others() -> None:
    """A lead marker on an empty plate: before features were held, four such images had all of the variance."""
    rng = np.random.default_rng(2)
    reference, real, others = (images(200, rng)[0] for _ in range(3))
    reference[3] = real[7] = real[70] = others[11] = others[12] = -1
    real[7, 0, 5, 5] = others[11, 0, 9, 3] = 1
    network = Radiomics(reference)
    raw = raw_features(real)
    assert dominant_share((raw - raw[8:70].mean(axis=0)) / raw[8:70].std(axis=0)) > 0.9
    assert dominant_share(network.features(real)) < LARGEST_SHARE
    blank = np.zeros(200, dtype=bool)
    blank[[7, 70]] = True
    whole = frechet_distance(network.features(others), network.features(real))
    clean = frechet_distance(network.features(others[20:]), network.features(real[~blank]))
    assert whole < 3 * clean
    assert np.abs(network.features(real)).max() == pytest.approx(FARTHEST)
