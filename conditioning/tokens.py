"""A tokenizer trained on a cohort's own texts, without tokens for words that only few patients share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from medphantom.core.errors import BundleError, PromptError
from medphantom.core.guard import reading

PADDING, START, END = 0, 1, 2
SPECIAL = ("<padding>", "<start>", "<end>")
WORD = re.compile(r"[^\W\d_]+")


def train_tokenizer(texts: Sequence[str], patients: Sequence[str], *, vocabulary: int, min_patients: int) -> Tokenizer:
    """Train byte-level pair encoding (Sennrich et al. 2016; Radford et al. 2019) of lower-case text.

    A merge reveals the text from which it was learned, and is published with the model. So merges are learned only from
    words that ``min_patients`` patients share, and never from digits, which remain single tokens: names, dates and
    numbers of a patient leave no trace, and are encoded as bytes when they occur.

    Args:
        texts: Texts of the training images.
        patients: Patient of each text.
        vocabulary: Largest number of tokens, including the 256 bytes and three marks.
        min_patients: Smallest number of patients that must share a word.
    """
    holders: dict[str, set[str]] = defaultdict(set)
    words_of = [WORD.findall(text.lower()) for text in texts]
    for words, patient in zip(words_of, patients, strict=True):
        for word in words:
            holders[word].add(patient)
    common = {word for word, who in holders.items() if len(who) >= min_patients}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, 256 + len(SPECIAL)),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    kept = [[word for word in words if word in common] for words in words_of]
    # a word occurs after a space and after other characters
    joined: Iterable[str] = (sign.join(words) for words in kept for sign in (" ", "-"))
    tokenizer.train_from_iterator(joined, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[START]} $A {SPECIAL[END]}", special_tokens=[(SPECIAL[START], START), (SPECIAL[END], END)]
    )
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Read the tokenizer file of a bundle.

    Raises:
        BundleError: If it is missing or damaged.
    """
    with reading(path, BundleError, "is missing or not a tokenizer", "fetch or create the bundle again"):
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class TokenizedTexts:
    """Token numbers of texts.

    Attributes:
        ids: Token numbers, ``(N, tokens)`` int64; 0 is padding, and a row of padding is a missing text.
        truncated: Positions of the texts that were truncated.
    """

    ids: npt.NDArray[np.int64]
    truncated: tuple[int, ...]


def tokenize(tokenizer: Tokenizer, texts: Sequence[str | None], tokens: int) -> TokenizedTexts:
    """Return token numbers of texts at one length; a text that is too long is truncated but keeps the end mark.

    Args:
        tokenizer: Tokenizer from :func:`train_tokenizer`.
        texts: Texts; ``None`` or empty is a missing text.
        tokens: Length of every row.
    """
    ids = np.zeros((len(texts), tokens), dtype=np.int64)
    truncated = []
    for place, text in enumerate(texts):
        if not text:
            continue
        found = tokenizer.encode(text).ids
        if len(found) > tokens:
            truncated.append(place)
            found = [*found[: tokens - 1], END]
        ids[place, : len(found)] = found
    return TokenizedTexts(ids, tuple(truncated))


def refuse_long(texts: TokenizedTexts, tokens: int) -> None:
    """Refuse prompts that would be truncated.

    Raises:
        PromptError: If there are any; the message names the position of the first.
    """
    if texts.truncated:
        raise PromptError(
            f"the text of prompt {texts.truncated[0] + 1} is longer than the {tokens} tokens that this generator reads",
            "shorten it, since its end would be ignored",
        )
