"""The DCR share: is a synthetic set as a whole closer to training than to holdout patients, at equal counts?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from medphantom.core.records import Array
from medphantom.quality.stats.estimate import Estimate

SMALLEST_HOLDOUT = 20
PARTS = 10  # groups of training images per subset
PSEUDO_HOLDOUTS = 40
SUBSETS_PER_PSEUDO_HOLDOUT = 4


@dataclass(frozen=True)
class Subsets:
    """Subsets of training and holdout images of equal size.

    Training patients are divided into G small groups once, and every subset is a union of groups. Therefore the nearest
    image of each group is computed once per query, however many subsets there are.

    Attributes:
        holdout: positions of the holdout images that are used.
        groups: positions of training images, ``(G, n)``; no patient is in two groups.
        train: groups of each repeat, ``(R, s)``, with as many images as ``holdout`` in total.
        pseudo: pairs of a pseudo-holdout's groups ``(s,)`` and the groups of its training subsets ``(T, s)``.
    """

    holdout: Array
    groups: Array
    train: Array
    pseudo: tuple[tuple[Array, Array], ...]

    @property
    def size(self) -> int:
        """Number of images per side."""
        return len(self.holdout)

    @property
    def block(self) -> Array:
        """Positions of the training images of the first repeat, the block of the contrast."""
        found: Array = self.groups[self.train[0]].ravel()
        return found

    def best(self, train_QN: Array) -> Array:
        """The largest similarity of each query within each group, ``(Q, G)``."""
        total = len(self.groups)
        group = np.full(train_QN.shape[1], total)  # the last group holds images that belong to no other
        group[self.groups] = np.arange(total)[:, None]
        similarity = torch.from_numpy(np.ascontiguousarray(train_QN))
        found = torch.full((len(train_QN), total + 1), -torch.inf, dtype=similarity.dtype)
        # ten times as fast as gathering the columns of each group
        found.scatter_reduce_(1, torch.from_numpy(group).expand(len(train_QN), -1), similarity, "amax")
        best: Array = found[:, :total].numpy()
        return best


def draw_subsets(
    train_patients: Sequence[str], holdout_patients: Sequence[str], repeats: int, rng: np.random.Generator
) -> Subsets:
    """Draw random subsets of training patients with as many images as the holdout, and pseudo-holdouts from train."""
    most = min(len(holdout_patients), len(train_patients) // 2)
    parts = min(PARTS, most)
    groups = _groups(np.asarray(train_patients), most // parts, rng)
    parts = min(parts, len(groups) // 2)
    size = parts * groups.shape[1]
    holdout = _patients_up_to(np.asarray(holdout_patients), size, rng)
    train = np.stack([rng.permutation(len(groups))[:parts] for _ in range(repeats)])
    pseudo = []
    for _ in range(PSEUDO_HOLDOUTS):
        order = rng.permutation(len(groups))
        against = [rng.permutation(order[parts:])[:parts] for _ in range(SUBSETS_PER_PSEUDO_HOLDOUT)]
        pseudo.append((order[:parts], np.stack(against)))
    return Subsets(holdout, groups, train, tuple(pseudo))


def _groups(names: Array, each: int, rng: np.random.Generator) -> Array:
    """Divide whole patients into groups of ``each`` images; surplus images of a group's last patient are omitted."""
    _, owner = np.unique(names, return_inverse=True)
    order = np.argsort(rng.permutation(owner.max() + 1)[owner], kind="stable")
    found: list[list[int]] = []
    mine: list[int] = []
    for place, row in enumerate(order):
        last = place + 1 == len(order) or owner[order[place + 1]] != owner[row]
        if len(mine) < each:
            mine.append(int(row))
        if last and len(mine) == each:
            found.append(mine)
            mine = []
    return np.array(found)


def _patients_up_to(names: Array, size: int, rng: np.random.Generator) -> Array:
    """Positions of exactly ``size`` images of random patients, of whom only the last may be incomplete."""
    _, owner = np.unique(names, return_inverse=True)
    rank = rng.permutation(owner.max() + 1)[owner]
    return np.argsort(rank, kind="stable")[:size]


def wins_of_train(best_QG: Array, holdout_Q: Array, subsets: Subsets) -> tuple[Array, Array]:
    """Whether each query is closer to each training subset than to the holdout, and the same for pseudo-holdouts.

    Args:
        best_QG: largest similarity within each group of training images.
        holdout_Q: largest similarity to the holdout images.
        subsets: subsets of both sides.

    Returns:
        ``(Q, R)`` per repeat and ``(Q, P)`` per pseudo-holdout (mean over its subsets), float32; ties count one half.
    """
    repeats = _wins(best_QG[:, subsets.train].max(axis=2), holdout_Q[:, None])
    pseudo = [
        _wins(best_QG[:, against].max(axis=2), best_QG[:, stand_in].max(axis=1, keepdims=True)).mean(axis=1)
        for stand_in, against in subsets.pseudo
    ]
    return repeats, np.stack(pseudo, axis=1)


def _wins(mine: Array, theirs: Array) -> Array:
    found: Array = (mine > theirs) + np.float32(0.5) * (mine == theirs)
    return found


@dataclass(frozen=True)
class DcrShare:
    """The DCR share of a set: the share of its images that are closer to training than to holdout images.

    Attributes:
        share: DCR share with its interval.
        p_value: one-sided p value under the null hypothesis of a share of 0.5.
    """

    share: Estimate
    p_value: float


def share_in_train(wins_QR: Array, pseudo_QP: Array, *, size: int, what: str, network: str | None = None) -> DcrShare:
    """Share of synthetic images whose nearest real neighbour is in train rather than in the holdout, at equal counts.

    Its interval is based on pseudo-holdouts, that is, training patients used in place of the holdout. Their expected
    share is 0.5, so that their variance is that of the random selection of patients.
    """
    total, shares, stand_ins = len(wins_QR), wins_QR.mean(axis=0), pseudo_QP.mean(axis=0)
    value = float(shares.mean())
    deviation = float(np.sqrt(np.mean((stand_ins - 0.5) ** 2)))
    half = float(stats.norm.ppf(0.975)) * deviation
    # The deviation is estimated from few pseudo-holdouts: Student's t with as many degrees of freedom.
    p_value = float(stats.t.sf((value - 0.5) / max(deviation, 1e-9), len(stand_ins)))
    estimate = Estimate(
        name="share_nearest_in_train",
        estimand=f"share of synthetic images whose nearest real neighbour ({what}) is a training, not a holdout image",
        value=value,
        interval=(max(0.0, value - half), min(1.0, value + half)),
        spread=(float(shares.min()), float(shares.max())),
        method=f"{size} images per side; mean and range over {len(shares)} draws of training patients; interval from "
        f"{len(stand_ins)} pseudo-holdouts of training patients",
        n_synthetic=total,
        n_real=2 * size,
        floor=0.5,
        better="near_floor",
        network=network,
    )
    return DcrShare(estimate, p_value)
