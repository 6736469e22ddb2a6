"""Limits of what is shared, and of who goes where, to the patient."""

from __future__ import annotations

import pytest

from medphantom.cohorts.identity import IdentityKey, SplitFractions
from medphantom.cohorts.ingestion.repeats import Repeats
from medphantom.cohorts.ingestion.sharers import Sharers
from medphantom.cohorts.ingestion.splits import Division
from medphantom.cohorts.records import HELD_OUT_FIRST, Split

KEY = IdentityKey(bytes(range(32)))


@pytest.mark.parametrize("minimum", [1, 2, 5])
@pytest.mark.parametrize("missing", [0, 1])
def test_as_many_patients_as_the_minimum_share_and_one_fewer_do_not(minimum: int, missing: int) -> None:
    sharers = Sharers(minimum)
    for patient in range(minimum - missing):
        for _ in range(2 * minimum):  # images of one patient count once
            sharers.note(f"p{patient}", {"mass": True}, {"sex": "F"})
            sharers.note_values(f"p{patient}", "mask", ["7"])
    rare = bool(missing)
    assert sharers.rare_labels(["mass"], named=()) == ["mass"] * rare
    assert sharers.is_rare("sex", "F") == sharers.is_rare("mask", "7") == rare
    assert sharers.is_rare("sex", "X")  # nobody's


def test_rare_categories_are_named_in_order_and_without_labels() -> None:
    sharers = Sharers(2)
    for number, value in enumerate("cab"):
        sharers.note(f"p{number}", {"mass": True}, {"site": value})
    assert sharers.rare_categories({}) == {"site": ["a", "b", "c"]}
    assert sharers.rare_categories({"site": ["a"]}) == {"site": ["b", "c"]}
    assert sharers.rare_categories({"site": "abc"}) == {}
    assert sharers.total_of("site") == 3


# ---- splits ----


@pytest.mark.parametrize(
    ("patient", "split"),
    [
        ("patient 6", "train"),
        ("patient 7", "val"),
        ("patient 4", "val"),
        ("patient 3", "holdout"),
        ("elsewhere", "test"),
    ],
)
def test_where_test_is_theirs_the_others_are_carved_from_train_in_their_order(patient: str, split: Split) -> None:
    """Places .699, .821, .844 and .924, of shares .75, .125 and .125."""
    named: list[tuple[str, Split]] = [("patient 6", "train"), ("elsewhere", "test")]
    assert Division.of(named).split(patient, KEY, SplitFractions()) == split
    exact = Division.of(named, exact=True).split(patient, KEY, SplitFractions())
    assert exact == ("test" if split == "test" else "train")


def test_a_division_carves_unless_it_is_exact() -> None:
    assert Division(theirs=frozenset({"test"})).split("patient 3", KEY, SplitFractions()) == "holdout"


def test_unlisted_values_of_a_patient_count_where_nothing_else_is_known() -> None:
    division = Division.of([("a", "test"), ("b", "train")])
    assert division.split("patient 3", KEY, SplitFractions(), "val") == "val"
    assert division.split("a", KEY, SplitFractions(), "val") == "test"
    assert Division().split("patient 3", KEY, SplitFractions(), "val") == "test"  # by the key alone


def test_where_everything_is_theirs_train_stays_train() -> None:
    whole: list[tuple[str, Split]] = [("a", "train"), ("b", "val"), ("c", "holdout"), ("d", "test")]
    nothing_for_train = SplitFractions(train=0.0, val=0.5, holdout=0.25, test=0.25)
    assert Division.of(whole).split("a", KEY, nothing_for_train) == "train"


def test_whoever_is_on_several_sides_goes_to_the_one_that_must_stay_unseen() -> None:
    assert HELD_OUT_FIRST == ("test", "holdout", "val", "train")
    for place, first in enumerate(HELD_OUT_FIRST):
        division = Division.of([("a", split) for split in reversed(HELD_OUT_FIRST[place:])] + [("b", "test")])
        assert division.of_patient == {"a": first, "b": "test"}
        assert division.on_both_sides == (frozenset("a") if place < 3 else frozenset())


# ---- repeats ----


def test_images_left_out_are_listed_in_ascending_order_without_train() -> None:
    repeats = Repeats()
    for number in range(9):
        repeats.add([0] if number in {1, 8} else [])
    assert repeats.left_out(["train", *["test"] * 8], list("abcdefghi")) == [1, 8]
    assert repeats.left_out(["test", *["train"] * 8], list("abcdefghi")) == [0]
    assert repeats.left_out(["test"] * 9, list("abcdefghi")) == []
    assert repeats.left_out(["train"] * 9, list("abcdefghi")) == []
    assert repeats.left_out(["left_out", *["train"] * 8], list("abcdefghi")) == []  # already
