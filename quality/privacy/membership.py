"""Membership: could somebody tell which patients were learned from, from the images or from the weights?

An attack gives every real image a score, the higher the more it looks as if it was learned from; a patient has the mean
of their images' scores. Members are the patients of ``train``, the others those of ``holdout`` and ``test``, whom no
network learned from. The blind baseline tries the same without the generator: where it succeeds, members and others
differ by themselves, and an attack shows something only beyond that (Das et al. 2024, arXiv 2406.16201).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

import numpy as np
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medphantom.core.records import Array
from medphantom.quality.results.quality_report import AttackResult
from medphantom.quality.stats.estimate import Estimate, Interval

_LIMITED = {
    "recipe": "which the recipe tolerates",
    "guarantee": "which the guarantee allows",
    "patients": "by which they differ without any generator",
}
FALSE_ALARMS = (0.1, 0.01, 0.001)
NEIGHBOURS = 3
FOLDS = 5
COMPONENTS = 20
BOOTSTRAP = 1000
LEVEL = 0.95
SMALLEST = 20  # patients on either side


@dataclass(frozen=True)
class Patients:
    """Scores of patients.

    Attributes:
        members: ``(M,)`` of those who were learned from.
        others: ``(N,)`` of those who were not.
    """

    members: Array
    others: Array

    @classmethod
    def of(cls, scores: Array, patients: Sequence[str], member: Array) -> Patients:
        """Mean scores of patients out of those of their images; no patient is both."""
        names, owner = np.unique(np.asarray(patients), return_inverse=True)
        means = np.bincount(owner, weights=scores) / np.bincount(owner)
        learned = np.zeros(len(names), dtype=bool)
        learned[owner[member]] = True
        return cls(means[learned], means[~learned])


def auroc(patients: Patients) -> tuple[float, Interval]:
    """Area under the exact ROC curve, ties counted one half; interval of DeLong et al. 1988 on the logit scale."""
    members, others = patients.members, patients.others
    ranks = stats.rankdata(np.concatenate([members, others]))
    own = [stats.rankdata(part) for part in (members, others)]
    above = (ranks[: len(members)] - own[0]) / len(others)  # share of the others below each member
    below = 1 - (ranks[len(members) :] - own[1]) / len(members)
    value = float(above.mean())
    deviation = float(np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)))
    fewest = min(len(members), len(others))
    if not 0 < value < 1 or deviation == 0:  # the curve is at its limit: the rule of three
        return value, (max(0.0, value - 3 / fewest), min(1.0, value + 3 / fewest))
    center, half = np.log(value / (1 - value)), stats.norm.ppf((1 + LEVEL) / 2) * deviation / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-(center + side * half)))) for side in (-1, 1))
    return value, (low, high)


def true_positives(patients: Patients, false_alarms: float, rng: np.random.Generator) -> Estimate:
    """Share of members found while that share of the others are false alarms; refused below 10 / share others."""
    total = len(patients.others)
    facts = {
        "name": "membership_tpr",
        "estimand": f"share of training patients found at {false_alarms:g} false alarms",
        "method": f"exact ROC curve; percentile bootstrap of {BOOTSTRAP} draws of patients on either side",
        "n_synthetic": len(patients.members),
        "n_real": total,
        "floor": false_alarms,
        "better": "near_floor",
        "label": f"{false_alarms:g}",
    }
    if total < 10 / false_alarms:
        refused = f"{total} other patients do not show {false_alarms:g} false alarms, {10 / false_alarms:.0f} do"
        return Estimate.model_validate({**facts, "value": None, "refused": refused})
    value = _found(patients.members, patients.others, false_alarms)
    drawn = [
        _found(rng.choice(patients.members, len(patients.members)), rng.choice(patients.others, total), false_alarms)
        for _ in range(BOOTSTRAP)
    ]
    low, high = (float(bound) for bound in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Estimate.model_validate({**facts, "value": value, "interval": (low, high)})


def _found(members: Array, others: Array, false_alarms: float) -> float:
    allowed = int(false_alarms * len(others))
    threshold = -np.partition(-others, allowed)[allowed]  # so many of the others lie above it at most
    return float((members > threshold).mean())


def attack_result(
    attack: str,
    target: Literal["images", "weights"],
    patients: Patients,
    *,
    bound: float | None,
    blind: Interval,
    tolerated: float,
    rng: np.random.Generator,
) -> AttackResult:
    """What an attack reached.

    Args:
        attack: its name.
        target: what it looks at.
        patients: their scores.
        bound: what no attack can exceed, as AUROC, where there is a formal guarantee.
        blind: interval of the blind baseline.
        tolerated: AUROC up to which an attack is not held to have succeeded, by the recipe.
        rng: source of the bootstrap.
    """
    value, interval = auroc(patients)
    estimate = Estimate(
        name="membership_auroc",
        estimand=f"chance that a training patient scores higher than another, by {attack}",
        value=value,
        interval=interval,
        method="exact ROC curve; DeLong et al. 1988, by patient",
        n_synthetic=len(patients.members),
        n_real=len(patients.others),
        floor=0.5,
        better="near_floor",
        label=attack,
    )
    limit, limited_by = max(
        (tolerated, "recipe"), (bound or 0.0, "guarantee"), (blind_limit(blind), "patients"), key=itemgetter(0)
    )
    return AttackResult(
        attack=attack,
        target=target,
        auroc=estimate,
        tpr=tuple(
            true_positives(patients, share, rng).model_copy(update={"label": f"{attack}, {share:g} false alarms"})
            for share in FALSE_ALARMS
        ),
        curve=_curve(patients),
        bound=bound,
        limit=limit,
        limited_by=limited_by,
        flagged=interval[0] > limit,
    )


def blind_limit(blind: Interval) -> float:
    """AUROC by which members and others may differ by themselves: the upper end of a blind interval above one half.

    One half where the interval reaches it. A baseline below one half is no difference: where there is none to learn,
    what a cross-validated classifier learned in some folds is the other way round in the one that was left out.
    """
    low, high = blind
    return high if low > 0.5 else 0.5


def _curve(patients: Patients, points: int = 60) -> tuple[tuple[float, float], ...]:
    """Corners of the ROC curve, thinned: (false alarms, found)."""
    scores = np.concatenate([patients.members, patients.others])
    member = np.concatenate([np.ones(len(patients.members)), np.zeros(len(patients.others))])
    order = np.argsort(-scores, kind="stable")
    found = np.concatenate([[0], np.cumsum(member[order])]) / len(patients.members)
    alarms = np.concatenate([[0], np.cumsum(1 - member[order])]) / len(patients.others)
    ends = np.concatenate([[True], np.diff(scores[order]) != 0, [True]])  # ties are one step
    found, alarms = found[ends], alarms[ends]
    chosen = np.unique(np.linspace(0, len(found) - 1, points).astype(int))
    return tuple((float(alarms[i]), float(found[i])) for i in chosen)


def nearness(real_ND: Array, synthetic_MD: Array, patients: Sequence[str]) -> Array:
    """How much nearer real images lie to synthetic ones than to those of other patients, member or not.

    The difference of mean cosines of the three nearest, after the density ratio of van Breugel et al. 2023 (DOMIAS,
    arXiv 2302.12580): an image near to everybody is no evidence. Members and others serve alike as reference, so that
    none is scored higher for the side that it is on.

    Args:
        real_ND: features of the images to score.
        synthetic_MD: of the synthetic images.
        patients: ``(N,)`` whose the real images are; at least two different ones.
    """
    real, synthetic = unit_features(real_ND, synthetic_MD)
    owner = np.unique(np.asarray(patients), return_inverse=True)[1]
    found: Array = _nearest(real, synthetic) - _nearest(real, real, (owner, owner))
    return found


def unit_features(real_ND: Array, synthetic_MD: Array) -> tuple[Array, Array]:
    """Features of unit length, standardised by the real ones; inner products are cosines.

    The synthetic ones are put where the real ones are on average: as a whole, a set may lie beside the real images.

    Args:
        real_ND: of real images.
        synthetic_MD: of synthetic ones.
    """
    center, scale = real_ND.mean(axis=0), real_ND.std(axis=0) + 1e-9
    shifted = synthetic_MD - synthetic_MD.mean(axis=0) + center
    return _unit((real_ND - center) / scale), _unit((shifted - center) / scale)


def _unit(features: Array) -> Array:
    found: Array = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    return found


def _nearest(real: Array, others: Array, owners: tuple[Array, Array] | None = None) -> Array:
    """Mean cosine of the nearest, blockwise; with ``owners`` of both, without those of the same owner."""
    parts = []
    for start in range(0, len(real), 512):
        block = slice(start, start + 512)
        similarity = real[block] @ others.T
        if owners is not None:
            similarity[owners[0][block, None] == owners[1][None, :]] = -1  # as unlike as can be
        kept = min(NEIGHBOURS, similarity.shape[1])
        parts.append(np.partition(similarity, -kept, axis=1)[:, -kept:].mean(axis=1))
    return np.concatenate(parts)


def blind_scores(features_ND: Array, patients: Sequence[str], member: Array, seed: int) -> Array:
    """Scores without the generator: a logistic regression on the images' features, cross-validated by patient."""
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    counts = np.bincount(owner)
    table = np.stack([np.bincount(owner, weights=column) / counts for column in features_ND.T], axis=1)
    learned = np.zeros(len(names), dtype=bool)
    learned[owner[member]] = True
    scores = np.zeros(len(names))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    for fitted, judged in folds.split(table, learned):
        components = min(COMPONENTS, table.shape[1], len(fitted) - 1)
        model = make_pipeline(
            StandardScaler(), PCA(components, random_state=0), LogisticRegression(class_weight="balanced", max_iter=500)
        )
        scores[judged] = model.fit(table[fitted], learned[fitted]).predict_proba(table[judged])[:, 1]
    found: Array = scores[owner]
    return found


def reasons(results: Sequence[AttackResult]) -> Iterator[str]:
    """Attacks that succeeded, in words."""
    for result in results:
        if result.flagged and result.auroc.interval is not None:
            beyond = "half" if result.limit == 0.5 else f"{result.limit:.3f}, {_LIMITED[result.limited_by]}"
            yield (
                f"by {result.attack} (from the {result.target}) training patients are told from others with AUROC "
                f"{result.auroc.value:.3f}, its interval above {beyond}"
            )
