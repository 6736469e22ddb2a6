"""The base of typed, immutable values, and the type of arrays."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

Array = npt.NDArray[Any]


class Frozen(BaseModel):
    """Base class of every typed, immutable configuration or description.

    Unknown fields are refused, and so are true and false where a number is expected: YAML reads ``yes`` and ``on`` as
    true, which Python takes for 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name, value in given.items():
                if _holds_truth(value) and name in cls.model_fields and not _takes_truth(cls, name):
                    raise ValueError(f"{name} must not be true or false")
        return given


def _holds_truth(given: Any) -> bool:
    if isinstance(given, dict):
        return any(map(_holds_truth, given.values()))
    return any(map(_holds_truth, given)) if isinstance(given, list | tuple) else isinstance(given, bool)


@cache
def _takes_truth(model: type[BaseModel], field: str) -> bool:
    """Return whether a field may hold true or false somewhere; what other models hold is their own affair."""
    return _names_truth(model.model_fields[field].annotation)


def _names_truth(annotation: Any) -> bool:
    if any(annotation is known for known in (bool, Any, object, True, False)):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(map(_names_truth, get_args(annotation)))
