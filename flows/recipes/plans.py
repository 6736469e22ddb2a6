"""Plans as recipes and the command line describe them. This module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import MIN_PATIENTS, SamplingPlan, plan_balance, plan_counts, plan_match
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.core.errors import InputError
from medphantom.core.guard import user_path
from medphantom.core.records import Frozen

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Plan(Frozen):
    """The fields that all plans share.

    Attributes:
        seed: Seed of the prompts and of the noise.
        fresh: Tag that enters every seed; another tag gives new images. ``medphantom serve`` sets it to the time of
            each scheduled run.
    """

    seed: Seed = 0
    fresh: str = ""


class MatchPlan(_Plan):
    """Labels and attributes distributed as in the real training split.

    Attributes:
        kind: Kind of the plan, ``match``.
        total: Total number of images.
        min_patients: Smallest number of training patients with a combination; rarer combinations are coarsened.
    """

    kind: Literal["match"] = "match"
    total: Annotated[int, Field(ge=1)] = 500
    min_patients: Annotated[int, Field(ge=1)] = MIN_PATIENTS


class BalancePlan(_Plan):
    """Top up every label of the training split to the same number of images.

    Attributes:
        kind: Kind of the plan, ``balance``.
        per_label: Number of images of each label, real and synthetic together.
        labels: Labels to top up; null means all labels.
        min_patients: Smallest number of training patients with a combination; rarer combinations are coarsened.
    """

    kind: Literal["balance"]
    per_label: Annotated[int, Field(ge=1)]
    labels: tuple[str, ...] | None = None
    min_patients: Annotated[int, Field(ge=1)] = MIN_PATIENTS


class CountsPlan(_Plan):
    """A given number of images of each label.

    Attributes:
        kind: Kind of the plan, ``counts``.
        counts: Number of images of each label; ``no finding`` requests images without any label.
    """

    kind: Literal["counts"]
    counts: dict[str, Annotated[int, Field(ge=0)]]


class MasksPlan(_Plan):
    """Images for elastically deformed masks of a real split; labels and attributes are chosen as in ``match``.

    Attributes:
        kind: Kind of the plan, ``masks``.
        total: Total number of images.
        split: Split that the masks come from.
        deform: Strength of the elastic deformation; with 0, the outlines are those of real patients.
        min_patients: Smallest number of training patients with a combination; rarer combinations are coarsened.
    """

    kind: Literal["masks"]
    total: Annotated[int, Field(ge=1)] = 500
    split: Literal["train", "val", "holdout", "test"] = "train"
    deform: Annotated[float, Field(ge=0, le=3)] = 1.0
    min_patients: Annotated[int, Field(ge=1)] = MIN_PATIENTS


class PairsPlan(_Plan):
    """Synthetic counterfactual pairs: an image as in ``match``, and the same with a change, from the same noise.

    Attributes:
        kind: Kind of the plan, ``pairs``.
        set: Change between the images of a pair, such as ``[effusion=absent]`` or ``[age=20:80]``.
        total: Total number of pairs.
        min_patients: Smallest number of training patients with a combination; rarer combinations are coarsened.
    """

    kind: Literal["pairs"]
    set: Annotated[tuple[str, ...], Field(min_length=1)]
    total: Annotated[int, Field(ge=1)] = 250
    min_patients: Annotated[int, Field(ge=1)] = MIN_PATIENTS


class TablePlan(_Plan):
    """Prompts from a table, one row each.

    Attributes:
        kind: Kind of the plan, ``table``.
        path: CSV or Parquet file, relative to the recipe; see ``docs/formats/plan.md``.
    """

    kind: Literal["table"]
    path: Path


def _usual_kind(given: Any) -> Any:
    """Return a section that names no kind as one of the kind that is drawn without any section."""
    return {"kind": "match", **given} if isinstance(given, dict) else given


PlanChoice = Annotated[
    Annotated[MatchPlan | BalancePlan | CountsPlan | MasksPlan | PairsPlan | TablePlan, Field(discriminator="kind")],
    BeforeValidator(_usual_kind),
]


def make_plan(
    choice: PlanChoice,
    cohort: Cohort | None,
    schema: ConditionSchema,
    *,
    preprocess: Preprocess,
    fresh: str = "",
) -> SamplingPlan:
    """Make the plan that a recipe describes.

    Args:
        choice: The ``plan`` section of the recipe.
        cohort: The real cohort; plans of counts and tables need none.
        schema: The vocabulary of the generator.
        preprocess: The preprocessing of the generator, for masks.
        fresh: The tag that replaces ``choice.fresh``, if it is not empty.

    Raises:
        InputError: The plan needs a real cohort and there is none, or a table or mask cannot be read.
        PromptError: A prompt is outside the vocabulary.
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
    """Resolve the path of a table relative to the recipe's folder."""
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
    """Return the ``plan`` section that the arguments describe; it is empty if none is given.

    Raises:
        InputError: Two kinds of plan were requested.
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
        plan |= {"kind": "table", "path": str(user_path(prompts).resolve())}
    return {"plan": plan} if plan else {}


def refuse_changes(given: Mapping[str, bool], settings: Sequence[str]) -> None:
    """Refuse what would change a plan that is read from a file.

    Args:
        given: Whether each option that changes plans was given.
        settings: The settings ``field=value``, as given to ``--set``.

    Raises:
        InputError: One of them was given.
    """
    names = [f"--{name}" for name, here in given.items() if here]
    names += ["--set plan" for setting in settings if _section(setting) == "plan"]
    if names:
        raise InputError(f"--plan and {names[0]} are mutually exclusive: a plan is drawn as it is", "leave one out")


def refuse_section(section: str, settings: Sequence[str], why: str, remedy: str) -> None:
    """Refuse settings of a section that has no effect on what is asked for.

    Args:
        section: The section.
        settings: The settings ``field=value``, as given to ``--set``.
        why: Why it has no effect.
        remedy: What to do.

    Raises:
        InputError: One of the settings belongs to the section.
    """
    for setting in settings:
        if _section(setting) == section:
            raise InputError(f"--set {setting.partition('=')[0].strip()} has no effect: {why}", remedy)


def settings_without(section: str, settings: Sequence[str] | None) -> list[str]:
    """Return the settings ``field=value`` that do not belong to a section."""
    return [setting for setting in settings or () if _section(setting) != section]


def _section(setting: str) -> str:
    return setting.partition("=")[0].strip().split(".")[0].strip()


def counts_of(entries: Sequence[str] | None) -> dict[str, int] | None:
    """Read the counts by label from entries ``--count LABEL=N``.

    Raises:
        InputError: An entry is not of this form, or a label is given twice.
    """
    found: dict[str, int] = {}
    for name, number in (_count(entry) for entry in entries or ()):
        if name in found:
            raise InputError(f"--count {name} is given twice", "give one number of images for each label")
        found[name] = number
    return found or None


def _count(entry: str) -> tuple[str, int]:
    name, equals, number = entry.rpartition("=")
    if not equals or not name or not _digits(number.strip()):
        raise InputError(f"--count {entry}: expected LABEL=N", 'e.g. --count "Pleural effusion=100"')
    return name, int(number)


def _digits(text: str) -> bool:
    """Whether a text consists of the digits 0 to 9; other scripts and superscripts count as digits in Unicode."""
    return text.isascii() and text.isdigit() and len(text) < 19


def shard_of(plan: SamplingPlan, text: str) -> SamplingPlan:
    """Return part ``I/K`` of a plan, counted from 0.

    Raises:
        InputError: The text is not of this form, or I is not below K.
    """
    index, slash, total = text.partition("/")
    if not slash or not _digits(index) or not _digits(total):
        raise InputError(f"--shard {text}: expected I/K", "e.g. --shard 0/4 for the first of four parts")
    return plan.shard(int(index), int(total))
