from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from cohorts.records import Array
from quality.config import CopyConfig
from quality.copies import CopySearch, Evidence, RealImages, judge
from quality.copy_evidence import (
    draw_subsets,
    fewest_seen,
    flag_threshold,
    isolation,
    share_in_train,
    tail_p_value,
    wins_of_train,
)
from quality.fingerprints import Fingerprints
from tests.quality.scenes import blurred, images

CONFIG = CopyConfig(repeats=40, max_shift=1, false_flags=0.05)


def numbered(prefix: str, total: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(total)]


@pytest.fixture(scope="module")
def real() -> RealImages:
    rng = np.random.default_rng(0)
    train, gate, more = images(360, rng)[0], images(90, rng)[0], images(60, rng)[0]
    return RealImages(train, gate, more, numbered("t", 360), numbered("g", 90))


@pytest.fixture(scope="module")
def search(real: RealImages) -> CopySearch:
    return CopySearch(real, CONFIG, np.random.default_rng(1))


def verdict(search: CopySearch, synthetic: Array, held_out: Array, planted: Array | None) -> tuple[str, Array, float]:
    found, null = search.matches(synthetic, ""), search.matches(held_out, "")
    control = None if planted is None else search.matches(planted, "")
    share = share_in_train(found.wins, found.pseudo_wins, total=len(synthetic), size=search.subsets.size, what="pixels")
    evidence = Evidence(found, null, control, numbered("h", len(held_out)), None if planted is None else "copies")
    summary, flagged = judge(evidence, [share], 90, CONFIG, np.random.default_rng(2))
    assert summary.total_flagged == flagged.sum()
    assert sorted(summary.flagged_rows) == np.flatnonzero(flagged).tolist()
    assert share.value is not None
    return summary.verdict, flagged, share.value


def degraded(images_NC: Array, rng: np.random.Generator) -> Array:
    """What an autoencoder does to an image, roughly, and one pixel of shift."""
    return np.roll(blurred(images_NC), 1, axis=3) + rng.normal(0, 0.05, images_NC.shape).astype(np.float32)


def test_honest_images_are_screened_and_planted_ones_flagged(search: CopySearch, real: RealImages) -> None:
    rng = np.random.default_rng(3)
    held_out, honest = degraded(images(150, rng)[0], rng), degraded(images(150, rng)[0], rng)
    planted = degraded(real.train[rng.permutation(360)[:40]], rng)
    clean, flagged, share = verdict(search, honest, held_out, planted)
    assert clean == "screened"
    assert flagged.mean() <= 0.1
    assert abs(share - 0.5) < 0.1
    stolen = honest.copy()
    stolen[:20] = degraded(real.train[rng.permutation(360)[:20]], rng)
    caught, flagged, _ = verdict(search, stolen, held_out, planted)
    assert caught == "fail"
    assert flagged[:20].mean() > 0.9
    assert flagged[20:].mean() <= 0.1


def test_honest_images_lean_to_neither_side_over_many_splits() -> None:
    rng = np.random.default_rng(9)
    pool, honest = images(330, rng)[0], images(90, rng)[0]
    config = CONFIG.model_copy(update={"max_shift": 0, "repeats": 20})
    found = []
    for _ in range(12):
        order = rng.permutation(330)
        train, gate, more = pool[order[:240]], pool[order[240:290]], pool[order[290:]]
        split = RealImages(train, gate, more, numbered("t", 240), numbered("g", 50))
        matches = CopySearch(split, config, rng).matches(honest, "")
        found.append(matches.wins.mean() / 90)
    assert abs(np.mean(found) - 0.5) < 3 * np.std(found) / np.sqrt(len(found))


def test_mirrored_copies_are_found_only_when_mirrors_are_tried(search: CopySearch, real: RealImages) -> None:
    rng = np.random.default_rng(4)
    mirrored = degraded(real.train[:20, :, :, ::-1].copy(), rng)
    assert (search.matches(mirrored, "").train == np.arange(20)).mean() > 0.9
    plain = CopySearch(real, CONFIG.model_copy(update={"mirror": False}), np.random.default_rng(1))
    assert (plain.matches(mirrored, "").train == np.arange(20)).mean() < 0.3


def test_a_crowd_that_leans_to_train_fails_though_no_image_is_a_copy(search: CopySearch, real: RealImages) -> None:
    rng = np.random.default_rng(5)
    held_out = images(150, rng)[0]
    leaning = (0.45 * real.train[:150] + 0.55 * held_out).astype(np.float32)
    result, _, share = verdict(search, leaning, held_out, real.train[:40])
    assert result == "fail"
    assert share > 0.58


def test_without_a_control_that_is_found_nothing_is_screened(search: CopySearch) -> None:
    rng = np.random.default_rng(6)
    held_out, honest, strangers = (images(150, rng)[0] for _ in range(3))
    assert verdict(search, honest, held_out, None)[0] == "inconclusive"
    assert verdict(search, honest, held_out, strangers[:40])[0] == "inconclusive"
    assert verdict(search, honest, held_out[:20], strangers[:40])[0] == "inconclusive"


def test_similarity_of_an_image_to_itself_is_one_and_brightness_does_not_matter(real: RealImages) -> None:
    prints = Fingerprints.fit(real.train[:100], 32)
    own, changed = (prints.of(torch.from_numpy(x)) for x in (real.train[:10], 0.5 * real.train[:10] + 0.2))
    assert (own * changed).sum(dim=1).numpy() == pytest.approx(np.ones(10), abs=1e-4)
    volumes = np.random.default_rng(0).uniform(-1, 1, (24, 1, 20, 24, 16)).astype(np.float32)
    solid = Fingerprints.fit(volumes, 16)
    assert solid.similarities(volumes[:2], [solid.of(torch.from_numpy(volumes))], 1, mirror=True)[0][
        [0, 1], [0, 1]
    ] == pytest.approx([1, 1], abs=1e-4)


def test_isolation_looks_past_other_images_of_the_same_patient() -> None:
    train = np.full((1, 40), 0.2)
    train[0, :8] = 0.99  # eight images of one patient
    patients = np.concatenate([np.zeros(8, int), np.arange(1, 33)])
    alone = isolation(train, np.array([[0.2]]), patients)
    strangers = isolation(train, np.array([[0.2]]), np.arange(40))
    assert alone[0] == pytest.approx(np.log(0.801 / 0.011), rel=1e-6)
    assert strangers[0] == pytest.approx(alone[0] / 2, rel=1e-6)


def test_a_share_at_equal_counts_is_one_half_though_train_is_larger() -> None:
    rng = np.random.default_rng(0)
    subsets = draw_subsets(numbered("t", 400), numbered("g", 50), 60, rng)
    train, gate = rng.random((300, 400)), rng.random((300, 50))
    wins, pseudo = wins_of_train(train, gate, subsets)
    share = share_in_train(wins, pseudo, total=300, size=50, what="chance")
    assert share.interval is not None
    assert share.interval[0] < 0.5 < share.interval[1]
    assert (train.max(axis=1) > gate.max(axis=1)).mean() > 0.8  # what comparing unequal counts would say


def test_the_interval_of_the_share_covers_one_half_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        places = rng.standard_normal((330, 2))
        queries = rng.standard_normal((80, 2))
        near = -np.linalg.norm(queries[:, None] - places[None], axis=2)
        subsets = draw_subsets(numbered("t", 300), numbered("g", 30), 20, rng)
        wins, pseudo = wins_of_train(near[:, :300], near[:, 300:], subsets)
        interval = share_in_train(wins, pseudo, total=80, size=30, what="").interval
        assert interval is not None
        covered += interval[0] <= 0.5 <= interval[1]
    assert covered / 60 > 0.86


def test_subsets_hold_whole_patients() -> None:
    owners = [f"p{i // 5}" for i in range(200)]
    subsets = draw_subsets(owners, numbered("g", 20), 10, np.random.default_rng(0))
    assert subsets.size == 20
    for chosen in subsets.train:
        assert len({owners[i] for i in chosen}) == 4
    for stand_in, against in subsets.pseudo:
        assert not {owners[i] for i in stand_in} & {owners[i] for i in against.ravel()}


def test_single_flags_have_the_promised_rate_on_exchangeable_images() -> None:
    rng = np.random.default_rng(0)
    rates = [(rng.standard_normal(200) > flag_threshold(rng.standard_normal(150), 0.02)).mean() for _ in range(300)]
    assert np.mean(rates) == pytest.approx(3 / 151, abs=0.004)


def test_tail_p_value_is_valid_and_sees_a_few_among_many() -> None:
    rng = np.random.default_rng(0)
    chance = np.array([tail_p_value(rng.standard_normal(300), rng.standard_normal(400)) for _ in range(400)])
    assert (chance < 0.05).mean() < 0.05 + 2 * np.sqrt(0.05 / 400)
    few = np.concatenate([rng.standard_normal(590), np.full(10, 6.0)])
    assert tail_p_value(few, rng.standard_normal(600)) < 0.01
    assert 3 <= fewest_seen(few[:590], rng.standard_normal(600), np.full(20, 6.0), 0.01, rng) <= 12
    assert fewest_seen(few[:50], rng.standard_normal(600), rng.standard_normal(600), 0.01, rng) == 51
    # one threshold by hand: 3 queries above the only null value that counts
    null, queries = np.array([1.0, 0, 0, 0]), np.array([2.0, 2, 2, 0, 0])
    assert tail_p_value(queries, null) == pytest.approx(stats.hypergeom.cdf(0, 9, 4, 3), rel=1e-12)
