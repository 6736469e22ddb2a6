from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohorts.errors import UnsupportedClaim
from cohorts.records import Array
from quality.frechet import draw_halves, frechet_distance, frechet_refusal, kernel_distance, kernel_refusal


def exact_sample(n: int, mean: Array, variances: Array, rng: np.random.Generator) -> Array:
    """Rows whose sample mean and covariance are exactly these (diagonal covariance)."""
    raw = rng.standard_normal((n, len(mean)))
    raw -= raw.mean(axis=0)
    whitened = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return whitened * np.sqrt(variances) + mean


def eigenvalue_form(a: Array, b: Array) -> float:
    """Dowson and Landau 1982, by the eigenvalues of a symmetric product."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def test_distance_between_gaussians_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    mean, first, second = np.array([1.0, -2.0, 0.5]), np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25])
    a, b = exact_sample(200, np.zeros(3), first, rng), exact_sample(77, mean, second, rng)
    expected = (mean**2).sum() + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_distance_equals_the_eigenvalue_form_however_far_from_zero(offset: float) -> None:
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((24, 24))
    a, b = rng.standard_normal((120, 24)) @ mix, rng.standard_normal((90, 24)) @ mix * 1.3 + 0.2
    expected = eigenvalue_form(a, b)
    assert frechet_distance(a + offset, b + offset) == pytest.approx(expected, rel=1e-6)


def test_distance_is_zero_to_itself_and_sees_a_lost_direction() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((100, 8))
    flat = a * np.array([1, 1, 1, 1, 1, 1, 1, 0.0])
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(flat, a) == pytest.approx(a[:, 7].var(ddof=1) + a[:, 7].mean() ** 2, rel=1e-2)


def test_kernel_distance_is_unbiased_when_nothing_differs() -> None:
    rng = np.random.default_rng(3)
    values = np.array([kernel_distance(*rng.standard_normal((2, 30, 6))) for _ in range(600)])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    assert (values < 0).mean() > 0.3  # unbiased around zero means often below it
    shifted = kernel_distance(rng.standard_normal((30, 6)) + 1, rng.standard_normal((30, 6)))
    assert shifted > 5 * values.std()


def test_kernel_distance_is_the_u_statistic_by_hand() -> None:
    x, y = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 1.0]])

    def kernel(a: Array, b: Array) -> float:
        return float((a @ b / 2 + 1) ** 3)

    same = sum(kernel(p[i], p[j]) for p in (x, y) for i in range(3) for j in range(3) if i != j) / 6
    cross = sum(kernel(a, b) for a in x for b in y) / 9
    assert kernel_distance(x, y) == pytest.approx(same - 2 * cross, rel=1e-12)
    with pytest.raises(UnsupportedClaim, match="equal sets"):
        kernel_distance(x, y[:2])


def test_too_few_images_are_refused_and_the_message_names_the_score_to_read() -> None:
    assert frechet_refusal(128, 64) is None
    assert "read kernel" in str(frechet_refusal(127, 64))
    assert frechet_refusal(49, 8) is not None
    assert kernel_refusal(25) is None
    assert kernel_refusal(24) is not None


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=6, max_size=30),
    classes=st.integers(1, 3),
    seed=st.integers(0, 2**16),
    total_synthetic=st.integers(1, 80),
)
def test_halves_share_no_patient_and_match_in_number_and_label(
    sizes: list[int], classes: int, seed: int, total_synthetic: int
) -> None:
    rng = np.random.default_rng(seed)
    patients = [f"p{i}" for i, size in enumerate(sizes) for _ in range(size)]
    strata = rng.integers(0, classes, len(patients))
    fake = rng.integers(0, classes, total_synthetic)
    for by_label in (False, True):
        halves = draw_halves(
            patients, np.arange(total_synthetic), draws=3, rng=rng,
            strata=strata if by_label else None, synthetic_strata=fake if by_label else None,
        )  # fmt: skip
        for half in halves:
            assert not {patients[i] for i in half.first} & {patients[i] for i in half.second}
            assert len(half.first) == len(half.second) == len(half.synthetic) == len(set(half.synthetic.tolist()))
            if by_label:
                counts = [np.bincount(labels, minlength=3) for labels in (strata[half.first], strata[half.second])]
                assert np.array_equal(*counts)
                assert np.array_equal(counts[0], np.bincount(fake[half.synthetic], minlength=3))


def test_plain_halves_use_about_all_images() -> None:
    patients = [f"p{i // 2}" for i in range(200)]
    for half in draw_halves(patients, np.arange(500), draws=5, rng=np.random.default_rng(0)):
        assert len(half.first) == 100
