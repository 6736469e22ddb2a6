"""The recipe that ``medphantom init`` writes."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from cohorts.errors import InputError, RecipeError
from cohorts.folders import no_space_becomes_one_line
from flows.recipe import Recipe
from flows.recipe_file import validate

TEMPLATE = Path(__file__).parent / "templates" / "recipe.yaml"


def starter(source: str, name: str) -> str:
    """A commented recipe.

    Raises:
        RecipeError: name or source cannot stand in a recipe.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    text = template.replace("@NAME@", json.dumps(name)).replace("@SOURCE@", json.dumps(source, ensure_ascii=False))
    validate(Recipe, yaml.safe_load(text), "recipe")
    return text


def write_starter(file: Path, *, source: str, name: str) -> None:
    """Write :func:`starter`.

    Raises:
        InputError: the file exists.
        RecipeError: name or source cannot stand in a recipe.
    """
    if file.exists():
        raise InputError(f"{file} exists already", "choose another name, or remove it first")
    text = starter(source, name)
    if not file.parent.is_dir():
        raise RecipeError(f"{file.parent} is no folder", "make it first")
    with no_space_becomes_one_line(file):
        file.write_text(text, encoding="utf-8")
