"""What of a generator an assessment may call."""

from __future__ import annotations

from generators.attacks import membership_scores
from generators.bundle import GeneratorBundle
from generators.edits import edited
from generators.generate import reconstruct
from quality.material import Probes


def probes_of(bundle: GeneratorBundle) -> Probes:
    """The probes of a bundle."""
    privacy = bundle.facts.privacy
    guarantee = None if privacy.conditions else privacy.guarantee  # what nobody could check excuses no attack
    return Probes(
        reconstruct=lambda images: reconstruct(bundle, images),
        edit=lambda images: edited(bundle, images),
        attack=lambda cohort, rows: membership_scores(bundle, cohort, rows),
        bound=None if guarantee is None else guarantee.attack_auroc,
    )
