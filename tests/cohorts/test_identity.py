"""Pseudonyms and splits: opaque, stable, patient-disjoint, and of the expected sizes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medphantom.cohorts.identity import IdentityKey, SplitFractions
from medphantom.cohorts.records import SPLITS
from medphantom.core.errors import InputError

KEY = IdentityKey.from_phrase("a")
patients = st.text(max_size=20)
fractions = (
    st.lists(st.integers(0, 10), min_size=4, max_size=4)
    .filter(any)
    .map(lambda parts: SplitFractions(**{name: part / sum(parts) for name, part in zip(SPLITS, parts, strict=True)}))
)


@given(patients, fractions)
def test_a_split_depends_on_key_and_patient_alone_and_is_never_an_empty_one(
    patient: str, shares: SplitFractions
) -> None:
    split = KEY.split(patient, shares)
    assert IdentityKey(KEY.secret).split(patient, shares) == split
    assert getattr(shares, split) > 0


@given(patients)
def test_growing_a_later_share_moves_nobody_out_of_an_earlier_split(patient: str) -> None:
    small = SplitFractions(train=0.5, val=0.2, holdout=0.2, test=0.1)
    large = SplitFractions(train=0.5, val=0.2, holdout=0.1, test=0.2)
    if KEY.split(patient, small) in {"train", "val"}:
        assert KEY.split(patient, large) == KEY.split(patient, small)


def test_shares_are_as_requested() -> None:
    shares = SplitFractions(train=0.6, val=0.1, holdout=0.1, test=0.2)
    found = [KEY.split(f"patient {number}", shares) for number in range(20_000)]
    for split in SPLITS:
        expected = getattr(shares, split)
        assert abs(found.count(split) / 20_000 - expected) < 5 * (expected * (1 - expected) / 20_000) ** 0.5


def test_splits_and_pseudonyms_of_two_keys_are_unrelated() -> None:
    other = IdentityKey.from_phrase("b")
    names = [f"patient {number}" for number in range(4000)]
    agree = sum(KEY.split(name, SplitFractions()) == other.split(name, SplitFractions()) for name in names) / 4000
    assert abs(agree - (0.6**2 + 0.1**2 + 0.1**2 + 0.2**2)) < 0.04
    assert not {KEY.pseudonym("patient", name) for name in names} & {other.pseudonym("patient", n) for n in names}


@given(patients, patients)
def test_pseudonyms_are_opaque_and_tell_kinds_apart(one: str, other: str) -> None:
    assert (KEY.pseudonym("patient", one) == KEY.pseudonym("patient", other)) == (one == other)
    assert KEY.pseudonym("patient", one) != KEY.pseudonym("study", one)
    assert len(KEY.pseudonym("patient", one)) == 16


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "identity.key"
    first = IdentityKey.load_or_create(file)
    assert IdentityKey.load_or_create(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert first.secret.hex() not in repr(first)
    assert IdentityKey.load_or_create(tmp_path / "other.key") != first
    monkeypatch.setenv("MEDPHANTOM_KEY_FILE", os.fspath(file))
    assert IdentityKey.load_or_create() == first


@pytest.mark.parametrize("text", ["", "short", "zz" * 32, "ab" * 31])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(InputError, match="contains no identity key; give a file of 64 hexadecimal digits"):
        IdentityKey.load_or_create(tmp_path / "k")


@pytest.mark.parametrize("shares", [{"train": 1.2, "test": -0.4}, {"train": 0.5}])
def test_fractions_must_sum_to_one(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be ≥ 0 and sum to 1"):
        SplitFractions(**shares)
