from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from medphantom.cohorts.records import AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.config import EncoderSizes
from medphantom.conditioning.encoder import ConditionEncoder, Conditions, encode_prompts
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.core.errors import InputError, PromptError
from medphantom.core.naming import counterparts

SIZES = EncoderSizes(dim=16)

PROMPTS = [
    Prompt(),
    Prompt(labels={"effusion": True, "mass": False}, attributes={"age": 20.0, "sex": "F"}),
    Prompt(labels={"effusion": False}, attributes={"age": 90.0, "view": "PA"}),
    Prompt(labels={"nodule": True}, attributes={"age": 55.0, "sex": "X", "view": "AP"}),
]


@pytest.fixture
def encoder(schema: ConditionSchema) -> ConditionEncoder:
    torch.manual_seed(0)
    return ConditionEncoder(schema, SIZES)


def equal(left: Conditions, right: Conditions) -> bool:
    pairs = zip(left.tensors().values(), right.tensors().values(), strict=True)
    return all(torch.equal(torch.nan_to_num(a, 9.0), torch.nan_to_num(b, 9.0)) for a, b in pairs)


def gradients(encoder: ConditionEncoder, conditions: Conditions) -> dict[str, Tensor]:
    encoder.zero_grad()
    context, pooled = encoder(conditions)
    (context.square().sum() + pooled.square().sum()).backward()
    return {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}


def test_prompts_become_the_expected_tensors(schema: ConditionSchema) -> None:
    conditions = encode_prompts(schema, PROMPTS)
    assert conditions.labels_BL.tolist() == [[2, 2, 2], [1, 0, 2], [0, 2, 2], [2, 2, 1]]
    assert torch.isnan(conditions.continuous_BC[0]).all()
    assert conditions.continuous_BC[1:, 0].tolist() == [-1.0, 1.0, 0.0]
    assert conditions.categorical_BK.tolist() == [[0, 0], [1, 0], [0, 2], [3, 1]]


def test_rows_of_a_cohort_and_their_prompts_are_encoded_equally(cohort: Cohort, schema: ConditionSchema) -> None:
    rows = cohort.rows("train")[:40] + cohort.rows("test")[:10]
    prompts = []
    for row in rows:
        states = cohort.labels([row])[0]
        labels = {n: bool(s) for n, s in zip(cohort.schema.labels, states, strict=True) if s >= 0}
        stated = {n: cohort.attribute(n, [row])[0] for n in ("age", "sex", "view")}
        prompts.append(Prompt(labels=labels, attributes={n: v for n, v in stated.items() if v is not None}))
    assert equal(Conditions.from_cohort(cohort, rows, schema), encode_prompts(schema, prompts))


def test_what_the_cohort_lacks_is_missing_and_values_beyond_the_range_count_as_its_ends(cohort: Cohort) -> None:
    wider = ConditionSchema(
        labels=("fracture", "mass"),
        attributes=(
            AttributeSpec(name="age", kind="continuous", low=40.0, high=50.0),
            AttributeSpec(name="sex", kind="categorical", categories=("M",)),
            AttributeSpec(name="weight", kind="continuous", low=1.0, high=2.0),
        ),
    )
    conditions = Conditions.from_cohort(cohort, cohort.rows("train"), wider)
    assert (conditions.labels_BL[:, 0] == 2).all()
    assert set(conditions.labels_BL[:, 1].tolist()) == {0, 1}
    assert conditions.continuous_BC[:, 0].min() == -1
    assert conditions.continuous_BC[:, 0].max() == 1
    assert torch.isnan(conditions.continuous_BC[:, 1]).all()
    assert set(conditions.categorical_BK[:, 0].tolist()) == {0, 1}


def test_a_class_rules_out_the_other_classes() -> None:
    schema = ConditionSchema(labels=("hand", "head"), exclusive=True)
    conditions = encode_prompts(schema, [Prompt(labels={"head": True}), Prompt(), Prompt(labels={"head": False})])
    assert conditions.labels_BL.tolist() == [[0, 1], [2, 2], [2, 0]]


def test_bad_prompts_are_refused(schema: ConditionSchema) -> None:
    with pytest.raises(PromptError, match="'efusion' is unknown"):
        encode_prompts(schema, [Prompt(), Prompt(labels={"efusion": True})])


def test_dropping_everything_is_the_empty_prompt(schema: ConditionSchema, encoder: ConditionEncoder) -> None:
    conditions = encode_prompts(schema, PROMPTS)
    empty = encode_prompts(schema, [Prompt()] * len(PROMPTS))
    dropped = conditions.drop(torch.Generator().manual_seed(0), whole=1.0, partial=0.0)
    assert equal(dropped, empty)
    assert equal(conditions.all_missing(), empty)
    assert equal(conditions.drop(torch.Generator().manual_seed(0), whole=0.0, partial=0.0), conditions)
    for left, right in zip(encoder(dropped), encoder(empty), strict=True):
        assert torch.equal(left, right)


def test_dropping_is_as_frequent_as_requested_and_thins_to_every_degree() -> None:
    schema = ConditionSchema(labels=tuple(f"l{i}" for i in range(10)))
    full = encode_prompts(schema, [Prompt(labels=dict.fromkeys(schema.labels, True))] * 20_000)
    dropped = full.drop(torch.Generator().manual_seed(1), whole=0.2, partial=0.5)
    kept = (dropped.labels_BL == 1).sum(dim=1)
    # With a rate uniform in 0…1, each number of kept items among 10 has probability 1/11 (beta-binomial, a = b = 1).
    expected = np.full(11, 0.8 * 0.5 / 11)
    expected[0] += 0.2
    expected[10] += 0.8 * 0.5
    found = np.bincount(kept.numpy(), minlength=11) / len(kept)
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / math.sqrt(len(kept)))


def test_dropping_draws_from_its_generator_alone(schema: ConditionSchema) -> None:
    conditions = encode_prompts(schema, PROMPTS * 10)
    one = conditions.drop(torch.Generator().manual_seed(3), whole=0.3, partial=0.5)
    torch.rand(5)
    again = conditions.drop(torch.Generator().manual_seed(3), whole=0.3, partial=0.5)
    assert equal(one, again)
    assert not equal(one, conditions.drop(torch.Generator().manual_seed(4), whole=0.3, partial=0.5))


def test_the_order_of_a_batch_does_not_matter(schema: ConditionSchema, encoder: ConditionEncoder) -> None:
    conditions = encode_prompts(schema, PROMPTS)
    order = torch.tensor([2, 0, 3, 1])
    context, pooled = encoder(conditions)
    moved_context, moved_pooled = encoder(conditions[order])
    torch.testing.assert_close(moved_context, context[order])
    torch.testing.assert_close(moved_pooled, pooled[order])
    assert context.shape == (4, encoder.total_tokens, 16)
    assert pooled.shape == (4, 16)


def test_every_statement_changes_the_context_in_its_own_token_only(
    schema: ConditionSchema, encoder: ConditionEncoder
) -> None:
    base = encoder(encode_prompts(schema, [Prompt()]))
    tokens = {"effusion": 1, "mass": 2, "nodule": 3, "age": 4, "sex": 5, "view": 6}
    statements = [Prompt(labels={n: s}) for n in schema.labels for s in (True, False)]
    statements += [Prompt(attributes={"age": a}) for a in (20.0, 21.0, 55.0, 90.0)]
    statements += [Prompt(attributes={"sex": s}) for s in "FMX"] + [
        Prompt(attributes={"view": v}) for v in ("AP", "PA")
    ]
    seen = [base[1]]
    for prompt in statements:
        context, pooled = encoder(encode_prompts(schema, [prompt]))
        changed = (context != base[0]).any(dim=-1)[0].nonzero().flatten().tolist()
        assert changed == [tokens[next(iter({**prompt.labels, **prompt.attributes}))]]
        seen.append(pooled)
    distances = torch.cdist(torch.cat(seen), torch.cat(seen)) + torch.eye(len(seen))
    assert distances.min() > 1e-4  # missing, absent, present, and every value are distinguished


def test_gradients_reach_every_table_and_only_the_rows_that_were_used(
    schema: ConditionSchema, encoder: ConditionEncoder
) -> None:
    reached = gradients(encoder, encode_prompts(schema, PROMPTS))
    assert set(reached) == {name for name, _ in encoder.named_parameters()}
    assert all(bool(torch.isfinite(g).all()) and bool(g.any()) for g in reached.values())
    used = reached["labels.weight"].abs().sum(dim=1) > 0
    # Rows are 3 × label + state: effusion all three; mass absent, missing; nodule present, missing.
    assert used.tolist() == [True, True, True, True, False, True, False, True, True]
    alone = gradients(encoder, encode_prompts(schema, [Prompt()]))
    assert not alone["continuous_names.weight"].any()
    assert alone["continuous_missing.weight"].any()


def test_missing_values_leave_no_nan_behind(schema: ConditionSchema, encoder: ConditionEncoder) -> None:
    conditions = encode_prompts(schema, [PROMPTS[0], PROMPTS[1]])
    assert all(bool(torch.isfinite(g).all()) for g in gradients(encoder, conditions).values())


def test_a_schema_without_any_item_still_has_a_context() -> None:
    schema = ConditionSchema()
    context, pooled = ConditionEncoder(schema, EncoderSizes(dim=8))(encode_prompts(schema, [Prompt()] * 3))
    assert context.shape == (3, 1, 8)
    assert pooled.shape == (3, 8)


def test_an_encoder_is_made_again_from_schema_and_width(schema: ConditionSchema, encoder: ConditionEncoder) -> None:
    reloaded = ConditionEncoder(ConditionSchema.model_validate_json(schema.model_dump_json()), SIZES)
    reloaded.load_state_dict(encoder.state_dict())
    for left, right in zip(
        reloaded(encode_prompts(schema, PROMPTS)), encoder(encode_prompts(schema, PROMPTS)), strict=True
    ):
        assert torch.equal(left, right)


def test_conditions_of_another_schema_are_refused(encoder: ConditionEncoder) -> None:
    other = ConditionSchema(labels=("hand",))
    with pytest.raises(InputError, match=r"conditions have \(1, 0, 0\) labels and attributes.*expects \(3, 1, 2\)"):
        encoder(encode_prompts(other, [Prompt()]))


def test_conditions_travel_in_a_batch(schema: ConditionSchema) -> None:
    conditions = encode_prompts(schema, PROMPTS)
    assert equal(Conditions.from_tensors({"x": torch.zeros(4), **conditions.tensors()}), conditions)
    assert equal(conditions[:1].joined(conditions[1:]), conditions)


def test_what_a_base_knows_by_a_name_written_otherwise_is_kept(
    schema: ConditionSchema, encoder: ConditionEncoder
) -> None:
    numbers = {spec.name: spec for spec in schema.attributes}
    sex = AttributeSpec(name="Sex", kind="categorical", categories=("f", "m", "other"))
    other = ConditionSchema(
        labels=("Mass", "Rib_fracture", "EFFUSION", "nod ule"),
        attributes=(numbers["age"].model_copy(update={"name": "Age"}), sex, numbers["view"]),
    )
    torch.manual_seed(1)
    mine = ConditionEncoder(other, SIZES)
    fresh = {name: value.clone() for name, value in mine.state_dict().items()}
    mine.adopt(encoder, other, schema)
    prompts = [
        Prompt(),
        Prompt(labels={"EFFUSION": True, "Mass": False}, attributes={"Age": 20.0, "Sex": "m", "view": "PA"}),
    ]
    known = [
        Prompt(),
        Prompt(labels={"effusion": True, "mass": False}, attributes={"age": 20.0, "sex": "M", "view": "PA"}),
    ]
    left, right = mine(encode_prompts(other, prompts))[0], encoder(encode_prompts(schema, known))[0]
    for token in (0, 1, 3, 4, *range(5, left.shape[1])):  # all but the rib fracture, which the base never heard of
        assert any(torch.equal(left[1, token], right[1, there]) for there in range(right.shape[1])), token
    rib = other.label_inputs.index("Rib_fracture")
    assert torch.equal(mine.labels.weight[3 * rib : 3 * rib + 3], fresh["labels.weight"][3 * rib : 3 * rib + 3])
    added = mine.category_rows(other)["Sex", "other"]
    assert torch.equal(mine.categories.weight[added], fresh["categories.weight"][added])


def test_names_that_become_one_are_left_apart() -> None:
    assert counterparts(["Mass", "mass", "Nodule"], ["mass", "nodule"]) == {"mass": "mass", "Nodule": "nodule"}
    assert counterparts(["Effusion"], ["effusion", "EFFUSION"]) == {}
    assert counterparts(["肺炎"], ["結節"]) == {}
