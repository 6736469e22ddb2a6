"""Early warning of memorisation: does a network in training have lower errors on its training rows than on others?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Z = 1.6449  # 95 %, one-sided
SMALLEST = 20  # smallest number of rows


@dataclass(frozen=True)
class SampleLosses:
    """Per-sample losses of one split at fixed noise.

    Attributes:
        errors: Losses ``(T,)``; those of another split at the same position have the same time and noise.
        rows: Number of the row to which each loss belongs, ``(T,)``.
    """

    errors: Tensor
    rows: Tensor


@dataclass(frozen=True)
class MembershipSignal:
    """How well the per-sample loss separates training rows from others: an online membership score.

    Attributes:
        share: Share of pairs in which the training row has the smaller error; one half without any signal.
        low: Lower bound of ``share``, 95 %, by row.
    """

    share: float
    low: float


def membership_signal(train: SampleLosses, val: SampleLosses) -> MembershipSignal | None:
    """Compare pairs at the same time and noise; return ``None`` if there are too few rows.

    The pairs of one validation row are grouped: the bound is that of a mean over rows, by Student's approximation.
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
