"""Marks of patients and images by which later work recognises them, without revealing who they are.

A generator that was trained without a formal guarantee records its training patients, so that no guarantee is given on
top of it (:mod:`medphantom.generators.lineage`). The record consists of keyed marks: they derive from a secret that all
cohorts of one identity key share, and that is not part of the generator. The secret makes no pseudonym of an id.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PUBLIC_SECRET = hashlib.sha256(b"medphantom lineage of public and simulated data").hexdigest()
"""Secret of all cohorts whose key derives from a phrase: their images are public, and anyone may recognise them."""


class Origin(BaseModel):
    """The identity key of a cohort.

    Attributes:
        secret: Secret of the marks, 64 hexadecimal digits; it is as private as its cohort.
        names: Name of the key of the patients' pseudonyms; null if the pseudonyms came from an export.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    names: str | None = None


def name_of(secret: str) -> str:
    """Return a name for the secret of marks that does not reveal it: 16 hexadecimal digits."""
    return hashlib.sha256(f"medphantom lineage secret\0{secret}".encode()).hexdigest()[:16]


def marks(secret: str, kind: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return sorted marks of distinct values, 16 hexadecimal digits each: HMAC-SHA-256, truncated to 64 bits.

    Args:
        secret: Secret of the cohort.
        kind: Kind of the values, ``patient`` or ``image``.
        values: Pseudonyms, or digests of pixels.
    """
    key = bytes.fromhex(secret)
    found = (hmac.new(key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:16] for value in set(values))
    return tuple(sorted(found))
