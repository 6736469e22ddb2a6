"""The single path from prompts, or from rows of a cohort, to the tensors that condition a denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.config import EMBEDDED, ConditioningConfig, EncoderSizes, TextConfig
from medphantom.conditioning.encoder import Conditions, encode_prompts
from medphantom.conditioning.masks import mask_numbers, masks_by_digest
from medphantom.conditioning.observed import observed_attributes
from medphantom.conditioning.prompt import ConditionSchema, MaskSchema, Prompt, TextSchema
from medphantom.conditioning.templates import sentence
from medphantom.conditioning.tokens import TokenizedTexts, refuse_long, tokenize, train_tokenizer
from medphantom.core.errors import InputError
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from medphantom.conditioning.text_encoder import TextBank

ROWS_PER_READ = 64


class TextReader(Protocol):
    """Converts texts to the numbers that a text encoder takes."""

    def read(self, texts: Sequence[str | None]) -> TokenizedTexts:
        """Return the numbers of texts, 0 for a missing text."""

    def too_long(self, texts: Sequence[str]) -> int:
        """Return how many of the texts would be truncated."""


class EmbeddedReader:
    """Reads texts for the embedded encoder.

    Args:
        tokenizer: Tokenizer that was trained with the generator.
        tokens: Number T of tokens per text.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: int) -> None:
        self.tokenizer, self.tokens = tokenizer, tokens

    def read(self, texts: Sequence[str | None]) -> TokenizedTexts:
        """Return the numbers of texts, see :meth:`TextReader.read`."""
        return tokenize(self.tokenizer, texts, self.tokens)

    def too_long(self, texts: Sequence[str]) -> int:
        """Return how many texts would be truncated, see :meth:`TextReader.too_long`."""
        return len(self.read(texts).truncated)


class Conditioner:
    """The prompts that a generator accepts, and their conversion to tensors.

    Args:
        schema: Vocabulary of the prompts.
        reader: Reader of texts, if the schema has them.
    """

    def __init__(self, schema: ConditionSchema, reader: TextReader | None = None) -> None:
        if (schema.text is None) != (reader is None):
            raise InputError("a schema with texts needs a text reader, and no other schema may have one")
        self.schema, self.reader = schema, reader

    @property
    def bank(self) -> TextBank | None:
        """Features of the pretrained text encoder, if there is one."""
        return getattr(self.reader, "bank", None)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Tokenizer of the embedded text encoder, if there is one."""
        return getattr(self.reader, "tokenizer", None)

    def of_prompts(self, prompts: Sequence[Prompt], masks: Mapping[str, Array] | None = None) -> Conditions:
        """Return the tensors of prompts.

        If the generator was trained on templates, a prompt without a text is turned into a sentence, always the same
        one for the same labels and attributes.

        Args:
            prompts: Prompts, one per image.
            masks: Masks by digest, for the prompts that name one.

        Raises:
            PromptError: If a prompt is outside the vocabulary, its text is too long, or its mask does not fit.
            InputError: If a mask is missing.
        """
        conditions = encode_prompts(self.schema, prompts)
        if self.reader is not None and self.schema.text is not None:
            read = self.reader.read([self.words(prompt) for prompt in prompts])
            refuse_long(read, self.schema.text.tokens)
            conditions = replace(conditions, text_BT=torch.from_numpy(read.ids))
        if self.schema.mask is not None:
            found = masks_by_digest(masks or {}, [prompt.mask for prompt in prompts])
            conditions = replace(conditions, mask=mask_numbers(self.schema.mask, found))
        return conditions

    def words(self, prompt: Prompt) -> str | None:
        """Return a prompt as text: its own, or a sentence of the kind on which the generator was trained."""
        if prompt.text is not None or not self.schema.templated:
            return prompt.text
        return sentence(self.schema, prompt, np.random.default_rng(derive_seed(0, "wording", prompt.to_json())))

    def of_rows(
        self,
        cohort: Cohort,
        rows: Sequence[int],
        preprocess: Preprocess,
        *,
        paraphrases: int = 1,
        seed: int = 0,
        cache: Path | None = None,
    ) -> Conditions:
        """Return the known conditions of rows of a cohort, for training.

        Args:
            cohort: Cohort of real images.
            rows: Row numbers of the images.
            preprocess: Preprocessing that brings masks to the network's grid.
            paraphrases: Number of sentences per row if they are written from templates; the texts of a cohort have one.
            seed: Seed that selects the paraphrases.
            cache: File in which the features of a pretrained text encoder are stored, or found again.
        """
        conditions = Conditions.from_cohort(cohort, rows, self.schema)
        if self.reader is not None:
            ids = None if cache is None or self.bank is None else self.bank.load(cache)
            if ids is None:
                texts = self._texts(cohort, rows, paraphrases, seed)
                ids = torch.from_numpy(self.reader.read([text for of_row in texts for text in of_row]).ids)
                if cache is not None and self.bank is not None:
                    self.bank.save(cache, ids)
            conditions = replace(conditions, text_BT=ids.reshape(len(rows), -1, ids.shape[1]))
        if self.schema.mask is not None:
            conditions = replace(conditions, mask=network_masks(cohort, rows, preprocess, self.schema.mask))
        return conditions

    def _texts(self, cohort: Cohort, rows: Sequence[int], paraphrases: int, seed: int) -> list[list[str | None]]:
        if not self.schema.templated:
            return [[text] for text in cohort.manifest["text"].gather(list(rows)).to_list()]
        return template_texts(cohort, rows, self.schema, paraphrases, seed)


def network_masks(cohort: Cohort, rows: Sequence[int], preprocess: Preprocess, schema: MaskSchema) -> torch.Tensor:
    """Return masks of rows on the network's grid, see :func:`medphantom.conditioning.masks.mask_numbers`."""
    numbers = torch.zeros(len(rows), *schema.size, dtype=torch.uint8)
    for start in range(0, len(rows), ROWS_PER_READ):
        part = list(rows[start : start + ROWS_PER_READ])
        found = [None if mask is None else preprocess.apply_mask(mask) for mask in cohort.masks(part)]
        numbers[start : start + len(part)] = mask_numbers(schema, found)
    return numbers


def template_texts(
    cohort: Cohort, rows: Sequence[int], schema: ConditionSchema, paraphrases: int, seed: int
) -> list[list[str | None]]:
    """Return several paraphrases for each row of a cohort; the wording depends on seed and image id alone.

    It does not depend on the position of the row, so that one patient more or less does not change all other texts.
    """
    texts: list[list[str | None]] = []
    names = cohort.manifest["image_id"][list(rows)].to_list()
    for name, prompt in zip(names, row_prompts(cohort, rows, schema), strict=True):
        random = [np.random.default_rng(derive_seed(seed, "wording", name, number)) for number in range(paraphrases)]
        texts.append([sentence(schema, prompt, rng) for rng in random])
    return texts


def row_prompts(cohort: Cohort, rows: Sequence[int], schema: ConditionSchema) -> list[Prompt]:
    """Return rows of a cohort as prompts within a generator's vocabulary; numbers are clipped to its range."""
    states = cohort.labels(rows)
    observed_values = observed_attributes(cohort, rows, schema)
    columns = [(spec, observed_values[spec.name]) for spec in schema.attributes if spec.name in observed_values]
    prompts = []
    for place, observed in enumerate(states):
        labels = {
            name: bool(state)
            for name, state in zip(cohort.schema.labels, observed, strict=True)
            if state >= 0 and name in schema.labels
        }
        attributes: dict[str, float | str] = {}
        for spec, values in columns:
            value = values[place]
            if value is not None and spec.low is not None and spec.high is not None:
                attributes[spec.name] = min(max(float(value), spec.low), spec.high)
            elif value in spec.categories:
                attributes[spec.name] = value
        prompts.append(Prompt(labels=labels, attributes=attributes))
    return prompts


def learn_conditioner(
    cohort: Cohort,
    rows: Sequence[int],
    vocabulary: ConditionSchema,
    config: ConditioningConfig,
    *,
    preprocess: Preprocess,
    seed: int,
    pipeline: str | None = None,
) -> Conditioner:
    """Return the conditioner for a generator that is trained on these rows.

    Args:
        cohort: Cohort of real images.
        rows: Training rows of the cohort.
        vocabulary: Labels and attributes of those rows.
        config: Requested kinds of prompt.
        preprocess: Preprocessing that defines the network's grid.
        seed: Seed of the templates' paraphrases.
        pipeline: Hub id or folder of the diffusers pipeline that is fine-tuned, whose text encoder reads the texts.

    Raises:
        InputError: If no kind of prompt is requested, or the rows have no text or no mask to train on.
    """
    changes: dict[str, object] = {"reads": config.reads}
    if config.mask is not None:
        changes["mask"] = _mask_schema(cohort, rows, preprocess)
    reader: TextReader | None = None
    if config.text is not None:
        changes["text"], reader = _text_schema(cohort, rows, vocabulary, config.text, seed=seed, pipeline=pipeline)
    if not config.reads:
        raise InputError(
            "generator.conditioning reads neither labels, text nor masks", "set one of them, or labels to true"
        )
    schema = ConditionSchema.model_validate({**vocabulary.model_dump(), **changes})
    return Conditioner(schema, reader)


def _mask_schema(cohort: Cohort, rows: Sequence[int], preprocess: Preprocess) -> MaskSchema:
    if not cohort.manifest["mask_group"].gather(list(rows)).is_not_null().any():
        raise InputError(
            "no training image has a mask to condition on", "ingest masks (--masks), or leave out conditioning.mask"
        )
    return MaskSchema(values={0: "background", **cohort.schema.mask_values}, size=preprocess.size)


def _text_schema(
    cohort: Cohort,
    rows: Sequence[int],
    vocabulary: ConditionSchema,
    config: TextConfig,
    *,
    seed: int,
    pipeline: str | None,
) -> tuple[TextSchema, TextReader]:
    """Train or open the text encoder, and count the texts that it truncates."""
    if config.written_by == "templates":
        texts = [
            text for of_row in template_texts(cohort, rows, vocabulary, config.paraphrases, seed) for text in of_row
        ]
        patients = [patient for patient in cohort.patients(rows) for _ in range(config.paraphrases)]
    else:
        texts, patients = cohort.manifest["text"].gather(list(rows)).to_list(), cohort.patients(rows)
    observed = [(text, patient) for text, patient in zip(texts, patients, strict=True) if text]
    if not observed:
        raise InputError(
            "no training image has a text to condition on",
            "ingest a text column, or set conditioning.text.written_by to templates",
        )
    reader: TextReader
    if pipeline is not None:
        from medphantom.conditioning.pretrained_text import PipelineReader  # loads transformers

        reader = PipelineReader(pipeline)
        schema = reader.schema()
    elif config.encoder == EMBEDDED:
        tokenizer = train_tokenizer(
            [text for text, _ in observed],
            [patient for _, patient in observed],
            vocabulary=config.vocabulary,
            min_patients=config.min_patients,
        )
        reader, schema = EmbeddedReader(tokenizer, config.tokens), TextSchema(tokens=config.tokens)
    else:
        from medphantom.conditioning.pretrained_text import PretrainedReader  # loads transformers

        reader = PretrainedReader(config.encoder, config.tokens)
        schema = reader.schema()
    cut = reader.too_long([text for text, _ in observed]) / len(observed)
    return schema.model_copy(update={"written_by": config.written_by, "truncated": cut}), reader


def encoder_sizes(conditioner: Conditioner, config: ConditioningConfig, dim: int, halvings: int) -> EncoderSizes:
    """Return the sizes of the layers with which a new generator encodes conditions.

    Args:
        conditioner: Conditioner whose conditions are encoded.
        config: Configuration with the requested sizes.
        dim: Width of the context tokens.
        halvings: Number of halvings from an image's grid to its latent's.
    """
    text, mask = config.text, config.mask
    tokenizer = conditioner.tokenizer
    return EncoderSizes(
        dim=dim,
        vocabulary=0 if tokenizer is None else tokenizer.get_vocab_size(),
        text_width=text.width if text is not None and tokenizer is not None else 0,
        text_layers=text.layers if text is not None and tokenizer is not None else 0,
        mask_channels=0 if mask is None else mask.channels,
        mask_halvings=0 if mask is None else halvings,
    )


def open_conditioner(schema: ConditionSchema, tokenizer_file: Path) -> Conditioner:
    """Return the conditioner of a stored generator.

    Args:
        schema: Vocabulary from its facts.
        tokenizer_file: Path of its tokenizer, if it has one.

    Raises:
        BundleError: If the tokenizer is damaged.
        InputError: If the pretrained text encoder is not available or has changed.
    """
    if schema.text is None:
        return Conditioner(schema)
    if schema.text.encoder == EMBEDDED:
        from medphantom.conditioning.tokens import read_tokenizer

        return Conditioner(schema, EmbeddedReader(read_tokenizer(tokenizer_file), schema.text.tokens))
    from medphantom.conditioning.pretrained_text import open_reader  # loads transformers

    return Conditioner(schema, open_reader(schema.text))
