"""Pseudonyms and splits: keyed hashes of patient ids, with a key that is stored outside the cohort."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import model_validator

from medphantom.cohorts.origin import PUBLIC_SECRET, Origin
from medphantom.cohorts.records import OLD_SPLIT_NAMES, SPLITS, Split
from medphantom.core.access import private_files
from medphantom.core.errors import InputError
from medphantom.core.folders import no_space_becomes_one_line
from medphantom.core.guard import reading, user_path
from medphantom.core.records import Frozen

KEY_VARIABLE = "MEDPHANTOM_KEY_FILE"
KEY_BYTES = 32


class SplitFractions(Frozen):
    """Expected share of patients per split; they sum to one.

    Attributes:
        train: Share of patients for training the generator.
        val: Share of patients for the selection of checkpoints and settings.
        holdout: Share of patients for the reference of the privacy tests, which nothing else uses.
        test: Share of patients for final scores and utility.
    """

    train: float = 0.6
    val: float = 0.1
    holdout: float = 0.1
    test: float = 0.2

    @model_validator(mode="before")
    @classmethod
    def _new_names(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for old in OLD_SPLIT_NAMES.keys() & given.keys():
                raise ValueError(f"the split {old} is now called {OLD_SPLIT_NAMES[old]}: rename it")
        return given

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitFractions:
        shares = [self.train, self.val, self.holdout, self.test]
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"split fractions must be ≥ 0 and sum to 1, got {shares}")
        return self


@dataclass(frozen=True)
class IdentityKey:
    """The secret that turns patient ids into pseudonyms and splits.

    Anyone who has it can determine whether a known patient id is in a cohort, so it is never written into one.

    Attributes:
        secret: Secret key of the hashes.
        public: Whether anyone can derive the key from a phrase.
    """

    secret: bytes
    public: bool = False

    def __repr__(self) -> str:
        return "IdentityKey(…)"

    @classmethod
    def load_or_create(cls, path: str | Path | None = None) -> IdentityKey:
        """Read the key file, or create one that only its owner can read.

        Args:
            path: Key file; by default ``$MEDPHANTOM_KEY_FILE``, else ``~/.config/medphantom/identity.key``.

        Raises:
            InputError: If the file contains no key.
            ResourceError: If the file cannot be written.
        """
        given = path or os.environ.get(KEY_VARIABLE) or "~/.config/medphantom/identity.key"
        file = user_path(given)
        with no_space_becomes_one_line(file), private_files():
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                    stream.write(secrets.token_hex(KEY_BYTES) + "\n")
        return cls.load(file)

    @classmethod
    def load(cls, file: Path) -> IdentityKey:
        """Read a key file.

        Raises:
            InputError: If it does not exist or contains no key.
        """
        remedy = f"give a file of {2 * KEY_BYTES} hexadecimal digits"
        with reading(user_path(file), InputError, "contains no identity key", remedy):
            secret = bytes.fromhex(file.read_text(encoding="ascii").strip())
        if len(secret) < KEY_BYTES:
            raise InputError(f"{file} contains no identity key", remedy)
        return cls(secret)

    @classmethod
    def from_phrase(cls, phrase: str) -> IdentityKey:
        """Derive a key from a phrase: for public or simulated data only, so that splits can be reproduced."""
        return cls(hashlib.sha256(b"medphantom public phrase\0" + phrase.encode()).digest(), public=True)

    def pseudonym(self, kind: str, value: str) -> str:
        """Return a 16-digit pseudonym of a patient, study or image; it is determined by key and value."""
        return self._digest(kind, value).hex()[:16]

    def origin(self) -> Origin:
        """Return the origin of a cohort under this key, so that lineage can be compared.

        See :mod:`medphantom.cohorts.origin`.
        """
        secret = PUBLIC_SECRET if self.public else self._digest("lineage", "").hex()
        return Origin(secret=secret, names=self.pseudonym("names", ""))

    def split(self, patient: str, fractions: SplitFractions) -> Split:
        """Return the split of a patient id. Adding patients never moves others, and no patient is in two splits."""
        point = int.from_bytes(self._digest("split", patient)[:8], "big") / 2**64
        for split in SPLITS[:-1]:
            point -= getattr(fractions, split)
            if point < 0:
                return split
        return SPLITS[-1] if fractions.test > 0 else SPLITS[0]

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.new(self.secret, f"{kind}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
