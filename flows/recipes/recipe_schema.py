"""The JSON Schema of a recipe, for editors: every field carries the description that its class documents."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_ENTRY = re.compile(r"^    (\w+):\s*(.*)$")


def field_descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each field, from the ``Attributes:`` of the class and of its base classes."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel and cls.__doc__:
            found |= _attributes_in(inspect.cleandoc(cls.__doc__))
    for name, field in model.model_fields.items():
        if field.description:
            found[name] = field.description
    return found


def _attributes_in(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    _, _, section = docstring.partition("Attributes:\n")
    name = ""
    for line in section.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            name = entry[1]
            found[name] = entry[2].strip()
        elif line.startswith("     ") and name:
            found[name] = f"{found[name]} {line.strip()}".strip()
        elif line.strip():
            break
    return {key: text.replace("``", "`") for key, text in found.items()}


class _DescribedSchema(GenerateJsonSchema):
    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        described = field_descriptions(schema["cls"])
        for name, field in made.get("properties", {}).items():
            if name in described:
                field["description"] = described[name]
        made["description"] = inspect.cleandoc(schema["cls"].__doc__ or "").split("\n\n")[0].replace("``", "`")
        return made


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the values that a user may write for ``model``."""
    schema = model.model_json_schema(schema_generator=_DescribedSchema, mode="validation")
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}
