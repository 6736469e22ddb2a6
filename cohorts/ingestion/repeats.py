"""Handling of near duplicates: they share a split, or leave the splits used for evaluation.

A score, a privacy test or a utility study on an image that repeats a training image favours memorisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medphantom.cohorts.records import LEFT_OUT_SPLIT


@dataclass(slots=True)
class Repeats:
    """Pairs of near duplicates, collected one image at a time.

    Attributes:
        pairs: Numbers of a later image and of an earlier one of which it is a near duplicate.
        total_images: Number of images so far.
    """

    pairs: list[tuple[int, int]] = field(default_factory=list)
    total_images: int = 0

    def add(self, earlier: Sequence[int]) -> None:
        """Add the next image, and the earlier images of which it is a near duplicate."""
        self.pairs += [(self.total_images, number) for number in earlier]
        self.total_images += 1

    def groups(self, sides: Sequence[str | None], owners: Sequence[str]) -> list[int]:
        """Return for each image the first image of its group of connected near duplicates.

        Args:
            sides: Side of each image; images on the same side are connected, and ``None`` forms a group of its own.
            owners: Owner of each image; images of one owner (frames of a file, channels of a case) are always
                connected.
        """
        first = list(range(self.total_images))

        def root(number: int) -> int:
            while first[number] != number:
                first[number] = first[first[number]]
                number = first[number]
            return number

        firsts: dict[str, int] = {}
        same_owner = [(number, firsts.setdefault(owner, number)) for number, owner in enumerate(owners) if owner]
        for later, earlier in [*same_owner, *self.pairs]:
            if sides[later] is not None and sides[later] == sides[earlier]:
                one, other = sorted((root(later), root(earlier)))
                first[other] = one
        return [root(number) for number in range(self.total_images)]

    def left_out(self, splits: Sequence[str], patients: Sequence[str]) -> list[int]:
        """Return images outside ``train`` that repeat a training image of another patient, in ascending order.

        Args:
            splits: Split of each image.
            patients: Patient of each image.
        """
        found = set()
        for pair in self.pairs:
            for one, other in (pair, pair[::-1]):
                evaluates = splits[one] not in {"train", LEFT_OUT_SPLIT}
                if evaluates and splits[other] == "train" and patients[one] != patients[other]:
                    found.add(one)
        return sorted(found)
