"""From whom weights have learned, and on what terms, carried from base to base: no fit is private on top of one that
was not. No torch here: flows read it without a network.

Where nothing is known of a base, nothing is guessed: the claim then names its condition in its own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from medphantom.cohorts.origin import PUBLIC_SECRET, marks, name_of
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.records import Frozen

START_ANEW = "start from a base that never saw these patients, or leave generator.privacy out"
ONE_KEY = "ingest both cohorts under one identity key and train the base again, or leave generator.privacy out"


class Learned(Frozen):
    """Patients whom weights learned from without a formal guarantee.

    Attributes:
        training_digest: of the training and validation rows.
        secret: names the secret that the marks were made with (:func:`medphantom.cohorts.origin.name_of`); null:
        there are none.
        names: names the key of the pseudonyms; null: the patients were not named, or by another key.
        patients: marks of their pseudonyms.
        images: marks of their images' pixels.
    """

    training_digest: str
    secret: str | None = None
    names: str | None = None
    patients: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


class PrivateSteps(Frozen):
    """Private steps that weights have learned by.

    Attributes:
        noise_multiplier: σ.
        sample_rate: q, probability that a patient is drawn in a step.
        steps: how many.
    """

    noise_multiplier: Annotated[float, Field(gt=0)]
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1)]


class Lineage(Frozen):
    """All that weights have learned from, those of their bases included.

    Attributes:
        learned: without a formal guarantee.
        private: with one; whoever the patients were, its steps count.
        unknown: networks that do not say whom they learned from.
    """

    learned: tuple[Learned, ...] = ()
    private: tuple[PrivateSteps, ...] = ()
    unknown: tuple[str, ...] = ()

    def also(self, *, learned: Learned | None = None, private: PrivateSteps | None = None) -> Lineage:
        """The same after one more fit."""
        return self.model_copy(
            update={
                "learned": self.learned if learned is None else (*self.learned, learned),
                "private": self.private if private is None else (*self.private, private),
            }
        )


def learned_from(cohort: Cohort, rows: Sequence[int], training_digest: str) -> Learned:
    """What a fit without a guarantee says of the patients of these rows of a cohort."""
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
    """What a private fit stands on.

    Attributes:
        before: private steps of its bases.
        conditions: what nobody could check, and the guarantee therefore has to name.
    """

    before: tuple[PrivateSteps, ...] = ()
    conditions: tuple[str, ...] = ()

    def line(self) -> str | None:
        """What is to be said of it before anything is computed."""
        if self.conditions:
            return f"the guarantee will hold provided that {' and '.join(self.conditions)}"
        if self.before:
            steps = sum(part.steps for part in self.before)
            return f"the {steps} private steps of the base add to what is spent"
        return None


def footing_of(lineage: Lineage | None, cohort: Cohort, training_digest: str, *, base: str) -> Footing:
    """Whether a private fit to a cohort can be promised anything after what its base has learned from.

    Args:
        lineage: of the base and of whatever else the fit starts from; ``None``: a base that does not say.
        cohort: the private one.
        training_digest: of its training and validation rows.
        base: how a message calls the base.

    Raises:
        InputError: the base learned from any of its patients without a guarantee, or it cannot be told.
    """
    if lineage is None:
        raise InputError(
            f"{base} does not say which patients it learned from, so that no guarantee can be given on top of it",
            "make it again with this version, or leave generator.privacy out",
        )
    conditions = [f"{name} learned from none of these patients, which it does not say" for name in lineage.unknown]
    for part in lineage.learned:
        if part.training_digest == training_digest:
            raise InputError(f"{base} learned from this very cohort without privacy", START_ANEW)
        if not _same_names(part, cohort, base):
            conditions.append("its base learned from none of them under other names")
    return Footing(lineage.private, tuple(dict.fromkeys(conditions)))


def _same_names(part: Learned, cohort: Cohort, base: str) -> bool:
    """Whether pseudonyms of both sides can be compared; raises InputError where images or patients are shared."""
    origin = cohort.schema.origin
    if origin is None or part.secret is None:
        which = "this cohort" if origin is None else f"the cohort of {base}"
        raise InputError(
            f"{which} does not say under which identity key it was made, so nobody can tell whether {base} learned "
            "from these patients",
            "ingest it again with this version, and train what was trained on it",
        )
    secret = next((one for one in (origin.secret, PUBLIC_SECRET) if name_of(one) == part.secret), None)
    if secret is None:
        raise InputError(
            f"{base} learned without privacy from patients under another identity key, so nobody can tell whether they "
            "are among these",
            ONE_KEY,
        )
    patients = set(part.patients) & set(marks(secret, "patient", cohort.patients()))
    images = set(part.images) & set(marks(secret, "image", cohort.manifest["digest"].to_list()))
    if patients or images:
        shared = f"{len(patients)} patients" if patients else f"{len(images)} images"
        raise InputError(f"{base} learned from {shared} of this cohort without privacy", START_ANEW)
    return part.names is not None and part.names == origin.names
