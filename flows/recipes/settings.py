"""Parts of a recipe for verbs that need no whole one, with the same fields, ``--set`` and an optional recipe file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from medphantom.cohorts.options import IngestOptions
from medphantom.core.errors import RecipeError
from medphantom.core.records import Frozen
from medphantom.flows.recipes.plans import MatchPlan, PlanChoice, absolute_plan
from medphantom.flows.recipes.recipe import CohortChoice, PreprocessChoice, absolute_cohort, absolute_generator
from medphantom.flows.recipes.recipe_file import (
    apply_settings,
    expand_variables,
    models_in,
    read_tree,
    require_fields,
    validate,
)
from medphantom.generators.config import GeneratorConfig, SamplerConfig
from medphantom.generators.requirements import require_for_training
from medphantom.quality.config import AssessConfig, StudyConfig

Part = TypeVar("Part", bound=Frozen)


class IngestPart(Frozen):
    """The fields of a recipe that ``medphantom ingest`` needs.

    Attributes:
        cohort: Source of the real images, and how they are read.
    """

    cohort: CohortChoice


class InspectPart(Frozen):
    """What ``medphantom inspect`` needs of a recipe.

    Attributes:
        preprocess: Part of an image that a network would see.
    """

    preprocess: PreprocessChoice = PreprocessChoice()


class TrainPart(Frozen):
    """The fields of a recipe that ``medphantom train`` needs.

    Attributes:
        preprocess: Part of an image that the networks see.
        generator: Configuration of the generator and of its training.
    """

    preprocess: PreprocessChoice = PreprocessChoice()
    generator: GeneratorConfig = GeneratorConfig()


class SearchPart(TrainPart):
    """The fields of a recipe that ``medphantom search`` needs.

    Attributes:
        preprocess: Part of an image that the networks see.
        generator: Configuration of the generator and of its training.
        sampler: Configuration of how images are sampled.
        plan: Plan of the images that are drawn to score a trial.
    """

    sampler: SamplerConfig = SamplerConfig()
    plan: PlanChoice = MatchPlan(total=300)


class UtilityPart(TrainPart):
    """The fields of a recipe that ``medphantom utility`` needs.

    Attributes:
        preprocess: Part of an image that the networks see.
        generator: Configuration of the generator and of its training.
        sampler: Configuration of how images are sampled.
        study: Settings of the training and testing of classifiers.
    """

    sampler: SamplerConfig = SamplerConfig()
    study: StudyConfig = StudyConfig()


class AugmentPart(UtilityPart):
    """The fields of a recipe that ``medphantom augment`` needs.

    Attributes:
        preprocess: Part of an image that the networks see, if no bundle defines it.
        generator: Configuration of the generator and of its training, if no bundle is given.
        sampler: Configuration of how images are sampled.
        assess: Settings of the scores of the images and of the copy search.
        study: Settings of the training and testing of classifiers; its arms are added to those that decide.
    """

    assess: AssessConfig = AssessConfig()


class GeneratePart(Frozen):
    """The fields of a recipe that ``medphantom generate`` needs.

    Attributes:
        plan: Plan of the images to generate.
        sampler: Configuration of how the images are sampled.
    """

    plan: PlanChoice = MatchPlan()
    sampler: SamplerConfig = SamplerConfig()


class AssessPart(Frozen):
    """The fields of a recipe that ``medphantom assess`` needs.

    Attributes:
        preprocess: Part of an image that the scoring networks see, if no bundle defines it.
        assess: Settings of the assessment.
        foreign: Options of reading a folder of synthetic images that is no cohort.
    """

    preprocess: PreprocessChoice = PreprocessChoice()
    assess: AssessConfig = AssessConfig()
    foreign: IngestOptions = IngestOptions()


def read_part(
    part: type[Part],
    recipe: str | Path | None,
    settings: Sequence[str],
    *layers: Mapping[str, Mapping[str, Any] | Frozen | None],
) -> Part:
    """Read the fields of ``part`` from a recipe file, then ``--set``, then the arguments of an operation.

    Args:
        part: The class of the fields to read.
        recipe: The recipe file; its other sections are ignored here.
        settings: The settings ``field.field=value``, as given to ``--set``.
        layers: The sections given as arguments, later ones over earlier ones: a mapping changes the fields that it
            names, where ``None`` counts as not given, and a typed section is used as it is.

    Raises:
        InputError: The choice needs a package that is not installed.
        RecipeError: A value breaks a rule; the message names file, field, rule and value in one line. Or a setting and
            an argument give a field different values.
    """
    file = None if recipe is None else Path(recipe)
    raw = read_tree(file) if file is not None else {}
    name = file.name if file is not None else "settings"
    tree, places = apply_settings({key: raw[key] for key in part.model_fields if key in raw}, settings)
    own, _ = apply_settings({}, settings)
    base = file.resolve().parent if file is not None else Path.cwd()
    typed: dict[str, Frozen] = {}
    for layer in layers:
        for section, given in layer.items():
            _require_section(part, section, given)
            _refuse_second_values(section, given, own.get(section, {}), base)
            if isinstance(given, Frozen):
                typed[section] = given
            elif section in typed:
                changes: dict[str, Any] = {section: dict(given or {})}
                if changes[section]:  # what was typed becomes fields again, to be changed and checked together
                    tree[section] = typed.pop(section).model_dump(mode="json")
                    _merge(tree, changes)
            elif given is not None:
                _merge(tree, {section: dict(given)})
    left = {key: value for key, value in tree.items() if key not in typed}
    model = validate(part, expand_variables(part, left, name), name, places).model_copy(update=typed)
    if isinstance(model, IngestPart):
        return model.model_copy(update={"cohort": absolute_cohort(model.cohort, base)})
    if isinstance(model, SearchPart):
        model = model.model_copy(update={"plan": absolute_plan(model.plan, base)})
    if isinstance(model, AugmentPart | AssessPart):
        model.assess.require_packages()
    if isinstance(model, TrainPart):
        generator = absolute_generator(model.generator, base)
        require_for_training(generator)
        return model.model_copy(update={"generator": generator})
    if isinstance(model, GeneratePart):
        return model.model_copy(update={"plan": absolute_plan(model.plan, base)})
    return model


def _require_section(part: type[Frozen], section: str, given: object) -> None:
    """Refuse an argument that is no section of this name."""
    require_fields(section, given, *models_in(part.model_fields[section].annotation))


def _refuse_second_values(place: str, given: Any, setting: Any, base: Path) -> None:
    """Refuse a field that an argument and a setting give different values, of which one would be dropped.

    Args:
        place: The field, with dots.
        given: Its value as an argument; ``None`` counts as not given.
        setting: Its value as a setting; the fields in it are compared one by one.
        base: Folder that relative paths are relative to.

    Raises:
        RecipeError: The values differ.
    """
    if given is None or setting == {}:
        return
    if isinstance(given, Frozen) and isinstance(setting, dict):
        whole = given.model_dump(mode="json")
        unknown = [name for name in setting if name not in whole]
        if unknown:
            raise RecipeError(
                f"{place} is given as a whole, and {place}.{unknown[0]} is given by --set too", "give it once"
            )
        for name, value in setting.items():
            if whole[name] is None and value is not None:
                raise _second_value(f"{place}.{name}")
            _refuse_second_values(f"{place}.{name}", _field(given, name, whole), value, base)
    elif isinstance(given, Mapping) and isinstance(setting, dict):
        for name, value in setting.items():
            _refuse_second_values(f"{place}.{name}", given.get(name), value, base)
    elif given != {} and not _same(given, setting, base):
        raise _second_value(place)


def _field(given: Frozen, name: str, whole: dict[str, Any]) -> Any:
    """A field of a typed section: a section again, or a value as a recipe would write it."""
    value = getattr(given, name)
    return value if isinstance(value, Frozen) else whole[name]


def _second_value(place: str) -> RecipeError:
    return RecipeError(f"{place} is given twice with different values, once by --set", "give it once")


def _same(one: Any, other: Any, base: Path) -> bool:
    """Return whether two values of a field are the same: YAML reads a list for a tuple, and 1e-3 as a text."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_same(*pair, base) for pair in zip(one, other, strict=True))
    if isinstance(one, str | Path) and isinstance(other, str | Path):
        return base / one == base / other
    if isinstance(other, str) and isinstance(one, int | float):
        with suppress(ValueError):
            return one == float(other)
    return bool(one == other)


def _merge(tree: dict[str, Any], flags: dict[str, Any]) -> None:
    for name, value in flags.items():
        if isinstance(value, dict):
            if not isinstance(tree.get(name), dict):
                tree[name] = {}
            _merge(tree[name], value)
            if not tree[name]:
                del tree[name]
        elif value is not None:
            tree[name] = value
