"""The base of typed, immutable values, and the type of arrays."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Array = npt.NDArray[Any]


class Frozen(BaseModel):
    """Base class of every typed, immutable configuration or description; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
