"""Configuration of conditioning: which kinds of prompt the generator reads, and how. It does not import torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medphantom.core.records import Frozen

EMBEDDED = "embedded"

Positive = Annotated[int, Field(ge=1)]


class TextConfig(Frozen):
    """Configuration of how text is read.

    Attributes:
        encoder: Text encoder: ``embedded`` is a small encoder trained with the generator on the cohort's own words,
            without a download; otherwise the hub id or folder of a text encoder for transformers (CLIP or BERT class,
            safetensors).
        written_by: Source of the training texts: ``cohort`` uses the texts of its images, ``templates`` sentences made
            from labels and attributes.
        tokens: Largest number of tokens per text; longer training texts are truncated, which is reported.
        paraphrases: Number of sentences per training image if templates write them.
        vocabulary: Largest number of tokens in the vocabulary of the embedded encoder.
        min_patients: Smallest number of training patients that must share a word for it to get its own token in the
            embedded encoder.
        width: Number of features per token in the embedded encoder.
        layers: Number of layers of the embedded encoder.
    """

    encoder: Annotated[str, Field(min_length=1)] = EMBEDDED
    written_by: Literal["cohort", "templates"] = "cohort"
    tokens: Annotated[int, Field(ge=4, le=2048)] = 64
    paraphrases: Annotated[int, Field(ge=1, le=64)] = 8
    vocabulary: Annotated[int, Field(ge=300, le=100_000)] = 2000
    min_patients: Positive = 5
    width: Annotated[int, Field(ge=16, multiple_of=16)] = 128
    layers: Annotated[int, Field(ge=1, le=24)] = 2


class MaskConfig(Frozen):
    """Configuration of how masks are read: one-hot planes, halved by learned layers to the grid of the noisy latent.

    Attributes:
        channels: Number of mask features that the denoiser receives at each position of the latent.
    """

    channels: Positive = 8


class ConditioningConfig(Frozen):
    """Configuration of which kinds of prompt the generator reads.

    Attributes:
        labels: Whether to read labels and attributes, one token each.
        spacing: Whether to read the distance between pixels of the network's grid as the attribute ``spacing`` in mm,
            and for volumes ``slice_spacing``; generated images are stored with the requested spacing.
        text: Configuration of texts; null means that texts are not read.
        mask: Configuration of segmentation masks; null means that masks are not read.
    """

    labels: bool = True
    spacing: bool = False
    text: TextConfig | None = None
    mask: MaskConfig | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The kinds of prompt, by their names in a schema."""
        kinds = (("labels", self.labels), ("mask", self.mask is not None), ("text", self.text is not None))
        return tuple(name for name, wanted in kinds if wanted)


class EncoderSizes(Frozen):
    """Sizes of the layers that encode conditions; stored in bundles.

    Attributes:
        dim: Width D of the context tokens.
        vocabulary: Number of tokens in the vocabulary of the embedded text encoder; 0 if there is none.
        text_width: Number of features per token in the embedded text encoder.
        text_layers: Number of layers of the embedded text encoder.
        mask_channels: Number of mask features at each position of the latent; 0 if masks are not read.
        mask_halvings: Number of halvings from a mask's grid to the latent's.
        mask_control: Channels of the layers that bring masks to a ControlNet; empty if there is none.
    """

    dim: Positive
    vocabulary: Annotated[int, Field(ge=0)] = 0
    text_width: Annotated[int, Field(ge=0)] = 0
    text_layers: Annotated[int, Field(ge=0)] = 0
    mask_channels: Annotated[int, Field(ge=0)] = 0
    mask_halvings: Annotated[int, Field(ge=0)] = 0
    mask_control: tuple[Positive, ...] = ()

    @model_validator(mode="after")
    def _text_is_whole(self) -> EncoderSizes:
        if bool(self.vocabulary) != bool(self.text_width and self.text_layers):
            raise ValueError("a text encoder needs vocabulary, text_width and text_layers")
        return self
