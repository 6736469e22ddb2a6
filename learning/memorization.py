"""Early warning: does a network in training already know its training rows better than others?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Z = 1.6449  # 95 %, one-sided
SMALLEST = 20  # rows


@dataclass(frozen=True)
class SampleLosses:
    """Errors of one split at fixed noise.

    Attributes:
        errors: ``(T,)``; those of another split at the same place have the same time and noise.
        rows: ``(T,)`` which row each is of.
    """

    errors: Tensor
    rows: Tensor


@dataclass(frozen=True)
class MembershipSignal:
    """How well the error tells training rows from others: an online membership score.

    Attributes:
        share: of pairs in which the training row has the smaller error; one half when nothing is told.
        low: its 95 % lower bound, by row.
    """

    share: float
    low: float


def membership_signal(train: SampleLosses, val: SampleLosses) -> MembershipSignal | None:
    """Compare pairs at the same time and noise; ``None`` for too few rows to say.

    The pairs of one validation row go together: the bound is that of a mean over rows, by Student's approximation.
    """
    if len(train.errors) != len(val.errors) or len(torch.unique(val.rows)) < SMALLEST:
        return None
    wins = (train.errors < val.errors).double() + 0.5 * (train.errors == val.errors).double()
    _, owner = torch.unique(val.rows, return_inverse=True)
    counts = torch.bincount(owner).double()
    means = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, owner, wins) / counts
    share = float(means.mean())
    deviation = float(means.std()) / math.sqrt(len(means))
    return MembershipSignal(share, share - Z * deviation)
