"""What a prompt may repeat of real rows, to the patient: as many as the limit share it, or one fewer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.plan import MIN_PATIENTS
from medphantom.conditioning.prompt import Prompt
from medphantom.conditioning.tokens import END, PADDING, SPECIAL, START, tokenize, train_tokenizer
from medphantom.conditioning.training_rows import Smoothed, TrainingRows

Row = tuple[str, dict[str, bool | None], dict[str, float | str | None]]
LIMIT = 5


def made(folder: Path, rows: list[Row]) -> Cohort:
    """A cohort of (patient, labels, attributes), each row twice: images of one patient do not make two."""
    spec = AttributeSpec(name="sex", kind="categorical", categories=("F", "M"))
    view = AttributeSpec(name="view", kind="categorical", categories=("AP", "PA"))
    with CohortWriter(folder / "c", CohortSchema(labels=tuple(rows[0][1]), attributes=(spec, view))) as writer:
        for number, (patient, labels, attributes) in enumerate(row for row in rows for _ in range(2)):
            pixels = np.full((8, 8), number % 256, dtype=np.uint8)
            record = ImageRecord(f"i{number}", patient, pixels, "train", labels=labels, attributes=attributes)
            writer.add(record)
    return Cohort.open(folder / "c")


def prompts(cohort: Cohort, patient: str, *, keep: str | None = None) -> list[Prompt]:
    """Many prompts after the first row of a patient."""
    rows = TrainingRows(cohort, None, LIMIT)
    row = cohort.patients(cohort.rows("train")).index(patient)
    return [rows.prompt(row, np.random.default_rng(seed), keep=keep) for seed in range(60)]


def test_the_limit_is_five_patients() -> None:
    assert MIN_PATIENTS == 5


@pytest.mark.parametrize("sharing", [LIMIT, LIMIT - 1])
def test_a_label_set_is_stated_where_as_many_patients_as_the_limit_have_it(tmp_path: Path, sharing: int) -> None:
    rows: list[Row] = [(f"a{n}", {"a": True, "b": True}, {}) for n in range(sharing)]
    rows += [(f"b{n}", {"a": True, "b": False}, {}) for n in range(9)]
    found = {tuple(sorted(prompt.labels.items())) for prompt in prompts(made(tmp_path, rows), "a0")}
    whole = (("a", True), ("b", True))
    assert found == ({whole} if sharing == LIMIT else {(("a", True),)})


@pytest.mark.parametrize("sharing", [LIMIT, LIMIT - 1])
def test_a_rare_set_keeps_the_labels_that_as_many_patients_show_together(tmp_path: Path, sharing: int) -> None:
    """One patient has a, b and c; a and b are shown together by as many patients as the limit, or one fewer."""
    rows: list[Row] = [("rare", {"a": True, "b": True, "c": True}, {})]
    rows += [(f"ab{n}", {"a": True, "b": True, "c": False}, {}) for n in range(sharing - 1)]
    rows += [(f"{name}{n}", {"a": name == "a", "b": name == "b", "c": False}, {}) for n in range(9) for name in "ab"]
    found = {tuple(sorted(prompt.labels)) for prompt in prompts(made(tmp_path, rows), "rare")}
    assert found == ({("a", "b")} if sharing == LIMIT else {("a",), ("b",)})


@pytest.mark.parametrize("sharing", [LIMIT, LIMIT - 1])
def test_a_category_is_stated_where_as_many_patients_as_the_limit_have_it(tmp_path: Path, sharing: int) -> None:
    rows: list[Row] = [(f"m{n}", {"a": True}, {"sex": "M"}) for n in range(sharing)]
    rows += [(f"f{n}", {"a": True}, {"sex": "F"}) for n in range(9)]
    cohort = made(tmp_path, rows)
    found = [prompt.attributes.get("sex") for prompt in prompts(cohort, "m0")]
    assert set(found) == ({"M"} if sharing == LIMIT else {None, "F"})


@pytest.mark.parametrize("sharing", [LIMIT, LIMIT - 1])
def test_a_combination_is_kept_together_where_as_many_patients_as_the_limit_have_it(
    tmp_path: Path, sharing: int
) -> None:
    """Sex and view are common each; together with the label set they are, or one patient too few have them."""
    rows: list[Row] = [(f"m{n}", {"a": True}, {"sex": "M", "view": "AP"}) for n in range(sharing)]
    rows += [(f"x{n}", {"a": True}, {"sex": "F", "view": "AP"}) for n in range(9)]
    rows += [(f"y{n}", {"a": True}, {"sex": "F", "view": "PA"}) for n in range(9)]
    rows += [(f"z{n}", {"a": False}, {"sex": "M", "view": "PA"}) for n in range(9)]
    found = {tuple(prompt.attributes.values()) for prompt in prompts(made(tmp_path, rows), "m0")}
    if sharing == LIMIT:
        assert found == {("M", "AP")}
    else:  # too few are held back to draw from: from all of the label set, each attribute for itself
        assert found == {("M", "AP"), ("M", "PA"), ("F", "AP"), ("F", "PA")}


@pytest.mark.parametrize("held_back", [LIMIT, LIMIT - 1])
def test_attributes_come_from_what_is_held_back_likewise_where_that_is_of_enough_patients(
    tmp_path: Path, held_back: int
) -> None:
    rows: list[Row] = [("m0", {"a": True}, {"sex": "M", "view": "AP"})]
    rows += [(f"n{n}", {"a": True}, {"sex": "M", "view": "PA"}) for n in range(held_back - 1)]
    rows += [(f"f{n}", {"a": True}, {"sex": "F", "view": "PA"}) for n in range(9)]
    rows += [(f"z{n}", {"a": False}, {"sex": "M", "view": "AP"}) for n in range(9)]
    found = {prompt.attributes["sex"] for prompt in prompts(made(tmp_path, rows), "m0")}
    if held_back == LIMIT:  # four of view PA are too few with M as well
        assert found == {"M"}
    else:
        assert found == {"F", "M"}


def test_of_a_rare_requested_label_attributes_come_from_everybody(tmp_path: Path) -> None:
    """Else the prompt would say which sex the one patient has who shows it."""
    rows: list[Row] = [("rare", {"a": False, "c": True}, {"sex": "M"})]
    rows += [(f"m{n}", {"a": True, "c": False}, {"sex": "M"}) for n in range(9)]
    rows += [(f"f{n}", {"a": True, "c": False}, {"sex": "F"}) for n in range(9)]
    found = prompts(made(tmp_path, rows), "rare", keep="c")
    assert {tuple(prompt.labels.items()) for prompt in found} == {(("c", True),)}
    assert {prompt.attributes["sex"] for prompt in found} == {"F", "M"}


def test_of_a_rare_set_attributes_come_from_whoever_shows_what_is_left_of_it(tmp_path: Path) -> None:
    rows: list[Row] = [("rare", {"a": True, "b": True}, {"sex": "F"})]
    rows += [(f"m{n}", {"a": True, "b": False}, {"sex": "M"}) for n in range(9)]
    rows += [(f"f{n}", {"a": False, "b": False}, {"sex": "F"}) for n in range(200)]
    found = prompts(made(tmp_path, rows), "rare")
    assert {tuple(prompt.labels.items()) for prompt in found} == {(("a", True),)}
    sexes = [prompt.attributes.get("sex") for prompt in found]
    assert sexes.count("M") > 40  # nine of the ten who show it; of all, one in twenty-four


def test_an_attribute_that_is_not_stated_hides_no_other(tmp_path: Path) -> None:
    rows: list[Row] = [(f"m{n}", {"a": True}, {"sex": None, "view": "AP"}) for n in range(9)]
    assert {tuple(prompt.attributes.items()) for prompt in prompts(made(tmp_path, rows), "m0")} == {(("view", "AP"),)}


def test_a_label_that_is_never_observed_is_shown_by_no_row(tmp_path: Path) -> None:
    cohort = made(tmp_path, [("p", {"a": True}, {})])
    rows = TrainingRows(cohort, None, LIMIT)
    assert rows.showing("a").tolist() == [0, 1]
    assert rows.showing("b").tolist() == []


# ---- values that are drawn near real ones ----


def near(values: list[float], value: float, low: float | None = None, high: float | None = None) -> list[float]:
    spec = AttributeSpec(name="age", kind="continuous", low=low, high=high)
    smoothed, rng = Smoothed(spec, values), np.random.default_rng(0)
    return [smoothed.near(value, rng) for _ in range(4)]


def expected(values: list[float], value: float, low: float, high: float, digits: int) -> list[float]:
    """Silverman 1986, equations 3.28 and 6.14."""
    normal, spread = np.random.default_rng(0).standard_normal(4), np.std(values)
    width = 1.06 * spread * len(values) ** -0.2
    drawn = np.mean(values) + (value + width * normal - np.mean(values)) / np.sqrt(1 + (width / spread) ** 2)
    return np.clip(np.round(drawn, digits), low, high).tolist()


def test_a_drawn_value_is_smoothed_rounded_and_within_the_range() -> None:
    ages = [10.0, 20.0, 30.0, 50.0]
    assert near(ages, 30.0) == expected(ages, 30.0, 10, 50, 1)  # to a thousandth of 40 or coarser
    assert near(ages, 30.0, low=0.0, high=30.0) == expected(ages, 30.0, 0, 30, 2)
    assert near(ages, 10.0) == expected(ages, 10.0, 10, 50, 1)
    assert near(ages, 10.0, low=14.0) == expected(ages, 10.0, 14, 50, 1)
    shares = [0.1, 0.2, 0.3, 0.5]
    assert near(shares, 0.3) == expected(shares, 0.3, 0.1, 0.5, 3)
    high = [100.0, 100.4, 101.0]
    assert near(high, 100.4) == expected(high, 100.4, 100, 101, 3)
    assert near([0.0, 3.0], 1.0) == expected([0.0, 3.0], 1.0, 0, 3, 3)


def test_one_value_and_none_at_all_are_no_distribution() -> None:
    assert near([7.25], 7.25) == [7.25] * 4
    assert near([], 4.0, low=0.0, high=9.0) == [4.0] * 4


# ---- words ----


def test_a_word_is_learned_where_as_many_patients_as_the_limit_use_it() -> None:
    texts = ["Effusion", "effusion"] * 20
    for sharing in (LIMIT, LIMIT - 1):
        owners = [f"p{number % sharing}" for number in range(40)]
        tokenizer = train_tokenizer(texts, owners, vocabulary=600, min_patients=LIMIT)
        assert ("Ġeffusion" in tokenizer.get_vocab()) == (sharing == LIMIT)
        assert tokenizer.encode("effusion").tokens[1:-1] == (["Ġeffusion"] if sharing == LIMIT else list("Ġeffusion"))


def test_every_text_has_a_patient() -> None:
    with pytest.raises(ValueError, match="longer"):
        train_tokenizer(["mass"], ["p", "q"], vocabulary=600, min_patients=LIMIT)


def test_marks_have_known_numbers_and_the_bytes_always_fit() -> None:
    assert (PADDING, START, END) == (0, 1, 2)
    assert SPECIAL == ("<padding>", "<start>", "<end>")
    tokenizer = train_tokenizer(["mass"] * 9, ["p"] * 9, vocabulary=1, min_patients=LIMIT)
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [0, 1, 2]
    assert tokenizer.get_vocab_size() == 259
    assert train_tokenizer(["mass"] * 9, list("abcdefghi"), vocabulary=1, min_patients=2).get_vocab_size() == 259


def test_a_text_that_just_fits_loses_nothing() -> None:
    tokenizer = train_tokenizer(["mass"] * 9, ["p"] * 9, vocabulary=1, min_patients=LIMIT)
    length = len(tokenizer.encode("mass").ids)
    assert tokenize(tokenizer, ["mass"], length).truncated == ()
    assert tokenize(tokenizer, ["mass"], length).ids[0].tolist() == tokenizer.encode("mass").ids
    assert tokenize(tokenizer, ["mass"], length - 1).truncated == (0,)
