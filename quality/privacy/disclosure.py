"""Attribute disclosure: does the synthetic set reveal more about training patients than about others?

An attacker who has a patient's image predicts recorded labels and attributes from the most similar synthetic images.
Such a prediction works for any patient as far as images show the attribute. The disclosure is the gain: how much better
the prediction is for training patients than for others.
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
    """A label or attribute that is recorded for real images and prompted for synthetic ones.

    Attributes:
        name: name of the label or attribute.
        real: values of real images, ``(N,)``, NaN where unknown, categories as numbers.
        synthetic: values of synthetic images, ``(M,)``, in the same form.
        continuous: whether the value is continuous; otherwise a prediction is correct or incorrect.
    """

    name: str
    real: Array
    synthetic: Array
    continuous: bool = False


def disclosed(
    known: Sequence[Known], similarity_NM: Array, patients: Sequence[str], member: Array, rng: np.random.Generator
) -> Iterator[Estimate]:
    """Disclosure gain for each label and attribute that is known for enough patients on both sides.

    Args:
        known: labels and attributes to predict.
        similarity_NM: similarity of each real image to each synthetic image.
        patients: patient of each real image.
        member: whether each real image is a training image, ``(N,)``.
        rng: source of the bootstrap draws.
    """
    names = np.asarray(patients)
    for one in known:
        score = _scores(one, similarity_NM)
        observed = ~np.isnan(score)
        found = Patients.of(score[observed], names[observed].tolist(), member[observed])
        members, others = found.members, found.others
        if min(len(members), len(others)) < SMALLEST:
            continue
        measure = "R² of the mean" if one.continuous else "share of correct predictions"
        facts = {
            "name": "disclosure_gain",
            "estimand": f"{one.name}: {measure} by the {NEIGHBOURS} most similar synthetic images, training "
            "patients minus others",
            "method": f"means by patient; percentile bootstrap of {BOOTSTRAP} draws of patients on both sides",
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
    """Accuracy of the prediction for each real image; NaN where the value is unknown."""
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
