from __future__ import annotations

import numpy as np
import pytest

from medphantom.cohorts.records import AttributeSpec
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.conditioning.templates import sentence

SCHEMA = ConditionSchema(
    labels=("Effusion", "Mass", "Pleural_Thickening"),
    attributes=(
        AttributeSpec(name="age", kind="continuous", unit="years", low=0, high=95),
        AttributeSpec(name="sex", kind="categorical", categories=("F", "M", "X")),
        AttributeSpec(name="view", kind="categorical", categories=("AP", "PA")),
        AttributeSpec(name="dose", kind="continuous", unit="mGy", low=0, high=9),
    ),
)
READABLE = {"Effusion": "effusion", "Mass": "mass", "Pleural_Thickening": "pleural thickening"}


def paraphrases(prompt: Prompt, total: int = 200) -> set[str | None]:
    return {sentence(SCHEMA, prompt, np.random.default_rng(seed)) for seed in range(total)}


def affirmed(text: str, name: str) -> bool | None:
    """What a reader of the sentence learns of a finding: the words of absence cover all that follows them."""
    head, *tails = (
        f", {text.lower()}".replace("no evidence of", "without").replace(", no ", ", without ").split("without")
    )
    if READABLE[name] in head:
        return True
    return False if any(READABLE[name] in tail for tail in tails) else None


def test_no_wording_says_what_the_prompt_does_not_state() -> None:
    prompt = Prompt(
        labels={"Effusion": True, "Mass": False, "Pleural_Thickening": True},
        attributes={"age": 58.4, "sex": "F", "view": "PA", "dose": 1.25},
    )
    for text in paraphrases(prompt):
        assert text is not None
        assert affirmed(text, "Effusion")
        assert affirmed(text, "Pleural_Thickening")
        assert affirmed(text, "Mass") is not True
        assert "58" in text
        assert "woman" in text or "female" in text
        assert "view PA" in text
        assert "dose 1.25 mGy" in text


def test_paraphrases_vary_and_every_absent_finding_is_named_by_some() -> None:
    prompt = Prompt(labels={"Effusion": True, "Mass": False, "Pleural_Thickening": False})
    found = paraphrases(prompt)
    assert len(found) > 10
    for name in ("Mass", "Pleural_Thickening"):
        assert {affirmed(text, name) for text in found if text} == {False, None}


def test_only_a_fully_negative_prompt_is_called_normal() -> None:
    negative = dict.fromkeys(SCHEMA.labels, False)
    assert all("no " in text or "normal" in text for text in paraphrases(Prompt(labels=negative)) if text)
    partly = paraphrases(Prompt(labels={"Mass": False}))
    assert not any("normal" in text or "no finding" in text for text in partly if text)
    assert all(affirmed(text, "Mass") is False for text in partly if text and "mass" in text.lower())


def test_a_prompt_that_states_nothing_has_no_sentence() -> None:
    assert paraphrases(Prompt()) == {None}


@pytest.mark.parametrize(("age", "article"), [(8, "an"), (11, "an"), (18, "an"), (80, "an"), (17, "a"), (21, "a")])
def test_ages_take_their_article(age: float, article: str) -> None:
    texts = paraphrases(Prompt(attributes={"age": age}))
    assert any(text and f"{article} {age}-year-old patient".lower() in text.lower() for text in texts)


def test_the_same_random_state_gives_the_same_words() -> None:
    prompt = Prompt(labels={"Effusion": True, "Mass": False})
    twice = [sentence(SCHEMA, prompt, np.random.default_rng(5)) for _ in range(2)]
    assert twice[0] == twice[1]
