"""A recipe: everything that decides a run, as one frozen tree that YAML, ``--set`` and editors share. No torch here."""

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
from medphantom.generators.config import GeneratorConfig, SamplerConfig
from medphantom.generators.requirements import require_for_training
from medphantom.phantoms.write import PhantomOptions
from medphantom.quality.config import AssessConfig, StudyConfig

SIMULATION_PHRASE = "simulated patients"
NAME_RULE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"


class CohortChoice(Frozen):
    """Where the real images come from, and how they are read.

    Attributes:
        source: folder or ``.npz`` file of images; relative to the recipe; ``${VARIABLE}`` stands for an environment
            variable.
        simulate: patients that the project draws itself, with a known truth and made-up names, instead of a source.
        public_phrase: for public data only: pseudonyms and splits derive from this phrase, so that anyone can make the
            same ones again. Private data needs the secret key file instead; leave this empty.
        key_file: file with the secret key of pseudonyms and splits; by default ``$MEDPHANTOM_KEY_FILE``, else
            ``~/.config/medphantom/identity.key``, made when it does not exist.
        options: how the source is read: tables, columns, masks, splits.
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
        """How the source is read.

        Factors that a simulation writes are attributes, unless the options name any; and rare labels of simulated
        patients point to nobody, so that they stay in the vocabulary, unless the options say otherwise.
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
        """The key of pseudonyms and splits."""
        phrase = self.public_phrase or (SIMULATION_PHRASE if self.simulate and self.key_file is None else "")
        return IdentityKey.from_phrase(phrase) if phrase else IdentityKey.load_or_create(self.key_file)


class PreprocessChoice(Frozen):
    """What the networks see of an image; what is left out is chosen to suit the cohort.

    Attributes:
        size: sides in pixels, ``[H, W]`` or ``[D, H, W]``.
        intensity: source values that become black and white: ``{kind: window, low: …, high: …}`` or
            ``{kind: percentile}`` of each image; null: the full range of 8-bit images, −1000…1000 HU of CT, else
            percentiles.
        fit: ``pad`` keeps the whole image, ``crop`` fills the frame, ``stretch`` ignores the aspect ratio, ``native``
            keeps the pixel grid; null: ``pad`` for images, ``native`` for volumes.
        channels: 1 (grey) or 3 (colour).
        stored_dtype: type of generated pixels; null: as suits the intensity.
    """

    size: tuple[Annotated[int, Field(ge=SMALLEST_SIDE, le=4096)], ...] = Field(
        default=(64, 64), min_length=2, max_length=3
    )
    intensity: Annotated[Window | Percentile, Field(discriminator="kind")] | None = None
    fit: Literal["pad", "crop", "stretch", "native"] | None = None
    channels: Literal[1, 3] = 1
    stored_dtype: Literal["uint8", "uint16", "int16", "float32"] | None = None

    def for_cohort(self, cohort: Cohort) -> Preprocess:
        """The complete preprocess for a cohort."""
        given = {name: getattr(self, name) for name in ("intensity", "fit", "channels", "stored_dtype")}
        return Preprocess.for_cohort(cohort, self.size, **{k: v for k, v in given.items() if v is not None})


class Recipe(Frozen):
    """A run from real images to a scored synthetic dataset.

    Attributes:
        name: of the run, and of its folder under ``runs/``.
        cohort: where the real images come from, and how they are read.
        preprocess: what the networks see of an image.
        generator: the generator and how it is fitted.
        plan: what will be generated.
        sampler: how it is generated.
        assess: how it is scored.
        study: how ``medphantom utility`` teaches and tests classifiers; a run does not.
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
        recipe: with environment variables expanded and paths made absolute.
        written: the same with paths as they were written, for ``run.json`` and reports.
        file: the recipe file.
        settings: the ``--set`` options, in order.
    """

    recipe: Recipe
    written: dict[str, Any]
    file: Path
    settings: tuple[str, ...] = ()


def load_recipe(file: str | Path, settings: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe.

    Args:
        file: YAML file; relative paths in it are relative to its folder, and its stem is the default name.
        settings: ``field.field=value`` in order, as of ``--set``.

    Raises:
        InputError: it needs a package that is not installed.
        RecipeError: one line that names file, field, rule and value.
    """
    path = Path(file)
    tree, places = apply_settings({"name": path.stem, **read_tree(path)}, settings)
    written = validate(Recipe, tree, path.name, places)
    recipe = validate(Recipe, expand_variables(Recipe, tree, path.name), path.name, places)
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
    return LoadedRecipe(recipe, written.model_dump(mode="json"), path, tuple(settings))


def absolute_generator(config: GeneratorConfig, base: Path) -> GeneratorConfig:
    """The folder that is fine-tuned relative to the recipe's folder; what is no path is a hub id."""
    given = config.init_from
    if given is None:
        return config
    folder = user_path(given, RecipeError, base=base)
    if folder.is_dir() or given.startswith((".", "/", "~")):
        return config.model_copy(update={"init_from": str(folder.resolve())})
    return config


def absolute_cohort(choice: CohortChoice, base: Path) -> CohortChoice:
    """Paths of the cohort section relative to the recipe's folder; tables and masks may lie in the source."""
    source = None if choice.source is None else user_path(choice.source, RecipeError, base=base)
    changed: dict[str, Any] = {}
    for name in ("table", "masks"):
        value = getattr(choice.options, name)
        if isinstance(value, Path):
            outside = user_path(value, RecipeError, base=base)
            if source is None or not user_path(value, RecipeError, base=source).exists():
                changed[name] = outside
    return choice.model_copy(
        update={
            "source": source,
            "key_file": None if choice.key_file is None else user_path(choice.key_file, RecipeError, base=base),
            "options": choice.options.model_copy(update=changed),
        }
    )
