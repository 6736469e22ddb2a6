"""What a header says that values mean (transform, units, type): the planes of one volume have to agree on it."""

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
"""Elements that say what values are, which slices of one volume have in common, and how a refusal calls them."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a header says that the values of one plane are.

    Attributes:
        transform: ``rescale``, ``identity`` (a rescale that changes nothing), ``table`` or empty.
        stated: The elements of :data:`MEANINGS`, in their order; ``()`` for one that is not stated.
    """

    transform: str
    stated: tuple[tuple[str, ...], ...]


def meaning_of(ds: pydicom.Dataset, frame: int) -> Meaning:
    """What the values of a plane are: how they came from stored ones, and in which units.

    Raises:
        UnreadableImage: As :func:`rescale_of`.
    """
    linear, source = rescale_of(ds, frame), rescale_source(ds, frame) or ds
    transform = "" if linear is None else "identity" if linear == (1.0, 0.0) else "rescale"
    stated = (values_of(source if keyword == "RescaleType" else ds, keyword) for keyword in MEANINGS)
    return Meaning(
        "table" if items_of(ds, "ModalityLUTSequence") else transform,
        tuple(tuple(str(value).strip().upper() for value in values) for values in stated),
    )


def require_one_meaning(meanings: Sequence[Meaning]) -> None:
    """Refuse planes of one volume whose values do not mean the same: one volume has one scale.

    Different slopes are none of that: PET rescales each slice by its own. Nor is a rescale that changes nothing beside
    none at all.

    Raises:
        UnreadableImage: Some are rescaled and others are not, or they differ in an element of :data:`MEANINGS`.
    """
    transforms = {meaning.transform for meaning in meanings}
    if len(transforms - {"identity"}) > 1:
        detail = "some slices have a rescale or modality LUT, others none or the other one"
        raise UnreadableImage(Reason.GEOMETRY, detail)
    for number, called in enumerate(MEANINGS.values()):
        if len({meaning.stated[number] for meaning in meanings}) > 1:
            raise UnreadableImage(Reason.GEOMETRY, f"slices of one series differ in {called}, or some do not state it")
