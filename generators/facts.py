"""What a generator bundle says about itself: ``bundle.json``. No torch here: flows read it without a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from medphantom.cohorts.preprocess import Preprocess
from medphantom.conditioning.prompt import SLICE_SPACING, SPACING, ConditionSchema, Prompt
from medphantom.core.errors import BundleError
from medphantom.core.folders import read_digest, read_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.generators.config import FineTuning, Objective
from medphantom.generators.lineage import Lineage

FACTS_FILE = "bundle.json"
NO_GUARANTEE = "no formal guarantee"


class LatentScaling(Frozen):
    """What the denoiser subtracts from latents and divides them by, measured over the training split.

    Attributes:
        mean: per channel.
        std: per channel, > 0: the standard deviation over the size that the channel is given.
    """

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]


class Guarantee(Frozen):
    """(ε, δ)-differential privacy of the weights, and of all that is drawn from them.

    Whoever sees the bundle, whatever else they know, can tell two sets of training patients that differ in one patient
    apart hardly better than these numbers allow (Dwork et al. 2006; Abadi et al. 2016).

    Attributes:
        epsilon: ε, from the privacy loss distribution (Gopi et al. 2021), over these steps and those of private bases.
        epsilon_rdp: ε by Rényi differential privacy, a looser bound on the same.
        delta: δ.
        unit: who is added or removed: a patient with all of their images.
        noise_multiplier: σ.
        sample_rate: q, probability that a patient is drawn in a step.
        steps: private steps.
        clip_norm: C, largest norm of a patient's gradient.
        draws: K, looks at a patient per step.
        attack_auroc: what no test of *did it learn from this patient?* exceeds, as area under its ROC curve.
        attack_tpr: the same as the share of patients that it finds while 1 % of the others are false alarms.
        own_epsilon: ε of the last fit alone, where private bases came before it.
    """

    epsilon: Annotated[float, Field(ge=0)]
    epsilon_rdp: Annotated[float, Field(ge=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    unit: Literal["patient"]
    noise_multiplier: Annotated[float, Field(gt=0)]
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1)]
    clip_norm: Annotated[float, Field(gt=0)]
    draws: Annotated[int, Field(ge=1)]
    attack_auroc: Annotated[float, Field(ge=0.5, le=1)]
    attack_tpr: Annotated[float, Field(ge=0.01, le=1)]
    own_epsilon: Annotated[float, Field(ge=0)] | None = None


class Privacy(Frozen):
    """What is promised about the patients of the training split.

    Attributes:
        formal: a differential-privacy guarantee in words and numbers, or that there is none.
        guarantee: the same as numbers; ``None``: there is none.
        outside: what touched the private images without being paid for, by name.
        assumptions: what the guarantee takes for granted.
        conditions: what it depends on beside, since nobody could check it here; its words name them too.
    """

    formal: str = NO_GUARANTEE
    guarantee: Guarantee | None = None
    outside: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()


class BaseFacts(Frozen):
    """What a generator was fine-tuned from.

    Attributes:
        kind: ``bundle``, ``monai`` or ``stable_diffusion``.
        source: folder or hub id, as it was given.
        digest: of its weights and configuration.
        tuning: how it was fine-tuned.
        needed: whether the bundle holds only what was learned, so that the base must be there to use it.
    """

    kind: Literal["bundle", "monai", "stable_diffusion"]
    source: str
    digest: str
    tuning: FineTuning
    needed: bool


class BundleFacts(Frozen):
    """Everything about a generator that is not a weight.

    Attributes:
        format_version: of this file.
        preprocess: how images became network input.
        conditions: the vocabulary of prompts.
        objective: what the denoiser was fitted to.
        latent_shape: ``(L, *latent)`` of one image.
        latent_scaling: between the autoencoder's latents and the denoiser's.
        patch: side of the pixel blocks that become channels before the autoencoder's first layer.
        shortcut: whether the fixed linear transform runs beside the autoencoder.
        unit_range: whether the autoencoder's network was made for images in 0…1.
        window: side of the windows in which larger images go through the autoencoder; ``None``: whole.
        base: what it was fine-tuned from; ``None``: it began anew.
        lineage: from whom its weights, and those of its bases, have learned; ``None``: it does not say.
        training_digest: of the training and validation rows.
        training_images: number of training images.
        training_patients: number of training patients.
        spacing_mm: distance between grid points of generated images along each axis.
        affine: row-major 4x4 voxel-to-world matrix (RAS+, mm) of generated volumes.
        modality: DICOM modality code of generated images.
        micro_batch: images that generation computes together.
        threads: CPU threads of generation.
        intended_use: what the generator is for.
        privacy: what is promised about its patients.
        versions: of the libraries that made it.
    """

    format_version: Literal[1] = 1
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
    spacing_mm: tuple[float, ...] | None = None
    affine: tuple[float, ...] | None = None
    modality: str | None = None
    micro_batch: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    intended_use: str
    privacy: Privacy = Privacy()
    versions: dict[str, str] = Field(default_factory=dict)

    def geometry(self, prompt: Prompt) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """Spacing and affine of an image for this prompt: the spacing that it asks for, else the usual one."""
        usual, asked = self.spacing_mm, prompt.attributes
        if usual is None or self.conditions.grid is None:
            return usual, self.affine
        plane = math.sqrt(usual[-1] * usual[-2])
        factors = [float(asked.get(SPACING, plane)) / plane] * 2
        if len(usual) == 3:
            factors.insert(0, float(asked.get(SLICE_SPACING, usual[0])) / usual[0])
        spacing = tuple(old * factor for old, factor in zip(usual, factors, strict=True))
        return spacing, None if self.affine is None else _stretched(self.affine, factors, self.preprocess.size)


def _stretched(affine: Sequence[float], factors: Sequence[float], size: Sequence[int]) -> tuple[float, ...]:
    """The affine of a grid whose steps are longer by these factors, around the same centre."""
    matrix, middle = np.reshape(affine, (4, 4)).astype(float), (np.asarray(size) - 1) / 2
    centre = matrix[:3, :3] @ middle + matrix[:3, 3]
    matrix[:3, :3] *= np.asarray(factors)
    matrix[:3, 3] = centre - matrix[:3, :3] @ middle
    return tuple(float(value) for value in matrix.ravel())


def read_facts(folder: str | Path) -> tuple[BundleFacts, str]:
    """Facts and digest of a published bundle, without its weights.

    Raises:
        BundleError: the folder is missing, unfinished, or of another format version.
    """
    path = Path(folder)
    digest = str(read_digest(path, error=BundleError)["digest"])
    return parse_facts(path), digest


def parse_facts(folder: Path) -> BundleFacts:
    """``bundle.json`` of a bundle.

    Raises:
        BundleError: it is missing or describes no generator.
    """
    file = folder / FACTS_FILE
    said = "does not describe a generator; make the bundle again"
    return parse_model(BundleFacts, read_json(file, error=BundleError), file, BundleError, said)
