"""From prompts to tensors to context tokens: the conditioning of a denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from medphantom.cohorts.records import AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.config import EMBEDDED, EncoderSizes
from medphantom.conditioning.observed import observed_attributes
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.conditioning.tables import WithTables, for_each, table
from medphantom.core.errors import InputError
from medphantom.core.naming import counterparts

if TYPE_CHECKING:
    from medphantom.conditioning.text_encoder import TextBank, TextEncoder

ABSENT, PRESENT, MISSING = 0, 1, 2
FREQUENCIES = 8


@dataclass(frozen=True)
class Conditions:
    """Conditions of a batch of images as tensors; *missing* is not *absent*.

    Shape suffixes: B images, L labels, C continuous and K categorical attributes, in the schema's order; T tokens of a
    text, W paraphrases of the same text in training.

    Attributes:
        labels_BL: Labels, int64; 0 absent, 1 present, 2 missing.
        continuous_BC: Continuous attributes, float32 in -1…1 over the range of the training split; NaN is missing.
        categorical_BK: Categorical attributes, int64; 0 is missing, else 1 + index of the category.
        text_BT: Texts, int64 ``(B, T)`` or ``(B, W, T)``, as numbers for the text encoder; a row of 0 is a missing
            text; ``None`` if the generator reads no text.
        mask: Masks, uint8 ``(B, *size)`` from :func:`medphantom.conditioning.masks.mask_numbers`; all 0 is a missing
            mask; ``None`` if the generator reads no masks.
    """

    labels_BL: Tensor
    continuous_BC: Tensor
    categorical_BK: Tensor
    text_BT: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels_BL)

    def __getitem__(self, rows: slice | Tensor) -> Conditions:
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditions:
        return Conditions.from_tensors({name: change(tensor) for name, tensor in self.tensors().items()})

    @classmethod
    def from_cohort(cls, cohort: Cohort, rows: Sequence[int], schema: ConditionSchema) -> Conditions:
        """Return the known conditions of rows of a cohort; continuous values are clipped to the schema's range.

        A label or attribute of the schema that the cohort does not have is missing for all rows, and so is a category
        that the schema does not have.
        """
        labels = torch.full((len(rows), len(schema.label_inputs)), MISSING, dtype=torch.int64)
        found = torch.from_numpy(cohort.labels(rows)).long()
        for place, name in enumerate(schema.label_inputs):
            if name in cohort.schema.labels:
                column = found[:, cohort.schema.labels.index(name)]
                labels[:, place] = torch.where(column < 0, MISSING, column)
        nothing = {spec.name: [None] * len(rows) for spec in schema.attributes}
        values = nothing | observed_attributes(cohort, rows, schema)
        continuous = [[_scaled(spec, value) for value in values[spec.name]] for spec in schema.continuous_inputs]
        categorical = [[_category(spec, value) for value in values[spec.name]] for spec in schema.categorical_inputs]
        return cls(
            labels, _columns(continuous, len(rows), torch.float32), _columns(categorical, len(rows), torch.int64)
        )

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Conditions:
        """Restore conditions from :meth:`tensors`, in a batch that may contain other tensors too."""
        return cls(
            tensors["labels"], tensors["continuous"], tensors["categorical"], tensors.get("text"), tensors.get("mask")
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, as part of a batch; kinds that the generator does not read are left out."""
        found = {"labels": self.labels_BL, "continuous": self.continuous_BC, "categorical": self.categorical_BK}
        more = {"text": self.text_BT, "mask": self.mask}
        return {**found, **{name: tensor for name, tensor in more.items() if tensor is not None}}

    def to(self, device: torch.device | str) -> Conditions:
        """Return the conditions on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def all_missing(self) -> Conditions:
        """Return the same number of empty prompts: the null condition of classifier-free guidance."""
        return Conditions(
            torch.full_like(self.labels_BL, MISSING),
            torch.full_like(self.continuous_BC, math.nan),
            torch.zeros_like(self.categorical_BK),
            None if self.text_BT is None else torch.zeros_like(self.text_BT),
            None if self.mask is None else torch.zeros_like(self.mask),
        )

    def joined(self, other: Conditions) -> Conditions:
        """Return this batch followed by another one of the same generator."""
        mine, theirs = self.tensors(), other.tensors()
        return Conditions.from_tensors({name: torch.cat([mine[name], theirs[name]]) for name in mine})

    def one_paraphrase(self, generator: torch.Generator) -> Conditions:
        """Choose one of the paraphrases of every text; conditions with one text each are returned unchanged."""
        if self.text_BT is None or self.text_BT.ndim == 2:
            return self
        chosen = torch.randint(self.text_BT.shape[1], (len(self),), generator=generator).to(self.text_BT.device)
        return replace(self, text_BT=self.text_BT[torch.arange(len(self), device=chosen.device), chosen])

    def drop(self, generator: torch.Generator, *, whole: float, partial: float, kinds: float = 0.0) -> Conditions:
        """Drop conditions at random in training.

        A share ``whole`` of the prompts becomes empty: they train the unconditional model of classifier-free guidance
        (Ho & Salimans 2022). Of the others, a share ``partial`` loses each item with a probability drawn uniformly for
        each prompt, so that prompts with one item in twenty occur in training too. A text and a mask are one item each.

        Args:
            generator: Random generator on the CPU.
            whole: Share of emptied prompts, 0…1.
            partial: Share of thinned prompts among the others, 0…1.
            kinds: If a generator reads several kinds of prompt (labels and attributes; text; mask), the probability
                with which each is dropped entirely, so that each also occurs without the others, which are largely
                redundant.
        """
        total, device = len(self), self.labels_BL.device
        tensors, empty = self.tensors(), self.all_missing().tensors()
        widths = [1 if name in {"text", "mask"} else tensor.shape[1] for name, tensor in tensors.items()]
        emptied = torch.rand(total, 1, generator=generator) < whole
        thinned = torch.rand(total, 1, generator=generator) < partial
        rates = torch.rand(total, 1, generator=generator)
        lost = emptied | (thinned & (torch.rand(total, sum(widths), generator=generator) < rates))
        others = sum(name in {"text", "mask"} for name in tensors)
        items = sum(widths) - others
        if kinds and others + (items > 0) > 1:
            gone = torch.rand(total, 1 + others, generator=generator) < kinds
            lost |= torch.cat([gone[:, :1].expand(total, items), gone[:, 1:]], dim=1)
        kept = {}
        for (name, tensor), gone in zip(tensors.items(), torch.split(lost.to(device), widths, dim=1), strict=True):
            kept[name] = torch.where(gone.reshape(*gone.shape, *[1] * (tensor.ndim - 2)), empty[name], tensor)
        return Conditions.from_tensors(kept)


def encode_prompts(schema: ConditionSchema, prompts: Sequence[Prompt]) -> Conditions:
    """Return the tensors of labels and attributes of prompts; whatever a prompt does not specify is missing.

    If labels are mutually exclusive, a prompt with one present label also marks the others as absent, as in every
    training row.

    Raises:
        PromptError: If a term is not in the schema, or a value is outside the range of the training split.
    """
    for prompt in prompts:
        schema.check(prompt)
    labels = [[_label_state(schema, prompt, name) for name in schema.label_inputs] for prompt in prompts]
    continuous = [
        [_scaled(spec, prompt.attributes.get(spec.name)) for prompt in prompts] for spec in schema.continuous_inputs
    ]
    categories = [
        [_category(spec, prompt.attributes.get(spec.name)) for prompt in prompts] for spec in schema.categorical_inputs
    ]
    return Conditions(
        torch.tensor(labels, dtype=torch.int64).reshape(len(prompts), len(schema.label_inputs)),
        _columns(continuous, len(prompts), torch.float32),
        _columns(categories, len(prompts), torch.int64),
    )


class ConditionEncoder(WithTables):
    """Context tokens for cross-attention and one pooled vector, from :class:`Conditions`.

    There is one token for each label (a learned vector for each of absent, present and missing), for each continuous
    attribute (an MLP over Fourier features, Tancik et al. 2020, or a learned vector for missing) and for each
    categorical one (a learned vector for each category and for missing). A constant token comes first, so that a schema
    without any item still has a context. The tokens of a text follow, from a separate encoder.

    Args:
        schema: Vocabulary, which determines the order of all tables.
        sizes: Width D of the tokens, and sizes of the text encoder.
        bank: Features of the pretrained text encoder, if there is one.
    """

    stored: ClassVar = {"start": 3, "continuous_missing": 2, "continuous_names": 2}
    frequencies: Tensor
    offsets: Tensor

    def __init__(self, schema: ConditionSchema, sizes: EncoderSizes, bank: TextBank | None = None) -> None:
        super().__init__()
        dim = self.dim = sizes.dim
        continuous, categorical = schema.continuous_inputs, schema.categorical_inputs
        self.sizes = (len(schema.label_inputs), len(continuous), len(categorical))
        self.start = table(torch.randn(1, dim) / math.sqrt(dim))
        self.labels = nn.Embedding(3 * len(schema.label_inputs), dim)
        self.continuous_missing = table(torch.randn(len(continuous), dim))
        self.continuous_names = table(torch.randn(len(continuous), dim))
        self.continuous_values = nn.Sequential(nn.Linear(2 * FREQUENCIES + 1, dim), nn.SiLU(), nn.Linear(dim, dim))
        counts = [1 + len(spec.categories) for spec in categorical]
        self.categories = nn.Embedding(sum(counts), dim)
        self.pool = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        starts = torch.tensor([sum(counts[:place]) for place in range(len(counts))], dtype=torch.int64)
        self.register_buffer("offsets", starts, persistent=False)
        # Half a turn over the range -1…1 up to 2^(F-1) half turns: small differences in age are resolved.
        self.register_buffer("frequencies", math.pi / 2 * 2.0 ** torch.arange(FREQUENCIES), persistent=False)
        self.text = _text_encoder(schema, sizes, bank)

    @property
    def total_tokens(self) -> int:
        """Number T of context tokens."""
        return 1 + sum(self.sizes) + (0 if self.text is None else self.text.total_tokens)

    def forward(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Returns:
            Context ``(B, T, D)`` and pooled vector ``(B, D)``.

        Raises:
            InputError: If the conditions belong to another schema.
        """
        found = tuple(t.shape[1] for t in (conditions.labels_BL, conditions.continuous_BC, conditions.categorical_BK))
        if found != self.sizes:
            raise InputError(f"conditions have {found} labels and attributes, but this encoder expects {self.sizes}")
        places = torch.arange(self.sizes[0], device=conditions.labels_BL.device)
        labels = self.labels(3 * places + conditions.labels_BL)
        categories = self.categories(self.offsets + conditions.categorical_BK)
        start = for_each(self.start, len(conditions))
        context = torch.cat([start, labels, self._continuous(conditions.continuous_BC), categories], dim=1)
        summary = context.mean(dim=1)
        if self.text is not None:
            if conditions.text_BT is None:
                raise InputError("the conditions have no text, but this encoder expects texts")
            tokens, text = self.text(conditions.text_BT)
            context, summary = torch.cat([context, tokens], dim=1), summary + text
        pooled: Tensor = self.pool(summary)
        return context, pooled

    @torch.no_grad()
    def adopt(self, other: ConditionEncoder, mine: ConditionSchema, theirs: ConditionSchema) -> None:
        """Copy what an encoder of the same width has learned about another vocabulary, name by name.

        Names that differ only in case, spaces or punctuation are equal, unless this makes two of them equal.

        Args:
            other: Encoder to copy from.
            mine: Vocabulary of this encoder.
            theirs: Vocabulary of the other encoder.
        """
        self.start.load_state_dict(other.start.state_dict())
        for name in ("pool", "continuous_values"):
            getattr(self, name).load_state_dict(getattr(other, name).state_dict())
        for label, known in counterparts(mine.label_inputs, theirs.label_inputs).items():
            place, there = mine.label_inputs.index(label), theirs.label_inputs.index(known)
            self.labels.weight[3 * place : 3 * place + 3] = other.labels.weight[3 * there : 3 * there + 3]
        numbers, known_numbers = ([spec.name for spec in each.continuous_inputs] for each in (mine, theirs))
        for name, known in counterparts(numbers, known_numbers).items():
            place, there = numbers.index(name), known_numbers.index(known)
            self.continuous_names.weight[place] = other.continuous_names.weight[there]
            self.continuous_missing.weight[place] = other.continuous_missing.weight[there]
        rows, known_rows = self.category_rows(mine), other.category_rows(theirs)
        kinds, known_kinds = ({spec.name: spec for spec in each.categorical_inputs} for each in (mine, theirs))
        for name, known in counterparts(kinds, known_kinds).items():
            categories = counterparts(kinds[name].categories, known_kinds[known].categories)
            for category, known_category in ((None, None), *categories.items()):
                self.categories.weight[rows[name, category]] = other.categories.weight[
                    known_rows[known, known_category]
                ]

    def category_rows(self, schema: ConditionSchema) -> dict[tuple[str, str | None], int]:
        """Return the table row of each category of each attribute, and of a missing one (``None``)."""
        starts = self.offsets.tolist()
        return {
            (spec.name, category): start + number
            for spec, start in zip(schema.categorical_inputs, starts, strict=True)
            for number, category in enumerate((None, *spec.categories))
        }

    def _continuous(self, values_BC: Tensor) -> Tensor:
        missing = torch.isnan(values_BC).unsqueeze(-1)
        values = torch.nan_to_num(values_BC).unsqueeze(-1)
        turns = values * self.frequencies
        features = torch.cat([values, torch.sin(turns), torch.cos(turns)], dim=-1)
        tokens = self.continuous_values(features) + for_each(self.continuous_names, len(values_BC))
        return torch.where(missing, for_each(self.continuous_missing, len(values_BC)), tokens)


def _text_encoder(schema: ConditionSchema, sizes: EncoderSizes, bank: TextBank | None) -> TextEncoder | None:
    if schema.text is None:
        return None
    from medphantom.conditioning.text_encoder import EmbeddedText, PretrainedText  # loads transformers

    if schema.text.encoder == EMBEDDED:
        return EmbeddedText(schema.text, sizes)
    if bank is None:
        raise InputError("a pretrained text encoder needs the bank of its features")
    return PretrainedText(schema.text, sizes, bank)


def _label_state(schema: ConditionSchema, prompt: Prompt, name: str) -> int:
    given = prompt.labels.get(name)
    if given is None:
        return ABSENT if schema.exclusive and any(prompt.labels.values()) else MISSING
    return PRESENT if given else ABSENT


def _scaled(spec: AttributeSpec, value: float | str | None) -> float:
    """Scale a continuous value to -1…1 over the range of the training split, clipped; NaN if missing."""
    if value is None or spec.low is None or spec.high is None:
        return math.nan
    if spec.high <= spec.low:
        return 0.0
    unit = (float(value) - spec.low) / (spec.high - spec.low)
    return min(max(2 * unit - 1, -1.0), 1.0)


def _category(spec: AttributeSpec, value: float | str | None) -> int:
    return 1 + spec.categories.index(str(value)) if value in spec.categories else 0


def _columns(columns: list[list[float]] | list[list[int]], rows: int, dtype: torch.dtype) -> Tensor:
    if not columns:
        return torch.zeros(rows, 0, dtype=dtype)
    return torch.tensor(columns, dtype=dtype).T.contiguous()
