"""The part of an assessment that asks what somebody could learn of single patients: membership, and their data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from medphantom.core.records import Array, Frozen
from medphantom.quality.assessment.parts import Context
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
    nearness,
    reasons,
    unit_features,
)
from medphantom.quality.results.quality_report import MembershipSummary
from medphantom.quality.stats.estimate import Estimate

Target = Literal["images", "weights"]

UNSEEN = ("holdout", "test")
NEAREST = "nearness to synthetic images"


class MembershipScores(Frozen):
    """Membership and disclosure; no summary where there are too few patients."""

    summary: MembershipSummary | None


def membership_part(context: Context) -> MembershipScores:
    """Attack the synthetic images, and the weights where that was asked for and the generator is at hand.

    The features are those of the fixed filter bank, which was fitted to nobody.
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
    scores: list[tuple[str, Target, Array]] = [(NEAREST, "images", nearness(real, synthetic, names))]
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
            gaps=tuple(_gaps(blind_interval, sides[1], weights=config.weights)),
        )
    )


def _blind_estimate(blind: Patients, value: float, interval: tuple[float, float]) -> Estimate:
    return Estimate(
        name="membership_blind",
        estimand="chance that a training patient scores higher than another, by a classifier that saw no generator",
        value=value,
        interval=interval,
        method="logistic regression on filter-bank features, cross-validated by patient; DeLong et al. 1988",
        n_synthetic=len(blind.members),
        n_real=len(blind.others),
        floor=0.5,
        better="near_floor",
    )


def _gaps(blind: tuple[float, float], others: int, *, weights: bool) -> Iterator[str]:
    """What the attacks do not show."""
    if blind[0] > 0.5:
        yield (
            f"training patients differ from the others by themselves (blind baseline {blind[0]:.2f} to "
            f"{blind[1]:.2f}), so that an attack shows something only above {blind_limit(blind):.2f}"
        )
    refused = [f"{share:g}" for share in FALSE_ALARMS if others < 10 / share]
    if refused:
        yield f"{others} patients who were not learned from are too few for {', '.join(refused)} false alarms"
    if not weights:
        yield "the weights were not attacked (assess.membership.weights: true does)"
    yield "attacks that train shadow models, know other images of a patient, or see every step of the training"


def _known(data: EvaluationData, chosen: dict[str, Array]) -> Iterator[Known]:
    rows = [data.rows[split][place] for split, places in chosen.items() for place in places]
    labels = data.real.labels(rows).astype(float)
    labels[labels < 0] = np.nan
    asked = data.asked.astype(float)
    asked[asked < 0] = np.nan
    for number, name in enumerate(data.real.schema.labels):
        yield Known(name, labels[:, number], asked[:, number])
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
