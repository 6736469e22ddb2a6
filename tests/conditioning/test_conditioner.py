"""Prompts and rows to tensors, with texts and masks; the pretrained encoders are real classes at tiny size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.conditioner import Conditioner, encoder_sizes, learn_conditioner, open_conditioner
from medphantom.conditioning.config import ConditioningConfig, MaskConfig, TextConfig
from medphantom.conditioning.encoder import ConditionEncoder
from medphantom.conditioning.plan_masks import plan_masks
from medphantom.conditioning.pretrained_text import PretrainedReader, open_reader
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.conditioning.tokens import train_tokenizer
from medphantom.core.errors import BundleError, InputError, PromptError
from medphantom.core.folders import pixel_digest

SIDE = 8
PREPROCESS = Preprocess(size=(SIDE, SIDE))
REPORTS = {True: "Large effusion on the left.", False: "Lungs are clear, no effusion."}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Sixty patients with reports and masks; every tenth has neither."""
    path = tmp_path_factory.mktemp("texts") / "cohort"
    schema = CohortSchema(labels=("effusion",), has_text=True, mask_values={1: "fluid"})
    with CohortWriter(path, schema) as writer:
        for number in range(60):
            shown, bare = number % 2 == 0, number % 10 == 9
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[SIDE // 2 :, : 4 if shown else 1] = 1
            writer.add(
                ImageRecord(
                    f"i{number}",
                    f"p{number}",
                    np.full((SIDE, SIDE), number, np.uint8),
                    "train" if number < 50 else "test",
                    labels={"effusion": shown},
                    text=None if bare else REPORTS[shown],
                    mask=None if bare else mask,
                )
            )
    return Cohort.open(path)


def learn(cohort: Cohort, **kinds: object) -> Conditioner:
    config = ConditioningConfig.model_validate(kinds)
    vocabulary = ConditionSchema.from_cohort(cohort.schema)
    return learn_conditioner(cohort, cohort.rows("train"), vocabulary, config, preprocess=PREPROCESS, seed=0)


def encoder_of(conditioner: Conditioner, config: ConditioningConfig) -> ConditionEncoder:
    torch.manual_seed(0)
    sizes = encoder_sizes(conditioner, config, dim=16, halvings=1)
    return ConditionEncoder(conditioner.schema, sizes, conditioner.bank).eval()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("clip"), CLIPTextModel, CLIPTextConfig, intermediate_size=32)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("bert"), BertModel, BertConfig, intermediate_size=32)


def _save(folder: Path, network: type, config: type, **sizes: int) -> Path:
    """A tiny text encoder with a tokenizer, laid out as hubs lay it out."""
    words = train_tokenizer([*REPORTS.values()] * 10, [f"p{i}" for i in range(20)], vocabulary=400, min_patients=1)
    marks = {"pad_token": "<padding>", "bos_token": "<start>", "eos_token": "<end>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **marks)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    network(
        config(
            vocab_size=words.get_vocab_size(),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            **sizes,
        )
    ).save_pretrained(folder)
    return folder


def test_a_cohorts_texts_and_masks_are_read_and_missing_ones_stay_missing(cohort: Cohort) -> None:
    conditioner = learn(cohort, text={"tokens": 24, "vocabulary": 400}, mask={})
    assert conditioner.schema.reads == ("labels", "mask", "text")
    assert conditioner.schema.mask is not None
    assert conditioner.schema.mask.values == {0: "background", 1: "fluid"}
    found = conditioner.of_rows(cohort, [0, 1, 9], PREPROCESS)
    assert found.text_BT is not None
    assert found.mask is not None
    assert found.text_BT.shape == (3, 1, 24)
    assert [bool(row.any()) for row in found.text_BT] == [True, True, False]
    assert [int((mask == 2).sum()) for mask in found.mask] == [16, 4, 0]
    assert int(found.mask[2].max()) == 0
    prompt = conditioner.of_prompts([Prompt(text=REPORTS[True], labels={"effusion": True})])
    assert torch.equal(prompt.text_BT, found.text_BT[0, :1])  # type: ignore[arg-type]


def test_prompts_carry_masks_by_digest(cohort: Cohort) -> None:
    conditioner = learn(cohort, mask={})
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[0] = 1
    digest = pixel_digest(mask)
    found = conditioner.of_prompts([Prompt(mask=digest), Prompt()], {digest: mask}).mask
    assert found is not None
    assert found[0, 0].tolist() == [2] * SIDE
    assert int(found[1].max()) == 0


def test_masks_are_planned_for_a_generator_that_reads_nothing_else(cohort: Cohort) -> None:
    schema = learn(cohort, labels=False, mask={}).schema
    plan = plan_masks(cohort, schema, 4, 0, preprocess=PREPROCESS)
    assert [image.prompt.labels for image in plan] == [{}] * 4
    assert all(image.prompt.mask for image in plan)


def test_templates_put_labels_into_words_where_the_network_reads_no_labels(cohort: Cohort) -> None:
    conditioner = learn(cohort, labels=False, text={"written_by": "templates", "tokens": 24, "paraphrases": 4})
    assert conditioner.schema.reads == ("text",)
    found = conditioner.of_prompts([Prompt(labels={"effusion": True}), Prompt(labels={"effusion": False}), Prompt()])
    assert found.labels_BL.shape == (3, 0)
    assert found.text_BT is not None
    assert not torch.equal(found.text_BT[0], found.text_BT[1])
    assert not found.text_BT[2].any()
    rows = conditioner.of_rows(cohort, [0, 1], PREPROCESS, paraphrases=4)
    assert rows.text_BT is not None
    assert rows.text_BT.shape == (2, 4, 24)
    assert len({tuple(row.tolist()) for row in rows.text_BT[0]}) > 1
    one = rows.one_paraphrase(torch.Generator().manual_seed(0)).text_BT
    assert one is not None
    assert all(any(torch.equal(text, choice) for choice in of) for text, of in zip(one, rows.text_BT, strict=True))


def test_cut_texts_are_counted_in_the_schema_and_refused_in_a_prompt(cohort: Cohort) -> None:
    conditioner = learn(cohort, text={"tokens": 7, "vocabulary": 400})
    assert conditioner.schema.text is not None
    assert conditioner.schema.text.truncated == 1.0
    with pytest.raises(PromptError, match="longer than the 7 tokens"):
        conditioner.of_prompts([Prompt(text=REPORTS[True])])
    assert learn(cohort, text={"tokens": 24}).schema.text.truncated == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("prompt", "kinds", "message"),
    [
        (Prompt(text="x"), {}, "reads no text"),
        (Prompt(mask="0" * 64), {}, "reads no masks"),
        (Prompt(labels={"effusion": True}), {"labels": False, "text": {}}, "reads no labels"),
    ],
)
def test_what_the_network_has_no_input_for_is_refused(
    cohort: Cohort, prompt: Prompt, kinds: dict[str, object], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        learn(cohort, **kinds).of_prompts([prompt])


def test_a_cohort_without_texts_or_masks_is_refused(cohort: Cohort) -> None:
    bare = [row for row in cohort.rows() if row % 10 == 9]
    vocabulary = ConditionSchema.from_cohort(cohort.schema)
    for kind, message in (({"text": TextConfig()}, "has a text"), ({"mask": MaskConfig()}, "has a mask")):
        with pytest.raises(InputError, match=message):
            learn_conditioner(cohort, bare, vocabulary, ConditioningConfig(**kind), preprocess=PREPROCESS, seed=0)
    with pytest.raises(InputError, match="neither labels, text nor masks"):
        learn(cohort, labels=False)


def test_every_kind_reaches_the_tokens_and_missing_ones_are_learned_vectors(cohort: Cohort) -> None:
    config = ConditioningConfig(text=TextConfig(tokens=24, width=32))
    conditioner = learn(cohort, **config.model_dump())
    encoder = encoder_of(conditioner, config)
    prompts = [Prompt(), Prompt(text=REPORTS[True]), Prompt(text=REPORTS[False]), Prompt(labels={"effusion": True})]
    context, pooled = encoder(conditioner.of_prompts(prompts))
    assert context.shape == (4, 1 + 1 + 24, 16)
    assert encoder.total_tokens == 26
    for first in range(4):
        for second in range(first):
            assert not torch.allclose(context[first], context[second])
            assert not torch.allclose(pooled[first], pooled[second])
    alone, _ = encoder(conditioner.of_prompts(prompts[1:2]))
    torch.testing.assert_close(alone[0], context[1])


def test_each_kind_is_also_met_without_the_others(cohort: Cohort) -> None:
    conditioner = learn(cohort, text={"tokens": 24}, mask={})
    rows = [row for row in cohort.rows("train") if row % 10 != 9] * 40
    given = conditioner.of_rows(cohort, rows, PREPROCESS).one_paraphrase(torch.Generator())
    dropped = given.drop(torch.Generator().manual_seed(0), whole=0.0, partial=0.0, kinds=0.3)
    assert dropped.text_BT is not None
    assert dropped.mask is not None
    kept = torch.stack(
        [dropped.labels_BL[:, 0] != 2, dropped.text_BT.any(dim=1), (dropped.mask > 0).flatten(1).any(dim=1)], dim=1
    )
    assert kept.float().mean(0).tolist() == pytest.approx([0.7] * 3, abs=0.04)
    assert len(kept.unique(dim=0)) == 8
    alone = float((kept == torch.tensor([True, False, False])).all(dim=1).float().mean())
    assert alone == pytest.approx(0.7 * 0.3 * 0.3, abs=0.02)


def test_a_generator_that_reads_one_kind_does_not_lose_it_as_one_of_several(cohort: Cohort) -> None:
    conditioner = learn(cohort, labels=False, text={"written_by": "templates", "tokens": 24})
    given = conditioner.of_rows(cohort, cohort.rows("train"), PREPROCESS).one_paraphrase(torch.Generator())
    dropped = given.drop(torch.Generator(), whole=0.0, partial=0.0, kinds=0.9)
    assert torch.equal(dropped.tensors()["text"], given.tensors()["text"])


def test_forgetting_takes_texts_and_masks_whole(cohort: Cohort) -> None:
    conditioner = learn(cohort, text={"tokens": 24}, mask={})
    rows = [row for row in cohort.rows("train") if row % 10 != 9] * 20
    given = conditioner.of_rows(cohort, rows, PREPROCESS).one_paraphrase(torch.Generator())
    dropped = given.drop(torch.Generator().manual_seed(0), whole=0.0, partial=1.0)
    assert dropped.text_BT is not None
    assert dropped.mask is not None
    lost_text = ~dropped.text_BT.any(dim=1)
    lost_mask = ~(dropped.mask > 0).flatten(1).any(dim=1)
    assert 0.4 < float(lost_text.float().mean()) < 0.6
    assert 0.4 < float(lost_mask.float().mean()) < 0.6
    assert bool((lost_text != lost_mask).any())
    assert torch.equal(dropped.text_BT[~lost_text], given.text_BT[~lost_text])  # type: ignore[index]
    emptied = given.drop(torch.Generator().manual_seed(0), whole=1.0, partial=0.0).tensors()
    for name, tensor in given.all_missing().tensors().items():
        assert torch.equal(torch.nan_to_num(emptied[name]), torch.nan_to_num(tensor))


@pytest.mark.parametrize("kind", ["clip_folder", "bert_folder"])
def test_a_pretrained_encoder_says_what_transformers_says(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    reader = PretrainedReader(str(folder), 16)
    texts = [REPORTS[True], None, REPORTS[False], REPORTS[True]]
    ids = reader.read(texts).ids
    assert ids[:, 0].tolist() == [1, 0, 2, 1]
    assert len(reader.bank) == 2
    network = (CLIPTextModel if kind == "clip_folder" else BertModel).from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    batch = tokenizer(REPORTS[False], padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        wanted = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[0]
    torch.testing.assert_close(reader.bank.features[1].float(), wanted, atol=2e-3, rtol=1e-3)
    assert torch.equal(reader.bank.valid[1], batch["attention_mask"][0].bool())


def test_a_generator_with_a_pretrained_encoder_opens_only_with_the_same_one(
    cohort: Cohort, clip_folder: Path, bert_folder: Path
) -> None:
    config = ConditioningConfig(text=TextConfig(encoder=str(clip_folder), tokens=16))
    conditioner = learn(cohort, **config.model_dump())
    text = conditioner.schema.text
    assert text is not None
    assert text.width == 16
    encoder = encoder_of(conditioner, config)
    conditions = conditioner.of_prompts([Prompt(text=REPORTS[True]), Prompt()])
    context, _ = encoder(conditions)
    assert context.shape == (2, 1 + 1 + 16, 16)
    reopened = open_conditioner(conditioner.schema, Path("none"))
    reloaded = encoder_of(reopened, config)
    reloaded.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(reloaded(reopened.of_prompts([Prompt(text=REPORTS[True]), Prompt()]))[0], context)
    with pytest.raises(InputError, match="not the one that this generator was trained with"):
        open_reader(text.model_copy(update={"encoder": str(bert_folder)}))


def test_answers_of_a_pretrained_encoder_are_kept_and_found_again(
    cohort: Cohort, clip_folder: Path, tmp_path: Path
) -> None:
    kinds = {"text": {"encoder": str(clip_folder), "tokens": 16}}
    rows, cache = [0, 9, 1, 2], tmp_path / "cache" / "train.safetensors"
    first = learn(cohort, **kinds)
    ids = first.of_rows(cohort, rows, PREPROCESS, cache=cache).text_BT
    assert cache.is_file()
    assert REPORTS[True].split()[0].encode() not in cache.read_bytes()
    second = learn(cohort, **kinds)
    second.of_prompts([Prompt(text="No lungs")])
    again = second.of_rows(cohort, rows, PREPROCESS, cache=cache).text_BT
    assert ids is not None
    assert again is not None
    assert again.flatten().tolist() == [2, 0, 3, 2]
    assert first.bank is not None
    assert second.bank is not None
    for old, new in zip(ids.flatten().tolist(), again.flatten().tolist(), strict=True):
        assert (old == 0) == (new == 0)
        if old:
            assert torch.equal(first.bank.features[old - 1], second.bank.features[new - 1])
    cache.write_bytes(b"damaged")
    assert torch.equal(learn(cohort, **kinds).of_rows(cohort, rows, PREPROCESS, cache=cache).text_BT, ids)  # type: ignore[arg-type]


@pytest.mark.usefixtures("offline")
def test_an_encoder_that_cannot_be_had_is_one_line(tmp_path: Path, clip_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"cannot be had; check that the folder contains config.json"):
        PretrainedReader(str(tmp_path / "empty"), 16)
    with pytest.raises(InputError, match=r"nobody/nothing cannot be had; give a folder .* or connect to the hub"):
        PretrainedReader("nobody/nothing", 16)
    with pytest.raises(InputError, match=r"takes 32 tokens, but conditioning.text.tokens is 64"):
        PretrainedReader(str(clip_folder), 64)


def test_pickled_weights_are_refused(tmp_path: Path, clip_folder: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    for file in clip_folder.iterdir():
        if file.suffix == ".safetensors":
            torch.save({}, folder / "pytorch_model.bin")
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="cannot be had"):
        PretrainedReader(str(folder), 16)


def test_a_stored_conditioner_reads_the_same_numbers(cohort: Cohort, tmp_path: Path) -> None:
    conditioner = learn(cohort, text={"tokens": 24})
    assert isinstance(conditioner.tokenizer, Tokenizer)
    file = tmp_path / "tokenizer.json"
    file.write_text(conditioner.tokenizer.to_str(), encoding="utf-8")
    again = open_conditioner(ConditionSchema.model_validate_json(conditioner.schema.model_dump_json()), file)
    prompts = [Prompt(text="Never: 12 mm!"), Prompt()]
    assert torch.equal(again.of_prompts(prompts).text_BT, conditioner.of_prompts(prompts).text_BT)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=r"gone\.json is missing"):
        open_conditioner(conditioner.schema, tmp_path / "gone.json")
