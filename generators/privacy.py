"""The privacy guarantee for the patients on whom a generator was trained, and everything that it does not cover."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from medphantom.cohorts.records import AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.config import EMBEDDED
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.core.errors import InputError
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.facts import NO_GUARANTEE, Guarantee, Privacy
from medphantom.generators.lineage import Footing, Learned, Lineage, PrivateSteps, footing_of
from medphantom.generators.networks import Base
from medphantom.generators.privacy_config import Vocabulary
from medphantom.generators.training_data import training_digest
from medphantom.learning.accounting import Mechanism, PrivacySpent, epsilon_of, strongest_attack
from medphantom.learning.private_steps import Private, Units

ATTACK_FALSE_ALARMS = 0.01
NOTHING_BEFORE = Footing()
ASSUMPTIONS = (
    "real numbers: floating-point rounding is not accounted for",
    "randomness: noise comes from a counter-based generator (Philox) with a key of 128 bits from the operating system",
    "lineage: the bases declare their training patients truthfully; the copy search can refute that, but not prove it",
)


def started_from(base: Base | None, config: GeneratorConfig) -> Lineage | None:
    """Return the lineage of everything from which a fit starts: its base, and a text encoder from another source."""
    before, text = Lineage() if base is None else base.lineage, config.conditioning.text
    if before is None or text is None or text.encoder == EMBEDDED or (base is not None and base.pipeline is not None):
        return before
    return before.model_copy(update={"unknown": (*before.unknown, "its text encoder")})


def check_footing(config: GeneratorConfig, cohort: Cohort, base: Base | None) -> Footing:
    """Return the basis of a guarantee if one is requested; see :func:`medphantom.generators.lineage.footing_of`.

    Raises:
        InputError: If the base was trained on any of these patients without a guarantee, or this cannot be determined.
    """
    if config.privacy is None or config.privacy.epsilon is None or base is None:
        return Footing()
    lineage, called = started_from(base, config), f"base {base.source}"
    return footing_of(lineage, cohort, training_digest(cohort), base=called)


def check_private(config: GeneratorConfig, cohort: Cohort, *, reads_with_base: bool) -> None:
    """Refuse settings that would break the guarantee, before anything is computed.

    Args:
        config: Configuration with or without ``privacy``.
        cohort: Private cohort for the fit.
        reads_with_base: Whether texts are read by the base's own, pretrained encoder.

    Raises:
        InputError: If the source named no patients, or the text encoder would store words of the cohort.
    """
    text = config.conditioning.text
    if config.privacy is None:
        return
    if cohort.schema.patients != "known":
        raise InputError(
            "generator.privacy protects patients, but the source named none, so that each image would count as one",
            "ingest with --patient-column, or with DICOM files that name patients",
        )
    if config.denoiser_fit.on_memorization == "stop":
        raise InputError(
            "generator.denoiser_fit.on_memorization: stop would make a private fit depend on validation patients",
            "set it to flag; the privacy budget bounds what can be memorised",
        )
    if text is not None and text.encoder == EMBEDDED and not reads_with_base:
        raise InputError(
            "generator.privacy needs a pretrained text encoder: the embedded one stores words of the cohort",
            "set generator.conditioning.text.encoder to one, or leave out texts",
        )


def private_fit(config: GeneratorConfig, patients: Sequence[str]) -> Private | None:
    """Return the settings of a private fit of the denoiser; ``None`` without a guarantee.

    Args:
        config: Configuration, with its ``privacy`` and ``flip``, which adds a mirrored row for every image.
        patients: Pseudonym of each training image.
    """
    if config.privacy is None:
        return None
    _, of_row = np.unique(np.asarray(patients), return_inverse=True)
    units = torch.from_numpy(of_row.astype(np.int64))
    return Private(config.privacy, Units(torch.cat([units, units]) if config.flip else units))


def observed_schema(cohort: Cohort, vocabulary: Vocabulary) -> ConditionSchema:
    """Return the vocabulary of prompts as declared in advance; nothing of it is read from images.

    Raises:
        InputError: If the cohort does not have an attribute, or has it with another type.
    """
    known = {spec.name: spec for spec in cohort.schema.attributes}
    attributes = []
    for name, values in vocabulary.attributes.items():
        numbers = isinstance(values[0], float)
        kind = "continuous" if numbers else "categorical"
        if name not in known or known[name].kind != kind:
            raise InputError(
                f"privacy.vocabulary declares {name} as {kind}, but the cohort has no such attribute",
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
    return ConditionSchema(labels=vocabulary.labels, exclusive=vocabulary.exclusive, attributes=tuple(attributes))


def lineage_after(before: Lineage | None, privacy: Privacy, learned: Learned) -> Lineage | None:
    """Return the lineage of a bundle: its private steps with a guarantee, the marks of its patients without one."""
    if before is None:
        return None
    given = privacy.guarantee
    if given is None:
        return before.also(learned=learned)
    steps = PrivateSteps(noise_multiplier=given.noise_multiplier, sample_rate=given.sample_rate, steps=given.steps)
    return before.also(private=steps)


def statement(config: GeneratorConfig, spent: PrivacySpent | None, footing: Footing = NOTHING_BEFORE) -> Privacy:
    """Return the privacy statement of a bundle: the guarantee in words and numbers, and what it does not cover, by
    name.

    Args:
        config: Configuration with or without ``privacy``.
        spent: Privacy budget that this fit has spent; ``None`` if it was not private.
        footing: Basis of the fit: private steps of its bases are added to its own, and conditions become part of the
            text.
    """
    if config.privacy is None or spent is None:
        return Privacy()
    outside = tuple(_outside(config))
    if config.privacy.epsilon is None:
        return Privacy(formal=NO_GUARANTEE, outside=outside)
    parameters = spent.parameters
    before = [Mechanism(part.noise_multiplier, part.sample_rate, part.steps) for part in footing.before]
    together = [*before, parameters.mechanism(spent.steps)]
    bound = strongest_attack(together, (ATTACK_FALSE_ALARMS,))
    guarantee = Guarantee(
        epsilon=epsilon_of(together, parameters.delta) if before else spent.epsilon,
        epsilon_rdp=epsilon_of(together, parameters.delta, accountant="rdp") if before else spent.epsilon_rdp,
        own_epsilon=spent.epsilon if before else None,
        delta=parameters.delta,
        unit=config.privacy.unit,
        noise_multiplier=parameters.noise_multiplier,
        sample_rate=parameters.sample_rate,
        steps=spent.steps,
        clip_norm=parameters.clip_norm,
        draws=parameters.draws,
        attack_auroc=bound.auroc,
        attack_tpr=bound.tpr[ATTACK_FALSE_ALARMS],
    )
    numbers = f"({rounded_up(guarantee.epsilon, 3)}, {rounded_up(parameters.delta, 2)})"
    provided = f", provided that {' and '.join(footing.conditions)}" if footing.conditions else ""
    return Privacy(
        formal=f"{numbers}-differential privacy per {config.privacy.unit}{provided}",
        guarantee=guarantee,
        outside=outside,
        assumptions=ASSUMPTIONS,
        conditions=footing.conditions,
    )


def rounded_up(value: float, digits: int) -> str:
    """Format a number with so many significant digits, rounded up: a guarantee may not be rounded in its favour."""
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return f"{math.ceil(value / unit - 1e-9) * unit:.{digits}g}"


def _outside(config: GeneratorConfig) -> Iterator[str]:
    """Yield every use of the private images that the privacy ledger does not cover."""
    if config.privacy is not None and config.privacy.vocabulary is None:
        yield "conditions: names of labels, whether they are mutually exclusive, categories and ranges of attributes"
    if config.conditioning.spacing:
        yield "conditions.grid: the range of spacings of the training images"
    if config.conditioning.mask is not None:
        yield "masks: their values, and those of synthetic images, which are real masks, elastically deformed"
    if config.conditioning.text is not None:
        yield "conditions.text.truncated: the share of training texts that were too long"
    yield "duplicates: one of several equal images is kept at ingestion, whichever patient they belong to"
    yield "training_images, training_patients, training_digest: their numbers, and a digest of their content"
    yield "spacing_mm, affine, modality: the most common values of the training images"
    yield "preprocess: chosen by the type of the images"
    yield "the base: that it passed the copy search, one result about training and holdout images"
    yield "settings: all that were chosen by results on the same patients, such as steps or learning rates"
    yield "plans: labels and attributes of synthetic images, where a plan matches those of the real ones"
    yield "reports: their scores are measured on real patients, without noise"
    yield "other releases: all other training on the same patients; its ε adds to this one"
