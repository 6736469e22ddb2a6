"""What is promised about the patients a generator learned from, and all that the promise does not cover."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from cohorts.errors import InputError
from cohorts.records import AttributeSpec
from cohorts.store import Cohort
from conditioning.prompt import ConditionSchema
from generators.config import GeneratorConfig
from generators.facts import NO_GUARANTEE, Guarantee, Privacy
from generators.privacy_config import Vocabulary
from learning.accounting import Spent, strongest_attack
from learning.private_steps import Private, Units

ATTACK_FALSE_ALARMS = 0.01
ASSUMPTIONS = (
    "real numbers: rounding is not accounted for",
    "randomness: noise comes from a counter-based generator (Philox) with a key of 128 bits from the operating system",
    "the base: it learned from none of these patients; the copy search can refute that, not prove it",
)


def private_fit(config: GeneratorConfig, patients: Sequence[str], *, known: bool) -> Private | None:
    """How the denoiser is fitted privately; ``None`` where nothing is promised.

    Args:
        config: its ``privacy``, and ``flip``, which gives every image a mirrored second row.
        patients: pseudonym of each training image.
        known: whether the source named patients.

    Raises:
        InputError: it did not.
    """
    if config.privacy is None:
        return None
    if not known:
        raise InputError(
            "generator.privacy protects patients, and the source named none: each image counts as one",
            "ingest with --patient-column, or with DICOM files that name patients",
        )
    _, of_row = np.unique(np.asarray(patients), return_inverse=True)
    units = torch.from_numpy(of_row.astype(np.int64))
    return Private(config.privacy, Units(torch.cat([units, units]) if config.flip else units))


def stated_schema(cohort: Cohort, vocabulary: Vocabulary) -> ConditionSchema:
    """The vocabulary of prompts as it was stated beforehand; nothing of it is read from images.

    Raises:
        InputError: an attribute that the cohort does not have, or of another kind.
    """
    known = {spec.name: spec for spec in cohort.schema.attributes}
    attributes = []
    for name, values in vocabulary.attributes.items():
        numbers = isinstance(values[0], float)
        kind = "continuous" if numbers else "categorical"
        if name not in known or known[name].kind != kind:
            raise InputError(
                f"privacy.vocabulary states {name} as {kind}, the cohort has no such attribute",
                f"it has {', '.join(sorted(known)) or 'none'}",
            )
        unit = known[name].unit
        if numbers:
            low, high = float(values[0]), float(values[1])
            attributes.append(AttributeSpec(name=name, kind="continuous", unit=unit, low=low, high=high))
        else:
            attributes.append(
                AttributeSpec(name=name, kind="categorical", unit=unit, categories=tuple(sorted(map(str, values))))
            )
    exclusive = cohort.schema.exclusive and set(vocabulary.labels) == set(cohort.schema.labels)
    return ConditionSchema(labels=vocabulary.labels, exclusive=exclusive, attributes=tuple(attributes))


def statement(config: GeneratorConfig, spent: Spent | None) -> Privacy:
    """The privacy statement of a bundle: the guarantee in words and numbers, and what is outside of it, by name."""
    if config.privacy is None or spent is None:
        return Privacy()
    outside = tuple(_outside(config))
    if config.privacy.epsilon is None:
        return Privacy(formal=NO_GUARANTEE, outside=outside)
    bound = strongest_attack(spent.mechanism, (ATTACK_FALSE_ALARMS,))
    guarantee = Guarantee(
        epsilon=spent.epsilon,
        epsilon_rdp=spent.epsilon_rdp,
        delta=spent.delta,
        unit=config.privacy.unit,
        noise_multiplier=spent.mechanism.noise_multiplier,
        sample_rate=spent.mechanism.sample_rate,
        steps=spent.mechanism.steps,
        clip_norm=spent.clip_norm,
        draws=spent.draws,
        attack_auroc=bound.auroc,
        attack_tpr=bound.tpr[ATTACK_FALSE_ALARMS],
    )
    formal = (
        f"({rounded_up(spent.epsilon, 3)}, {rounded_up(spent.delta, 2)})-differential privacy per {config.privacy.unit}"
    )
    return Privacy(formal=formal, guarantee=guarantee, outside=outside, assumptions=ASSUMPTIONS)


def rounded_up(value: float, digits: int) -> str:
    """A number with so many digits that is never below the value: a promise may not be rounded in its favour."""
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return f"{math.ceil(value / unit - 1e-9) * unit:.{digits}g}"


def _outside(config: GeneratorConfig) -> Iterator[str]:
    """All that touched the private images and was not paid for."""
    if config.privacy is not None and config.privacy.vocabulary is None:
        yield "conditions: names of labels, categories and ranges of attributes, as the training images have them"
    if config.conditioning.spacing:
        yield "conditions.grid: the range of spacings of the training images"
    if config.conditioning.mask is not None:
        yield "masks: their values, and those of synthetic images, which are real masks, bent"
    if config.conditioning.text is not None:
        yield "conditions.text.truncated: the share of training texts that were too long"
    yield "conditions.exclusive: whether every ingested image has exactly one label"
    yield "duplicates: of equal images one is kept at ingestion, whoever they belong to"
    yield "training_images, training_patients, training_digest: how many there are, and a digest of what they show"
    yield "spacing_mm, affine, modality: the usual ones of the training images"
    yield "preprocess: chosen by the type of the images"
    yield "the base: that the copy search let it through, one answer about training and gate images"
    yield "settings: whatever was chosen by results on the same patients, such as steps or learning rates"
    yield "plans: labels and attributes of synthetic images, where a plan matches those of the real ones"
    yield "reports: their scores are measured on real patients, without noise"
    yield "other releases: whatever else was learned from the same patients; its ε adds to this one"
