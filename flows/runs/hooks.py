"""The functions of a generator that an assessment may call."""

from __future__ import annotations

from medphantom.generators.attacks import membership_scores
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.edits import edited
from medphantom.generators.generate import reconstruct
from medphantom.quality.data.evaluation_data import GeneratorHooks


def hooks_of(bundle: GeneratorBundle) -> GeneratorHooks:
    """Return the hooks of a bundle."""
    privacy = bundle.facts.privacy
    guarantee = None if privacy.conditions else privacy.guarantee  # what nobody could check excuses no attack
    few = bundle.facts.few_calls
    return GeneratorHooks(
        reconstruct=lambda images: reconstruct(bundle, images),
        edit=lambda images: edited(bundle, images),
        attack=None if few is not None else lambda cohort, rows: membership_scores(bundle, cohort, rows),
        no_attack=None
        if few is None
        else f"a generator that was distilled to {few.calls} calls has no losses to compare",
        bound=None if guarantee is None else guarantee.attack_auroc,
    )
