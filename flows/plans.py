"""Plans as the command line states them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cohorts.errors import InputError
from conditioning.plan import SamplingPlan


def plan_flags(count: Sequence[str] | None, match: int | None, balance: int | None, seed: int | None) -> dict[str, Any]:
    """The ``plan`` section of ``--count``, ``--match``, ``--balance`` and ``--seed``.

    Raises:
        InputError: two kinds of plan were asked for, or a count is no count.
    """
    given = [name for name, value in (("--count", count), ("--match", match), ("--balance", balance)) if value]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} exclude each other", "give one of them")
    plan: dict[str, Any] = {"seed": seed} if seed is not None else {}
    if count:
        plan |= {"kind": "counts", "counts": dict(_count(entry) for entry in count)}
    elif match:
        plan |= {"kind": "match", "total": match}
    elif balance:
        plan |= {"kind": "balance", "per_label": balance}
    return {"plan": plan} if plan else {}


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
