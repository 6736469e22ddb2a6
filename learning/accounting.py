"""Privacy accounting of DP-SGD: ε from σ, σ from ε, and the guarantee of a fit, by Opacus's accountants.

Every step is one Gaussian mechanism on units that are drawn independently with probability q (Poisson sampling).
Neighbouring data sets differ by adding or removing one unit. The guarantee is computed from the privacy loss
distribution (PRV, Gopi et al. 2021); Rényi differential privacy (RDP, Mironov et al. 2019), an older and looser bound,
is reported as well. What a guarantee is, and its sentences, stand in :mod:`medphantom.learning.guarantee`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from medphantom.core.errors import InputError
from medphantom.core.extras import require
from medphantom.learning.guarantee import ATTACK_FALSE_ALARMS, FALSE_ALARMS, AttackBound, Guarantee, Mechanism

RELATIVE_ERROR = 0.002  # of ε
LARGEST_NOISE = 1000.0
NOISE_TOLERANCE = 0.005
AUTO_DELTA = 0.1
CURVE_DELTA_ERROR = 1e-8


ROUNDING = 0.004
"""Relative difference that two versions of an accountant may have: each errs by 0.2 % at most."""
LARGEST_EPSILON = 1000.0


@dataclass(frozen=True)
class DPParameters:
    """DP parameters of each step of a private fit, derived from configuration and data.

    Attributes:
        noise_multiplier: σ, the standard deviation of the noise divided by the clipping norm; 0 takes the same steps
            without noise, for comparison.
        sample_rate: q, the probability that a unit is drawn in a step.
        delta: δ at which ε is reported.
        clip_norm: C, the largest norm of one unit's gradient.
        draws: K, the noise multiplicity: how many gradients of a drawn unit are averaged before clipping.
        total_units: N, the number of units in the data set.
    """

    noise_multiplier: float
    sample_rate: float
    delta: float
    clip_norm: float
    draws: int
    total_units: int

    def mechanism(self, steps: int) -> Mechanism:
        """Return the mechanism of this number of steps, at least 1, with these parameters; σ must be above 0."""
        return Mechanism(noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate, steps=steps)


def delta_for(delta: float | str, total_units: int) -> float:
    """Return δ; if it is ``auto``, a tenth of one over the number of units.

    Raises:
        InputError: If δ is at least one over the number of units, which would allow publishing all data of one unit.
    """
    if isinstance(delta, str):
        return AUTO_DELTA / total_units
    if delta >= 1 / total_units:
        raise InputError(
            f"privacy.delta must lie below 1 / {total_units}, one over the number of units; got {delta:g}",
            "leave it at auto",
        )
    return delta


def guarantee_of(parameters: DPParameters, steps: int) -> Guarantee | None:
    """Return the guarantee of a fit; ``None`` without noise or without any step, since nothing is then guaranteed.

    Args:
        parameters: DP parameters of its steps.
        steps: Number of steps that were ever begun.
    """
    if parameters.noise_multiplier == 0 or steps == 0:
        return None
    mechanism = parameters.mechanism(steps)
    bound = strongest_attack(mechanism, (ATTACK_FALSE_ALARMS,))
    return Guarantee(
        epsilon=epsilon_of(mechanism, parameters.delta, accountant=Guarantee.accountant),
        epsilon_rdp=epsilon_of(mechanism, parameters.delta, accountant="rdp"),
        delta=parameters.delta,
        unit="patient",
        noise_multiplier=mechanism.noise_multiplier,
        sample_rate=mechanism.sample_rate,
        steps=mechanism.steps,
        clip_norm=parameters.clip_norm,
        draws=parameters.draws,
        attack_auroc=bound.auroc,
        attack_tpr=bound.tpr[ATTACK_FALSE_ALARMS],
    )


def composed(before: Sequence[Mechanism], own: Guarantee) -> Guarantee:
    """Return the guarantee of a fit together with those of the private bases from which it started, at the same δ.

    Args:
        before: Private steps of the bases, whoever the patients were.
        own: Guarantee of the fit alone.
    """
    if not before:
        return own
    parts = (*before, *own.parts)
    bound = strongest_attack(parts, (ATTACK_FALSE_ALARMS,))
    return own.model_copy(
        update={
            "epsilon": epsilon_of(parts, own.delta, accountant=Guarantee.accountant),
            "epsilon_rdp": epsilon_of(parts, own.delta, accountant="rdp"),
            "own_epsilon": own.epsilon,
            "attack_auroc": bound.auroc,
            "attack_tpr": bound.tpr[ATTACK_FALSE_ALARMS],
            "before": tuple(before),
        }
    )


def understated(given: Guarantee) -> str:
    """Return which number of a guarantee is smaller than what its private steps cost; empty if none is.

    Args:
        given: Guarantee with its private steps, such as that of a bundle.

    Raises:
        InputError: If Opacus is not installed, or the steps cost more than any guarantee is given for.
    """
    parts = given.parts
    # by Rényi differential privacy first: its cost does not grow with that of the steps
    real = {"epsilon_rdp": epsilon_of(parts, given.delta, accountant="rdp")}
    if not real["epsilon_rdp"] < LARGEST_EPSILON:
        raise InputError(f"private steps that cost more than ε = {LARGEST_EPSILON:g} guarantee nothing")
    bound = strongest_attack(parts, (ATTACK_FALSE_ALARMS,))
    real |= {
        "epsilon": epsilon_of(parts, given.delta, accountant=Guarantee.accountant),
        "attack_auroc": bound.auroc,
        "attack_tpr": bound.tpr[ATTACK_FALSE_ALARMS],
    }
    if given.own_epsilon is not None:
        real["own_epsilon"] = epsilon_of(parts[-1:], given.delta, accountant=Guarantee.accountant)
    return next((name for name, value in real.items() if (getattr(given, name) or 0) < value * (1 - ROUNDING)), "")


def epsilon_of(mechanism: Mechanism | Sequence[Mechanism], delta: float, *, accountant: str = "prv") -> float:
    """Return the ε spent at δ; 0 by no mechanism.

    Successive mechanisms compose adaptively: each may depend on the results of those before it, as a fit depends on its
    base.

    Args:
        mechanism: σ, q and steps of one mechanism, or of several successive ones.
        delta: δ at which ε is computed.
        accountant: Accountant to use, ``prv`` or ``rdp``.

    Raises:
        InputError: If Opacus is not installed.
    """
    taken = tuple(_taken(mechanism))
    if not taken:
        return 0.0
    return _rdp(list(taken), delta) if accountant == "rdp" else _prv(taken, delta)


@cache
def _prv(taken: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """Return ε from the privacy loss distribution; a fit and its reports ask for the same values again and again."""
    found = _accountant("PRVAccountant", list(taken))
    error = RELATIVE_ERROR * max(min(_rdp(list(taken), delta), 100.0), 0.1)
    with _quiet():
        return float(found.get_epsilon(delta, eps_error=error))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(divide="ignore"):  # log(1 - q) where every unit is in every step
        warnings.simplefilter("ignore", UserWarning)  # that a wider range of RDP's orders might give a smaller bound
        yield


def _taken(mechanism: Mechanism | Sequence[Mechanism]) -> list[tuple[float, float, int]]:
    """Return the history in the form of an Opacus accountant: (σ, q, steps) of every mechanism."""
    every = [mechanism] if isinstance(mechanism, Mechanism) else mechanism
    return [(one.noise_multiplier, one.sample_rate, one.steps) for one in every]


def _accountant(name: Literal["PRVAccountant", "RDPAccountant"], taken: list[tuple[float, float, int]]) -> Any:
    """Return an Opacus accountant of these steps."""
    require("private", "privacy accounting")
    from opacus import accountants

    found = getattr(accountants, name)()
    found.history = taken
    return found


def _rdp(taken: list[tuple[float, float, int]], delta: float) -> float:
    found = _accountant("RDPAccountant", taken)
    with _quiet():
        return float(found.get_epsilon(delta))


@cache
def noise_for(epsilon: float, delta: float, *, sample_rate: float, steps: int) -> float:
    """Return a σ at which the steps spend at most ε, and at least 99.5 % of it.

    Raises:
        InputError: If no useful σ suffices.
    """
    high = _noise_by_rdp(epsilon, delta, sample_rate, steps)
    if high is None:
        raise InputError(
            f"ε = {epsilon:g} at δ = {delta:g} cannot be reached in {steps} steps that each draw {sample_rate:.1%} of "
            "the units",
            "take fewer steps, fewer units per step, more patients, or a larger ε",
        )
    low = high / 2  # the RDP bound is looser by some tens of percent at most
    spent = _at(high, sample_rate, steps, delta)
    while spent < (1 - NOISE_TOLERANCE) * epsilon:
        middle = (low + high) / 2
        found = _at(middle, sample_rate, steps, delta)
        if found <= epsilon:
            high, spent = middle, found
        else:
            low = middle
        if high - low < 1e-6 * high:
            break
    return high


def _at(noise: float, sample_rate: float, steps: int, delta: float) -> float:
    return epsilon_of(Mechanism(noise_multiplier=noise, sample_rate=sample_rate, steps=steps), delta)


def _noise_by_rdp(epsilon: float, delta: float, sample_rate: float, steps: int) -> float | None:
    """Return a σ that suffices by the looser bound; ``None`` if none below :data:`LARGEST_NOISE` does."""
    if _rdp([(LARGEST_NOISE, sample_rate, steps)], delta) > epsilon:
        return None
    from opacus.accountants.utils import get_noise_multiplier

    with _quiet():
        return float(
            get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=0.01 * epsilon,
            )
        )


def strongest_attack(
    mechanism: Mechanism | Sequence[Mechanism], false_alarms: Sequence[float] = FALSE_ALARMS
) -> AttackBound:
    """Bound every attack on a mechanism, or on several successive ones, from the whole curve of ε against δ.

    For each (ε, δ) on the curve no test exceeds a true-positive rate of ``min(e^ε f + δ, 1 - e^-ε (1 - δ - f))`` at
    false-positive rate f (Kairouz et al. 2015, theorem 2.1); the bound is the smallest over the curve.

    Args:
        mechanism: σ, q and steps of one mechanism, or of several successive ones.
        false_alarms: False-positive rates f at which the bound is evaluated.
    """
    return _strongest(tuple(_taken(mechanism)), tuple(false_alarms))


@cache
def _strongest(taken: tuple[tuple[float, float, int], ...], false_alarms: tuple[float, ...]) -> AttackBound:
    found = _accountant("PRVAccountant", list(taken))
    error = RELATIVE_ERROR * max(min(_rdp(list(taken), 1e-5), 100.0), 0.1)
    with _quiet():
        losses = found._get_dprv(eps_error=error, delta_error=CURVE_DELTA_ERROR)  # noqa: SLF001 - the curve, not a point
    # both errors are on the safe side: the privacy loss distribution is known to eps_error in ε, delta_error in δ
    steps = (*np.linspace(0, 2, 41), *np.linspace(2.2, 20, 90))
    return _bound(
        [(e + error, float(losses.compute_delta_estimate(e)) + CURVE_DELTA_ERROR) for e in steps], false_alarms
    )


def _bound(pairs: Sequence[tuple[float, float]], false_alarms: Sequence[float]) -> AttackBound:
    grid = np.concatenate([[0.0], np.logspace(-6, 0, 600)])
    at = np.concatenate([np.asarray(false_alarms, dtype=float), grid])
    best = np.ones_like(at)
    for epsilon, delta in pairs:
        if math.isfinite(epsilon):
            best = np.minimum(
                best, np.minimum(math.exp(epsilon) * at + delta, 1 - (1 - delta - at) / math.exp(epsilon))
            )
    curve = best[len(false_alarms) :]
    auroc = float(np.sum(np.diff(grid) * (curve[1:] + curve[:-1]) / 2))
    return AttackBound(min(auroc, 1.0), {f: float(t) for f, t in zip(false_alarms, best, strict=False)})
