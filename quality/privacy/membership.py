"""Membership inference: can training patients be identified from the synthetic images or from the weights?

An attack gives every real image a membership score, and a patient has the mean score of their images. Members are the
patients of ``train``; the others are those of ``holdout`` and ``test``, on whom no network was trained. The blind
baseline does the same without the generator: if it succeeds, members and others differ independently of the generator,
and only a result beyond it is evidence of leakage (Das et al. 2024, arXiv 2406.16201).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medphantom.core.records import Array
from medphantom.quality.results.quality_report import AttackResult
from medphantom.quality.stats.auroc import auroc_with_influence
from medphantom.quality.stats.estimate import Estimate, Interval

_LIMITED = {
    "recipe": "which the recipe tolerates",
    "guarantee": "which the guarantee allows",
    "patients": "by which they differ independently of the generator",
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
    """Membership scores of patients.

    Attributes:
        members: scores of training patients, ``(M,)``.
        others: scores of all other patients, ``(N,)``.
    """

    members: Array
    others: Array

    @classmethod
    def of(cls, scores: Array, patients: Sequence[str], member: Array) -> Patients:
        """Average the scores of images by patient; a patient with any training image is a member."""
        names, owner = np.unique(np.asarray(patients), return_inverse=True)
        means = np.bincount(owner, weights=scores) / np.bincount(owner)
        learned = np.zeros(len(names), dtype=bool)
        learned[owner[member]] = True
        return cls(means[learned], means[~learned])


def auroc(patients: Patients) -> tuple[float, Interval]:
    """Area under the exact ROC curve, with ties counted as one half, and its interval (DeLong et al. 1988, logit)."""
    members, others = patients.members, patients.others
    present = np.repeat([1, 0], [len(members), len(others)])
    found = auroc_with_influence(present, np.concatenate([members, others]))
    interval = None if found is None else found.interval(np.arange(len(present)))
    if found is None or interval is None:  # both sides have patients, so that neither can happen
        raise ValueError("an AUROC needs members and others")
    return found.value, interval


def true_positives(patients: Patients, false_alarms: float, rng: np.random.Generator) -> Estimate:
    """True-positive rate at a given false-positive rate; refused with fewer than 10 / rate other patients."""
    total = len(patients.others)
    facts = {
        "name": "membership_tpr",
        "estimand": f"true-positive rate of training patients at a false-positive rate of {false_alarms:g}",
        "method": f"exact ROC curve; percentile bootstrap of {BOOTSTRAP} draws of patients on both sides",
        "n_synthetic": len(patients.members),
        "n_real": total,
        "floor": false_alarms,
        "better": "near_floor",
        "label": f"{false_alarms:g}",
    }
    if total < 10 / false_alarms:
        refused = (
            f"a false-positive rate of {false_alarms:g} cannot be estimated from {total} other patients; "
            f"{10 / false_alarms:.0f} are required"
        )
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
    threshold = -np.partition(-others, allowed)[allowed]  # at most so many of the others have a higher score
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
    """Evaluate an attack.

    Args:
        attack: name of the attack.
        target: object of the attack: the synthetic images or the weights.
        patients: membership scores of the patients.
        bound: upper bound of the AUROC of any attack under the formal guarantee, if there is one.
        blind: interval of the blind baseline.
        tolerated: AUROC up to which the recipe does not count an attack as successful.
        rng: source of the bootstrap draws.
    """
    value, interval = auroc(patients)
    estimate = Estimate(
        name="membership_auroc",
        estimand=f"probability that a training patient scores higher than another patient, by {attack}",
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
            true_positives(patients, share, rng).model_copy(
                update={"label": f"{attack}, false-positive rate {share:g}"}
            )
            for share in FALSE_ALARMS
        ),
        curve=_curve(patients),
        bound=bound,
        limit=limit,
        limited_by=limited_by,
        flagged=interval[0] > limit,
    )


def blind_limit(blind: Interval) -> float:
    """AUROC that is explained without the generator: the upper end of a blind interval above 0.5, else 0.5.

    A baseline below 0.5 does not indicate a difference: if there is none, chance differences that a cross-validated
    classifier learns in the training folds are reversed in the fold that was left out.
    """
    low, high = blind
    return high if low > 0.5 else 0.5


def _curve(patients: Patients, points: int = 60) -> tuple[tuple[float, float], ...]:
    """Corners of the ROC curve, thinned, as (false-positive rate, true-positive rate)."""
    scores = np.concatenate([patients.members, patients.others])
    member = np.concatenate([np.ones(len(patients.members)), np.zeros(len(patients.others))])
    order = np.argsort(-scores, kind="stable")
    found = np.concatenate([[0], np.cumsum(member[order])]) / len(patients.members)
    alarms = np.concatenate([[0], np.cumsum(1 - member[order])]) / len(patients.others)
    ends = np.concatenate([[True], np.diff(scores[order]) != 0, [True]])  # ties are one step
    found, alarms = found[ends], alarms[ends]
    chosen = np.unique(np.linspace(0, len(found) - 1, points).astype(int))
    return tuple((float(alarms[i]), float(found[i])) for i in chosen)


def relative_similarity(real_ND: Array, synthetic_MD: Array, patients: Sequence[str]) -> Array:
    """How much closer real images are to synthetic images than to real images of other patients.

    The score is the difference of the mean cosine similarities to the three nearest images of each kind, after the
    density ratio of van Breugel et al. 2023 (DOMIAS, arXiv 2302.12580): an image that is close to many images is no
    evidence. The reference contains members and others, so that neither side is scored higher by construction.

    Args:
        real_ND: features of the real images to be scored.
        synthetic_MD: features of the synthetic images.
        patients: patient of each real image, ``(N,)``, with at least two different patients.
    """
    real, synthetic = unit_features(real_ND, synthetic_MD)
    owner = np.unique(np.asarray(patients), return_inverse=True)[1]
    found: Array = _nearest(real, synthetic) - _nearest(real, real, (owner, owner))
    return found


def unit_features(real_ND: Array, synthetic_MD: Array) -> tuple[Array, Array]:
    """Standardise features by those of the real images and normalise them; inner products are cosine similarities.

    The mean of the synthetic features is moved to that of the real ones, because a set as a whole may be shifted.

    Args:
        real_ND: features of real images.
        synthetic_MD: features of synthetic images.
    """
    center, scale = real_ND.mean(axis=0), real_ND.std(axis=0) + 1e-9
    shifted = synthetic_MD - synthetic_MD.mean(axis=0) + center
    return _unit((real_ND - center) / scale), _unit((shifted - center) / scale)


def _unit(features: Array) -> Array:
    found: Array = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    return found


def _nearest(real: Array, others: Array, owners: tuple[Array, Array] | None = None) -> Array:
    """Mean cosine similarity to the nearest images, excluding those of the same owner if ``owners`` are given."""
    parts = []
    for start in range(0, len(real), 512):
        block = slice(start, start + 512)
        similarity = real[block] @ others.T
        if owners is not None:
            similarity[owners[0][block, None] == owners[1][None, :]] = -1  # the smallest cosine similarity
        kept = min(NEIGHBOURS, similarity.shape[1])
        parts.append(np.partition(similarity, -kept, axis=1)[:, -kept:].mean(axis=1))
    return np.concatenate(parts)


def blind_scores(features_ND: Array, patients: Sequence[str], member: Array, seed: int) -> Array:
    """Blind membership scores: a logistic regression on image features, cross-validated by patient."""
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    counts = np.bincount(owner)
    table = np.stack([np.bincount(owner, weights=column) / counts for column in features_ND.T], axis=1)
    learned = np.zeros(len(names), dtype=bool)
    learned[owner[member]] = True
    scores = np.zeros(len(names))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    for fitted, held_out in folds.split(table, learned):
        components = min(COMPONENTS, table.shape[1], len(fitted) - 1)
        model = make_pipeline(
            StandardScaler(), PCA(components, random_state=0), LogisticRegression(class_weight="balanced", max_iter=500)
        )
        scores[held_out] = model.fit(table[fitted], learned[fitted]).predict_proba(table[held_out])[:, 1]
    found: Array = scores[owner]
    return found


def reasons(results: Sequence[AttackResult]) -> Iterator[str]:
    """Reasons from successful attacks."""
    for result in results:
        if result.flagged and result.auroc.interval is not None:
            limit = "0.5" if result.limit == 0.5 else f"{result.limit:.3f}, {_LIMITED[result.limited_by]}"
            yield (
                f"membership inference by {result.attack} (from the {result.target}) separates training patients from "
                f"others with AUROC {result.auroc.value:.3f}; its interval lies above {limit}"
            )
