"""Parts of a recipe for verbs that need no whole one: the same fields, the same ``--set``, an optional recipe file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from medphantom.cohorts.options import IngestOptions
from medphantom.core.records import Frozen
from medphantom.flows.recipes.plans import MatchPlan, PlanChoice, absolute_plan
from medphantom.flows.recipes.recipe import CohortChoice, PreprocessChoice, absolute_cohort, absolute_generator
from medphantom.flows.recipes.recipe_file import apply_settings, expand_variables, read_tree, validate
from medphantom.generators.config import GeneratorConfig, SamplerConfig
from medphantom.generators.requirements import require_for_training
from medphantom.quality.config import AssessConfig, StudyConfig

Part = TypeVar("Part", bound=Frozen)


class IngestPart(Frozen):
    """What ``medphantom ingest`` needs of a recipe.

    Attributes:
        cohort: where the real images come from, and how they are read.
    """

    cohort: CohortChoice


class InspectPart(Frozen):
    """What ``medphantom inspect`` needs of a recipe.

    Attributes:
        preprocess: what a network would see of an image.
    """

    preprocess: PreprocessChoice = PreprocessChoice()


class TrainPart(Frozen):
    """What ``medphantom train`` needs of a recipe.

    Attributes:
        preprocess: what the networks see of an image.
        generator: the generator and how it is fitted.
    """

    preprocess: PreprocessChoice = PreprocessChoice()
    generator: GeneratorConfig = GeneratorConfig()


class SearchPart(TrainPart):
    """What ``medphantom search`` needs of a recipe.

    Attributes:
        preprocess: what the networks see of an image.
        generator: the generator and how it is fitted.
        sampler: how it is sampled.
        plan: what is drawn to judge it.
    """

    sampler: SamplerConfig = SamplerConfig()
    plan: PlanChoice = MatchPlan(total=300)


class UtilityPart(TrainPart):
    """What ``medphantom utility`` needs of a recipe.

    Attributes:
        preprocess: what the networks see of an image.
        generator: the generator and how it is fitted.
        sampler: how it is sampled.
        study: how classifiers are trained and tested.
    """

    sampler: SamplerConfig = SamplerConfig()
    study: StudyConfig = StudyConfig()


class AugmentPart(UtilityPart):
    """What ``medphantom augment`` needs of a recipe.

    Attributes:
        preprocess: what the networks see of an image, where no bundle says so.
        generator: the generator and how it is fitted, where no bundle is given.
        sampler: how it is sampled.
        assess: how the images are scored and searched for copies.
        study: how classifiers are trained and tested; its arms are added to those that decide.
    """

    assess: AssessConfig = AssessConfig()


class GeneratePart(Frozen):
    """What ``medphantom generate`` needs of a recipe.

    Attributes:
        plan: what will be generated.
        sampler: how it is generated.
    """

    plan: PlanChoice = MatchPlan()
    sampler: SamplerConfig = SamplerConfig()


class AssessPart(Frozen):
    """What ``medphantom assess`` needs of a recipe.

    Attributes:
        preprocess: what the scoring networks see of an image, where no bundle says so.
        assess: how it is scored.
        foreign: how a folder of synthetic images is read that is no cohort.
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
    """The fields of ``part`` from a recipe file, then ``--set``, then arguments of an operation.

    Args:
        part: Which fields.
        recipe: Recipe file; its other sections are ignored here.
        settings: ``field.field=value``.
        layers: Sections given as arguments, later ones over earlier ones: a mapping changes the fields that it names
            (``None`` is not given), a typed section stands as it is.

    Raises:
        InputError: What is chosen needs a package that is not installed.
        RecipeError: One line that names file, field, rule and value.
    """
    file = None if recipe is None else Path(recipe)
    raw = read_tree(file) if file is not None else {}
    name = file.name if file is not None else "settings"
    tree, places = apply_settings({key: raw[key] for key in part.model_fields if key in raw}, settings)
    typed: dict[str, Frozen] = {}
    for layer in layers:
        for section, given in layer.items():
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
    base = file.resolve().parent if file is not None else Path.cwd()
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
