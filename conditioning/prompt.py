"""What one image should show, checked against the schema of the model that is asked for it."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable

from pydantic import Field

from cohorts.errors import PromptError
from cohorts.folders import canonical_json
from cohorts.records import AttributeSpec, CohortSchema, Frozen


class Prompt(Frozen):
    """What one image should show; whatever is not stated is left to the model.

    Attributes:
        labels: name → present or absent; a name that is missing is *not stated*.
        attributes: name → value (a number for continuous attributes, a category for the others).
    """

    labels: dict[str, bool] = Field(default_factory=dict)
    attributes: dict[str, float | str] = Field(default_factory=dict)

    def to_json(self) -> str:
        """Canonical JSON, the same for equal prompts."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str) -> Prompt:
        """Read :meth:`to_json`."""
        return cls.model_validate(json.loads(text))


class ConditionSchema(Frozen):
    """The vocabulary that a generator was trained with; stored in its bundle.

    Attributes:
        labels: label names in the order of the encoder's tables.
        exclusive: exactly one label is present per image.
        attributes: continuous ones with the range of the training split, categorical ones with their categories.
    """

    labels: tuple[str, ...] = ()
    exclusive: bool = False
    attributes: tuple[AttributeSpec, ...] = ()

    @classmethod
    def from_cohort(cls, schema: CohortSchema) -> ConditionSchema:
        """The vocabulary of a cohort; attributes without any value in ``train`` are left out."""
        usable = tuple(
            spec
            for spec in schema.attributes
            if (spec.categories if spec.kind == "categorical" else spec.low is not None)
        )
        return cls(labels=schema.labels, exclusive=schema.exclusive, attributes=usable)

    @property
    def continuous(self) -> tuple[AttributeSpec, ...]:
        """The continuous attributes, in order."""
        return tuple(spec for spec in self.attributes if spec.kind == "continuous")

    @property
    def categorical(self) -> tuple[AttributeSpec, ...]:
        """The categorical attributes, in order."""
        return tuple(spec for spec in self.attributes if spec.kind == "categorical")

    def check(self, prompt: Prompt) -> Prompt:
        """Return the prompt when every term is known.

        Raises:
            PromptError: a label, attribute or category that the model never saw; names the nearest known term.
        """
        for name in prompt.labels:
            if name not in self.labels:
                raise PromptError(f"label {name!r} is unknown to this generator", nearest(name, self.labels))
        known = {spec.name: spec for spec in self.attributes}
        for name, value in prompt.attributes.items():
            if name not in known:
                raise PromptError(f"attribute {name!r} is unknown to this generator", nearest(name, known))
            spec = known[name]
            if spec.kind == "categorical" and value not in spec.categories:
                raise PromptError(
                    f"{name} = {value!r} is unknown to this generator", nearest(str(value), spec.categories)
                )
            if spec.kind == "continuous":
                _check_number(spec, value)
        if self.exclusive and sum(prompt.labels.values()) > 1:
            shown = sorted(name for name, present in prompt.labels.items() if present)
            raise PromptError(f"labels {shown} exclude each other in this generator", "ask for one of them")
        return prompt


def _check_number(spec: AttributeSpec, value: float | str) -> None:
    """Refuse what is no number, and what the training split never showed: a model cannot be asked beyond its range."""
    unit = f" {spec.unit}" if spec.unit else ""
    if isinstance(value, str) or not math.isfinite(value):
        raise PromptError(
            f"{spec.name} must be a number, got {value!r}", f"give {spec.name} in {spec.unit or 'its unit'}"
        )
    low, high = spec.low, spec.high
    if low is not None and high is not None and not low <= value <= high:
        raise PromptError(
            f"{spec.name} must be within {low:g}…{high:g}{unit}, got {value:g}",
            "this generator never saw an image beyond that range",
        )


def nearest(term: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known term, or all known terms."""
    terms = sorted(known)
    close = difflib.get_close_matches(term, terms, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(terms) or 'none'}"
