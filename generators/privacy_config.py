"""Configuration of the privacy of a generator. It does not import torch, so recipes are read without loading it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medphantom.core.records import Frozen
from medphantom.learning.private_config import PrivateFitConfig

Range = tuple[float, float]


class Vocabulary(Frozen):
    """Vocabulary of prompts, declared in advance instead of being read from the private images.

    Attributes:
        labels: Names of labels; those that the cohort does not have are missing for all images.
        exclusive: Whether every image shows exactly one of them.
        attributes: For each attribute either a range ``[low, high]`` of numbers, to which values beyond it are clipped,
            or a list of categories; a category that is not listed counts as missing.
    """

    labels: tuple[str, ...] = ()
    exclusive: bool = False
    attributes: dict[str, Range | Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ranges_rise(self) -> Vocabulary:
        for name, values in self.attributes.items():
            if isinstance(values[0], float) and not float(values[0]) < float(values[1]):
                raise ValueError(f"privacy.vocabulary.attributes.{name} must be ascending, got {list(values)}")
        return self


class PrivacyConfig(PrivateFitConfig):
    """Fine-tuning under differential privacy; see :mod:`medphantom.learning.private_steps`.

    Attributes:
        unit: Unit of protection: a patient with all of their images.
        vocabulary: Vocabulary of prompts; null reads it from the training images, which the guarantee then does not
            cover.
    """

    unit: Literal["patient"] = "patient"
    vocabulary: Vocabulary | None = None
