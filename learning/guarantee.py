"""A guarantee of differential privacy as one value, from the fit that earns it to the page that states it.

The value is computed by :mod:`medphantom.learning.accounting` and never changes afterwards. Its sentences, the bounds
on attacks that follow from it and its form in published reports are defined here and nowhere else. This module does not
import torch, so descriptions are read quickly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from medphantom.core.records import Frozen

FALSE_ALARMS = (0.001, 0.01, 0.05)
ATTACK_FALSE_ALARMS = 0.01
COMPARED = (1.0, 3.0, 8.0, 10.0)
"""Values of ε that are often chosen, with which a guarantee is compared."""


class Mechanism(Frozen):
    """Identical steps of DP-SGD: the Gaussian mechanism on units that are drawn independently (Poisson sampling).

    Attributes:
        noise_multiplier: σ, the standard deviation of the noise divided by the clipping norm.
        sample_rate: q, the probability that a unit is drawn in a step.
        steps: Number of private steps.
    """

    noise_multiplier: Annotated[float, Field(gt=0)]
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1)]


class Guarantee(Frozen):
    """(ε, δ)-differential privacy of weights and of everything computed from them.

    Whoever sees the weights, whatever else they know, can hardly distinguish two neighbouring sets of training data,
    which differ by one unit, better than these numbers allow (Dwork et al. 2006; Abadi et al. 2016). A published report
    states ε, δ, unit and bounds only; the other fields of a guarantee that was read from one are ``None``.

    Attributes:
        epsilon: ε from the privacy loss distribution (Gopi et al. 2021), over all :attr:`parts`.
        epsilon_rdp: ε by Rényi differential privacy, a looser bound on the same quantity.
        delta: δ of the guarantee.
        unit: Unit that is added or removed: a patient with all of their images.
        noise_multiplier: σ, the standard deviation of the noise divided by the clipping norm, of the last fit.
        sample_rate: q, the probability that a unit is drawn in a step, of the last fit.
        steps: Number of private steps of the last fit.
        clip_norm: C, the largest norm of a unit's gradient.
        draws: K, the noise multiplicity: gradients of a unit per step that are averaged before clipping.
        attack_auroc: Upper bound on the area under the ROC curve of any membership inference attack.
        attack_tpr: Upper bound on the attack's true-positive rate at a false-positive rate of 1 %.
        own_epsilon: ε of the last fit alone, if private bases came before it.
        before: Private steps of the bases from which the last fit started; a bundle stores them in its lineage.
    """

    neighbours: ClassVar[str] = "adding or removing one"
    accountant: ClassVar[Literal["prv"]] = "prv"

    epsilon: Annotated[float, Field(ge=0)]
    epsilon_rdp: Annotated[float, Field(ge=0)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)]
    unit: Literal["patient"]
    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    sample_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    draws: Annotated[int, Field(ge=1)] | None = None
    attack_auroc: Annotated[float, Field(ge=0.5, le=1)]
    attack_tpr: Annotated[float, Field(ge=0.01, le=1)]
    own_epsilon: Annotated[float, Field(ge=0)] | None = None
    before: Annotated[tuple[Mechanism, ...], Field(exclude=True)] = ()

    @model_validator(mode="after")
    def _whole_or_stated(self) -> Guarantee:
        given = [
            value is not None
            for value in (
                self.epsilon_rdp,
                self.noise_multiplier,
                self.sample_rate,
                self.steps,
                self.clip_norm,
                self.draws,
            )
        ]
        if any(given) and not all(given):
            raise ValueError(
                "a guarantee needs all of epsilon_rdp, noise_multiplier, sample_rate, steps, clip_norm, draws, or none"
            )
        return self

    @property
    def parts(self) -> tuple[Mechanism, ...]:
        """The mechanisms that were composed, the last fit's at the end; none if they were not published."""
        if self.noise_multiplier is None or self.sample_rate is None or self.steps is None:
            return ()
        own = Mechanism(noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate, steps=self.steps)
        return (*self.before, own)

    def sentence(self, conditions: Sequence[str] = ()) -> str:
        """Return the guarantee in words and numbers.

        Args:
            conditions: Conditions of the guarantee that could not be verified.

        >>> given = Guarantee(epsilon=7.9912, delta=1.31e-4, unit="patient", attack_auroc=0.88, attack_tpr=0.25)
        >>> given.sentence()
        '(8, 0.00014)-differential privacy per patient'
        """
        provided = f", {provided_that(conditions)}" if conditions else ""
        numbers = f"({rounded_up(self.epsilon, 3)}, {rounded_up(self.delta, 2)})"
        return f"{numbers}-differential privacy per {self.unit}{provided}"

    def meaning(self) -> str:
        """Return what the guarantee means for an attacker, in sentences that follow :meth:`sentence`."""
        identified, ranked = rounded_up(100 * self.attack_tpr, 3), rounded_up(100 * self.attack_auroc, 3)
        return (
            "This limits how well anybody who has its weights, or any number of images generated from them, can infer "
            f"whether a given {self.unit} was in the training set, whatever else they know. At a false-positive rate "
            f"of {ATTACK_FALSE_ALARMS * 100:g} %, the best possible attack identifies at most {identified} % of the "
            f"training {self.unit}s (random guessing: {ATTACK_FALSE_ALARMS * 100:g} %). It ranks a training "
            f"{self.unit} above another {self.unit} in at most {ranked} of 100 pairs (random guessing: 50). Known "
            "attacks achieve less than this, and no future attack can exceed it."
        )

    def scope(self) -> str:
        """Return what the guarantee does and does not concern, in sentences."""
        return (
            f"The guarantee concerns the effect of {self.neighbours} {self.unit}. It does not hide what holds for all "
            f"{self.unit}s together, and it does not override a copy that was found."
        )

    def published(self) -> dict[str, Any]:
        """Return the guarantee as a published report stores it: δ, unit, and bounds on attacks by ε, ascending.

        The row marked ``own`` bounds every attack by the guarantee's whole curve of ε against δ; the rows beside it are
        those of one Gaussian mechanism of that ε and the same δ (:func:`gaussian_attack`).
        """
        own = {"epsilon": self.epsilon, "auroc": self.attack_auroc, "found": self.attack_tpr, "own": True}
        limits: list[dict[str, Any]] = [own]
        for epsilon in COMPARED:
            bound = gaussian_attack(epsilon, self.delta, (ATTACK_FALSE_ALARMS,))
            found = bound.tpr[ATTACK_FALSE_ALARMS]
            limits.append({"epsilon": epsilon, "auroc": bound.auroc, "found": found, "own": False})
        limits.sort(key=lambda limit: limit["epsilon"])
        return {"delta": self.delta, "unit": self.unit, "limits": limits}


def _of_published(value: Any) -> Any:
    """Return the fields of a guarantee that was stored by :meth:`Guarantee.published`."""
    if not isinstance(value, Mapping):
        return value
    limits = value.get("limits")
    if set(value) != {"delta", "unit", "limits"} or not isinstance(limits, list | tuple):
        raise ValueError("a published guarantee has delta, unit and limits")
    own = [limit for limit in limits if isinstance(limit, Mapping) and limit.get("own") is True]
    if len(own) != 1 or set(own[0]) != {"epsilon", "auroc", "found", "own"}:
        raise ValueError("one of the limits of a published guarantee must be its own, with epsilon, auroc and found")
    (bound,) = own
    return {
        "epsilon": bound["epsilon"],
        "delta": value["delta"],
        "unit": value["unit"],
        "attack_auroc": bound["auroc"],
        "attack_tpr": bound["found"],
    }


PublishedGuarantee = Annotated[
    Guarantee, BeforeValidator(_of_published), PlainSerializer(Guarantee.published, return_type=dict[str, Any])
]
"""A guarantee that is written and read in the form of published reports."""


@dataclass(frozen=True)
class AttackBound:
    """Performance of the best possible membership inference attack, for units of the attacker's choice.

    Attributes:
        auroc: Area under the attack's ROC curve.
        tpr: True-positive rate of the attack, by false-positive rate.
    """

    auroc: float
    tpr: dict[float, float]


def gaussian_attack(epsilon: float, delta: float, false_alarms: Sequence[float] = FALSE_ALARMS) -> AttackBound:
    """Return the bound for a mechanism of which only (ε, δ) is known, as if it were a Gaussian one (Dong et al. 2022).

    >>> {epsilon: round(gaussian_attack(epsilon, 1e-5).auroc, 3) for epsilon in (1, 3, 8, 10)}
    {1: 0.575, 3: 0.694, 8: 0.881, 10: 0.921}
    >>> {epsilon: round(gaussian_attack(epsilon, 1e-5).tpr[0.01], 3) for epsilon in (1, 3, 8, 10)}
    {1: 0.02, 3: 0.054, 8: 0.255, 10: 0.372}
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    def excess(mu: float) -> float:
        # Balle & Wang 2018, equation 6, at sensitivity over standard deviation mu
        return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon) * ndtr(-mu / 2 - epsilon / mu)) - delta

    mu = float(brentq(excess, 1e-6, 100.0))
    tpr = {f: float(ndtr(mu + ndtri(f))) for f in false_alarms}
    return AttackBound(float(ndtr(mu / math.sqrt(2))), tpr)


def provided_that(conditions: Sequence[str]) -> str:
    """Return the conditions of a guarantee, at least one, as the end of a sentence.

    >>> provided_that(["a holds", "b holds"])
    'provided that a holds and b holds'
    """
    return f"provided that {' and '.join(conditions)}"


def rounded_up(value: float, digits: int) -> str:
    """Format a number > 0 with so many significant digits, rounded up: a guarantee may not be rounded in its favour.

    >>> rounded_up(2.501, 3), rounded_up(8.0, 3), rounded_up(1.31e-4, 2)
    ('2.51', '8', '0.00014')
    """
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return f"{math.ceil(value / unit - 1e-9) * unit:.{digits}g}"
