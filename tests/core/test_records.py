"""True and false are no numbers, wherever a configuration expects one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from medphantom.core.records import Frozen


class Inner(Frozen):
    share: float = 0.5


class Outer(Frozen):
    steps: int = 1
    sides: tuple[int, ...] = ()
    named: dict[str, float | str] = Field(default_factory=dict)
    version: Literal[1, 2] = 1
    on: bool = False
    levels: tuple[bool, ...] = ()
    labels: dict[str, bool | None] = Field(default_factory=dict)
    anything: dict[str, Any] = Field(default_factory=dict)
    inner: Inner = Inner()


@pytest.mark.parametrize(
    "given",
    [
        {"steps": True},
        {"sides": [32, True]},
        {"named": {"age": False}},
        {"version": True},
        {"inner": {"share": True}},
    ],
)
def test_true_is_not_taken_for_one(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must not be true or false"):
        Outer.model_validate(given)


def test_what_may_be_true_or_false_is_taken() -> None:
    given = {"on": True, "levels": [True, False], "labels": {"a": True, "b": None}, "anything": {"x": [True]}}
    made = Outer.model_validate(given)
    assert (made.on, made.levels, made.labels["a"]) == (True, (True, False), True)
    assert Outer.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("field", ["generator.denoiser_fit.steps", "sampler.drift", "plan.total", "preprocess.size"])
def test_a_recipe_says_which_field(tmp_path: Path, field: str, one_line: Callable[..., str]) -> None:
    (tmp_path / "recipe.yaml").write_text("cohort: {simulate: {patients: 3}}\n")
    value = "[32, true]" if field == "preprocess.size" else "true"
    line = one_line("run", tmp_path / "recipe.yaml", "--no-prefect", "--set", f"{field}={value}")
    section, _, name = field.rpartition(".")
    assert section in line
    assert f"{name} must not be true or false" in line
