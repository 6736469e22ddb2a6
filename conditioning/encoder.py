"""From prompts to tensors to context tokens: how a denoiser is told what an image should show."""

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
    """What a batch of images should show, as tensors; *missing* is not *absent*.

    Shape suffixes: B images, L labels, C continuous and K categorical attributes, in the schema's order; T tokens of a
    text, W paraphrases of the same text while training.

    Attributes:
        labels_BL: int64; 0 absent, 1 present, 2 missing.
        continuous_BC: float32 in -1…1 over the range of the training split; NaN: missing.
        categorical_BK: int64; 0 missing, else 1 + index of the category.
        text_BT: int64 ``(B, T)`` or ``(B, W, T)``, numbers as the text encoder takes them; a row of 0: no text;
            ``None``: the generator reads no text.
        mask: uint8 ``(B, *size)`` from :func:`medphantom.conditioning.masks.mask_numbers`; all 0: no mask; ``None``:
        it reads
            none.
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
        """What is known of rows of a cohort; continuous values outside the schema's range count as its ends.

        A label or attribute of the schema that the cohort does not have is missing everywhere, and so is a category
        that the schema does not know.
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
        """Read :meth:`tensors` back, from a batch that may hold other tensors too."""
        return cls(
            tensors["labels"], tensors["continuous"], tensors["categorical"], tensors.get("text"), tensors.get("mask")
        )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, to be part of a batch; kinds that the generator does not read are left out."""
        found = {"labels": self.labels_BL, "continuous": self.continuous_BC, "categorical": self.categorical_BK}
        more = {"text": self.text_BT, "mask": self.mask}
        return {**found, **{name: tensor for name, tensor in more.items() if tensor is not None}}

    def to(self, device: torch.device | str) -> Conditions:
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def all_missing(self) -> Conditions:
        """As many empty prompts: the null of classifier-free guidance."""
        return Conditions(
            torch.full_like(self.labels_BL, MISSING),
            torch.full_like(self.continuous_BC, math.nan),
            torch.zeros_like(self.categorical_BK),
            None if self.text_BT is None else torch.zeros_like(self.text_BT),
            None if self.mask is None else torch.zeros_like(self.mask),
        )

    def joined(self, other: Conditions) -> Conditions:
        """This batch, then the other; both of one generator."""
        mine, theirs = self.tensors(), other.tensors()
        return Conditions.from_tensors({name: torch.cat([mine[name], theirs[name]]) for name in mine})

    def one_paraphrase(self, generator: torch.Generator) -> Conditions:
        """Choose one of the paraphrases of every text; conditions with one wording stay as they are."""
        if self.text_BT is None or self.text_BT.ndim == 2:
            return self
        chosen = torch.randint(self.text_BT.shape[1], (len(self),), generator=generator).to(self.text_BT.device)
        return replace(self, text_BT=self.text_BT[torch.arange(len(self), device=chosen.device), chosen])

    def drop(self, generator: torch.Generator, *, whole: float, partial: float, kinds: float = 0.0) -> Conditions:
        """Forget prompts at random while training.

        A share ``whole`` of the prompts becomes empty: they teach the unconditional model of classifier-free guidance
        (Ho & Salimans 2022). Of the others, a share ``partial`` loses each item with a probability of its own, drawn
        uniformly for each prompt: so prompts that state one item in twenty are seen in training too. A text and a mask
        are one item each.

        Args:
            generator: CPU generator.
            whole: share of emptied prompts, 0…1.
            partial: share of thinned prompts among the others, 0…1.
            kinds: where a generator reads several kinds of prompt (labels and attributes; text; mask), the probability
                with which each is lost whole: so each is also met without the others, which say much of the same.
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
    """Tensors of the labels and attributes of prompts; whatever a prompt does not state is missing.

    Where labels exclude each other, a prompt that states one as present also says that the others are absent, as every
    training row does.

    Raises:
        PromptError: a term that the schema does not know, or a value outside the range of the training split.
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

    One token for each label (a learned vector for each of absent, present and missing), for each continuous attribute
    (an MLP over Fourier features, Tancik et al. 2020, or a learned vector for missing) and for each categorical one (a
    learned vector for each category and for missing). One more token, the same for all, stands first, so that a schema
    without any item still has a context. The tokens of a text follow, from an encoder of their own.

    Args:
        schema: the vocabulary; fixes the order of all tables.
        sizes: width D of the tokens, and sizes of the text encoder.
        bank: answers of the pretrained text encoder, where there is one.
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
        # Half a turn over the range -1…1 up to 2^(F-1) half turns: fine steps of age are told apart.
        self.register_buffer("frequencies", math.pi / 2 * 2.0 ** torch.arange(FREQUENCIES), persistent=False)
        self.text = _text_encoder(schema, sizes, bank)

    @property
    def total_tokens(self) -> int:
        """T: number of context tokens."""
        return 1 + sum(self.sizes) + (0 if self.text is None else self.text.total_tokens)

    def forward(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Returns:
            context ``(B, T, D)`` and pooled ``(B, D)``.

        Raises:
            InputError: the conditions are of another schema.
        """
        found = tuple(t.shape[1] for t in (conditions.labels_BL, conditions.continuous_BC, conditions.categorical_BK))
        if found != self.sizes:
            raise InputError(f"conditions have {found} labels and attributes, this encoder was made for {self.sizes}")
        places = torch.arange(self.sizes[0], device=conditions.labels_BL.device)
        labels = self.labels(3 * places + conditions.labels_BL)
        categories = self.categories(self.offsets + conditions.categorical_BK)
        start = for_each(self.start, len(conditions))
        context = torch.cat([start, labels, self._continuous(conditions.continuous_BC), categories], dim=1)
        summary = context.mean(dim=1)
        if self.text is not None:
            if conditions.text_BT is None:
                raise InputError("conditions have no text, this encoder was made for texts")
            tokens, text = self.text(conditions.text_BT)
            context, summary = torch.cat([context, tokens], dim=1), summary + text
        pooled: Tensor = self.pool(summary)
        return context, pooled

    @torch.no_grad()
    def adopt(self, other: ConditionEncoder, mine: ConditionSchema, theirs: ConditionSchema) -> None:
        """Take over what an encoder of the same width knows of another vocabulary, name by name.

        Names that differ in case, spaces or punctuation only are the same, where no two of them become one.

        Args:
            other: the encoder to learn from.
            mine: vocabulary of this one.
            theirs: vocabulary of the other.
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
            for category, twin in ((None, None), *categories.items()):
                self.categories.weight[rows[name, category]] = other.categories.weight[known_rows[known, twin]]

    def category_rows(self, schema: ConditionSchema) -> dict[tuple[str, str | None], int]:
        """Row of the table of each category of each attribute, and of its being missing (``None``)."""
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
        raise InputError("a pretrained text encoder needs the bank of its answers")
    return PretrainedText(schema.text, sizes, bank)


def _label_state(schema: ConditionSchema, prompt: Prompt, name: str) -> int:
    stated = prompt.labels.get(name)
    if stated is None:
        return ABSENT if schema.exclusive and any(prompt.labels.values()) else MISSING
    return PRESENT if stated else ABSENT


def _scaled(spec: AttributeSpec, value: float | str | None) -> float:
    """A continuous value in -1…1 over the range of the training split, its ends beyond it; NaN when missing."""
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
