"""The description of a generator bundle: ``bundle.json``. It does not import torch, so flows read it quickly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from medphantom.cohorts.preprocess import Preprocess
from medphantom.conditioning.prompt import SLICE_SPACING, SPACING, ConditionSchema, Prompt
from medphantom.core.errors import BundleError, InputError
from medphantom.core.folders import json_digest, read_digest, read_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.generators.config import FineTuning, Objective
from medphantom.generators.lineage import Lineage
from medphantom.learning.guarantee import Guarantee
from medphantom.shipped import require_as_shipped, source_path

FACTS_FILE = "bundle.json"
TRAINING_FILE = "training.json"
BUNDLE_VERSION = 2
NO_GUARANTEE = "no formal guarantee"


class LatentScaling(Frozen):
    """Shift and scale of the latents before the denoiser, measured over the training split.

    Attributes:
        mean: Mean that is subtracted, per channel.
        std: Divisor per channel, > 0: the standard deviation divided by the scale assigned to the channel.
    """

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]


class Privacy(Frozen):
    """Privacy guarantee for the patients of the training split.

    Attributes:
        formal: Differential-privacy guarantee in words and numbers, or that there is none.
        guarantee: The guarantee as numbers; ``None`` if there is none.
        outside: Uses of the private images that the guarantee does not cover, by name.
        assumptions: Assumptions of the guarantee.
        conditions: Further conditions that could not be verified here; the text of the guarantee names them too.
    """

    formal: str = NO_GUARANTEE
    guarantee: Guarantee | None = None
    outside: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()

    @field_validator("guarantee")
    @classmethod
    def _states_its_steps(cls, given: Guarantee | None) -> Guarantee | None:
        if given is not None and not given.parts:
            raise ValueError("privacy.guarantee must state its private steps")
        return given

    @model_validator(mode="after")
    def _words_are_those_of_the_numbers(self) -> Privacy:
        said = NO_GUARANTEE if self.guarantee is None else self.guarantee.sentence(self.conditions)
        if self.formal != said:
            raise ValueError("privacy.formal must say what privacy.guarantee is")
        return self


class BaseFacts(Frozen):
    """The base from which a generator was fine-tuned.

    Attributes:
        kind: Kind of the base: ``bundle``, ``monai`` or ``stable_diffusion``.
        source: Folder or hub id as given by the user.
        digest: Digest of its weights and configuration.
        tuning: Configuration of the fine-tuning.
        needed: Whether the bundle contains only the changes, so that the base is required to use it.
    """

    kind: Literal["bundle", "monai", "stable_diffusion"]
    source: str
    digest: str
    tuning: FineTuning
    needed: bool


class FewCalls(Frozen):
    """What a distilled generator was made for.

    Attributes:
        calls: Number of calls of the Euler solver in which it draws.
        guidance: Scale of the guidance that it has learned.
    """

    calls: Annotated[int, Field(ge=1)]
    guidance: float


class BundleFacts(Frozen):
    """All information about a generator except its weights.

    Attributes:
        format_version: Version of the file format.
        preprocess: Preprocessing that turns images into network input.
        conditions: Vocabulary of the prompts.
        objective: Training objective of the denoiser.
        latent_shape: Shape ``(L, *latent)`` of one image's latent.
        latent_scaling: Scaling between the autoencoder's latents and the denoiser's.
        patch: Side of the pixel blocks that become channels before the autoencoder's first layer.
        shortcut: Whether the fixed linear transform runs in parallel to the autoencoder.
        unit_range: Whether the autoencoder's network expects images in 0…1.
        window: Side of the windows in which the autoencoder processes larger images; ``None`` processes them whole.
        base: Base from which it was fine-tuned; ``None`` if it was trained from scratch.
        lineage: Training data of its weights and those of its bases; ``None`` if it is not declared.
        training_digest: Digest of the training and validation rows.
        training_images: Number of training images.
        training_patients: Number of training patients.
        few_calls: What it was distilled for; ``None`` if it was not distilled.
        spacing_mm: Distance between grid points of generated images along each axis.
        affine: Row-major 4x4 voxel-to-world matrix (RAS+, mm) of generated volumes.
        modality: DICOM modality code of generated images.
        micro_batch: Number of images that generation computes together.
        threads: Number of CPU threads of generation.
        intended_use: Intended use of the generator.
        privacy: Privacy guarantee for the patients of the training split.
        versions: Versions of the libraries with which it was created.
    """

    format_version: Literal[2] = 2
    preprocess: Preprocess
    conditions: ConditionSchema
    objective: Objective
    latent_shape: tuple[Annotated[int, Field(ge=1)], ...]
    latent_scaling: LatentScaling
    patch: Annotated[int, Field(ge=1)]
    shortcut: bool
    unit_range: bool = False
    window: int | None = None
    base: BaseFacts | None = None
    lineage: Lineage | None = None
    training_digest: str
    training_images: int
    training_patients: int
    few_calls: FewCalls | None = None
    spacing_mm: tuple[float, ...] | None = None
    affine: tuple[float, ...] | None = None
    modality: str | None = None
    micro_batch: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    intended_use: str
    privacy: Privacy = Privacy()
    versions: dict[str, str] = Field(default_factory=dict)

    @field_validator("privacy")
    @classmethod
    def _with_private_bases(cls, privacy: Privacy, info: ValidationInfo) -> Privacy:
        """Restore the private steps of the bases in the guarantee, which are stored once, in the lineage."""
        lineage, given = info.data.get("lineage"), privacy.guarantee
        if given is None:
            return privacy
        if lineage is None:
            return privacy.model_copy(update={"guarantee": given.model_copy(update={"before": ()})})
        if lineage.private[-1:] != given.parts[-1:]:
            raise ValueError("the last private steps of lineage must be those of privacy.guarantee")
        return privacy.model_copy(update={"guarantee": given.model_copy(update={"before": lineage.private[:-1]})})

    def require_whole_path(self, what: str) -> None:
        """Refuse what a distilled generator cannot do, since it knows a path at a few places only.

        Args:
            what: What is wanted, as the subject of a sentence.

        Raises:
            InputError: If the generator was distilled.
        """
        if self.few_calls is not None:
            raise InputError(
                f"{what} cannot be done with a generator that was distilled to {self.few_calls.calls} calls",
                "train it without generator.distillation",
            )

    def geometry(self, prompt: Prompt) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """Return spacing and affine of an image for a prompt: the spacing that it requests, or else the usual one."""
        usual, asked = self.spacing_mm, prompt.attributes
        if usual is None or self.conditions.grid is None:
            return usual, self.affine
        plane = math.sqrt(usual[-1] * usual[-2])
        factors = [float(asked.get(SPACING, plane)) / plane] * 2
        if len(usual) == 3:
            factors.insert(0, float(asked.get(SLICE_SPACING, usual[0])) / usual[0])
        spacing = tuple(old * factor for old, factor in zip(usual, factors, strict=True))
        return spacing, None if self.affine is None else _stretched(self.affine, factors, self.preprocess.size)


@dataclass(frozen=True)
class Description:
    """All that a bundle says of itself, as it was published.

    Attributes:
        facts: Content of ``bundle.json``.
        training: Content of ``training.json``: recipe and curves.
        digest: Digest of the whole bundle.
    """

    facts: BundleFacts
    training: dict[str, Any]
    digest: str


def _stretched(affine: Sequence[float], factors: Sequence[float], size: Sequence[int]) -> tuple[float, ...]:
    """Return the affine of a grid whose steps are scaled by these factors, around the same centre."""
    matrix, middle = np.reshape(affine, (4, 4)).astype(float), (np.asarray(size) - 1) / 2
    centre = matrix[:3, :3] @ middle + matrix[:3, 3]
    matrix[:3, :3] *= np.asarray(factors)
    matrix[:3, 3] = centre - matrix[:3, :3] @ middle
    return tuple(float(value) for value in matrix.ravel())


def read_facts(folder: str | Path) -> tuple[BundleFacts, str]:
    """Return facts and digest of a published bundle, without its weights; see :func:`read_description`."""
    found = read_description(folder)
    return found.facts, found.digest


def read_description(folder: str | Path) -> Description:
    """Return all that a published bundle says of itself, without its weights.

    What it claims, such as its privacy, is part of the digest by which synthetic images and reports name the bundle:
    whoever changes a claim makes another bundle. Whether its weights are the published ones is seen when the whole is
    loaded.

    Args:
        folder: Folder of the bundle, or ``base:NAME`` for a base that ships.

    Raises:
        BundleError: If the folder is missing, incomplete, of another format version, its description was altered, or
            it lies in the place of a base that ships and is another bundle.
    """
    path = source_path(str(folder))
    published = read_digest(path, error=BundleError)
    file = path / FACTS_FILE
    raw = read_json(file, error=BundleError)
    version = raw.get("format_version", 1) if isinstance(raw, dict) else None
    if isinstance(version, int) and version != BUNDLE_VERSION:
        raise BundleError(f"{file} has format version {version}, expected {BUNDLE_VERSION}", "create the bundle again")
    said = "does not describe a generator; create the bundle again"
    facts = parse_model(BundleFacts, raw, file, BundleError, said)
    training = read_json(path / TRAINING_FILE, error=BundleError)
    if not isinstance(training, dict):
        raise BundleError(f"{path / TRAINING_FILE} does not describe a training run", "create the bundle again")
    digest = whole_digest(facts, training, str(published.get("networks")))
    if digest != published["digest"]:
        raise BundleError(
            f"{file} or {TRAINING_FILE} is truncated or was altered: {path} does not have the digest that it was "
            "published under",
            "fetch or create the bundle again",
        )
    require_as_shipped(path, digest)
    return Description(facts, training, digest)


def whole_digest(facts: BundleFacts, training: Mapping[str, Any], networks: str) -> str:
    """SHA-256 digest of a bundle: of what it says of itself, and of the digest of its networks.

    Facts at their defaults are excluded, so that adding a fact later does not change the digests of older bundles.

    Args:
        facts: Content of ``bundle.json``.
        training: Content of ``training.json``.
        networks: Digest of the networks, from :func:`medphantom.generators.stored.networks_digest`.
    """
    return json_digest([facts.model_dump(mode="json", exclude_defaults=True), training, networks])
