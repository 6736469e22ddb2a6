"""From prompts to tensors to context tokens: how a denoiser is told what an image should show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cohorts.errors import InputError
from cohorts.records import AttributeSpec
from cohorts.store import Cohort
from conditioning.prompt import ConditionSchema, Prompt

ABSENT, PRESENT, MISSING = 0, 1, 2
FREQUENCIES = 8


@dataclass(frozen=True)
class Conditions:
    """What a batch of images should show, as tensors; *missing* is not *absent*.

    Shape suffixes: B images, L labels, C continuous and K categorical attributes, in the schema's order.

    Attributes:
        labels_BL: int64; 0 absent, 1 present, 2 missing.
        continuous_BC: float32 in -1…1 over the range of the training split; NaN: missing.
        categorical_BK: int64; 0 missing, else 1 + index of the category.
    """

    labels_BL: Tensor
    continuous_BC: Tensor
    categorical_BK: Tensor

    def __len__(self) -> int:
        return len(self.labels_BL)

    def __getitem__(self, rows: slice | Tensor) -> Conditions:
        return Conditions(self.labels_BL[rows], self.continuous_BC[rows], self.categorical_BK[rows])

    @classmethod
    def from_cohort(cls, cohort: Cohort, rows: Sequence[int], schema: ConditionSchema) -> Conditions:
        """What is known of rows of a cohort; continuous values outside the schema's range count as its ends.

        A label or attribute of the schema that the cohort does not have is missing everywhere, and so is a category
        that the schema does not know.
        """
        labels = torch.full((len(rows), len(schema.labels)), MISSING, dtype=torch.int64)
        found = torch.from_numpy(cohort.labels(rows)).long()
        for place, name in enumerate(schema.labels):
            if name in cohort.schema.labels:
                column = found[:, cohort.schema.labels.index(name)]
                labels[:, place] = torch.where(column < 0, MISSING, column)
        known = {spec.name for spec in cohort.schema.attributes}
        values = {
            spec.name: cohort.attribute(spec.name, rows) if spec.name in known else [None] * len(rows)
            for spec in schema.attributes
        }
        continuous = [[_scaled(spec, value) for value in values[spec.name]] for spec in schema.continuous]
        categorical = [[_category(spec, value) for value in values[spec.name]] for spec in schema.categorical]
        return cls(
            labels, _columns(continuous, len(rows), torch.float32), _columns(categorical, len(rows), torch.int64)
        )

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Conditions:
        """Read :meth:`tensors` back, from a batch that may hold other tensors too."""
        return cls(tensors["labels"], tensors["continuous"], tensors["categorical"])

    def tensors(self) -> dict[str, Tensor]:
        """The three tensors by name, to be part of a batch."""
        return {"labels": self.labels_BL, "continuous": self.continuous_BC, "categorical": self.categorical_BK}

    def to(self, device: torch.device | str) -> Conditions:
        """The same on a device."""
        return Conditions(self.labels_BL.to(device), self.continuous_BC.to(device), self.categorical_BK.to(device))

    def all_missing(self) -> Conditions:
        """As many empty prompts: the null of classifier-free guidance."""
        return Conditions(
            torch.full_like(self.labels_BL, MISSING),
            torch.full_like(self.continuous_BC, math.nan),
            torch.zeros_like(self.categorical_BK),
        )

    def joined(self, other: Conditions) -> Conditions:
        """This batch, then the other."""
        return Conditions(
            torch.cat([self.labels_BL, other.labels_BL]),
            torch.cat([self.continuous_BC, other.continuous_BC]),
            torch.cat([self.categorical_BK, other.categorical_BK]),
        )

    def drop(self, generator: torch.Generator, *, whole: float, partial: float) -> Conditions:
        """Forget prompts at random while training.

        A share ``whole`` of the prompts becomes empty: they teach the unconditional model of classifier-free guidance
        (Ho & Salimans 2022). Of the others, a share ``partial`` loses each item with a probability of its own, drawn
        uniformly for each prompt: so prompts that state one item in twenty are seen in training too.

        Args:
            generator: CPU generator.
            whole: share of emptied prompts, 0…1.
            partial: share of thinned prompts among the others, 0…1.
        """
        total, device = len(self), self.labels_BL.device
        widths = [self.labels_BL.shape[1], self.continuous_BC.shape[1], self.categorical_BK.shape[1]]
        emptied = torch.rand(total, 1, generator=generator) < whole
        thinned = torch.rand(total, 1, generator=generator) < partial
        rates = torch.rand(total, 1, generator=generator)
        lost = emptied | (thinned & (torch.rand(total, sum(widths), generator=generator) < rates))
        labels, continuous, categorical = torch.split(lost.to(device), widths, dim=1)
        empty = self.all_missing()
        return Conditions(
            torch.where(labels, empty.labels_BL, self.labels_BL),
            torch.where(continuous, empty.continuous_BC, self.continuous_BC),
            torch.where(categorical, empty.categorical_BK, self.categorical_BK),
        )


def encode_prompts(schema: ConditionSchema, prompts: Sequence[Prompt]) -> Conditions:
    """Tensors of prompts; whatever a prompt does not state is missing.

    Where labels exclude each other, a prompt that states one as present also says that the others are absent, as every
    training row does.

    Raises:
        PromptError: a term that the schema does not know, or a value outside the range of the training split.
    """
    for prompt in prompts:
        schema.check(prompt)
    labels = [[_label_state(schema, prompt, name) for name in schema.labels] for prompt in prompts]
    continuous = [[_scaled(spec, prompt.attributes.get(spec.name)) for prompt in prompts] for spec in schema.continuous]
    categories = [
        [_category(spec, prompt.attributes.get(spec.name)) for prompt in prompts] for spec in schema.categorical
    ]
    return Conditions(
        torch.tensor(labels, dtype=torch.int64).reshape(len(prompts), len(schema.labels)),
        _columns(continuous, len(prompts), torch.float32),
        _columns(categories, len(prompts), torch.int64),
    )


class ConditionEncoder(nn.Module):
    """Context tokens for cross-attention and one pooled vector, from :class:`Conditions`.

    One token for each label (a learned vector for each of absent, present and missing), for each continuous attribute
    (an MLP over Fourier features, Tancik et al. 2020, or a learned vector for missing) and for each categorical one (a
    learned vector for each category and for missing). One more token, the same for all, stands first, so that a schema
    without any item still has a context.

    Args:
        schema: the vocabulary; fixes the order of all tables.
        dim: width D of the tokens.
    """

    frequencies: Tensor
    offsets: Tensor

    def __init__(self, schema: ConditionSchema, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise InputError(f"the width of condition tokens must be ≥ 1, got {dim}")
        self.dim = dim
        self.sizes = (len(schema.labels), len(schema.continuous), len(schema.categorical))
        self.start = nn.Parameter(torch.randn(1, 1, dim) / math.sqrt(dim))
        self.labels = nn.Embedding(3 * len(schema.labels), dim)
        self.continuous_missing = nn.Parameter(torch.randn(len(schema.continuous), dim))
        self.continuous_names = nn.Parameter(torch.randn(len(schema.continuous), dim))
        self.continuous_values = nn.Sequential(nn.Linear(2 * FREQUENCIES + 1, dim), nn.SiLU(), nn.Linear(dim, dim))
        counts = [1 + len(spec.categories) for spec in schema.categorical]
        self.categories = nn.Embedding(sum(counts), dim)
        self.pool = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        starts = torch.tensor([sum(counts[:place]) for place in range(len(counts))], dtype=torch.int64)
        self.register_buffer("offsets", starts, persistent=False)
        # Half a turn over the range -1…1 up to 2^(F-1) half turns: fine steps of age are told apart.
        self.register_buffer("frequencies", math.pi / 2 * 2.0 ** torch.arange(FREQUENCIES), persistent=False)

    @property
    def total_tokens(self) -> int:
        """T: number of context tokens."""
        return 1 + sum(self.sizes)

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
        start = self.start.expand(len(conditions), 1, self.dim)
        context = torch.cat([start, labels, self._continuous(conditions.continuous_BC), categories], dim=1)
        pooled: Tensor = self.pool(context.mean(dim=1))
        return context, pooled

    def _continuous(self, values_BC: Tensor) -> Tensor:
        missing = torch.isnan(values_BC).unsqueeze(-1)
        values = torch.nan_to_num(values_BC).unsqueeze(-1)
        turns = values * self.frequencies
        features = torch.cat([values, torch.sin(turns), torch.cos(turns)], dim=-1)
        tokens = self.continuous_values(features) + self.continuous_names
        return torch.where(missing, self.continuous_missing, tokens)


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
