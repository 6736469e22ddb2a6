from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medphantom.conditioning.tokens import (
    END,
    START,
    TokenizedTexts,
    read_tokenizer,
    refuse_long,
    tokenize,
    train_tokenizer,
)
from medphantom.core.errors import BundleError, PromptError

COMMON = ["Effusion of the left lung.", "No effusion. Lungs clear.", "Left lung clear, no mass."]
TEXTS = [COMMON[i % 3] for i in range(60)]
PATIENTS = [f"p{i}" for i in range(60)]


def vocabulary_of(texts: list[str], patients: list[str], min_patients: int = 5) -> set[str]:
    tokenizer = train_tokenizer(texts, patients, vocabulary=600, min_patients=min_patients)
    return {word.replace("Ġ", "") for word in tokenizer.get_vocab()}


def test_a_word_of_few_patients_leaves_no_trace_in_the_tokenizer() -> None:
    """The planted name occurs often, but in the texts of four patients only."""
    secret = ["Mrs Quxbartolomew seen, effusion."] * 40
    owners = [f"q{i % 4}" for i in range(40)]
    found = vocabulary_of(TEXTS + secret, PATIENTS + owners)
    assert "effusion" in found
    assert found == vocabulary_of(TEXTS + ["effusion"] * 40, PATIENTS + owners)
    shared = vocabulary_of(TEXTS + secret, PATIENTS + [f"q{i % 5}" for i in range(40)])
    assert "quxbartolomew" in shared


def test_digits_stay_single() -> None:
    dated = [f"{text} Accession 20391877." for text in TEXTS]
    assert not any(len(word) > 1 and any(sign.isdigit() for sign in word) for word in vocabulary_of(dated, PATIENTS))


def test_any_text_can_be_spelt_and_read_back() -> None:
    tokenizer = train_tokenizer(TEXTS, PATIENTS, vocabulary=600, min_patients=5)
    for text in ("pneumothorax 12 mm", "überlagerung", "骨折", "a\nb"):
        ids = tokenizer.encode(text).ids
        assert ids[0] == START
        assert ids[-1] == END
        assert tokenizer.decode(ids).strip() == text
    assert len(tokenizer.encode("effusion").ids) == 3


def test_rows_have_one_length_and_cut_texts_are_named() -> None:
    tokenizer = train_tokenizer(TEXTS, PATIENTS, vocabulary=600, min_patients=5)
    found = tokenize(tokenizer, ["effusion", None, "", "x" * 50], 8)
    assert found.ids.shape == (4, 8)
    assert found.ids[0].tolist()[:1] == [START]
    assert (found.ids[1:3] == 0).all()
    assert found.truncated == (3,)
    assert found.ids[3, -1] == END
    with pytest.raises(PromptError, match="prompt 4 is longer than the 8 tokens"):
        refuse_long(found, 8)
    refuse_long(TokenizedTexts(np.zeros((1, 8), dtype=np.int64), ()), 8)


def test_a_damaged_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    for name in ("tokenizer.json", "missing.json"):
        with pytest.raises(BundleError, match=r"not a tokenizer|is missing"):
            read_tokenizer(tmp_path / name)
