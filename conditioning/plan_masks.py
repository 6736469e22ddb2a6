"""Plans whose images follow masks: those of a real split, elastically deformed."""

from __future__ import annotations

import numpy as np

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import Split
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.masks import deformed, mask_numbers
from medphantom.conditioning.plan import MIN_PATIENTS, SamplingPlan, plan_prompts
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.conditioning.training_rows import TrainingRows
from medphantom.core.errors import InputError
from medphantom.core.folders import pixel_digest
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array


def plan_masks(
    cohort: Cohort,
    schema: ConditionSchema,
    total: int,
    seed: int,
    *,
    preprocess: Preprocess,
    split: Split = "train",
    deform: float = 1.0,
    fresh: str = "",
    min_patients: int = MIN_PATIENTS,
) -> SamplingPlan:
    """Return a plan for elastically deformed masks of a real split; labels and attributes as in ``plan_match``.

    A mask is the outline of a patient's anatomy: with ``deform`` 0 the plan and the images show outlines of real
    patients. Deformation changes the outline; it is not a formal guarantee.

    Args:
        cohort: Real cohort with masks.
        schema: Vocabulary of the generator.
        total: Number of images; masks are taken in random order, repeatedly if there are fewer.
        seed: Seed of the run.
        preprocess: Preprocessing that brings masks to the generator's grid.
        split: Split of the masks; ``test`` only to measure how well a generator follows masks that it was not trained
            on.
        deform: Strength of the deformation, see :func:`medphantom.conditioning.masks.deformed`.
        fresh: Tag of all seeds, as in :func:`~medphantom.conditioning.plan.plan_prompts`.
        min_patients: Smallest number of patients of a combination, as in
            :func:`~medphantom.conditioning.plan.plan_match`.

    Raises:
        InputError: If ``total`` < 1, the generator reads no masks, or the split has none.
        PromptError: If a mask has a value that the generator was not trained on.
    """
    if total < 1:
        raise InputError(f"plan.total must be ≥ 1, got {total}")
    if schema.mask is None:
        raise InputError("this generator reads no masks", "train it with generator.conditioning.mask")
    given = cohort.manifest["mask_group"]
    rows = [row for row in cohort.rows(split) if given[row] is not None]
    if not rows:
        raise InputError(f"no {split} image of the cohort has a mask", "ingest masks, or name another split")
    order = np.random.default_rng(derive_seed(seed, "masks", fresh)).permutation(len(rows))
    says = "labels" in schema.reads or schema.templated
    training = TrainingRows(cohort, schema, min_patients) if says and (schema.labels or schema.attributes) else None
    masks: dict[str, Array] = {}
    prompts = []
    for place in range(total):
        rng = np.random.default_rng(derive_seed(seed, "prompt", place, fresh))
        prompt = Prompt() if training is None else training.prompt(int(rng.integers(len(training))), rng)
        source = cohort.masks([rows[int(order[place % len(rows)])]])[0]
        assert source is not None  # noqa: S101 - such rows were left out
        mask = deformed(preprocess.apply_mask(source), rng, deform)
        mask_numbers(schema.mask, [mask])
        digest = pixel_digest(mask)
        masks[digest] = mask
        prompts.append(prompt.model_copy(update={"mask": digest}))
    return plan_prompts(prompts, seed, fresh=fresh, masks=masks)
