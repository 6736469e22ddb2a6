"""What a rule of pydantic that was broken says to a user: plain words, the bound, and the nearest allowed value."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic_core import ErrorDetails

_LONGEST_VALUE = 60
_BOUNDS = {
    "greater_than_equal": ("≥", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("≤", "le"),
    "less_than": ("<", "lt"),
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
    "dict": "fields",
    "model": "fields",
}


def bound_text(problem: ErrorDetails) -> str | None:
    """Return the bound that a number broke, such as ``≥ 1``; ``None`` where it is another rule."""
    if problem["type"] not in _BOUNDS:
        return None
    sign, name = _BOUNDS[problem["type"]]
    bound = problem.get("ctx", {})[name]
    return f"{sign} {f'{bound:g}' if isinstance(bound, float) else bound}"


def kind_text(kind: str) -> str | None:
    """Return the kind of value that an error type of pydantic asks for, such as ``a whole number``."""
    return next((words for start, words in _KINDS.items() if kind.startswith(start)), None)


def choices_of(problem: ErrorDetails) -> str:
    """Return the allowed values of a choice, separated by commas."""
    context = problem.get("ctx", {})
    expected = str(context.get("expected") or context.get("expected_tags"))
    return expected.replace("'", "").replace(" or ", ", ")


def closest(given: str, choices: str) -> str:
    """Return a question with the choice that is spelt most like the given one; empty if none is."""
    found = difflib.get_close_matches(given.strip("'"), choices.split(", "), n=1)
    return f"did you mean {found[0]}?" if found else ""


def shown(value: Any) -> str:
    """Return a value on one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
