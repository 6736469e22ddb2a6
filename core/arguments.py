"""Arguments of public functions, checked against their annotations where they come in: one line instead of a traceback.

Values are not converted: ``2.0`` is no whole number, and one text is no list of texts. Numbers of numpy count
as Python's.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from medphantom.core.errors import InputError
from medphantom.core.wording import bound_text, choices_of, closest, kind_text, shown

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Total = Annotated[int, Field(ge=0, le=10_000_000)]
Text = Annotated[str, Field(min_length=1)]
RawText = Annotated[str, "raw"]
"""A text that may hold bytes that are no UTF-8, as names of files do."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_STRICT = ConfigDict(arbitrary_types_allowed=True, strict=True, allow_inf_nan=False)
_VALUES = (int, float, bool, str, bytes, Path, type(None))
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Make a function refuse arguments that do not fit its annotations, with one line that names argument and rule.

    A parameter whose annotation names a class that is imported for type checkers only is left to the function itself.

    Raises:
        InputError: An argument of the decorated function does not fit.

    Example:
        >>> @checked
        ... def draw(n: Count = 1, seed: Seed = 0) -> int:
        ...     return n + seed
        >>> draw(2, seed=3)
        5
        >>> draw(n=0)
        Traceback (most recent call last):
        medphantom.core.errors.InputError: n must be ≥ 1, got 0
        >>> draw(2.5)
        Traceback (most recent call last):
        medphantom.core.errors.InputError: n must be a whole number, got float
    """
    signature = inspect.signature(function)
    rules: dict[str, _Rule] = {}

    @wraps(function)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python says which argument is missing, or one too many
        if not rules:
            rules.update(_rules(function, signature))
        for name, value in given.arguments.items():
            if name in rules:
                given.arguments[name] = rules[name].accepted(name, value)
        return function(*given.args, **given.kwargs)

    return guarded


@dataclass(frozen=True)
class _InstanceOf:
    """Asks for an instance of a class, as it is; pydantic's own marker does not take its models."""

    wanted: type

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.is_instance_schema(self.wanted)


class _Unknown:
    """What only type checkers import."""

    def __class_getitem__(cls, item: Any) -> type[_Unknown]:
        return cls


class _Names(dict[str, Any]):
    """The names that annotations use."""

    def __missing__(self, name: str) -> Any:
        if name.startswith("__"):
            raise KeyError(name)
        return vars(builtins).get(name, _Unknown)


@dataclass(frozen=True)
class _Rule:
    """What one parameter accepts.

    Attributes:
        adapter: Checks a value.
        path: Whether the value may be a path.
        raw: Whether texts may hold bytes that are no UTF-8.
    """

    adapter: TypeAdapter[Any]
    path: bool
    raw: bool

    def accepted(self, name: str, value: Any) -> Any:
        """Return the value if it fits, else refuse it."""
        if not self.raw:
            _check_texts(name, value, path=self.path)
        try:
            return self.adapter.validate_python(_plain(value))
        except ValidationError as error:
            problems = error.errors(include_url=False)
        places = [_place(problem["loc"], value) for problem in problems]
        deepest = max(places, key=len)
        what, remedy = _sentence([p for p, place in zip(problems, places, strict=True) if place == deepest])
        raise InputError(f"{name}{''.join(deepest)} {what}", remedy)


def _rules(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, _Rule]:
    names = _Names(getattr(function, "__globals__", {}))
    hints = get_type_hints(function, globalns={}, localns=names, include_extras=True)
    found = {}
    for name, parameter in signature.parameters.items():
        wanted = _members(hints.get(name, Any))
        if parameter.kind not in _VARIADIC and wanted is not Any:
            found[name] = _Rule(
                TypeAdapter[Any](wanted, config=_STRICT), "pathlib.Path" in str(wanted), wanted == RawText
            )
    return found


def _members(annotation: Any) -> Any:
    """Return an annotation as pydantic checks it: a class of ours asks for an instance of it, as it is.

    A protocol of functions asks for a function. ``Any`` is returned for what cannot be checked.
    """
    origin = get_origin(annotation)
    if origin in {Union, UnionType}:
        members = [_members(member) for member in get_args(annotation)]
        return Any if any(member is Any for member in members) else Union[tuple(members)]  # noqa: UP007 - built here
    if getattr(annotation, "_is_protocol", False) and "__call__" in vars(annotation):
        return Callable[..., Any]  # a function, of which no more can be told
    if origin is np.ndarray or annotation in {Any, _Unknown} or getattr(annotation, "_is_protocol", False):
        return Any
    if not isinstance(annotation, type) or annotation in _VALUES or origin is not None:
        return annotation
    return Annotated[Any, _InstanceOf(annotation)]


def _check_texts(name: str, value: Any, *, path: bool) -> None:
    """Refuse texts that cannot be stored, and paths that no system has."""
    if isinstance(value, str | Path):
        text = str(value)
        if path and (not text or "\0" in text):
            raise InputError(f"{name} is {'no valid path' if text else 'empty'}", "give a path")
        if not path and any("\ud800" <= sign <= "\udfff" for sign in text):
            raise InputError(f"{name} holds characters that are no text", "check how it is encoded")
    elif isinstance(value, list | tuple):
        for one in value:
            _check_texts(name, one, path=path)
    elif type(value) is dict:
        for one in value.values():
            _check_texts(name, one, path=path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, range) or (isinstance(value, np.ndarray) and value.ndim == 1):
        return list(value) if isinstance(value, range) else value.tolist()
    if isinstance(value, list | tuple):
        inner = [_plain(one) for one in value]
        return inner if isinstance(value, list) else tuple(inner)
    if type(value) is dict:
        return {key: _plain(one) for key, one in value.items()}
    return value


def _place(location: tuple[int | str, ...], value: Any) -> tuple[str, ...]:
    """Return the steps into a list or a mapping, without the tags that pydantic adds for unions."""
    place: list[str] = []
    level = value
    for part in location:
        if isinstance(part, int) and isinstance(level, list | tuple) and part < len(level):
            place.append(f"[{part}]")
            level = level[part]
        elif isinstance(level, Mapping) and part in level:
            place.append(f"[{part!r}]")
            level = level[part]
    return tuple(place)


def _sentence(problems: list[ErrorDetails]) -> tuple[str, str]:
    """Describe the problems that one value has with the kinds of values that are allowed for it."""
    first = next((problem for problem in problems if bound_text(problem)), problems[0])
    value = first["input"]
    if bound := bound_text(first):
        return f"must be {bound}, got {shown(value)}", ""
    choice = next((problem for problem in problems if problem["type"] == "literal_error"), None)
    if choice is not None:
        return f"must be one of {choices_of(choice)}, got {shown(value)}", closest(shown(value), choices_of(choice))
    if first["type"] in {"missing", "too_long"} and isinstance(value, list | tuple):
        wanted = first.get("ctx", {}).get("max_length", len(value) + len(problems))
        return f"must have {wanted} values, got {len(value)}", ""
    if first["type"] == "string_too_short":
        return "is empty", "give a text, or leave it out"
    if first["type"] == "finite_number":
        return f"must be finite, got {value}", ""
    words = list(dict.fromkeys(word for problem in problems if (word := _kind(problem))))
    if {"text", "a Path"} <= set(words):
        words = [{"text": "a path"}.get(word, word) for word in words if word != "a Path"]
    # the value itself stays unsaid: it may name a patient
    return f"must be {' or '.join(words) or 'another value'}, got {type(value).__name__}", ""


def _kind(problem: ErrorDetails) -> str | None:
    kind = problem["type"]
    if kind == "is_instance_of":
        name = str(problem.get("ctx", {})["class"])
        return {"Sequence": "a list", "Mapping": "a mapping"}.get(name, f"a {name}")
    if kind.startswith(("sequence", "frozen_set", "set")):
        return "a list"
    if kind.startswith(("mapping", "dict")):
        return "a mapping"
    return "a function" if kind == "callable_type" else kind_text(kind)
