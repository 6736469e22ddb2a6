"""A recipe: everything that decides a run, as one frozen tree that YAML, ``--set`` and editors share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.preprocess import SMALLEST_SIDE, Percentile, Preprocess, Window
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import RecipeError
from medphantom.core.guard import user_path
from medphantom.core.records import Frozen
from medphantom.flows.recipes.plans import MatchPlan, PlanChoice, absolute_plan
from medphantom.flows.recipes.recipe_file import apply_settings, expand_variables, read_tree, validate
from medphantom.generators.config import GeneratorConfig, SamplerConfig, check_few_calls
from medphantom.generators.requirements import require_for_training
from medphantom.phantoms.write import PhantomOptions
from medphantom.quality.config import AssessConfig, StudyConfig
from medphantom.shipped import is_shipped

SIMULATION_PHRASE = "simulated patients"
NAME_RULE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"


class CohortChoice(Frozen):
    """The source of the real images, and how they are read.

    Attributes:
        source: Folder or ``.npz`` file of images, relative to the recipe; ``${VARIABLE}`` stands for an environment
            variable.
        simulate: Simulated patients with a known ground truth and invented names, instead of a source.
        public_phrase: Phrase from which pseudonyms and splits derive, for public data only, so that anyone can derive
            the same ones again. Private data needs the secret key file instead; leave this empty.
        key_file: File with the secret key of pseudonyms and splits; the default is ``$MEDPHANTOM_KEY_FILE``, else
            ``~/.config/medphantom/identity.key``, which is created if it does not exist.
        options: Options of reading the source: tables, columns, masks, splits.
    """

    source: Path | None = None
    simulate: PhantomOptions | None = None
    public_phrase: str = ""
    key_file: Path | None = None
    options: IngestOptions = IngestOptions()

    @model_validator(mode="after")
    def _one_source(self) -> CohortChoice:
        if (self.source is None) == (self.simulate is None):
            raise ValueError("cohort needs either source or simulate")
        if self.public_phrase and self.key_file:
            raise ValueError("cohort.public_phrase and cohort.key_file are mutually exclusive")
        return self

    @property
    def reading(self) -> IngestOptions:
        """The options of reading the source.

        The factors that a simulation writes become attributes unless the options name others. Rare labels of simulated
        patients identify no real person, so they stay in the vocabulary unless the options set ``min_patients``.
        """
        if self.simulate is None:
            return self.options
        options = self.options
        if "min_patients" not in options.model_fields_set:
            options = options.model_copy(update={"min_patients": 1})
        if not self.simulate.factors or options.attributes is not None:
            return options
        usual = (
            "age:continuous",
            "sex:categorical",
            *(("view:categorical",) if self.simulate.spatial_dims == 2 else ()),
        )
        columns = (f"{name}:continuous" for name in self.simulate.factor_columns)
        return options.model_copy(update={"attributes": (*usual, *columns)})

    def identity_key(self) -> IdentityKey:
        """Return the key of pseudonyms and splits."""
        phrase = self.public_phrase or (SIMULATION_PHRASE if self.simulate and self.key_file is None else "")
        return IdentityKey.from_phrase(phrase) if phrase else IdentityKey.load_or_create(self.key_file)


class PreprocessChoice(Frozen):
    """The part of an image that the networks see; options that are left out are chosen to suit the cohort.

    Attributes:
        size: Sides in pixels, ``[H, W]`` or ``[D, H, W]``.
        intensity: Source values that become black and white: ``{kind: window, low: …, high: …}`` or
            ``{kind: percentile}`` of each image; null means the full range of 8-bit images, −1000…1000 HU for CT, and
            percentiles otherwise.
        fit: Way to fit an image into the frame: ``pad`` keeps the whole image, ``crop`` fills the frame, ``stretch``
            ignores the aspect ratio, and ``native`` keeps the pixel grid; null means ``pad`` for images and ``native``
            for volumes.
        channels: Number of channels, 1 (grey) or 3 (colour).
        stored_dtype: Data type of generated pixels; null means one that suits the intensity.
    """

    size: tuple[Annotated[int, Field(ge=SMALLEST_SIDE, le=4096)], ...] = Field(
        default=(64, 64), min_length=2, max_length=3
    )
    intensity: Annotated[Window | Percentile, Field(discriminator="kind")] | None = None
    fit: Literal["pad", "crop", "stretch", "native"] | None = None
    channels: Literal[1, 3] = 1
    stored_dtype: Literal["uint8", "uint16", "int16", "float32"] | None = None

    def for_cohort(self, cohort: Cohort) -> Preprocess:
        """Return the complete preprocessing for a cohort."""
        given = {name: getattr(self, name) for name in ("intensity", "fit", "channels", "stored_dtype")}
        return Preprocess.for_cohort(cohort, self.size, **{k: v for k, v in given.items() if v is not None})


class Recipe(Frozen):
    """A run from real images to a scored synthetic dataset.

    Attributes:
        name: Name of the run and of its folder under ``runs/``.
        cohort: Source of the real images, and how they are read.
        preprocess: Part of an image that the networks see.
        generator: Configuration of the generator and of its training.
        plan: Plan of the images to generate.
        sampler: Configuration of how the images are sampled.
        assess: Settings of the assessment of the generated images.
        study: Settings of the training and testing of classifiers by ``medphantom utility``; a run does not use them.
    """

    name: Annotated[str, Field(pattern=NAME_RULE)]
    cohort: CohortChoice
    preprocess: PreprocessChoice = PreprocessChoice()
    generator: GeneratorConfig = GeneratorConfig()
    plan: PlanChoice = MatchPlan()
    sampler: SamplerConfig = SamplerConfig()
    assess: AssessConfig = AssessConfig()
    study: StudyConfig = StudyConfig()


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and where it came from.

    Attributes:
        recipe: The recipe with environment variables expanded and paths made absolute.
        written: The same recipe with paths as they were written, for ``run.json`` and reports.
        file: The YAML file of the recipe.
        settings: The ``--set`` options, in order.
    """

    recipe: Recipe
    written: dict[str, Any]
    file: Path
    settings: tuple[str, ...] = ()


def load_recipe(file: str | Path, settings: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe.

    Args:
        file: The YAML file; relative paths in it are relative to its folder, and its stem is the default name.
        settings: The settings ``field.field=value`` in order, as given to ``--set``.

    Raises:
        InputError: The recipe needs a package that is not installed.
        RecipeError: The recipe breaks a rule; the message names file, field, rule and value in one line.
    """
    path = Path(file)
    tree, places = apply_settings({"name": path.stem, **read_tree(path)}, settings)
    expanded = expand_variables(Recipe, tree, path.name)
    written = validate(Recipe, tree, path.name, places)
    recipe = validate(Recipe, expanded, path.name, places)
    base = path.resolve().parent
    changed = {
        "cohort": absolute_cohort(recipe.cohort, base),
        "plan": absolute_plan(recipe.plan, base),
        "generator": absolute_generator(recipe.generator, base),
    }
    recipe = recipe.model_copy(update=changed)
    source = recipe.cohort.source
    if source is not None and not source.exists():  # absolute_cohort made sure that one can ask
        shown = tree["cohort"]["source"]
        raise RecipeError(f"{path.name}: cohort.source {shown} does not exist", "give the folder of the images")
    require_for_training(recipe.generator)
    recipe.assess.require_packages()
    few = recipe.generator.distillation
    if few is not None:
        check_few_calls(recipe.sampler, few.calls, few.guidance)
    return LoadedRecipe(recipe, written.model_dump(mode="json"), path, tuple(settings))


def absolute_generator(config: GeneratorConfig, base: Path) -> GeneratorConfig:
    """Resolve the folder to fine-tune relative to the recipe's folder; a text that is no path is a hub id."""
    given = config.init_from
    if given is None or is_shipped(given):
        return config
    folder = user_path(given, RecipeError, base=base)
    if folder.is_dir() or given.startswith((".", "/", "~")):
        return config.model_copy(update={"init_from": str(folder.resolve())})
    return config


def absolute_cohort(choice: CohortChoice, base: Path) -> CohortChoice:
    """Resolve the paths of the cohort section relative to the recipe; tables and masks may be in the source."""
    source = None if choice.source is None else user_path(choice.source, RecipeError, base=base)
    return choice.model_copy(
        update={
            "source": source,
            "key_file": None if choice.key_file is None else user_path(choice.key_file, RecipeError, base=base),
            "options": absolute_options(choice.options, source, base),
        }
    )


def absolute_options(options: IngestOptions, source: Path | None, base: Path) -> IngestOptions:
    """Resolve the paths of tables and masks that do not lie in the source relative to the recipe."""
    changed: dict[str, Any] = {}
    for name in ("table", "masks"):
        value = getattr(options, name)
        if isinstance(value, Path):
            outside = user_path(value, RecipeError, base=base)
            if source is None or not user_path(value, RecipeError, base=source).exists():
                changed[name] = outside
    return options.model_copy(update=changed)
