"""Plans whose images are drawn for masks: those of a real split, bent into new ones."""

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
    """Images for masks of a real split, each mask bent into a new one; labels and attributes as in ``plan_match``.

    A mask is the outline of a patient's anatomy: with ``deform`` 0 the plan, and the images, show outlines of real
    patients. Bending makes another outline of the same kind; it is no formal guarantee.

    Args:
        cohort: real cohort with masks.
        schema: the vocabulary of the generator.
        total: images in all; masks are taken in random order, again from the start when there are fewer.
        seed: run seed.
        preprocess: brings masks to the generator's grid.
        split: whose masks; ``test`` only to measure how well a generator follows masks that it never saw.
        deform: strength of the bending, see :func:`medphantom.conditioning.masks.deformed`.
        fresh: as in :func:`~medphantom.conditioning.plan.plan_prompts`.
        min_patients: as in :func:`~medphantom.conditioning.plan.plan_match`.

    Raises:
        InputError: ``total`` < 1, the generator reads no masks, or the split has none.
        PromptError: a mask holds a value that the generator never saw.
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
    stated = TrainingRows(cohort, schema, min_patients) if says and (schema.labels or schema.attributes) else None
    masks: dict[str, Array] = {}
    prompts = []
    for place in range(total):
        rng = np.random.default_rng(derive_seed(seed, "prompt", place, fresh))
        prompt = Prompt() if stated is None else stated.prompt(int(rng.integers(len(stated))), rng)
        source = cohort.masks([rows[int(order[place % len(rows)])]])[0]
        assert source is not None  # noqa: S101 - such rows were left out
        mask = deformed(preprocess.apply_mask(source), rng, deform)
        mask_numbers(schema.mask, [mask])
        digest = pixel_digest(mask)
        masks[digest] = mask
        prompts.append(prompt.model_copy(update={"mask": digest}))
    return plan_prompts(prompts, seed, fresh=fresh, masks=masks)
