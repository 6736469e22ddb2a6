"""The privacy guarantee for the patients on whom a generator was trained, and everything that it does not cover."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from medphantom.cohorts.records import AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.config import EMBEDDED
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.core.errors import InputError
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.facts import Privacy
from medphantom.generators.lineage import Footing, Learned, Lineage, footing_of
from medphantom.generators.networks import Base
from medphantom.generators.privacy_config import Vocabulary
from medphantom.generators.training_data import training_digest
from medphantom.learning.accounting import composed
from medphantom.learning.guarantee import Guarantee
from medphantom.learning.private_steps import Private, Units

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
    if privacy.guarantee is None:
        return before.also(learned=learned)
    return before.also(private=privacy.guarantee.parts[-1])


def statement(config: GeneratorConfig, own: Guarantee | None, footing: Footing = NOTHING_BEFORE) -> Privacy:
    """Return the privacy statement of a bundle: the guarantee in words and numbers, and what it does not cover, by
    name.

    Args:
        config: Configuration with or without ``privacy``.
        own: Guarantee of the fit for its own steps; ``None`` if they were not private, or without noise.
        footing: Basis of the fit: private steps of its bases are added to its own, and conditions become part of the
            text.
    """
    if config.privacy is None:
        return Privacy()
    outside = tuple(_outside(config))
    if own is None:
        return Privacy(outside=outside)
    guarantee = composed(footing.before, own)
    return Privacy(
        formal=guarantee.sentence(footing.conditions),
        guarantee=guarantee,
        outside=outside,
        assumptions=ASSUMPTIONS,
        conditions=footing.conditions,
    )


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
