"""One run of a recipe: its folders, the key of each stage, the current artifacts and the stages still to be made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from medphantom.core.errors import RecipeError
from medphantom.core.folders import DIGEST_FILE, file_digest, json_digest
from medphantom.core.guard import folder_path
from medphantom.flows.recipes.plans import TablePlan
from medphantom.flows.recipes.recipe import LoadedRecipe, Recipe, load_recipe
from medphantom.flows.runs.artifact import (
    REPORT_JSON,
    ArtifactRef,
    RunFolder,
    Stage,
    content_digest,
    source_mark,
    stage_key,
)
from medphantom.shipped import source_path

RUNS_FOLDER = "runs"
CONTROL_FILE = "control.json"

Refs = dict[Stage, ArtifactRef]


@dataclass(frozen=True)
class Job:
    """A recipe and the folders of its results.

    Attributes:
        loaded: The recipe as it was loaded.
        base: The folder of cohort and bundle.
        run: The folder of synthetic images and report, which is ``base`` unless the images are to be fresh.
        fresh: The tag that makes new images, such as the time of a nightly run.
    """

    loaded: LoadedRecipe
    base: RunFolder
    run: RunFolder
    fresh: str = ""

    @property
    def recipe(self) -> Recipe:
        """The recipe with absolute paths."""
        return self.loaded.recipe

    def folder_of(self, stage: Stage) -> RunFolder:
        """Return the folder of the artifact of a stage."""
        return self.base if stage in {"phantom", "ingest", "train"} else self.run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folders of the run for this process."""
        with ExitStack() as stack:
            for folder in {self.base.path: self.base, self.run.path: self.run}.values():
                stack.enter_context(folder.locked())
            yield

    def stages(self) -> tuple[Stage, ...]:
        """The stages of this run, in order."""
        first: tuple[Stage, ...] = ("phantom",) if self.recipe.cohort.simulate else ()
        return (*first, "ingest", "train", "generate", "assess", "report")

    def key(self, stage: Stage, refs: Refs) -> str:
        """Return the key of a stage, given the artifacts before it."""
        inputs, settings = self._ingredients(stage, refs)
        return stage_key(stage, inputs, settings)

    def outlook(self) -> tuple[Refs, tuple[Stage, ...]]:
        """Return the artifacts that are current, and the stages that have to be made."""
        refs: Refs = {}
        to_do: list[Stage] = []
        for stage in self.stages():
            ref = None if to_do else self.folder_of(stage).current(stage, self.key(stage, refs))
            if ref is None:
                to_do.append(stage)
            else:
                refs[stage] = ref
        return refs, tuple(to_do)

    def _ingredients(self, stage: Stage, refs: Refs) -> tuple[dict[str, str], Any]:
        recipe = self.recipe
        match stage:
            case "phantom":
                assert recipe.cohort.simulate is not None  # noqa: S101 - stages() requested it
                return {}, recipe.cohort.simulate.model_dump(mode="json")
            case "ingest":
                return self._source_marks(refs), self._ingest_settings()
            case "train":
                marks = self._base_mark()
                generator = recipe.generator.model_dump(mode="json", exclude={"init_from"} if marks else None)
                settings = {"generator": generator, "preprocess": recipe.preprocess.model_dump(mode="json")}
                return {**_digests(refs, "ingest"), **marks}, settings
            case "generate":
                settings = {
                    "plan": {**recipe.plan.model_dump(mode="json"), "fresh": self.fresh or recipe.plan.fresh},
                    "sampler": recipe.sampler.model_dump(mode="json"),
                }
                return {**_digests(refs, "ingest", "train"), **self._plan_marks()}, settings
            case "assess":
                return _digests(refs, "ingest", "train", "generate"), recipe.assess.model_dump(mode="json")
            case "report":
                made = _digests(refs, "ingest", "train", "generate", "assess")
                return {**made, **self._control_mark()}, self.loaded.written

    def _source_marks(self, refs: Refs) -> dict[str, str]:
        cohort = self.recipe.cohort
        marks = {"identity": cohort.identity_key().pseudonym("fingerprint", "")}
        if cohort.source is None:
            return {**marks, **_digests(refs, "phantom")}
        marks["source"] = source_mark(cohort.source)
        for name in ("table", "masks"):
            path = getattr(cohort.options, name)
            if isinstance(path, Path) and path.is_absolute():
                marks[name] = source_mark(path)
        return marks

    def _base_mark(self) -> dict[str, str]:
        """Return the fingerprint of the base to fine-tune if it is a folder; a hub id identifies its content itself."""
        source = self.recipe.generator.init_from
        folder = None if source is None else source_path(source)
        if folder is None or not folder.is_dir():
            return {}
        published = folder / DIGEST_FILE
        return {"base": content_digest(folder) if published.is_file() else source_mark(folder)}

    def _control_mark(self) -> dict[str, str]:
        """Return the fingerprint of the report of a control, which the run's own report quotes."""
        files = [control_path(self.base.path) / name for name in (CONTROL_FILE, REPORT_JSON)]
        return (
            {"control": json_digest([file_digest(file) for file in files])} if all(f.is_file() for f in files) else {}
        )

    def _plan_marks(self) -> dict[str, str]:
        plan = self.recipe.plan
        if not isinstance(plan, TablePlan):
            return {}
        from medphantom.conditioning.plan_table import files_of

        return {f"prompts {place}": source_mark(file) for place, file in enumerate(files_of(plan.path))}

    def _ingest_settings(self) -> dict[str, Any]:
        options = self.recipe.cohort.reading
        settings = {**options.identity(), "strict": options.strict}
        for name in ("table", "masks"):  # their content counts, not where this machine keeps them
            if isinstance(getattr(options, name), Path):
                settings[name] = getattr(options, name).name
        return settings


def _digests(refs: Refs, *stages: Stage) -> dict[str, str]:
    return {stage: refs[stage].digest for stage in stages}


def control_path(run: Path) -> Path:
    """Return the folder of the control model of a run."""
    return run.with_name(f"{run.name}_control")


def open_job(
    recipe: str | Path, settings: Sequence[str] = (), out: str | Path | None = None, fresh: datetime | None = None
) -> Job:
    """Open the job of a recipe file.

    Args:
        recipe: The YAML file of the recipe.
        settings: The settings ``field=value``, as given to ``--set``.
        out: The run folder; the default is ``runs/<name>``.
        fresh: The time of a scheduled run, whose images are new and lie in a folder of their own beside the run folder.

    Raises:
        RecipeError: The recipe is wrong.
    """
    loaded = load_recipe(recipe, settings)
    path = Path(out) if out is not None else Path(RUNS_FOLDER) / loaded.recipe.name
    if folder_path(path, RecipeError).exists() and not path.is_dir():
        raise RecipeError(f"{path} is a file, not a folder for a run", "choose another --out")
    base = RunFolder(path)
    if fresh is None:
        return Job(loaded, base, base)
    tag = fresh.strftime("%Y%m%dT%H%M%SZ")
    return Job(loaded, base, RunFolder(path.with_name(f"{path.name}-{tag}")), tag)


def recipe_digest(job: Job) -> str:
    """Return the digest of the recipe as resolved."""
    return json_digest(job.loaded.written)
