"""Plans of synthetic counterfactual pairs: two images of no real patient, from the same noise, one change apart."""

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
    """Return a plan of pairs: an image as in the training split, and the same with a change, from the same noise.

    The id of the first of a pair ends in ``-factual``, that of the second in ``-counterfactual``. Prompts that the
    intervention does not change are skipped.

    Args:
        cohort: Real cohort; only its ``train`` rows are used, as by :func:`medphantom.conditioning.plan.plan_match`.
        schema: Vocabulary of the generator.
        changes: ``name=value`` settings of the intervention, as :meth:`Intervention.parse` reads them.
        total: Number of planned pairs.
        seed: Seed of the run.
        fresh: Tag of all seeds, as in :func:`medphantom.conditioning.plan.plan_prompts`.
        min_patients: Smallest number of patients of a combination, as in
            :func:`medphantom.conditioning.plan.plan_match`.

    Raises:
        InputError: If ``total`` < 1, there are no training rows, or the intervention changes (nearly) no prompt.
        PromptError: If the intervention is on a value that the generator was not trained on.
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
        f"the intervention changes {len(images) // 2} of {TRIES * total} prompts, but {total} pairs were requested",
        "set a value that is rare in the training split, or request fewer pairs",
    )
