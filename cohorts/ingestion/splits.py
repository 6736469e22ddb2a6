"""The split of a patient: a keyed hash of the id, within the division that the source already has.

If a source is already divided, its test patients become ``test`` and its validation patients ``val``; missing splits
are taken from its training patients by the same keyed hash, so that adding patients moves no others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from medphantom.cohorts.identity import IdentityKey, SplitFractions
from medphantom.cohorts.records import HELD_OUT_FIRST, SPLITS, Split


@dataclass(frozen=True, slots=True)
class Division:
    """How a source divides its patients.

    Attributes:
        of_patient: Split that the source assigns, by identity.
        theirs: Splits of the source; empty if it has no division.
        exact: Whether the source has all required splits, so that none is taken from its training patients.
        on_both_sides: Identities that the source assigns to several splits.
    """

    of_patient: Mapping[str, Split] = field(default_factory=dict)
    theirs: frozenset[Split] = frozenset()
    exact: bool = False
    on_both_sides: frozenset[str] = frozenset()

    @classmethod
    def of(cls, stated: Iterable[tuple[str, Split]], *, exact: bool = False) -> Division:
        """Create a division from ``(identity, split)`` of every image.

        If a source has a holdout and no test images, its holdout becomes ``test``.

        Example:
            >>> sorted(Division.of([("a", "train"), ("b", "holdout")]).theirs)
            ['test', 'train']
            >>> sorted(Division.of([("a", "train"), ("b", "holdout"), ("c", "test")]).theirs)
            ['holdout', 'test', 'train']
        """
        given = list(stated)
        alone = not exact and not any(split == "test" for _, split in given)
        found: dict[str, set[Split]] = defaultdict(set)
        for identity, split in given:
            found[identity].add("test" if alone and split == "holdout" else split)
        chosen = {identity: next(s for s in HELD_OUT_FIRST if s in splits) for identity, splits in found.items()}
        return cls(
            chosen,
            frozenset(chosen.values()),
            exact,
            frozenset(identity for identity, splits in found.items() if len(splits) > 1),
        )

    def split(self, identity: str, key: IdentityKey, fractions: SplitFractions, given: Split | None = None) -> Split:
        """Return the split of a patient: the source's, or by keyed hash if it has none or lacks some.

        Args:
            identity: Identity of the patient.
            key: Key of the hash.
            fractions: Expected shares of the splits.
            given: Split of an image whose patient was not known in advance, such as a row of an archive.

        Example:
            >>> key, shares = IdentityKey.from_phrase("example"), SplitFractions()
            >>> Division.of([("a", "test"), ("b", "train")]).split("a", key, shares)
            'test'
            >>> Division.of([("a", "test"), ("b", "train")]).split("b", key, shares) in {"train", "val", "holdout"}
            True
        """
        if not self.theirs:
            return key.split(identity, fractions)
        given = self.of_patient.get(identity, given or "train")
        if given != "train" or self.exact:
            return given
        return key.split(identity, self._of_train(fractions))

    def _of_train(self, fractions: SplitFractions) -> SplitFractions:
        """Return shares among the training patients: splits that the source already has get none."""
        shares = {s: getattr(fractions, s) if s == "train" or s not in self.theirs else 0.0 for s in SPLITS}
        total = sum(shares.values())
        if total <= 0:
            return SplitFractions(train=1, val=0, holdout=0, test=0)
        return SplitFractions(**{split: share / total for split, share in shares.items()})
