"""What can be set about conditioning: which kinds of prompt the generator reads, and how. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medphantom.core.records import Frozen

EMBEDDED = "embedded"

Positive = Annotated[int, Field(ge=1)]


class TextConfig(Frozen):
    """How text is read.

    Attributes:
        encoder: ``embedded``: a small encoder trained with the generator on the cohort's own words, no download needed;
            else the hub id or the folder of a text encoder for transformers (CLIP or BERT class, safetensors).
        written_by: ``cohort``: the texts of its images; ``templates``: sentences made from labels and attributes.
        tokens: most tokens of a text; longer training texts lose their end, which is reported.
        paraphrases: sentences for each training image, where templates write them.
        vocabulary: most tokens that the embedded encoder knows.
        min_patients: a word that fewer training patients share gets no token of its own in the embedded encoder.
        width: features per token in the embedded encoder.
        layers: of the embedded encoder.
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
    """How masks are read: one-hot planes, halved by learned layers to the latent's grid, beside the noisy latent.

    Attributes:
        channels: features of a mask that the denoiser sees at each place of the latent.
    """

    channels: Positive = 8


class ConditioningConfig(Frozen):
    """Which kinds of prompt the generator reads.

    Attributes:
        labels: labels and attributes, a token each.
        spacing: the distance between pixels of the network's grid as one more attribute, ``spacing`` in mm, and for
            volumes ``slice_spacing``; generated images are stored with what was asked for.
        text: sentences; null: none.
        mask: segmentations; null: none.
    """

    labels: bool = True
    spacing: bool = False
    text: TextConfig | None = None
    mask: MaskConfig | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The kinds of prompt, as a schema names them."""
        kinds = (("labels", self.labels), ("mask", self.mask is not None), ("text", self.text is not None))
        return tuple(name for name, wanted in kinds if wanted)


class EncoderSizes(Frozen):
    """Sizes of the layers that encode conditions; stored in bundles.

    Attributes:
        dim: width D of context tokens.
        vocabulary: tokens that the embedded text encoder knows; 0: there is none.
        text_width: features per token in the embedded text encoder.
        text_layers: its layers.
        mask_channels: features of a mask at each place of the latent; 0: masks are not read.
        mask_halvings: how often a mask is halved to the latent's grid.
        mask_control: channels of the layers that bring masks to a ControlNet; empty: there is none.
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
