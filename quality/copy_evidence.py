"""The statistics of the copy search: what stands out, what leans towards train, and what chance alone would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cohorts.records import Array
from quality.estimate import Estimate, Interval
from quality.intervals import proportion_interval

CROWD = 6  # a single image's match is held against its 6th nearest training image of other patients
RESOLUTION = 1e-3  # similarities closer to 1 than this are equal: 8-bit thumbnails tell no more
SMALLEST_YARDSTICK = 20
PSEUDO_GATES = 40
SUBSETS_PER_PSEUDO_GATE = 4
TAIL_DEPTHS = (1, 2, 4, 8, 16)
TRIALS = 20


@dataclass(frozen=True)
class Subsets:
    """Which training (and gate) images stand for either side, at equal counts.

    Attributes:
        size: images per side.
        gate: positions of the gate images used.
        train: one row of training positions per repeat.
        pseudo: pairs (pseudo-gate, its training subsets) drawn from training patients only.
    """

    size: int
    gate: Array
    train: Array
    pseudo: tuple[tuple[Array, Array], ...]


def isolation(train_NM: Array, gate_NK: Array, train_patients: Array) -> Array:
    """How far the best training match stands out, in units of log distance; 0 where it does not.

    The mean of two log ratios of distances ``1 - similarity``: gate's best match over train's best, and the 6th best
    training match among *other* patients over train's best. A ratio does not depend on how alike images of a kind are.

    Args:
        train_NM: similarity of N queries to M training images.
        gate_NK: similarity to K gate images.
        train_patients: patient number of each training image.
    """
    best = train_NM.argmax(axis=1)
    nearest = train_NM[np.arange(len(train_NM)), best]
    others = np.where(train_patients[None, :] == train_patients[best][:, None], -1.0, train_NM)
    depth = min(CROWD, others.shape[1]) - 1
    crowd = -np.partition(-others, depth, axis=1)[:, depth]
    distances = [1 - np.minimum(value, 1) + RESOLUTION for value in (nearest, gate_NK.max(axis=1), crowd)]
    result: Array = (np.log(distances[1] / distances[0]) + np.log(distances[2] / distances[0])) / 2
    return result


def draw_subsets(
    train_patients: Sequence[str], gate_patients: Sequence[str], repeats: int, rng: np.random.Generator
) -> Subsets:
    """Random sets of whole training patients, each with as many images as gate; and pseudo-gates out of train."""
    size = min(len(gate_patients), len(train_patients) // 2)
    gate = _patients_up_to(np.asarray(gate_patients), size, rng)
    names = np.asarray(train_patients)
    train = np.stack([_patients_up_to(names, size, rng) for _ in range(repeats)])
    pseudo = []
    for _ in range(PSEUDO_GATES):
        stand_in = _patients_up_to(names, size, rng)
        rest = np.flatnonzero(~np.isin(names, names[stand_in]))
        if len(rest) < size:
            break
        against = [rest[_patients_up_to(names[rest], size, rng)] for _ in range(SUBSETS_PER_PSEUDO_GATE)]
        pseudo.append((stand_in, np.stack(against)))
    return Subsets(size, gate, train, tuple(pseudo))


def _patients_up_to(names: Array, size: int, rng: np.random.Generator) -> Array:
    """Positions of exactly ``size`` images of random whole patients (the last one possibly cut)."""
    _, owner = np.unique(names, return_inverse=True)
    rank = rng.permutation(owner.max() + 1)[owner]
    return np.argsort(rank, kind="stable")[:size]


def wins_of_train(train_NM: Array, gate_NK: Array, subsets: Subsets) -> tuple[Array, Array]:
    """How many queries lie nearer to each training subset than to gate; and the same for pseudo-gates.

    Returns:
        Wins per repeat ``(R,)`` and per pseudo-gate ``(P,)`` (mean over its subsets); ties count one half.
    """
    gate_best = gate_NK[:, subsets.gate].max(axis=1)
    repeats = np.array([_wins(train_NM[:, chosen].max(axis=1), gate_best) for chosen in subsets.train])
    pseudo = [
        np.mean([_wins(train_NM[:, chosen].max(axis=1), train_NM[:, stand_in].max(axis=1)) for chosen in against])
        for stand_in, against in subsets.pseudo
    ]
    return repeats, np.array(pseudo)


def _wins(mine: Array, theirs: Array) -> float:
    return float((mine > theirs).sum() + 0.5 * (mine == theirs).sum())


def share_in_train(
    wins: Array, pseudo_wins: Array, *, total: int, size: int, what: str, network: str | None = None
) -> Estimate:
    """Share of synthetic images whose nearest real neighbour lies in train rather than in gate, at equal counts.

    Its interval comes from pseudo-gates: training patients that stand in for gate, where the expected share is one half
    and only the luck of the draw of patients remains.
    """
    value = float(wins.mean() / total)
    interval: Interval | None = None
    if len(pseudo_wins) >= SMALLEST_YARDSTICK:
        half = float(stats.norm.ppf(0.975) * np.sqrt(np.mean((pseudo_wins / total - 0.5) ** 2)))
        interval = (max(0.0, value - half), min(1.0, value + half))
    return Estimate(
        name="share_nearest_in_train",
        estimand=f"share of synthetic images whose nearest real neighbour ({what}) is a training, not a gate image",
        value=value,
        interval=interval,
        spread=(float(wins.min() / total), float(wins.max() / total)),
        method=f"{size} images a side; mean and range over {len(wins)} draws of training patients; interval from "
        f"{len(pseudo_wins)} pseudo-gates of training patients",
        n_synthetic=total,
        n_real=2 * size,
        floor=0.5,
        better="near_floor",
        network=network,
    )


def flag_threshold(null: Array, false_flags: float) -> float:
    """Isolation above which a single image is flagged: held-out images exceed it with at most ``false_flags``.

    The conformal quantile: of n held-out and one new exchangeable image, the new one exceeds the k-th smallest with
    probability (n + 1 - k) / (n + 1).
    """
    rank = int(np.ceil((len(null) + 1) * (1 - false_flags)))
    return float(np.sort(null)[min(rank, len(null)) - 1])


def cross_checked_flags(null: Array, patients: Sequence[str], false_flags: float, rng: np.random.Generator) -> int:
    """How many held-out images are flagged when the threshold comes from the other half of their patients."""
    _, owner = np.unique(np.asarray(patients), return_inverse=True)
    side = (rng.permutation(owner.max() + 1) % 2)[owner].astype(bool)
    if side.all() or not side.any():
        return 0
    thresholds = [flag_threshold(null[part], false_flags) for part in (~side, side)]
    return int((null[side] > thresholds[0]).sum() + (null[~side] > thresholds[1]).sum())


def tail_p_value(queries: Array, null: Array) -> float:
    """Chance that so many queries exceed the largest null values, if queries and null were exchangeable.

    For the j largest null values (j = 1, 2, 4, 8, 16), the number of queries above the j-th is negative
    hypergeometric; the smallest of the p-values is multiplied by their number (Bonferroni). It sees a few copies among
    many honest images, where a share would not move.
    """
    ordered = np.sort(null)[::-1]
    found = []
    for depth in TAIL_DEPTHS:
        if depth > len(null) // 4:
            break
        above = int((queries > ordered[depth - 1]).sum())
        pooled = len(queries) + len(null)
        found.append(float(stats.hypergeom.cdf(depth - 1, pooled, len(null), above + depth - 1)))
    return min(1.0, len(found) * min(found)) if found else 1.0


def fewest_seen(synthetic: Array, null: Array, control: Array, significance: float, rng: np.random.Generator) -> int:
    """How many copies have to be among the images before :func:`tail_p_value` sees them four times out of five.

    Found by trial: ever more synthetic images are replaced by planted copies. Returns one more than the number of
    images when not even that would do.
    """
    for copies in sorted({*range(1, 8), *(int(8 * 1.3**power) for power in range(24))}):
        if copies > len(synthetic):
            break
        seen = 0
        for _ in range(TRIALS):
            mixed = rng.permutation(synthetic)
            mixed[:copies] = rng.choice(control, copies)
            seen += tail_p_value(mixed, null) < significance
        if seen >= 0.8 * TRIALS:
            return copies
    return len(synthetic) + 1


def recall_estimate(control: Array, threshold: float, planted: str) -> Estimate:
    """Share of planted copies that the rule for single images flags, with Clopper and Pearson's bounds."""
    hits = int((control > threshold).sum())
    return Estimate(
        name="control_recall",
        estimand=f"share of planted copies ({planted}) that are flagged",
        value=hits / len(control),
        interval=proportion_interval(hits, len(control), "exact"),
        method="Clopper-Pearson",
        n_synthetic=len(control),
        better="near_floor",
        floor=1.0,
    )
