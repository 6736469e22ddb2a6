"""Plans of synthetic counterfactual pairs: two images of nobody, drawn from the same noise, one change apart."""

from __future__ import annotations

from collections.abc import Sequence

from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import MIN_PATIENTS, PlannedImage, SamplingPlan, plan_match
from medphantom.conditioning.prompt import ConditionSchema, Intervention
from medphantom.core.errors import InputError

TRIES = 20


def plan_pairs(
    cohort: Cohort,
    schema: ConditionSchema,
    changes: Sequence[str],
    total: int,
    seed: int,
    *,
    fresh: str = "",
    min_patients: int = MIN_PATIENTS,
) -> SamplingPlan:
    """Pairs: an image as in the training split, and the same with a change, from the same noise.

    The first of a pair has ``-factual`` at the end of its id, the second ``-counterfactual``. Prompts about which the
    intervention changes nothing are passed over.

    Args:
        cohort: real cohort; only its ``train`` rows are used, as by :func:`medphantom.conditioning.plan.plan_match`.
        schema: the vocabulary of the generator.
        changes: ``name=value`` of the intervention, as :meth:`Intervention.parse` reads them.
        total: pairs.
        seed: run seed.
        fresh: as in :func:`medphantom.conditioning.plan.plan_prompts`.
        min_patients: as in :func:`medphantom.conditioning.plan.plan_match`.

    Raises:
        InputError: ``total`` < 1, no training rows, or (nearly) no prompt that the intervention changes.
        PromptError: an intervention on what the generator never saw.
    """
    intervention = Intervention.parse(changes, schema)
    if not intervention:
        raise InputError("a plan of pairs needs an intervention", "e.g. plan.set: [effusion=absent]")
    images: list[PlannedImage] = []
    for image in plan_match(cohort, TRIES * total, seed, fresh=fresh, schema=schema, min_patients=min_patients):
        changed = intervention.drawn(seed, image.image_id).applied(image.prompt, schema)
        if changed == image.prompt:
            continue
        for name, prompt in (("factual", image.prompt), ("counterfactual", changed)):
            images.append(PlannedImage(image_id=f"{image.image_id}-{name}", prompt=prompt, seed=image.seed))
        if len(images) == 2 * total:
            return SamplingPlan(images)
    raise InputError(
        f"the intervention changes {len(images) // 2} of {TRIES * total} prompts, {total} pairs were asked for",
        "set what the training split seldom shows, or ask for fewer",
    )
