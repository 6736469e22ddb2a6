"""The declared meaning of values (transform, units, type), on which the planes of one volume have to agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pydicom

from medphantom.cohorts.readers.dicom_file import items_of, values_of
from medphantom.cohorts.readers.dicom_values import rescale_of, rescale_source
from medphantom.core.errors import Reason, UnreadableImage

MEANINGS = {
    "Units": "their units",  # of PET, PS3.3 C.8.9.1
    "DoseUnits": "their units of dose",  # PS3.3 C.8.8.3
    "DoseType": "their type of dose",
    "RescaleType": "the type of their rescale",
}
"""Elements that define the meaning of values, equal for all slices of a volume, and their names in messages."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Declared meaning of one plane's values.

    Attributes:
        transform: Value transform: ``rescale``, ``identity`` (a rescale without effect), ``table`` or empty.
        stated: Elements of :data:`MEANINGS`, in their order; ``()`` for a missing one.
    """

    transform: str
    stated: tuple[tuple[str, ...], ...]


def meaning_of(ds: pydicom.Dataset, frame: int) -> Meaning:
    """Return the meaning of a plane's values: their transform from stored ones, and their units.

    Raises:
        UnreadableImage: As for :func:`rescale_of`.
    """
    linear, source = rescale_of(ds, frame), rescale_source(ds, frame) or ds
    transform = "" if linear is None else "identity" if linear == (1.0, 0.0) else "rescale"
    stated = (values_of(source if keyword == "RescaleType" else ds, keyword) for keyword in MEANINGS)
    return Meaning(
        "table" if items_of(ds, "ModalityLUTSequence") else transform,
        tuple(tuple(str(value).strip().upper() for value in values) for values in stated),
    )


def require_one_meaning(meanings: Sequence[Meaning]) -> None:
    """Refuse planes of one volume whose values differ in meaning: one volume has one scale.

    Different slopes are allowed: PET rescales each slice by its own. So is the combination of a rescale without effect
    and none at all.

    Raises:
        UnreadableImage: If only some are rescaled, or they differ in an element of :data:`MEANINGS`.
    """
    transforms = {meaning.transform for meaning in meanings}
    if len(transforms - {"identity"}) > 1:
        detail = "some slices have a rescale or modality LUT, others none or the other one"
        raise UnreadableImage(Reason.GEOMETRY, detail)
    for number, called in enumerate(MEANINGS.values()):
        if len({meaning.stated[number] for meaning in meanings}) > 1:
            raise UnreadableImage(Reason.GEOMETRY, f"slices of one series differ in {called}, or some do not state it")
