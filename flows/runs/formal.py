"""The formal guarantee of a generator, as its report shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medphantom.generators.facts import Privacy

BESIDE = (1.0, 3.0, 8.0, 10.0)  # budgets that are often chosen: the scale of the table


def formal_facts(privacy: Privacy) -> dict[str, Any]:
    """Return the fields of :class:`medphantom.quality.report.write.RunFacts` that state the guarantee.

    The line of the guarantee bounds every attack by its whole curve of ε against δ; the lines beside it are those of
    one Gaussian mechanism with that ε and the same δ.
    """
    found: dict[str, Any] = {
        "privacy": privacy.formal,
        "outside": privacy.outside,
        "assumptions": privacy.assumptions,
    }
    given = privacy.guarantee
    if given is None:
        return found
    from medphantom.generators.privacy import ATTACK_FALSE_ALARMS
    from medphantom.learning.accounting import gaussian_attack
    from medphantom.quality.report.write import AttackLimit, FormalGuarantee

    limits = [AttackLimit(epsilon=given.epsilon, auroc=given.attack_auroc, found=given.attack_tpr, own=True)]
    for epsilon in BESIDE:
        limit = gaussian_attack(epsilon, given.delta, (ATTACK_FALSE_ALARMS,))
        limits.append(AttackLimit(epsilon=epsilon, auroc=limit.auroc, found=limit.tpr[ATTACK_FALSE_ALARMS]))
    limits.sort(key=lambda one: one.epsilon)
    return {**found, "guarantee": FormalGuarantee(delta=given.delta, unit=given.unit, limits=tuple(limits))}
