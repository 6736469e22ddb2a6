"""Reading a recipe: YAML and ``--set`` become one frozen value, or one line that names a field and its rule."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medphantom.conditioning.prompt import nearest
from medphantom.core.errors import RecipeError
from medphantom.core.guard import plain, reading, user_path
from medphantom.core.wording import bound_text, choices_of, closest, kind_text, shown
from medphantom.flows.recipes.yaml_limits import LARGEST_TEXT, why_refused
from medphantom.shipped import PREFIX, SHIPPED

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
UNUSABLE = "holds a value that YAML cannot make, that holds itself, is nested too deep, or is no text or number to use"


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe YAML loader that refuses a key given twice, of which plain YAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            if isinstance(key, str | int | float | bool):
                seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML text safely.

    Raises:
        RecipeError: The text is not valid; the message names ``name``, line and column.
    """
    with reading(name, RecipeError, UNUSABLE, "correct the YAML"):
        if problem := why_refused(text):
            raise RecipeError(f"{name}: {problem}", "leave out what a recipe does not need")
        try:
            return plain(yaml.load(text, Loader=_UniqueKeyLoader))  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = " ".join(str(getattr(error, "problem", None) or "no YAML").split())
            raise RecipeError(f"{name}{where}: {problem}", "correct the YAML there") from None


def read_tree(file: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        RecipeError: The file cannot be read or holds no mapping.
    """
    if not user_path(file, RecipeError).exists():
        raise RecipeError(f"{file} does not exist", "medphantom init writes a recipe to start from")
    with reading(file, RecipeError, "cannot be read as text", "give a YAML file"):
        if file.stat().st_size > 4 * LARGEST_TEXT:  # a character of UTF-8 takes at most four bytes
            raise RecipeError(f"{file} is too large for a recipe", "give a YAML file")
        text = file.read_text(encoding="utf-8")
    tree = parse_yaml(text, file.name)
    if not isinstance(tree, dict):
        raise RecipeError(f"{file.name} holds no fields", "medphantom init writes a recipe to start from")
    return tree


def apply_settings(tree: dict[str, Any], settings: Sequence[str]) -> tuple[dict[str, Any], list[Location]]:
    """Return a copy of ``tree`` with every ``a.b=value`` set, where values have the types that YAML would give them.

    Returns:
        The tree, and the place of each setting.

    Raises:
        RecipeError: A setting is not of the form ``field.field=value``.
    """
    result = _copied(tree)
    places: list[Location] = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        place = tuple(name.strip().split("."))
        if not equals or not all(place):
            raise RecipeError(f"--set {setting}: expected field.field=value", "e.g. --set sampler.steps=10")
        level: Any = result
        for depth, part in enumerate(place[:-1]):
            if level.get(part) is None:
                level[part] = {}
            level = level[part]
            if not isinstance(level, dict):
                parent = ".".join(place[: depth + 1])
                raise RecipeError(f"--set {setting}: {parent} holds a value, not fields", f"set {parent} itself")
        level[place[-1]] = parse_yaml(text, f"--set {name}")
        places.append(place)
    return result, places


def _copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree


def expand_variables(model: type[BaseModel], tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of ``tree`` with every ``${VARIABLE}`` in its paths replaced.

    True and false are refused where nothing of the kind is expected, since pydantic takes them for numbers.

    Variables elsewhere are not replaced, because an environment may hold secrets, and texts of a recipe are copied to
    reports and bundles.

    Args:
        model: The model of the tree; its fields of type ``Path`` are the paths.
        tree: The nested values of the file.
        name: The name of the file, for messages.

    Raises:
        RecipeError: A variable is not set, or is used in a field that is no path; or a number is true or false.
    """
    expanded: dict[str, Any] = _expanded([model], tree, name, ())
    return expanded


def _expanded(annotations: Sequence[Any], tree: Any, name: str, place: Location) -> Any:
    """Return the tree with variables in its paths replaced; ``annotations`` are the types that its place admits."""
    if isinstance(tree, dict):
        models = [model for annotation in annotations for model in models_in(annotation)]
        return {
            key: _expanded(
                [_type_of(model, str(key)) for model in models if str(key) in model.model_fields],
                value,
                name,
                (*place, key),
            )
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [_expanded(annotations, value, name, (*place, index)) for index, value in enumerate(tree)]
    if type(tree).__name__ in {"bool", "bool_"} and annotations and not any(map(_mentions_truth, annotations)):
        raise RecipeError(
            f"{name}: {_dotted(place)} must not be true or false, got {shown(tree)}",
            "YAML reads yes, no, on and off as true or false, which Python takes for 1 or 0",
        )
    if not isinstance(tree, str) or not (_VARIABLE.search(tree) or not tree):
        return tree
    is_path = any(_mentions_path(annotation) for annotation in annotations)
    if not tree and is_path:  # of which pathlib makes the working directory
        raise RecipeError(f"{name}: {_dotted(place)} is empty", "give a path, or leave it out")
    if not tree:
        return tree
    if not is_path:
        raise RecipeError(
            f"{name}: {_dotted(place)} holds ${{…}}, which stands for an environment variable in paths only",
            "write the value itself",
        )

    def value_of(match: re.Match[str]) -> str:
        variable = match[1]
        if not os.environ.get(variable):
            raise RecipeError(
                f"{name}: {_dotted(place)} needs the environment variable {variable}, which is not set",
                f"e.g. export {variable}=/path/to/data",
            )
        return os.environ[variable]

    return _VARIABLE.sub(value_of, tree)


def _type_of(model: type[BaseModel], field: str) -> Any:
    """Return the type of a field; anything, if a validator of its own reads what is given."""
    validators = model.__pydantic_decorators__.field_validators.values()
    reads = any(one.info.mode == "before" and field in one.info.fields for one in validators)
    return Any if reads else model.model_fields[field].annotation


def _mentions_truth(annotation: Any) -> bool:
    if annotation is Any or annotation is bool or annotation is object or isinstance(annotation, bool):
        return True
    return any(map(_mentions_truth, get_args(annotation)))


def _mentions_path(annotation: Any) -> bool:
    return annotation is Path or any(_mentions_path(argument) for argument in get_args(annotation))


def validate(model: type[Model], tree: dict[str, Any], name: str, settings: Sequence[Location] = ()) -> Model:
    """Return the model of a tree.

    Args:
        model: The pydantic model to validate against.
        tree: The nested values of the file.
        name: The name of the file, for messages.
        settings: The places that came from ``--set``, for messages.

    Raises:
        RecipeError: A value breaks a rule; the message names file (or ``--set``), field, rule and value in one line.
    """
    with reading(name, RecipeError, "holds values that cannot be used", "correct them"):
        tree = with_defaults(model, tree)
        try:
            return model.model_validate(tree)
        except ValidationError as error:
            problems = error.errors(include_url=False)
    first = problems[0]
    place = _readable(first, tree)
    came_from_set = any(place[: len(setting)] == setting for setting in settings)
    where = "--set" if came_from_set else f"{name}:"
    what, remedy = _sentence(first, place, model)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise RecipeError(f"{where} {what}{more}", remedy)


def section(model: type[Model], given: Any, name: str) -> Model:
    """Return a section that is given as its model, as a mapping of its fields, or not at all.

    Raises:
        RecipeError: It is something else, or a value breaks a rule.
    """
    if isinstance(given, model):
        return given
    require_fields(name, given, model)
    return validate(model, expand_variables(model, dict(given or {}), name), name)


def require_fields(name: str, given: object, *models: type[BaseModel]) -> None:
    """Refuse a section that is neither a mapping of fields nor one of its models.

    Raises:
        RecipeError: It is something else.
    """
    if given is not None and not isinstance(given, (Mapping, *models)):
        known = " or a ".join(model.__name__ for model in models)
        raise RecipeError(f"{name} must be a mapping or a {known}, got {type(given).__name__}", "give its fields")


def with_defaults(model: type[BaseModel], tree: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of ``tree`` in which a partly given section keeps the rest of that section's own default.

    Without it, setting ``denoiser_fit.learning_rate`` alone would reset ``denoiser_fit.steps`` to the default of any
    fit.
    """
    result = dict(tree)
    for name, field in model.model_fields.items():
        inner = list(models_in(field.annotation))
        given = tree.get(name)
        if len(inner) != 1 or not isinstance(given, dict):
            continue
        if isinstance(field.default, inner[0]):
            given = _overlaid(field.default.model_dump(exclude_unset=True), given)
        result[name] = with_defaults(inner[0], given)
    return result


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        result[name] = _overlaid(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return result


def _readable(problem: ErrorDetails, tree: Any) -> Location:
    """Return the place without the tags that pydantic adds for unions, as it stands in the file, and its last name."""
    *_, last = problem["loc"] or ("",)
    missing = problem["type"] == "missing"
    readings = list(_readings(problem["loc"][:-1] if missing else problem["loc"], tree))
    # a tag may be the name of a field too: the place holds what was refused
    place = next((place for place, found in readings if not missing and found == problem["input"]), readings[0][0])
    return (*place, last) if missing else place


def _readings(parts: Location, level: Any) -> Iterator[tuple[Location, Any]]:
    """Yield what a place of pydantic may be in a tree, and the value there; each part is a name there, or a tag."""
    if not parts:
        yield (), level
        return
    part, *rest = parts
    if part in level if isinstance(level, dict) else isinstance(level, list) and isinstance(part, int):
        for place, found in _readings(tuple(rest), level[part]):
            yield (part, *place), found
    yield from _readings(tuple(rest), level)


def _sentence(problem: ErrorDetails, place: Location, model: type[BaseModel]) -> tuple[str, str]:
    """Describe what is wrong and how to fix it, from one pydantic error."""
    path = _dotted(place) or "the recipe"
    kind, context, value = problem["type"], problem.get("ctx", {}), shown(problem.get("input"))
    what, remedy = f"{path}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, got {value}", ""
    if kind == "extra_forbidden":
        name, fields = str(place[-1]), _fields_at(model, place[:-1])
        what, remedy = f"{path} is no field", nearest(name, fields)
        if name in fields:  # of another kind than the one that stands there
            what = f"{what} where {_dotted((*place[:-1], 'kind'))} is {problem['loc'][-2]}"
            remedy = "leave it out, or choose another kind"
    elif kind in {"missing", "union_tag_not_found"}:
        what, remedy = f"{path}{_tag_name(context)} is missing", "add it"
    elif bound := bound_text(problem):
        what = f"{path} must be {bound}, got {value}"
    elif kind in {"literal_error", "enum", "union_tag_invalid"}:
        expected, got = choices_of(problem), shown(context["tag"]) if kind == "union_tag_invalid" else value
        what, remedy = f"{path}{_tag_name(context)} must be one of {expected}, got {got}", closest(got, expected)
    elif kind == "value_error":
        text = problem["msg"].removeprefix("Value error, ")
        what = text if not place or str(place[-1]) in text else f"{path}: {text}"
    elif kind == "string_pattern_mismatch":
        what = f"{path} must match {context['pattern']}, got {value}"
    else:
        words = kind_text(kind)
        what = f"{path} must be {words}, got {value}" if words else what
        if words == "text" and isinstance(problem["input"], dict):
            own = set(problem["input"]) == {PREFIX.removesuffix(":")}
            remedy = f"write {PREFIX}NAME, e.g. {PREFIX}{SHIPPED[0]}" if own else "put the text in quotes"
            remedy += "; YAML reads a colon at the end or before a space as fields"
    return what, remedy


def _tag_name(context: dict[str, Any]) -> str:
    """Return ``.kind`` if the members of a union differ in a field ``kind``."""
    return f".{str(context['discriminator']).strip(chr(39))}" if "discriminator" in context else ""


def _dotted(place: Location) -> str:
    return ".".join(str(part) for part in place)


def _fields_at(model: type[BaseModel], place: Location) -> set[str]:
    """Return the names of the fields that a place of a recipe admits."""
    models = [model]
    for part in place:
        inner: list[type[BaseModel]] = []
        for candidate in models:
            field = candidate.model_fields.get(str(part))
            if field is not None:
                inner += models_in(field.annotation)
        models = inner or models
    return {name for candidate in models for name in candidate.model_fields}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return every pydantic model that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from models_in(argument)
