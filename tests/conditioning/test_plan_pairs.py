from __future__ import annotations

import pytest

from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import plan_match
from medphantom.conditioning.plan_pairs import plan_pairs
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.core.errors import InputError, PromptError


def test_a_pair_differs_in_the_change_alone_and_shares_its_noise(cohort: Cohort, schema: ConditionSchema) -> None:
    plan = plan_pairs(cohort, schema, ["effusion=absent", "age=30:40"], 12, seed=3)
    images = list(plan)
    assert len(images) == 24
    factual, counterfactual = images[::2], images[1::2]
    for before, after in zip(factual, counterfactual, strict=True):
        assert before.seed == after.seed
        assert before.image_id.removesuffix("-factual") == after.image_id.removesuffix("-counterfactual")
        assert after.prompt.labels == {**before.prompt.labels, "effusion": False}
        assert 30 <= float(after.prompt.attributes["age"]) <= 40
        unchanged = {name: value for name, value in before.prompt.attributes.items() if name != "age"}
        assert {name: after.prompt.attributes[name] for name in unchanged} == unchanged
    assert len({image.seed for image in factual}) == 12
    assert len({after.prompt.attributes["age"] for after in counterfactual}) == 12
    assert list(plan_pairs(cohort, schema, ["effusion=absent", "age=30:40"], 12, seed=3)) == images


def test_prompts_that_the_change_leaves_as_they_are_are_passed_over(cohort: Cohort, schema: ConditionSchema) -> None:
    plan = plan_pairs(cohort, schema, ["effusion=present"], 10, seed=0)
    assert all(image.prompt.labels.get("effusion") is not True for image in list(plan)[::2])
    shown = [image.prompt.labels.get("effusion") for image in plan_match(cohort, 40, 0, schema=schema)]
    assert True in shown, "the test has nothing to pass over"


def test_a_change_that_says_nothing_or_something_unknown_is_named(cohort: Cohort, schema: ConditionSchema) -> None:
    with pytest.raises(InputError, match=r"needs an intervention; e\.g\. plan\.set"):
        plan_pairs(cohort, schema, [], 2, seed=0)
    with pytest.raises(PromptError, match="was not trained on"):
        plan_pairs(cohort, schema, ["oedema=present"], 2, seed=0)
