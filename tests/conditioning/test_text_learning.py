"""The text encoder learns what sentences say of their image before any denoiser listens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from medphantom.cohorts.records import AttributeSpec
from medphantom.conditioning.config import EncoderSizes
from medphantom.conditioning.encoder import MISSING, Conditions, encode_prompts
from medphantom.conditioning.prompt import ConditionSchema, Prompt, TextSchema
from medphantom.conditioning.text_encoder import EmbeddedText
from medphantom.conditioning.text_learning import TextLearner, TextQuestions
from medphantom.conditioning.tokens import tokenize, train_tokenizer
from medphantom.learning.batches import TensorBatches
from medphantom.learning.fit import fit
from medphantom.learning.fit_config import FitConfig

SCHEMA = ConditionSchema(
    labels=("effusion", "mass"),
    attributes=(
        AttributeSpec(name="age", kind="continuous", low=20.0, high=80.0),
        AttributeSpec(name="sex", kind="categorical", categories=("F", "M")),
    ),
)


def sentence(effusion: bool, mass: bool, age: int, sex: str) -> str:
    findings = [f"{'showing' if shown else 'no'} {name}" for name, shown in (("effusion", effusion), ("mass", mass))]
    return f"{'man' if sex == 'M' else 'woman'} of {age}, {', '.join(findings)}"


def learned(folder: Path, *, steps: int) -> tuple[TextQuestions, Conditions]:
    """Sentences that say *no* of what they name; the mass of every third is not stated in the table."""
    prompts = [
        Prompt(labels={"effusion": e, "mass": m}, attributes={"age": float(age), "sex": sex})
        for e in (True, False)
        for m in (True, False)
        for age in range(20, 81, 12)
        for sex in "FM"
    ]
    texts = [
        sentence(p.labels["effusion"], p.labels["mass"], int(p.attributes["age"]), str(p.attributes["sex"]))
        for p in prompts
    ]
    tokenizer = train_tokenizer(texts, [str(n) for n in range(len(texts))], vocabulary=320, min_patients=2)
    ids = torch.from_numpy(tokenize(tokenizer, texts, 24).ids)
    stated = replace(encode_prompts(SCHEMA, prompts), text_BT=ids)
    table = replace(stated, labels_BL=stated.labels_BL.clone())
    table.labels_BL[::3, 1] = MISSING
    torch.manual_seed(0)
    sizes = EncoderSizes(dim=16, vocabulary=tokenizer.get_vocab_size(), text_width=32, text_layers=2)
    network = TextQuestions(EmbeddedText(TextSchema(tokens=24), sizes), SCHEMA, 16)
    config = FitConfig(
        steps=steps, batch_size=32, learning_rate=3e-3, ema_decay=None, validate_every=0, tracker="none", device="cpu"
    )
    fit(TextLearner(network), TensorBatches(table.tensors()), config, work=folder)
    return network, stated


def test_negation_numbers_and_categories_are_read(tmp_path: Path) -> None:
    network, stated = learned(tmp_path, steps=250)
    assert stated.text_BT is not None
    with torch.inference_mode():
        words, (labels, numbers, sex) = network(stated.text_BT)
    assert torch.equal((labels > 0).long(), stated.labels_BL)  # also where the table did not say
    assert float((numbers - stated.continuous_BC).abs().max()) < 0.4
    assert torch.equal(sex.argmax(1), stated.categorical_BK[:, 0])
    findings = stated.text_BT[:, 1:]
    right = (words[:, :-1].argmax(-1) == findings)[findings != 0]
    assert float(right.float().mean()) > 0.7  # what is foreseeable: all but the finding, the age and the sex
