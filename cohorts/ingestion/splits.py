"""Which split a patient belongs to: a keyed hash of the id, within what the source itself has divided.

Where a source is divided already, its test patients are our ``test`` and its validation patients our ``val``; splits
that it lacks are carved from its training patients by the same keyed hash, so that adding patients moves nobody.
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
        of_patient: identity → the split that the source gives it.
        theirs: the splits that the source has; empty: it divides nobody.
        exact: the source has all that it needs: nothing is carved from its training patients.
        on_both_sides: identities that the source puts into several splits.
    """

    of_patient: Mapping[str, Split] = field(default_factory=dict)
    theirs: frozenset[Split] = frozenset()
    exact: bool = False
    on_both_sides: frozenset[str] = frozenset()

    @classmethod
    def of(cls, stated: Iterable[tuple[str, Split]], *, exact: bool = False) -> Division:
        """From ``(identity, split)`` of every image.

        Where a source has a holdout and no test images, its holdout is what we call ``test``.

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
        """Split of a patient: the source's, or by keyed hash where it has none or lacks some.

        Args:
            identity: what stands for the patient.
            key: of the hash.
            fractions: expected shares.
            given: split of an image whose patient was not told beforehand, such as a row of an archive.

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
        """Shares among the training patients: what the source has already takes nothing."""
        shares = {s: getattr(fractions, s) if s == "train" or s not in self.theirs else 0.0 for s in SPLITS}
        total = sum(shares.values())
        if total <= 0:
            return SplitFractions(train=1, val=0, holdout=0, test=0)
        return SplitFractions(**{split: share / total for split, share in shares.items()})
