"""What becomes of images that nearly repeat others: they share a split, or leave the splits that judge.

A score, a privacy test or a utility study on an image that repeats a training image flatters whoever learned by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medphantom.cohorts.records import LEFT_OUT_SPLIT


@dataclass(slots=True)
class Repeats:
    """Pairs of near duplicates, gathered one image at a time.

    Attributes:
        pairs: numbers of a later image and of an earlier one that it nearly repeats.
        total_images: images so far.
    """

    pairs: list[tuple[int, int]] = field(default_factory=list)
    total_images: int = 0

    def add(self, earlier: Sequence[int]) -> None:
        """Take the next image, and the earlier ones that it nearly repeats."""
        self.pairs += [(self.total_images, number) for number in earlier]
        self.total_images += 1

    def groups(self, sides: Sequence[str | None], owners: Sequence[str]) -> list[int]:
        """For each image the first image of its group of connected near duplicates.

        Args:
            sides: images are connected where these are equal; ``None``: a group of its own.
            owners: images of one owner (the frames of a file, the channels of a case) are connected in any case.
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
        """Images outside ``train`` that nearly repeat a training image of another patient, in ascending order.

        Args:
            splits: split of each image.
            patients: patient of each image.
        """
        found = set()
        for pair in self.pairs:
            for one, other in (pair, pair[::-1]):
                judges = splits[one] not in {"train", LEFT_OUT_SPLIT}
                if judges and splits[other] == "train" and patients[one] != patients[other]:
                    found.add(one)
        return sorted(found)
