from __future__ import annotations

import math

import pytest

from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.core.errors import PromptError


def test_prompts_round_trip() -> None:
    prompt = Prompt(labels={"mass": True, "effusion": False}, attributes={"age": 61.5, "sex": "F"})
    assert Prompt.from_json(prompt.to_json()) == prompt
    assert Prompt.from_json('{"attributes":{},"labels":{}}') == Prompt()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(labels={"effuson": True}), r"label 'effuson' is unknown to this generator; did you mean 'effusion'\?"),
        (Prompt(attributes={"agee": 4.0}), r"attribute 'agee' is unknown.*did you mean 'age'\?"),
        (Prompt(attributes={"sex": "female"}), r"sex = 'female' is unknown to this generator; known: F, M, X"),
        (Prompt(attributes={"age": "old"}), r"age must be a number, got 'old'; give age in years"),
        (Prompt(attributes={"age": math.nan}), r"age must be a number, got nan"),
        (
            Prompt(attributes={"age": 91.0}),
            r"age must be within 20…90 years, got 91; this generator was not trained on",
        ),
    ],
)
def test_what_the_generator_never_saw_is_refused_in_one_line(
    schema: ConditionSchema, prompt: Prompt, message: str
) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        schema.check(prompt)
    assert "\n" not in str(caught.value)


def test_classes_exclude_each_other() -> None:
    schema = ConditionSchema(labels=("hand", "head"), exclusive=True)
    schema.check(Prompt(labels={"hand": True, "head": False}))
    with pytest.raises(PromptError, match="are mutually exclusive"):
        schema.check(Prompt(labels={"hand": True, "head": True}))
