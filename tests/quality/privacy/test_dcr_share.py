"""The DCR share: equal counts, whole patients, and intervals that cover one half as often as they say."""

from __future__ import annotations

import numpy as np

from medphantom.quality.privacy.dcr_share import draw_subsets, share_in_train, wins_of_train


def numbered(prefix: str, total: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(total)]


def test_a_share_at_equal_counts_is_one_half_though_train_is_larger() -> None:
    rng = np.random.default_rng(0)
    subsets = draw_subsets(numbered("t", 400), numbered("g", 50), 60, rng)
    train, holdout = rng.random((300, 400)), rng.random((300, 50))
    wins, pseudo = wins_of_train(subsets.best(train), holdout.max(axis=1), subsets)
    share = share_in_train(wins, pseudo, size=50, what="random similarity").share
    assert share.interval is not None
    assert share.interval[0] < 0.5 < share.interval[1]
    assert (train.max(axis=1) > holdout.max(axis=1)).mean() > 0.8  # what comparing unequal counts would say


def test_the_interval_of_the_share_covers_one_half_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        places = rng.standard_normal((330, 2))
        queries = rng.standard_normal((80, 2))
        near = -np.linalg.norm(queries[:, None] - places[None], axis=2)
        subsets = draw_subsets(numbered("t", 300), numbered("g", 30), 20, rng)
        wins, pseudo = wins_of_train(subsets.best(near[:, :300]), near[:, 300:].max(axis=1), subsets)
        interval = share_in_train(wins, pseudo, size=30, what="").share.interval
        assert interval is not None
        covered += interval[0] <= 0.5 <= interval[1]
    assert covered / 60 > 0.86


def test_subsets_hold_whole_patients_and_equal_counts() -> None:
    owners = [f"p{i // 5}" for i in range(203)]
    subsets = draw_subsets(owners, numbered("g", 33), 10, np.random.default_rng(0))
    assert subsets.size == 30 == len(subsets.block)
    holders = [{owners[i] for i in group} for group in subsets.groups]
    assert all(not one & other for place, one in enumerate(holders) for other in holders[:place])
    assert len({int(i) for i in subsets.groups.ravel()}) == subsets.groups.size
    assert subsets.train.shape == (10, 10)
    assert all(len(set(chosen)) == 10 for chosen in subsets.train.tolist())
    for stand_in, against in subsets.pseudo:
        assert not set(stand_in.tolist()) & set(against.ravel().tolist())


def test_wins_are_those_of_the_images_themselves() -> None:
    rng = np.random.default_rng(4)
    subsets = draw_subsets(numbered("t", 200), numbered("g", 50), 7, rng)
    train, holdout = rng.random((30, 200)), rng.random((30, 50))
    wins, pseudo = wins_of_train(subsets.best(train), holdout.max(axis=1), subsets)
    for number, chosen in enumerate(subsets.train):
        rows = subsets.groups[chosen].ravel()
        assert (wins[:, number] == (train[:, rows].max(axis=1) > holdout.max(axis=1))).all()
    stand_in, against = subsets.pseudo[0]
    theirs = train[:, subsets.groups[stand_in].ravel()].max(axis=1)
    mine = [train[:, subsets.groups[chosen].ravel()].max(axis=1) > theirs for chosen in against]
    np.testing.assert_allclose(pseudo[:, 0], np.mean(mine, axis=0))
