"""Images with masks, for training and testing segmenters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array


@dataclass(frozen=True)
class Masked:
    """Images with masks.

    Attributes:
        images_NC: float32 ``(N, C, *size)`` in -1…1.
        masks_N: mask values as indices into the sorted values of the cohort, uint8 ``(N, *size)``.
        patients: patient of each image.
    """

    images_NC: Array
    masks_N: Array
    patients: Sequence[str]

    def __len__(self) -> int:
        return len(self.images_NC)

    def some(self, rows: Array) -> Masked:
        """The images of the given rows, which may repeat."""
        return Masked(self.images_NC[rows], self.masks_N[rows], [self.patients[row] for row in rows])

    def with_more(self, other: Masked) -> Masked:
        """These images followed by the others."""
        return Masked(
            np.concatenate([self.images_NC, other.images_NC]),
            np.concatenate([self.masks_N, other.masks_N]),
            [*self.patients, *other.patients],
        )
