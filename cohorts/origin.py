"""Marks of patients and images by which later work recognises them, without telling anyone else who they are.

A generator that learned without a formal guarantee says from whom, so that nobody is promised privacy on top of it
(:mod:`medphantom.generators.lineage`). It says so in keyed marks: they derive from a secret that all cohorts of one
identity key share, and that whoever sees only the generator does not have. The secret makes no pseudonym of an id.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PUBLIC_SECRET = hashlib.sha256(b"medphantom lineage of public and simulated data").hexdigest()
"""Of all cohorts whose key derives from a phrase: their images are public, and anyone may recognise them."""


class Origin(BaseModel):
    """Under which identity key a cohort was made.

    Attributes:
        secret: of the marks, 64 hexadecimal digits; as private as the cohort that it stands in.
        names: says which key made the pseudonyms of patients; null: they came with an export.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    names: str | None = None


def name_of(secret: str) -> str:
    """Says which secret made marks, without telling it: 16 hexadecimal digits."""
    return hashlib.sha256(f"medphantom lineage secret\0{secret}".encode()).hexdigest()[:16]


def marks(secret: str, kind: str, values: Iterable[str]) -> tuple[str, ...]:
    """Sorted marks of different values, 16 hexadecimal digits each: HMAC-SHA-256, cut to 64 bits.

    Args:
        secret: of the cohort.
        kind: ``patient`` or ``image``.
        values: pseudonyms, or digests of pixels.
    """
    key = bytes.fromhex(secret)
    found = (hmac.new(key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:16] for value in set(values))
    return tuple(sorted(found))
