"""Plans as recipes and the command line state them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import MIN_PATIENTS, SamplingPlan, plan_balance, plan_counts, plan_match
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.core.errors import InputError
from medphantom.core.guard import user_path
from medphantom.core.records import Frozen

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Plan(Frozen):
    """What all plans share.

    Attributes:
        seed: where prompts and noise come from.
        fresh: a tag that enters every seed; another tag gives new images. ``medphantom serve`` sets it to the time of
            each scheduled run.
    """

    seed: Seed = 0
    fresh: str = ""


class MatchPlan(_Plan):
    """Labels and attributes distributed as in the real training split.

    Attributes:
        kind: ``match``.
        total: images in all.
        min_patients: a combination that fewer training patients have is coarsened before it is asked for.
    """

    kind: Literal["match"] = "match"
    total: Annotated[int, Field(ge=1)] = 500
    min_patients: Annotated[int, Field(ge=1)] = MIN_PATIENTS


class BalancePlan(_Plan):
    """Top up every label of the training split to the same number of images.

    Attributes:
        kind: ``balance``.
        per_label: images of each label, real and synthetic together.
        labels: labels to top up; null: all.
        min_patients: a combination that fewer training patients have is coarsened before it is asked for.
    """

    kind: Literal["balance"]
    per_label: Annotated[int, Field(ge=1)]
    labels: tuple[str, ...] | None = None
    min_patients: Annotated[int, Field(ge=1)] = MIN_PATIENTS


class CountsPlan(_Plan):
    """So many images of each label.

    Attributes:
        kind: ``counts``.
        counts: label → images; ``no finding`` asks for images without any label.
    """

    kind: Literal["counts"]
    counts: dict[str, Annotated[int, Field(ge=0)]]


class MasksPlan(_Plan):
    """Images for the masks of a real split, each mask bent into a new one; labels and attributes as in ``match``.

    Attributes:
        kind: ``masks``.
        total: images in all.
        split: whose masks.
        deform: strength of the bending; 0 shows outlines of real patients.
        min_patients: a combination that fewer training patients have is coarsened before it is asked for.
    """

    kind: Literal["masks"]
    total: Annotated[int, Field(ge=1)] = 500
    split: Literal["train", "val", "holdout", "test"] = "train"
    deform: Annotated[float, Field(ge=0, le=3)] = 1.0
    min_patients: Annotated[int, Field(ge=1)] = MIN_PATIENTS


class PairsPlan(_Plan):
    """Synthetic counterfactual pairs: an image as in ``match``, and the same with a change, from the same noise.

    Attributes:
        kind: ``pairs``.
        set: the change, e.g. ``[effusion=absent]``, ``[age=20:80]``.
        total: pairs.
        min_patients: a combination that fewer training patients have is coarsened before it is asked for.
    """

    kind: Literal["pairs"]
    set: Annotated[tuple[str, ...], Field(min_length=1)]
    total: Annotated[int, Field(ge=1)] = 250
    min_patients: Annotated[int, Field(ge=1)] = MIN_PATIENTS


class TablePlan(_Plan):
    """Prompts from a table, one row each.

    Attributes:
        kind: ``table``.
        path: CSV or Parquet file; see ``docs/formats/plan.md``. Relative to the recipe.
    """

    kind: Literal["table"]
    path: Path


PlanChoice = Annotated[
    MatchPlan | BalancePlan | CountsPlan | MasksPlan | PairsPlan | TablePlan, Field(discriminator="kind")
]


def make_plan(
    choice: PlanChoice,
    cohort: Cohort | None,
    schema: ConditionSchema,
    *,
    preprocess: Preprocess,
    fresh: str = "",
) -> SamplingPlan:
    """The plan that a recipe describes.

    Args:
        choice: the ``plan`` section.
        cohort: the real cohort; plans of counts and tables need none.
        schema: vocabulary of the generator.
        preprocess: of the generator, for masks.
        fresh: replaces ``choice.fresh`` when not empty.

    Raises:
        InputError: the plan needs a real cohort and there is none, or a table or mask cannot be read.
        PromptError: a prompt is outside the vocabulary.
    """
    tag = fresh or choice.fresh
    if isinstance(choice, CountsPlan):
        return plan_counts(schema, choice.counts, choice.seed, fresh=tag)
    if isinstance(choice, TablePlan):
        from medphantom.conditioning.plan_table import plan_table  # loads the readers of masks

        return plan_table(choice.path, schema, choice.seed, fresh=tag)
    if cohort is None:
        raise InputError(f"a plan of kind {choice.kind!r} needs the real cohort", "give --cohort, or --count label=N")
    if isinstance(choice, MatchPlan):
        return plan_match(cohort, choice.total, choice.seed, fresh=tag, schema=schema, min_patients=choice.min_patients)
    if isinstance(choice, PairsPlan):
        from medphantom.conditioning.plan_pairs import plan_pairs

        return plan_pairs(
            cohort, schema, choice.set, choice.total, choice.seed, fresh=tag, min_patients=choice.min_patients
        )
    if isinstance(choice, MasksPlan):
        from medphantom.conditioning.plan_masks import plan_masks  # loads torch

        return plan_masks(
            cohort,
            schema,
            choice.total,
            choice.seed,
            preprocess=preprocess,
            split=choice.split,
            deform=choice.deform,
            fresh=tag,
            min_patients=choice.min_patients,
        )
    return plan_balance(
        cohort,
        choice.per_label,
        choice.seed,
        fresh=tag,
        labels=choice.labels,
        schema=schema,
        min_patients=choice.min_patients,
    )


def absolute_plan(choice: PlanChoice, base: Path) -> PlanChoice:
    """A table's path relative to the recipe's folder."""
    if isinstance(choice, TablePlan):
        return choice.model_copy(update={"path": user_path(choice.path, base=base)})
    return choice


def plan_flags(
    counts: Mapping[str, int] | None,
    match: int | None,
    balance: int | None,
    seed: int | None,
    *,
    masks: int | None = None,
    prompts: str | Path | None = None,
    plan_file: str | Path | None = None,
) -> dict[str, dict[str, Any]]:
    """The ``plan`` section that arguments describe; empty where none is given.

    Raises:
        InputError: Two kinds of plan were asked for.
    """
    kinds = {
        "count": counts,
        "match": match,
        "balance": balance,
        "masks": masks,
        "prompts": prompts,
        "plan": plan_file,
    }
    given = [name for name, value in kinds.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"--{given[0]} and --{given[1]} are mutually exclusive", "give one of them")
    plan: dict[str, Any] = {"seed": seed} if seed is not None else {}
    if counts is not None:
        plan |= {"kind": "counts", "counts": dict(counts)}
    elif match is not None:
        plan |= {"kind": "match", "total": match}
    elif balance is not None:
        plan |= {"kind": "balance", "per_label": balance}
    elif masks is not None:
        plan |= {"kind": "masks", "total": masks}
    elif prompts is not None:
        plan |= {"kind": "table", "path": str(Path(prompts).resolve())}
    return {"plan": plan} if plan else {}


def counts_of(entries: Sequence[str] | None) -> dict[str, int] | None:
    """Counts by label of ``--count LABEL=N``.

    Raises:
        InputError: An entry is not of this form.
    """
    return dict(_count(entry) for entry in entries) if entries else None


def _count(entry: str) -> tuple[str, int]:
    name, equals, number = entry.rpartition("=")
    if not equals or not name or not number.strip().isdigit():
        raise InputError(f"--count {entry}: expected LABEL=N", 'e.g. --count "Pleural effusion=100"')
    return name, int(number)


def shard_of(plan: SamplingPlan, text: str) -> SamplingPlan:
    """Part ``I/K`` of a plan, counted from 0.

    Raises:
        InputError: the text is not of this form, or I is not below K.
    """
    index, slash, total = text.partition("/")
    if not slash or not index.isdigit() or not total.isdigit():
        raise InputError(f"--shard {text}: expected I/K", "e.g. --shard 0/4 for the first of four parts")
    return plan.shard(int(index), int(total))
