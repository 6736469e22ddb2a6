"""The part of an assessment about disclosure of single patients: membership inference and attribute inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from medphantom.core.records import Array, Frozen
from medphantom.quality.assessment.parts import Context
from medphantom.quality.config import MembershipConfig
from medphantom.quality.data.evaluation_data import EvaluationData
from medphantom.quality.networks.fixed_networks import filter_bank
from medphantom.quality.privacy.disclosure import Known, disclosed
from medphantom.quality.privacy.membership import (
    FALSE_ALARMS,
    SMALLEST,
    Patients,
    attack_result,
    auroc,
    blind_limit,
    blind_scores,
    reasons,
    relative_similarity,
    unit_features,
)
from medphantom.quality.results.quality_report import MembershipSummary
from medphantom.quality.stats.estimate import Estimate

Target = Literal["images", "weights"]

ATTACKS_VERSION = 2  # increase it when the same attacks lead to other words, so that cached ones are written again
UNSEEN = ("holdout", "test")
NEAREST = "nearness to synthetic images"


class MembershipScores(Frozen):
    """Membership and attribute inference; ``summary`` is ``None`` if there are too few patients."""

    summary: MembershipSummary | None


def membership_part(context: Context) -> MembershipScores:
    """Attack the synthetic images and, if configured and available, the weights of the generator.

    The features are those of the fixed filter bank, which was not fitted to any image.
    """
    data, config = context.data, context.config.membership
    patients = data.patients
    sides = [len(set(patients["train"])), len({name for split in UNSEEN for name in patients[split]})]
    if not config.enabled or min(sides) < SMALLEST:
        return MembershipScores(summary=None)
    splits = ("train", *UNSEEN)
    rng = context.rng("membership")
    chosen = {split: np.sort(rng.permutation(len(patients[split]))[: config.images]) for split in splits}
    names = [patients[split][place] for split in splits for place in chosen[split]]
    member = np.concatenate([np.full(len(chosen[split]), split == "train") for split in splits])
    bank = filter_bank(len(names), context.config.classifier.device).folds[0].network
    context.progress(0, 4, "membership")
    real = np.concatenate([bank.features(data.images[split][chosen[split]]) for split in splits])
    synthetic = bank.features(data.synthetic_images)
    context.progress(1, 4, "membership")
    blind = Patients.of(blind_scores(real, names, member, context.config.seed), names, member)
    blind_value, blind_interval = auroc(blind)
    bound = data.hooks.bound
    scores: list[tuple[str, Target, Array]] = [(NEAREST, "images", relative_similarity(real, synthetic, names))]
    if config.weights and data.hooks.attack is not None:
        rows = [data.rows[split][place] for split in splits for place in chosen[split]]
        found = data.hooks.attack(data.real, rows)
        scores += [(attack, "weights", values) for attack, values in found.items()]
    context.progress(3, 4, "membership")
    results = tuple(
        attack_result(
            attack,
            target,
            Patients.of(values, names, member),
            bound=bound,
            blind=blind_interval,
            tolerated=config.limit,
            rng=rng,
        )
        for attack, target, values in scores
    )
    unit_real, unit_synthetic = unit_features(real, synthetic)
    gains = disclosed(list(_known(data, chosen)), unit_real @ unit_synthetic.T, names, member, rng)
    return MembershipScores(
        summary=MembershipSummary(
            results=results,
            blind=_blind_estimate(blind, blind_value, blind_interval),
            disclosure=tuple(gains),
            reasons=tuple(reasons([result for result in results if result.target == "images"])),
            weights_reasons=tuple(reasons([result for result in results if result.target == "weights"])),
            gaps=tuple(_gaps(blind_interval, sides[1], _unattacked(scores, config, data.hooks.no_attack))),
        )
    )


def _blind_estimate(blind: Patients, value: float, interval: tuple[float, float]) -> Estimate:
    return Estimate(
        name="membership_blind",
        estimand="probability that a training patient scores higher than another patient, by a classifier without "
        "access to the generator",
        value=value,
        interval=interval,
        method="logistic regression on filter-bank features, cross-validated by patient; DeLong et al. 1988",
        n_synthetic=len(blind.members),
        n_real=len(blind.others),
        floor=0.5,
        better="near_floor",
    )


def _unattacked(
    scores: Sequence[tuple[str, Target, Array]], config: MembershipConfig, impossible: str | None
) -> str | None:
    """Why the weights were not attacked, whatever was asked for; ``None`` if they were."""
    if any(target == "weights" for _, target, _ in scores):
        return None
    if impossible is not None:
        return f"the weights were not attacked: {impossible}"
    if config.weights:
        return "the weights were not attacked: no generator was given (give its bundle for this)"
    return "the weights were not attacked (set assess.membership.weights to true for this)"


def _gaps(blind: tuple[float, float], others: int, unattacked: str | None) -> Iterator[str]:
    """Limitations of the attacks."""
    if blind[0] > 0.5:
        yield (
            f"training patients differ from the others independently of the generator (blind baseline {blind[0]:.2f} "
            f"to {blind[1]:.2f}), so that only an attack above {blind_limit(blind):.2f} is evidence of leakage"
        )
    refused = [f"{share:g}" for share in FALSE_ALARMS if others < 10 / share]
    if refused:
        yield f"{others} patients outside the training set are too few for false-positive rates of {', '.join(refused)}"
    if unattacked is not None:
        yield unattacked
    yield (
        "attacks with shadow models, with other images of the same patient or with access to the training steps were "
        "not tested"
    )


def _known(data: EvaluationData, chosen: dict[str, Array]) -> Iterator[Known]:
    rows = [data.rows[split][place] for split, places in chosen.items() for place in places]
    labels = data.real.labels(rows).astype(float)
    labels[labels < 0] = np.nan
    requested = data.requested.astype(float)
    requested[requested < 0] = np.nan
    for number, name in enumerate(data.real.schema.labels):
        yield Known(name, labels[:, number], requested[:, number])
    drawn = {spec.name: spec for spec in data.synthetic.schema.attributes}
    for spec in data.real.schema.attributes:
        if spec.name not in drawn:
            continue
        real, synthetic = data.real.attribute(spec.name, rows), data.synthetic.attribute(spec.name)
        numbers = {value: value for value in (*real, *synthetic) if value is not None}
        if spec.kind != "continuous":
            numbers = {value: number for number, value in enumerate(sorted(numbers))}
        one, other = (np.array([numbers.get(value, np.nan) for value in part], float) for part in (real, synthetic))
        yield Known(spec.name, one, other, continuous=spec.kind == "continuous")
