from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.fidelity.frechet import (
    frechet_distance,
    frechet_interval,
    frechet_refusal,
    influenced_distance,
)
from medphantom.quality.fidelity.halves import draw_halves
from medphantom.quality.fidelity.kernel import kernel_distance, kernel_interval, kernel_refusal
from medphantom.quality.fidelity.table import Rows
from medphantom.quality.stats.influence import Variance


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
    values = np.array([kernel_distance(*rng.standard_normal((2, 30, 6))).value for _ in range(600)])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    assert (values < 0).mean() > 0.3  # unbiased around zero means often below it
    shifted = kernel_distance(rng.standard_normal((30, 6)) + 1, rng.standard_normal((30, 6))).value
    assert shifted > 5 * values.std()


def test_kernel_distance_is_the_u_statistic_by_hand() -> None:
    x, y = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 1.0]])

    def kernel(a: Array, b: Array) -> float:
        return float((a @ b / 2 + 1) ** 3)

    same = [sum(kernel(p[i], p[j]) for i in range(3) for j in range(3) if i != j) / 6 for p in (x, y)]
    cross = sum(kernel(a, b) for a in x for b in y) / 9
    assert kernel_distance(x, y).value == pytest.approx(sum(same) - 2 * cross, rel=1e-12)
    owners = ["a", "a", "b", "c"]
    more = np.concatenate([x, [[0.0, 3.0]]])
    pairs = [(i, j) for i in range(4) for j in range(4) if owners[i] != owners[j]]
    within = sum(kernel(more[i], more[j]) for i, j in pairs) / len(pairs)
    cross = sum(kernel(a, b) for a in more for b in y) / 12
    assert kernel_distance(more, y, owners).value == pytest.approx(within + same[1] - 2 * cross, rel=1e-12)
    with pytest.raises(UnsupportedClaim, match="3 patients a side, got 2"):
        kernel_distance(x, y[:2])


@pytest.mark.parametrize("rows_per_tile", [1, 4, 1024])
def test_the_second_order_variance_is_that_of_whole_patients(
    monkeypatch: pytest.MonkeyPatch, rows_per_tile: int
) -> None:
    """By hand: squared sums by patient of the doubly centred kernel, however the rows are divided into tiles."""
    monkeypatch.setattr("medphantom.quality.fidelity.kernel.ROWS_PER_TILE", rows_per_tile)
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((9, 3)), rng.standard_normal((7, 3))
    first, second = np.array([0, 1, 1, 2, 0, 3, 3, 3, 4]), np.array([0, 0, 1, 2, 2, 3, 1])

    def sums(kernel: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return np.eye(rows.max() + 1)[rows].T @ kernel @ np.eye(columns.max() + 1)[columns]

    wanted = 0.0
    for points, owner in ((x, first), (y, second)):
        apart = owner[:, None] != owner[None, :]
        kernel = (points @ points.T / 3 + 1) ** 3
        mean, means = kernel[apart].mean(), (kernel * apart).sum(axis=1) / apart.sum(axis=1)
        by_patient = sums(kernel - means[:, None] - means[None, :] + mean, owner, owner)
        np.fill_diagonal(by_patient, 0)
        wanted += 2 * (by_patient**2).sum() / apart.sum() ** 2
    kernel = (x @ y.T / 3 + 1) ** 3
    centred = kernel - kernel.mean(axis=1)[:, None] - kernel.mean(axis=0)[None, :] + kernel.mean()
    wanted += 4 * (sums(centred, first, second) ** 2).sum() / kernel.size**2
    assert kernel_distance(x, y, first, second).quadratic == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("n", "d", "offset"), [(200, 16, 0.0), (300, 128, 3.0)])
def test_distances_agree_with_those_of_torchmetrics(n: int, d: int, offset: float) -> None:
    rng = np.random.default_rng(4)
    mix = rng.standard_normal((d, d)) / np.sqrt(d)
    a, b = (np.maximum(rng.standard_normal((n, d)) @ mix * s, 0) + offset for s in (1.1, 1.0))
    moments = [part for x in (b, a) for part in (x.mean(axis=0), np.cov(x, rowvar=False))]
    theirs = float(_compute_fid(*(torch.from_numpy(part) for part in moments)))
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-6)
    assert influenced_distance(a, b).value == pytest.approx(theirs, rel=1e-6)
    assert kernel_distance(a, b).value == pytest.approx(float(poly_mmd(*map(torch.from_numpy, (b, a)))), rel=1e-6)


def test_influence_is_what_happens_when_an_image_gets_more_weight() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((60, 4)) * [1, 2, 1, 0.5], rng.standard_normal((50, 4)) + 0.3
    made = influenced_distance(a, b)
    assert made.candidate.sum() == pytest.approx(0, abs=1e-12)
    assert made.reference.sum() == pytest.approx(0, abs=1e-12)
    copies = 200
    many, much = np.tile(a, (copies, 1)), np.tile(b, (copies, 1))
    before = frechet_distance(many, much)
    for row in (0, 17):  # one more copy of an image among two hundred of each: a weight of 1.005
        heavier = frechet_distance(np.concatenate([many, a[row : row + 1]]), much)
        assert copies * (heavier - before) == pytest.approx(made.candidate[row], rel=0.05, abs=1e-4)
        heavier = frechet_distance(many, np.concatenate([much, b[row : row + 1]]))
        assert copies * (heavier - before) == pytest.approx(made.reference[row], rel=0.05, abs=1e-4)


def test_rows_of_a_table_are_scored_like_the_array_that_they_make() -> None:
    rng = np.random.default_rng(6)
    table, rows = rng.standard_normal((5000, 6)).astype(np.float32), rng.permutation(5000)[:4500]
    other = rng.standard_normal((3000, 6))
    assert frechet_distance(Rows(table, rows), other) == pytest.approx(frechet_distance(table[rows], other), rel=1e-9)
    names = (np.arange(4500) // 3).astype(str)
    by_rows, by_array = (kernel_distance(part, other, names) for part in (Rows(table, rows), table[rows]))
    assert by_rows.value == pytest.approx(by_array.value, rel=1e-9)
    assert by_rows.quadratic == pytest.approx(by_array.quadratic, rel=1e-9)
    assert np.allclose(by_rows.first, by_array.first)


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="asks Linux what is resident")
def test_features_may_lie_in_a_file_that_does_not_stay_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    table = np.lib.format.open_memmap(tmp_path / "real.npy", mode="w+", dtype=np.float32, shape=(60_000, 128))
    for start in range(0, 60_000, 5_000):
        table[start : start + 5_000] = rng.standard_normal((5_000, 128))
    other = rng.standard_normal((3_000, 128))
    expected = frechet_distance(np.array(table[::-1]), other)
    rows = Rows(Rows(table, np.arange(60_000)), np.arange(60_000)[::-1])
    assert frechet_distance(rows, other) == pytest.approx(expected, rel=1e-9)
    mapped = Path("/proc/self/smaps").read_text().partition(str(tmp_path / "real.npy"))[2]
    resident = next(int(line.split()[1]) for line in mapped.splitlines() if line.startswith("Rss:"))
    assert resident < 10_000  # KiB, of 30 MB


def test_interval_holds_the_expectation_and_knows_of_patients() -> None:
    rng = np.random.default_rng(7)
    values, hits = [], []
    for _ in range(80):
        a, b = rng.standard_normal((120, 8)) + 0.4, rng.standard_normal((120, 8))
        value, interval = frechet_interval(a, b, np.arange(120), np.arange(120), rng=rng)
        assert interval is not None
        values.append(value)
        hits.append(interval)
    held = [low <= np.mean(values) <= high for low, high in hits]
    assert np.mean(held) > 0.87  # the coverage trial of benchmarks/ measures it exactly
    repeated = np.repeat(b[:40], 3, axis=0)
    owned = frechet_interval(a, repeated, np.arange(120), np.repeat(np.arange(40), 3), rng=rng)[1]
    loose = frechet_interval(a, repeated, np.arange(120), np.arange(120), rng=rng)[1]
    assert owned is not None
    assert loose is not None
    assert np.log(owned[1] / owned[0]) > 1.2 * np.log(loose[1] / loose[0])


def test_too_few_images_are_refused_and_the_message_names_the_score_to_read() -> None:
    assert frechet_refusal(128, 64) is None
    assert "use kernel" in str(frechet_refusal(127, 64))
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
            patients, total_synthetic, draws=3, rng=rng, synthetic_rng=np.random.default_rng(seed),
            strata=strata if by_label else None, synthetic_strata=fake if by_label else None,
        )  # fmt: skip
        for half in halves:
            assert not {patients[i] for i in half.first} & {patients[i] for i in half.second}
            for synthetic in (half.for_first, half.for_second):
                assert len(half.first) == len(half.second) == len(synthetic) == len(set(synthetic.tolist()))
            if not by_label:
                assert half.disjoint == (2 * len(half.first) <= total_synthetic or not len(half.first))
            if by_label:
                counts = [np.bincount(labels, minlength=3) for labels in (strata[half.first], strata[half.second])]
                assert np.array_equal(*counts)
                assert np.array_equal(counts[0], np.bincount(fake[half.for_first], minlength=3))
                assert np.array_equal(counts[0], np.bincount(fake[half.for_second], minlength=3))


def test_plain_halves_use_about_all_images() -> None:
    patients = [f"p{i // 2}" for i in range(200)]
    rng = np.random.default_rng(0)
    for half in draw_halves(patients, 500, draws=5, rng=rng, synthetic_rng=rng):
        assert len(half.first) == 100


def test_an_interval_of_the_kernel_distance_contains_its_value_however_negative() -> None:
    rng = np.random.default_rng(3)
    for value in -rng.exponential(0.02, 2000):
        quadratic = float(rng.exponential(1e-5))
        low, high = kernel_interval(float(value), Variance(float(2.5 * quadratic), 40.0), quadratic)
        assert low <= value <= high
