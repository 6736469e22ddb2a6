"""Search by features: the same as the plain formula, block by block, from memory maps too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medphantom.quality.privacy import neighbours
from medphantom.quality.privacy.dcr_share import draw_subsets
from medphantom.quality.privacy.neighbours import FeatureMatcher


def test_cosines_of_standardised_features_from_memory_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    train, holdout, queries = (
        (rng.standard_normal((n, 24)) * np.linspace(0.1, 5, 24) + 3).astype(np.float32) for n in (500, 80, 70)
    )
    queries[:5] = train[100:105]
    subsets = draw_subsets([f"t{i}" for i in range(500)], [f"g{i}" for i in range(80)], 20, rng)
    both = np.concatenate([train, holdout]).astype(np.float64)
    center, scale = both.mean(axis=0), both.std(axis=0)

    def unit(part: np.ndarray) -> np.ndarray:
        moved = (part - center) / scale
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    wanted, other = unit(queries) @ unit(train).T, unit(queries) @ unit(holdout).T
    np.save(tmp_path / "train.npy", train)
    monkeypatch.setattr(neighbours, "SIMILARITIES_AT_ONCE", 500 * 16)
    monkeypatch.setattr(neighbours, "REAL_AT_ONCE", 130)
    for features in (
        train,
        np.load(tmp_path / "train.npy", mmap_mode="r"),
        np.load(tmp_path / "train.npy", mmap_mode="c"),
    ):
        found = FeatureMatcher(features, holdout, subsets).find(queries)
        assert (found.train == wanted.argmax(axis=1)).all()
        assert (found.holdout == other.argmax(axis=1)).all()
        np.testing.assert_allclose(np.tanh(found.train_score), wanted.max(axis=1), atol=2e-5)
        np.testing.assert_allclose(np.tanh(found.block_score), wanted[:, subsets.block].max(axis=1), atol=2e-5)
        assert (found.contrast[:5] > 2).all()
        assert len(found) == 70
        wins = wanted[:, subsets.groups[subsets.train[3]].ravel()].max(axis=1) > other.max(axis=1)
        assert (found.wins[:, 3] == wins).all()
        assert (found.of(np.array([2, 7])).train == found.train[[2, 7]]).all()
