"""Attribute disclosure: does the synthetic set say more about the patients it was made from than about others?

Whoever knows a patient's image predictions what is recorded of them from the synthetic images most like it. That
works as far as images show it, for anybody. What was disclosed is the gain: how much better the prediction is for
training patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.privacy.membership import SMALLEST, Patients
from medphantom.quality.stats.estimate import Estimate

NEIGHBOURS = 5
BOOTSTRAP = 500


@dataclass(frozen=True)
class Known:
    """One thing that is recorded of real images, and asked for of synthetic ones.

    Attributes:
        name: label or attribute.
        real: ``(N,)`` values of real images, NaN where not stated; categories as numbers.
        synthetic: ``(M,)`` likewise of the synthetic images.
        continuous: whether it is a number; else a prediction is right or wrong.
    """

    name: str
    real: Array
    synthetic: Array
    continuous: bool = False


def disclosed(
    known: Sequence[Known], similarity_NM: Array, patients: Sequence[str], member: Array, rng: np.random.Generator
) -> Iterator[Estimate]:
    """The gain for each thing that is known of enough patients on either side.

    Args:
        known: what is predicted.
        similarity_NM: of real and synthetic images, the higher the more alike.
        patients: patient of each real image.
        member: ``(N,)`` whether the generator learned from it.
        rng: source of the bootstrap.
    """
    names = np.asarray(patients)
    for one in known:
        score = _scores(one, similarity_NM)
        stated = ~np.isnan(score)
        found = Patients.of(score[stated], names[stated].tolist(), member[stated])
        members, others = found.members, found.others
        if min(len(members), len(others)) < SMALLEST:
            continue
        measure = "R² of the mean" if one.continuous else "share of right predictions"
        facts = {
            "name": "disclosure_gain",
            "estimand": f"{one.name}: {measure} by the {NEIGHBOURS} most alike synthetic images, training patients "
            "less others",
            "method": f"means by patient; percentile bootstrap of {BOOTSTRAP} draws of patients on either side",
            "n_synthetic": len(members),
            "n_real": len(others),
            "floor": 0.0,
            "better": "near_floor",
            "label": one.name,
        }
        drawn = [
            rng.choice(members, len(members)).mean() - rng.choice(others, len(others)).mean() for _ in range(BOOTSTRAP)
        ]
        low, high = (float(bound) for bound in np.quantile(drawn, [0.025, 0.975]))
        value = float(members.mean() - others.mean())
        yield Estimate.model_validate({**facts, "value": value, "interval": (low, high)})


def _scores(one: Known, similarity_NM: Array) -> Array:
    """How right the prediction is for each real image; NaN where nothing is recorded."""
    usable = np.flatnonzero(~np.isnan(one.synthetic))
    if len(usable) < NEIGHBOURS:
        return np.full(len(one.real), np.nan)
    nearest = usable[np.argpartition(-similarity_NM[:, usable], NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]]
    values = one.synthetic[nearest]
    if one.continuous:
        spread = max(float(np.nanvar(one.real)), 1e-12)
        found: Array = 1 - (values.mean(axis=1) - one.real) ** 2 / spread
        return found
    kinds = np.unique(one.synthetic[usable])
    votes = (values[:, :, None] == kinds[None, None, :]).sum(axis=1)
    prediction = kinds[votes.argmax(axis=1)]
    return np.where(np.isnan(one.real), np.nan, (prediction == one.real).astype(float))
