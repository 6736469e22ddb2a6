"""The prompt of one image, checked against the schema of the generator. This module does not import torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medphantom.cohorts.records import AttributeSpec, CohortSchema
from medphantom.core.errors import PromptError
from medphantom.core.folders import canonical_json
from medphantom.core.guard import parse_json, reading
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Frozen

Reads = Literal["labels", "text", "mask"]
SPACING, SLICE_SPACING = "spacing", "slice_spacing"


class Prompt(Frozen):
    """The requested content of one image; whatever is not specified is left to the model.

    Attributes:
        labels: Whether each named label is present; a label that is not named is *missing*.
        attributes: Value of each named attribute (a number for continuous attributes, a category for the others).
        text: Sentence or report on the image.
        mask: Digest of a segmentation mask on the generator's grid, which the plan contains
            (:attr:`medphantom.conditioning.plan.SamplingPlan.masks`).
    """

    labels: dict[str, bool] = Field(default_factory=dict)
    attributes: dict[str, float | str] = Field(default_factory=dict)
    text: Annotated[str, Field(min_length=1)] | None = None
    mask: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    def to_json(self) -> str:
        """Return canonical JSON, identical for equal prompts."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_json(cls, text: str) -> Prompt:
        """Read what :meth:`to_json` wrote.

        Raises:
            PromptError: If it is not such a text.
        """
        with reading("a stored prompt", PromptError, "is not a prompt", "create the images or the plan again"):
            return cls.model_validate(parse_json(text))


class Intervention(Frozen):
    """A change of an existing image: the action of a counterfactual (Pearl 2009, section 7.1).

    Attributes:
        labels: Whether each named label is present.
        attributes: Value of each named attribute.
        ranges: Smallest and largest value of each named continuous attribute, from which each image gets a random
            value.
    """

    labels: dict[str, bool] = Field(default_factory=dict)
    attributes: dict[str, float | str] = Field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.labels or self.attributes or self.ranges)

    def drawn(self, seed: int, image_id: str) -> Intervention:
        """Return the intervention on one image: each range becomes a uniform value determined by seed and image."""
        values: dict[str, float | str] = dict(self.attributes)
        for name, (low, high) in self.ranges.items():
            share = derive_seed(seed, "intervention", name, image_id) / 2**63
            values[name] = low + share * (high - low)
        return Intervention(labels=self.labels, attributes=values)

    def applied(self, factual: Prompt, schema: ConditionSchema) -> Prompt:
        """Return the prompt after the change; whatever the intervention does not name is unchanged.

        If labels are mutually exclusive, making one present makes the others absent. A text or mask of the factual
        prompt would still describe the original, so neither is kept.

        Raises:
            PromptError: If it changes a factor that the generator was not trained on, a value is outside its range, or
                it has a range from which no value was drawn.
        """
        if self.ranges:
            raise PromptError(f"{', '.join(self.ranges)}: a range is not a value", "draw from it first")
        labels = {**factual.labels, **self.labels}
        if schema.exclusive and any(self.labels.values()):
            labels = {name: self.labels.get(name, False) for name in schema.labels}
        return schema.check(Prompt(labels=labels, attributes={**factual.attributes, **self.attributes}))

    @classmethod
    def parse(cls, settings: Iterable[str], schema: ConditionSchema) -> Intervention:
        """Parse ``name=value``: ``present`` or ``absent`` for a label, a number or a category for an attribute.

        ``name=low:high`` for a continuous attribute is a range (:meth:`drawn`).

        Raises:
            PromptError: If the form is wrong, a name is given twice, the generator was not trained on it, or the value
                does not fit it.
        """
        labels: dict[str, bool] = {}
        attributes: dict[str, float | str] = {}
        ranges: dict[str, tuple[float, float]] = {}
        kinds = {spec.name: spec.kind for spec in schema.attributes}
        for setting in settings:
            name, equals, value = (part.strip() for part in setting.partition("="))
            if not equals or not value:
                raise PromptError(f"{setting!r}: expected NAME=VALUE", "e.g. effusion=absent or age=70")
            if name in {**labels, **attributes, **ranges}:
                raise PromptError(f"{name} is given twice", "give each name once")
            if name in schema.labels:
                if value not in {"present", "absent"}:
                    raise PromptError(f"{name} must be present or absent, got {value!r}", f"e.g. {name}=absent")
                labels[name] = value == "present"
            elif kinds.get(name) == "continuous" and ":" in value:
                ranges[name] = _range(name, value)
            elif name in kinds:
                attributes[name] = _number(name, value) if kinds[name] == "continuous" else value
            else:
                known = [*schema.labels, *kinds]
                raise PromptError(f"{name!r} is a factor that this generator was not trained on", nearest(name, known))
        for end in (0, 1):
            schema.check(Prompt(labels=labels, attributes=attributes | {name: ranges[name][end] for name in ranges}))
        return cls(labels=labels, attributes=attributes, ranges=ranges)


class TextSchema(Frozen):
    """Description of how a generator reads text.

    Attributes:
        encoder: Text encoder: ``embedded`` is a small encoder that was trained with the generator; otherwise the hub id
            or folder of the pretrained one.
        tokens: Largest number of tokens of a text, including those that mark its start and end.
        width: Number of features per token of a pretrained encoder; 0 for the embedded one.
        digest: Digest of the pretrained encoder's files; empty for the embedded one.
        written_by: Source of the training texts: ``cohort`` for the texts of its images; ``templates`` for sentences
            made from labels and attributes, so that the model knows no other phrases.
        truncated: Share of the training texts that were longer than ``tokens`` and were truncated.
        pipeline: Whether ``encoder`` is a whole diffusers pipeline, whose text encoder is used as in the pipeline.
    """

    encoder: str = "embedded"
    tokens: Annotated[int, Field(ge=4, le=2048)]
    width: Annotated[int, Field(ge=0)] = 0
    digest: str = ""
    written_by: Literal["cohort", "templates"] = "cohort"
    truncated: Annotated[float, Field(ge=0, le=1)] = 0.0
    pipeline: bool = False


class MaskSchema(Frozen):
    """Meaning of the integers of a mask, and the grid of masks.

    Attributes:
        values: Name of each integer, in the order of the encoder's planes.
        size: Spatial size of a mask, which is that of the generated image.
    """

    values: dict[int, str]
    size: tuple[int, ...]


class GridSchema(Frozen):
    """The grid to which the attributes ``spacing`` and ``slice_spacing`` refer.

    Attributes:
        size: Spatial size of generated images.
        fit: How images are brought to that size (:class:`medphantom.cohorts.preprocess.Preprocess`).
    """

    size: tuple[int, ...]
    fit: Literal["pad", "crop", "stretch", "native"]


class ConditionSchema(Frozen):
    """The vocabulary with which a generator was trained; it is stored in its bundle.

    Attributes:
        labels: Label names in the order of the encoder's tables.
        exclusive: Whether exactly one label is present per image.
        attributes: Continuous attributes with the range of the training split, categorical ones with their categories.
        reads: Kinds of network input. Without ``labels``, labels and attributes reach it only as sentences, if the
            texts are made from templates.
        text: How text is read; ``None`` if it is not.
        mask: Meaning of masks; ``None`` if they are not read.
        grid: Grid to which the spacing refers, if the spacing is an attribute.
    """

    labels: tuple[str, ...] = ()
    exclusive: bool = False
    attributes: tuple[AttributeSpec, ...] = ()
    reads: tuple[Reads, ...] = ("labels",)
    text: TextSchema | None = None
    mask: MaskSchema | None = None
    grid: GridSchema | None = None

    @model_validator(mode="after")
    def _complete(self) -> ConditionSchema:
        for kind, described in (("text", self.text), ("mask", self.mask)):
            if (kind in self.reads) != (described is not None):
                raise ValueError(f"a schema that reads {kind} must describe it, and no other schema may")
        return self

    @property
    def templated(self) -> bool:
        """Whether labels and attributes can be written as sentences of the kind on which the model was trained."""
        return self.text is not None and self.text.written_by == "templates"

    @property
    def label_inputs(self) -> tuple[str, ...]:
        """The labels that reach the network as tokens of their own."""
        return self.labels if "labels" in self.reads else ()

    @property
    def continuous_inputs(self) -> tuple[AttributeSpec, ...]:
        """The continuous attributes that reach the network as tokens of their own."""
        return self.continuous if "labels" in self.reads else ()

    @property
    def categorical_inputs(self) -> tuple[AttributeSpec, ...]:
        """The categorical attributes that reach the network as tokens of their own."""
        return self.categorical if "labels" in self.reads else ()

    @classmethod
    def from_cohort(cls, schema: CohortSchema) -> ConditionSchema:
        """Return the vocabulary of a cohort; attributes without any value in ``train`` are left out."""
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
        """Return the prompt if every term is known.

        Raises:
            PromptError: If the model was not trained on a label, attribute or category; the message names the nearest
                term.
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
            raise PromptError(f"labels {shown} are mutually exclusive in this generator", "request one of them")
        self._check_kinds(prompt)
        return prompt

    def _check_kinds(self, prompt: Prompt) -> None:
        """Refuse conditions without a network input: they would be ignored, and the image would not show them."""
        if prompt.text is not None and self.text is None:
            raise PromptError(
                "this generator reads no text", "describe it by labels and attributes, or train it with text"
            )
        if prompt.mask is not None and self.mask is None:
            raise PromptError("this generator reads no masks", "leave out the mask, or train it with masks")
        unread = prompt.text is None and "labels" not in self.reads and not self.templated
        if unread and (prompt.labels or prompt.attributes):
            raise PromptError("this generator reads no labels", f"describe it as {' or '.join(self.reads)}")


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise PromptError(f"{name} must be a number, got {value!r}", f"e.g. {name}=70") from None


def _range(name: str, value: str) -> tuple[float, float]:
    low, _, high = (part.strip() for part in value.partition(":"))
    ends = _number(name, low), _number(name, high)
    if not ends[0] < ends[1]:
        raise PromptError(f"{name} must be an ascending range, got {value!r}", f"e.g. {name}=20:80")
    return ends


def _check_number(spec: AttributeSpec, value: float | str) -> None:
    """Refuse values that are not numbers or outside the training range, beyond which a model cannot extrapolate."""
    unit = f" {spec.unit}" if spec.unit else ""
    if isinstance(value, str) or not math.isfinite(value):
        raise PromptError(
            f"{spec.name} must be a number, got {value!r}", f"give {spec.name} in {spec.unit or 'its unit'}"
        )
    low, high = spec.low, spec.high
    if low is not None and high is not None and not low <= value <= high:
        raise PromptError(
            f"{spec.name} must be within {low:g}…{high:g}{unit}, got {value:g}",
            "this generator was not trained on images beyond that range",
        )


def nearest(term: str, known: Iterable[str]) -> str:
    """Return a phrase that names the nearest known term, or all known terms."""
    terms = sorted(known)
    close = difflib.get_close_matches(term, terms, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(terms) or 'none'}"
