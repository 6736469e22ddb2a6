"""A guarantee as a value: its sentences, its stored forms, and what is refused."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import medphantom.learning.guarantee
from medphantom.learning.guarantee import COMPARED, Guarantee, Mechanism, PublishedGuarantee, gaussian_attack

FIT: dict[str, Any] = {
    "epsilon_rdp": 9.1,
    "noise_multiplier": 1.2,
    "sample_rate": 0.15,
    "steps": 120,
    "clip_norm": 0.5,
    "draws": 2,
}
STATED: dict[str, Any] = {
    "epsilon": 8.003,
    "delta": 1.31e-4,
    "unit": "patient",
    "attack_auroc": 0.8801,
    "attack_tpr": 0.2501,
}
published = TypeAdapter(PublishedGuarantee)


def test_the_examples_hold() -> None:
    assert doctest.testmod(medphantom.learning.guarantee).failed == 0


def test_numbers_of_a_sentence_are_rounded_up() -> None:
    given = Guarantee(**STATED, **FIT)
    assert given.sentence() == "(8.01, 0.00014)-differential privacy per patient"
    assert given.sentence(("a holds", "b holds")).endswith("per patient, provided that a holds and b holds")
    assert "identifies at most 25.1 % of the training patients" in given.meaning()
    assert "in at most 88.1 of 100 pairs" in given.meaning()
    assert "adding or removing one patient" in given.scope()


def test_a_bundle_stores_the_last_fit_flat_and_the_bases_elsewhere() -> None:
    before = (Mechanism(noise_multiplier=2.0, sample_rate=0.1, steps=50),)
    given = Guarantee(**STATED, **FIT, own_epsilon=7.0, before=before)
    assert given.model_dump(mode="json") == {**STATED, **FIT, "own_epsilon": 7.0}
    assert given.parts == (*before, Mechanism(noise_multiplier=1.2, sample_rate=0.15, steps=120))


def test_a_report_stores_the_bounds_on_attacks_by_epsilon() -> None:
    given = Guarantee(**STATED, **FIT)
    stored = published.dump_python(given, mode="json")
    assert set(stored) == {"delta", "unit", "limits"}
    assert [limit["epsilon"] for limit in stored["limits"]] == sorted([*COMPARED, 8.003])
    (own,) = [limit for limit in stored["limits"] if limit["own"]]
    assert own == {"epsilon": 8.003, "auroc": 0.8801, "found": 0.2501, "own": True}
    eight = gaussian_attack(8.0, 1.31e-4, (0.01,))
    assert {"epsilon": 8.0, "auroc": eight.auroc, "found": eight.tpr[0.01], "own": False} in stored["limits"]
    read = published.validate_python(stored)
    assert read == Guarantee(**STATED)
    assert read.parts == ()
    assert published.dump_python(read, mode="json") == stored


@pytest.mark.parametrize("missing", sorted(FIT))
def test_a_fit_is_stated_as_a_whole(missing: str) -> None:
    with pytest.raises(ValidationError, match="needs all of epsilon_rdp, noise_multiplier"):
        Guarantee(**STATED, **{name: value for name, value in FIT.items() if name != missing})


def test_a_damaged_published_guarantee_is_refused() -> None:
    stored = published.dump_python(Guarantee(**STATED, **FIT), mode="json")
    for damaged, match in (
        ({**stored, "more": 1}, "has delta, unit and limits"),
        ({**stored, "limits": 3}, "has delta, unit and limits"),
        ({**stored, "limits": [{**limit, "own": False} for limit in stored["limits"]]}, "must be its own"),
        ({**stored, "limits": [{**limit, "more": 1} for limit in stored["limits"]]}, "must be its own"),
        ({**stored, "delta": 2}, "less than 1"),
    ):
        with pytest.raises(ValidationError, match=match):
            published.validate_python(damaged)


@pytest.mark.parametrize(
    "change", [{"noise_multiplier": 0.0}, {"sample_rate": 0.0}, {"sample_rate": 1.1}, {"steps": 0}]
)
def test_a_mechanism_has_noise_and_steps(change: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Mechanism.model_validate({"noise_multiplier": 1.0, "sample_rate": 0.5, "steps": 3, **change})
