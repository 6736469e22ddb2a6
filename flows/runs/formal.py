"""The formal guarantee of a generator, as its report shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medphantom.generators.facts import Privacy


def formal_facts(privacy: Privacy) -> dict[str, Any]:
    """Return the fields of :class:`medphantom.quality.report.write.RunFacts` that state what is guaranteed."""
    return {
        "privacy": privacy.formal,
        "guarantee": privacy.guarantee,
        "outside": privacy.outside,
        "assumptions": privacy.assumptions,
    }
