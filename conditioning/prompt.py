"""What one image should show, checked against the schema of the model that is asked for it. No torch here."""

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
    """What one image should show; whatever is not stated is left to the model.

    Attributes:
        labels: name → present or absent; a name that is missing is *not stated*.
        attributes: name → value (a number for continuous attributes, a category for the others).
        text: a sentence or report.
        mask: digest of a segmentation on the generator's grid, which the plan holds
            (:attr:`medphantom.conditioning.plan.SamplingPlan.masks`).
    """

    labels: dict[str, bool] = Field(default_factory=dict)
    attributes: dict[str, float | str] = Field(default_factory=dict)
    text: Annotated[str, Field(min_length=1)] | None = None
    mask: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    def to_json(self) -> str:
        """Canonical JSON, the same for equal prompts."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_json(cls, text: str) -> Prompt:
        """Read :meth:`to_json`.

        Raises:
            PromptError: it is another text.
        """
        with reading("a stored prompt", PromptError, "is no prompt", "make the images or the plan again"):
            return cls.model_validate(parse_json(text))


class Intervention(Frozen):
    """What to change about an image that exists: the action of a counterfactual (Pearl 2009, section 7.1).

    Attributes:
        labels: name → present or absent.
        attributes: name → value.
        ranges: name of a continuous attribute → smallest and largest value, of which each image takes one at random.
    """

    labels: dict[str, bool] = Field(default_factory=dict)
    attributes: dict[str, float | str] = Field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.labels or self.attributes or self.ranges)

    def drawn(self, seed: int, image_id: str) -> Intervention:
        """The intervention on one image: each range becomes a value, uniform and fixed by seed and image."""
        values: dict[str, float | str] = dict(self.attributes)
        for name, (low, high) in self.ranges.items():
            share = derive_seed(seed, "intervention", name, image_id) / 2**63
            values[name] = low + share * (high - low)
        return Intervention(labels=self.labels, attributes=values)

    def applied(self, factual: Prompt, schema: ConditionSchema) -> Prompt:
        """The prompt after the change; whatever the intervention does not name stays as it is.

        Where labels exclude each other, making one present makes the others absent. A text or mask of the factual
        prompt would still say what was, so neither is kept.

        Raises:
            PromptError: it changes a factor that the generator never saw, a value outside its range, or has a range
                that was not drawn from.
        """
        if self.ranges:
            raise PromptError(f"{', '.join(self.ranges)}: a range is no value", "draw from it first")
        labels = {**factual.labels, **self.labels}
        if schema.exclusive and any(self.labels.values()):
            labels = {name: self.labels.get(name, False) for name in schema.labels}
        return schema.check(Prompt(labels=labels, attributes={**factual.attributes, **self.attributes}))

    @classmethod
    def parse(cls, settings: Iterable[str], schema: ConditionSchema) -> Intervention:
        """Read ``name=value``: ``present`` or ``absent`` for a label, a number or a category for an attribute.

        ``name=low:high`` of a continuous attribute is a range (:meth:`drawn`).

        Raises:
            PromptError: no such form, a name that the generator never saw, or a value that does not fit it.
        """
        labels: dict[str, bool] = {}
        attributes: dict[str, float | str] = {}
        ranges: dict[str, tuple[float, float]] = {}
        kinds = {spec.name: spec.kind for spec in schema.attributes}
        for setting in settings:
            name, equals, value = (part.strip() for part in setting.partition("="))
            if not equals or not value:
                raise PromptError(f"{setting!r}: expected NAME=VALUE", "e.g. effusion=absent or age=70")
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
                raise PromptError(f"{name!r} is a factor that this generator never saw", nearest(name, known))
        for end in (0, 1):
            schema.check(Prompt(labels=labels, attributes=attributes | {name: ranges[name][end] for name in ranges}))
        return cls(labels=labels, attributes=attributes, ranges=ranges)


class TextSchema(Frozen):
    """How a generator reads text.

    Attributes:
        encoder: ``embedded``: a small encoder that was trained with the generator; else the hub id or folder of the
            pretrained one.
        tokens: most tokens of a text, with those that mark its beginning and end.
        width: features per token that a pretrained encoder gives; 0 for the embedded one.
        digest: of the pretrained encoder's files; empty for the embedded one.
        written_by: ``cohort``: the texts of its images; ``templates``: sentences made from labels and attributes, so
            that the model knows no other phrases.
        truncated: share of the training texts that were longer than ``tokens`` and lost their end.
        pipeline: ``encoder`` is a whole diffusers pipeline, whose text encoder is read as the pipeline reads it.
    """

    encoder: str = "embedded"
    tokens: Annotated[int, Field(ge=4, le=2048)]
    width: Annotated[int, Field(ge=0)] = 0
    digest: str = ""
    written_by: Literal["cohort", "templates"] = "cohort"
    truncated: Annotated[float, Field(ge=0, le=1)] = 0.0
    pipeline: bool = False


class MaskSchema(Frozen):
    """What the integers of a mask mean, and the grid that masks must have.

    Attributes:
        values: integer → name, in the order of the encoder's planes.
        size: spatial size of a mask: that of the generated image.
    """

    values: dict[int, str]
    size: tuple[int, ...]


class GridSchema(Frozen):
    """The grid that the attributes ``spacing`` and ``slice_spacing`` are of.

    Attributes:
        size: spatial size of generated images.
        fit: how images are brought to it (:class:`medphantom.cohorts.preprocess.Preprocess`).
    """

    size: tuple[int, ...]
    fit: Literal["pad", "crop", "stretch", "native"]


class ConditionSchema(Frozen):
    """The vocabulary that a generator was trained with; stored in its bundle.

    Attributes:
        labels: label names in the order of the encoder's tables.
        exclusive: exactly one label is present per image.
        attributes: continuous ones with the range of the training split, categorical ones with their categories.
        reads: what the network takes. Without ``labels``, labels and attributes reach it only as sentences, where the
            texts are made from templates.
        text: how text is read; ``None``: it is not.
        mask: what masks mean; ``None``: they are not read.
        grid: where the spacing of the grid is an attribute, that grid.
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
                raise ValueError(f"a schema that reads {kind} must describe it, and no other may")
        return self

    @property
    def templated(self) -> bool:
        """Whether labels and attributes can be said as sentences of the kind that the model was trained on."""
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
        self._check_kinds(prompt)
        return prompt

    def _check_kinds(self, prompt: Prompt) -> None:
        """Refuse what the network has no input for: it would be ignored, and the image would not show it."""
        if prompt.text is not None and self.text is None:
            raise PromptError("this generator reads no text", "say it by labels and attributes, or train it with text")
        if prompt.mask is not None and self.mask is None:
            raise PromptError("this generator reads no masks", "leave the mask out, or train it with masks")
        unread = prompt.text is None and "labels" not in self.reads and not self.templated
        if unread and (prompt.labels or prompt.attributes):
            raise PromptError("this generator reads no labels", f"say it as {' or '.join(self.reads)}")


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise PromptError(f"{name} must be a number, got {value!r}", f"e.g. {name}=70") from None


def _range(name: str, value: str) -> tuple[float, float]:
    low, _, high = (part.strip() for part in value.partition(":"))
    ends = _number(name, low), _number(name, high)
    if not ends[0] < ends[1]:
        raise PromptError(f"{name} must be a rising range, got {value!r}", f"e.g. {name}=20:80")
    return ends


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
