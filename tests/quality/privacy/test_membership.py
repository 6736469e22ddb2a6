"""Membership: exact curves, honest intervals, refusals, and attacks that find what is there and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from medphantom.quality.privacy.disclosure import Known, disclosed
from medphantom.quality.privacy.membership import (
    Patients,
    attack_result,
    auroc,
    blind_scores,
    reasons,
    relative_similarity,
    true_positives,
)

BLIND = (0.45, 0.55)


def test_the_area_is_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 6, 40) + 1.0, rng.integers(0, 6, 70) + 0.0
    value, interval = auroc(Patients(members, others))
    wanted = roc_auc_score(np.repeat([1, 0], [40, 70]), np.concatenate([members, others]))
    assert value == pytest.approx(wanted, abs=1e-12)
    assert interval[0] < value < interval[1]


def test_its_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    truth = 0.6385  # two normal distributions half a standard deviation apart: Phi(0.5 / sqrt 2) = .6382
    covered = 0
    for _ in range(600):
        low, high = auroc(Patients(rng.normal(0.5, 1, 90), rng.normal(0, 1, 60)))[1]
        covered += low <= truth <= high
    assert 0.93 < covered / 600 < 0.97


def test_a_perfect_curve_still_has_an_interval() -> None:
    assert auroc(Patients(np.arange(30.0) + 100, np.arange(60.0)))[1] == (0.9, 1.0)


def test_few_false_alarms_need_many_others() -> None:
    rng = np.random.default_rng(2)
    patients = Patients(rng.normal(1, 1, 300), rng.normal(0, 1, 400))
    found = true_positives(patients, 0.1, rng)
    alarms, hits, _ = roc_curve(np.repeat([1, 0], [300, 400]), np.concatenate([patients.members, patients.others]))
    assert found.value == pytest.approx(hits[alarms <= 0.1].max(), abs=1e-12)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    refused = true_positives(patients, 0.01, rng)
    assert refused.value is None
    assert refused.refused == (
        "a false-positive rate of 0.01 cannot be estimated from 400 other patients; 1000 are required"
    )


def test_a_patient_counts_once_however_many_images() -> None:
    scores = np.array([1.0, 3.0, 5.0, 0.0])
    patients = Patients.of(scores, ["a", "a", "b", "c"], np.array([True, True, True, False]))
    assert sorted(patients.members.tolist()) == [2.0, 5.0]
    assert patients.others.tolist() == [0.0]


def sets(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of members, others, and of honest synthetic images."""
    centers = rng.standard_normal((40, 16)) * 3
    return tuple(  # type: ignore[return-value]
        (centers[rng.integers(40, size=total)] + rng.standard_normal((total, 16))).astype(np.float32)
        for total in (150, 150, 300)
    )


def honest(seed: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Features of real images, one a patient, their patients, and features of images of no patient among them."""
    members, others, synthetic = sets(np.random.default_rng(seed))
    real = np.concatenate([members, others])
    return real, [f"p{i}" for i in range(len(real))], synthetic


def result_of(members: np.ndarray, others: np.ndarray, synthetic: np.ndarray, **more: object):  # type: ignore[no-untyped-def]
    real = np.concatenate([members, others])
    member = np.arange(len(real)) < len(members)
    names = [f"p{i}" for i in range(len(real))]
    patients = Patients.of(relative_similarity(real, synthetic, names), names, member)
    given = {"bound": None, "blind": BLIND, "tolerated": 0.5, **more}
    return attack_result("nearness", "images", patients, rng=np.random.default_rng(0), **given)  # type: ignore[arg-type]


def test_a_generator_that_repeats_its_patients_is_flagged_and_an_honest_one_is_not() -> None:
    rng = np.random.default_rng(3)
    members, others, synthetic = sets(rng)
    honest = result_of(members, others, synthetic)
    assert not honest.flagged
    assert list(reasons([honest])) == []
    copies = members[rng.integers(150, size=300)] + 0.7 * rng.standard_normal((300, 16)).astype(np.float32)
    found = result_of(members, others, copies)
    assert found.flagged
    assert found.auroc.value > 0.6
    assert "separates training patients from others" in next(reasons([found]))
    assert [one.label for one in found.tpr] == [f"nearness, false-positive rate {r}" for r in ("0.1", "0.01", "0.001")]
    assert found.curve[0] == (0.0, 0.0)
    assert found.curve[-1] == (1.0, 1.0)
    assert not result_of(members, others, copies, bound=0.99).flagged  # a guarantee allows for it
    assert found.auroc.interval is not None
    above = found.auroc.interval[0] + 0.01
    tolerated = result_of(members, others, copies, tolerated=above)
    assert not tolerated.flagged
    assert (tolerated.limit, tolerated.limited_by) == (above, "recipe")
    differ = result_of(members, others, copies, blind=(above - 0.1, above))  # members differ by themselves
    assert not differ.flagged
    assert differ.limited_by == "patients"
    assert result_of(members, others, copies, blind=(1 - above, 0.49)).flagged  # nothing to learn is no difference


def test_an_attack_that_exceeds_what_patients_differ_by_is_flagged_all_the_same() -> None:
    rng = np.random.default_rng(9)
    members, others, _ = sets(rng)
    copies = members[rng.integers(150, size=300)] + 0.1 * rng.standard_normal((300, 16)).astype(np.float32)
    found = result_of(members, others, copies, blind=(0.52, 0.6))
    assert found.limit == pytest.approx(0.6)
    assert found.flagged
    assert "above 0.600, by which they differ independently of the generator" in next(reasons([found]))


def test_similarity_is_relative_to_other_patients_only() -> None:
    real, names, synthetic = honest(seed=7)
    alone = relative_similarity(real, synthetic, names)
    # the same image of one patient once more
    beside = relative_similarity(np.concatenate([real, real[:1]]), synthetic, [*names, "p0"])
    assert beside[0] == pytest.approx(alone[0], abs=0.02)
    assert beside[-1] == pytest.approx(beside[0], abs=1e-6)
    another = relative_similarity(np.concatenate([real, real[:1]]), synthetic, [*names, "another"])
    assert another[0] < alone[0] - 0.02  # there it is somebody else's


def test_patients_divided_at_random_are_seldom_flagged() -> None:
    real, names, synthetic = honest(seed=8)
    scores, rng = relative_similarity(real, synthetic, names), np.random.default_rng(8)
    flagged = 0
    for _ in range(400):
        learned = rng.permutation(len(real))[:200]
        low, _ = auroc(Patients(scores[learned], np.delete(scores, learned)))[1]
        flagged += low > 0.5
    assert flagged / 400 < 0.05  # .025 are meant


def test_a_generator_whose_images_all_look_a_little_different_is_flagged_as_well() -> None:
    rng = np.random.default_rng(3)
    members, others, _ = sets(rng)
    copies = members[rng.integers(150, size=300)] + 0.7 * rng.standard_normal((300, 16)).astype(np.float32)
    beside = copies + 40 * np.ones(16, np.float32)  # darker, softer: every feature of every image is off
    real = np.concatenate([members, others])
    names = [f"p{i}" for i in range(len(real))]
    np.testing.assert_allclose(
        relative_similarity(real, beside, names), relative_similarity(real, copies, names), atol=1e-3
    )
    assert result_of(members, others, beside).flagged


def test_the_blind_baseline_sees_a_shift_and_nothing_else() -> None:
    rng = np.random.default_rng(4)
    names = [f"p{i // 2}" for i in range(400)]
    member = np.arange(400) < 200
    features = rng.standard_normal((400, 12))
    clean = auroc(Patients.of(blind_scores(features, names, member, 0), names, member))
    assert clean[1][0] <= 0.5 <= clean[1][1]
    features[member, 3] += 1.0
    shifted = auroc(Patients.of(blind_scores(features, names, member, 0), names, member))
    assert shifted[1][0] > 0.6


def test_disclosure_is_the_gain_over_patients_outside_the_training_set() -> None:
    rng = np.random.default_rng(5)
    places, member = rng.standard_normal((240, 8)), np.arange(240) < 120
    sex, age = rng.integers(0, 2, 240).astype(float), rng.uniform(20, 80, 240)
    sources = rng.integers(120, size=600)
    synthetic = places[sources] + 0.05 * rng.standard_normal((600, 8))
    known = [
        Known("sex", sex, sex[sources]),
        Known("age", age, age[sources], continuous=True),
        Known("rare", np.full(240, np.nan), sex[sources]),
    ]
    similarity = -np.linalg.norm(places[:, None] - synthetic[None], axis=2)
    names = [f"p{i}" for i in range(240)]
    found = {e.label: e for e in disclosed(known, similarity, names, member, rng)}
    assert set(found) == {"sex", "age"}
    for estimate in found.values():
        assert estimate.interval is not None
        assert estimate.interval[0] > 0.2
    zero = 0
    for _ in range(40):
        predicted = rng.integers(0, 2, 600).astype(float)
        near = -np.linalg.norm(places[:, None] - rng.standard_normal((600, 8))[None], axis=2)
        (none,) = disclosed([Known("sex", rng.permutation(sex), predicted)], near, names, member, rng)
        assert none.interval is not None
        zero += none.interval[0] <= 0 <= none.interval[1]
    assert zero >= 34
