"""The training data of weights and its privacy, passed on from base to base: no fit is private on top of a base that
was not. This module does not import torch, so flows read it quickly.

If the training data of a base is unknown, no assumption is made: the guarantee then names its condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medphantom.cohorts.origin import PUBLIC_SECRET, marks, name_of
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.records import Frozen
from medphantom.learning.guarantee import Mechanism, provided_that

START_ANEW = "start from a base that was not trained on these patients, or leave out generator.privacy"
ONE_KEY = "ingest both cohorts under one identity key and train the base again, or leave out generator.privacy"


class Learned(Frozen):
    """Patients on whom weights were trained without a formal guarantee.

    Attributes:
        training_digest: Digest of the training and validation rows.
        secret: Name of the secret with which the marks were made (:func:`medphantom.cohorts.origin.name_of`); null if
            there are none.
        names: Name of the key of the pseudonyms; null if the patients were not named, or named by another key.
        patients: Marks of the patients' pseudonyms.
        images: Marks of the images' pixels.
    """

    training_digest: str
    secret: str | None = None
    names: str | None = None
    patients: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


class Lineage(Frozen):
    """All training data of weights, including that of their bases.

    Attributes:
        learned: Training without a formal guarantee.
        private: Private training; its steps count, whoever the patients were.
        unknown: Networks that do not declare their training data.
    """

    learned: tuple[Learned, ...] = ()
    private: tuple[Mechanism, ...] = ()
    unknown: tuple[str, ...] = ()

    def also(self, *, learned: Learned | None = None, private: Mechanism | None = None) -> Lineage:
        """Return the lineage after one more fit."""
        return self.model_copy(
            update={
                "learned": self.learned if learned is None else (*self.learned, learned),
                "private": self.private if private is None else (*self.private, private),
            }
        )


def learned_from(cohort: Cohort, rows: Sequence[int], training_digest: str) -> Learned:
    """Return the record of a fit without a guarantee on the patients of these rows of a cohort."""
    origin = cohort.schema.origin
    if origin is None:
        return Learned(training_digest=training_digest)
    digests = cohort.manifest["digest"].gather(list(rows)).to_list()
    return Learned(
        training_digest=training_digest,
        secret=name_of(origin.secret),
        names=origin.names if cohort.schema.patients == "known" else None,
        patients=marks(origin.secret, "patient", cohort.patients(rows)),
        images=marks(origin.secret, "image", digests),
    )


@dataclass(frozen=True)
class Footing:
    """The basis of a private fit.

    Attributes:
        before: Private steps of its bases.
        conditions: Conditions that could not be verified and that the guarantee therefore has to name.
    """

    before: tuple[Mechanism, ...] = ()
    conditions: tuple[str, ...] = ()

    def line(self) -> str | None:
        """Return the line to report before anything is computed, if any."""
        if self.conditions:
            return f"the guarantee will hold {provided_that(self.conditions)}"
        if self.before:
            steps = sum(part.steps for part in self.before)
            return f"the {steps} private steps of the base are added to the spent budget"
        return None


def footing_of(lineage: Lineage | None, cohort: Cohort, training_digest: str, *, base: str) -> Footing:
    """Return whether a private fit to a cohort can have a guarantee, given the training data of its base.

    Args:
        lineage: Lineage of the base and of anything else from which the fit starts; ``None`` for a base that declares
            none.
        cohort: Private cohort for the fit.
        training_digest: Digest of its training and validation rows.
        base: Name of the base in messages.

    Raises:
        InputError: If the base was trained on any of its patients without a guarantee, or this cannot be determined.
    """
    if lineage is None:
        raise InputError(
            f"{base} does not declare the patients on whom it was trained, so no guarantee can be given on top of it",
            "train it again with this version, or leave out generator.privacy",
        )
    conditions = [
        f"{name} was not trained on any of these patients, which it does not declare" for name in lineage.unknown
    ]
    for part in lineage.learned:
        if part.training_digest == training_digest:
            raise InputError(f"{base} was trained on this cohort without privacy", START_ANEW)
        if not _same_names(part, cohort, base):
            conditions.append("its base was not trained on any of them under other names")
    return Footing(lineage.private, tuple(dict.fromkeys(conditions)))


def _same_names(part: Learned, cohort: Cohort, base: str) -> bool:
    """Return whether pseudonyms of both sides are comparable; raise InputError if images or patients are shared."""
    origin = cohort.schema.origin
    if origin is None or part.secret is None:
        which = "this cohort" if origin is None else f"the cohort of {base}"
        raise InputError(
            f"{which} does not record its identity key, so it cannot be determined whether {base} was trained "
            "on these patients",
            "ingest it again with this version, and repeat the training on it",
        )
    secret = next((one for one in (origin.secret, PUBLIC_SECRET) if name_of(one) == part.secret), None)
    if secret is None:
        raise InputError(
            f"{base} was trained without privacy on patients under another identity key, so it cannot be "
            "determined whether they are among these",
            ONE_KEY,
        )
    patients = set(part.patients) & set(marks(secret, "patient", cohort.patients()))
    images = set(part.images) & set(marks(secret, "image", cohort.manifest["digest"].to_list()))
    if patients or images:
        shared = f"{len(patients)} patients" if patients else f"{len(images)} images"
        raise InputError(f"{base} was trained on {shared} of this cohort without privacy", START_ANEW)
    return part.names is not None and part.names == origin.names
