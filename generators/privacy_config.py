"""What can be set about the privacy of a generator. No torch here: recipes are read without loading it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medphantom.core.records import Frozen
from medphantom.learning.private_config import PrivateFitConfig

Range = tuple[float, float]


class Vocabulary(Frozen):
    """What prompts may say, stated beforehand instead of being read from the private images.

    Attributes:
        labels: names of labels; those that the cohort does not have are missing everywhere.
        exclusive: whether every image shows exactly one of them.
        attributes: for each attribute a range ``[low, high]`` of numbers, whose ends stand for what lies beyond them,
            or a list of categories; a category that is not listed counts as missing.
    """

    labels: tuple[str, ...] = ()
    exclusive: bool = False
    attributes: dict[str, Range | Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ranges_rise(self) -> Vocabulary:
        for name, values in self.attributes.items():
            if isinstance(values[0], float) and not float(values[0]) < float(values[1]):
                raise ValueError(f"privacy.vocabulary.attributes.{name} must rise, got {list(values)}")
        return self


class PrivacyConfig(PrivateFitConfig):
    """Fine-tuning under differential privacy; see :mod:`medphantom.learning.private_steps`.

    Attributes:
        unit: who is protected: a patient with all of their images.
        vocabulary: what prompts may say; null: what the training images say, which is then outside the guarantee.
    """

    unit: Literal["patient"] = "patient"
    vocabulary: Vocabulary | None = None
