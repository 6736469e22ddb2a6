"""Choose settings by trying them: every combination is trained, sampled and compared with ``val``; all is written down.

The score is the Fréchet distance in a fixed filter bank between images drawn for prompts like the training split's and
the real ones of a split; where these are too few for it, the kernel distance, which has no bias. A setting that is
chosen on ``val`` looks better there than it is: score it on ``test``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medphantom.cohorts.preprocess import Preprocess, network_images
from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import Count, checked
from medphantom.core.errors import RecipeError, UnsupportedClaim
from medphantom.core.folders import json_digest, kept, publishing, work_folder, write_json
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array, Frozen
from medphantom.flows.operations.places import Folder, opened, preprocess_flags, refuse_existing, resumable
from medphantom.flows.process.facts import machine, versions
from medphantom.flows.process.progress import ignore, watcher
from medphantom.flows.recipes.plans import PlanChoice, make_plan
from medphantom.flows.recipes.recipe_file import parse_yaml
from medphantom.flows.recipes.settings import SearchPart, read_part
from medphantom.flows.runs.base_check import check_base
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import GeneratorConfig, SamplerConfig
from medphantom.generators.generate import draw, resolved
from medphantom.generators.train import train_generator
from medphantom.quality.fidelity.frechet import frechet_distance, frechet_refusal
from medphantom.quality.fidelity.kernel import kernel_distance, kernel_refusal
from medphantom.quality.networks.features import FeatureNetwork
from medphantom.quality.networks.fixed_networks import filter_bank

if TYPE_CHECKING:
    from medphantom.flows.recipes.recipe import PreprocessChoice

SEARCH_FILE = "search.json"
SEARCHED = ("generator", "sampler")


@dataclass(frozen=True)
class Trial:
    """One combination.

    Attributes:
        settings: as on the command line, ``field.field=value``.
        generator: what is trained.
        sampler: how it is sampled.
    """

    settings: tuple[str, ...]
    generator: GeneratorConfig
    sampler: SamplerConfig


def tries_of(given: Sequence[str]) -> dict[str, list[Any]]:
    """What is tried, of ``--try FIELD=[V1,V2]``.

    Raises:
        RecipeError: Not of that form.
    """
    found: dict[str, list[Any]] = {}
    for text in given:
        name, equals, listed = text.partition("=")
        values = parse_yaml(listed, f"--try {name}") if equals else None
        if not isinstance(values, list) or not values:
            raise RecipeError(f"--try {text}: expected field.field=[value, …]", "e.g. --try sampler.drift=[0,0.002]")
        if name.strip() in found:
            raise RecipeError(f"--try {name.strip()} is given twice", "give all its values in one list")
        found[name.strip()] = values
    return found


def combinations(tries: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations of what is to be tried: dotted field → value.

    Raises:
        RecipeError: Nothing to try, or a field that is neither the generator's nor the sampler's.
    """
    for name, values in tries.items():
        if not values:
            raise RecipeError(f"--try {name}: no value to try", "e.g. --try sampler.drift=[0,0.002]")
        if name.split(".")[0] not in SEARCHED or "." not in name:
            raise RecipeError(f"--try {name}: only fields of generator and sampler are searched")
    if not tries:
        raise RecipeError("nothing is tried", "e.g. --try sampler.drift=[0,0.002]")
    return [dict(zip(tries, chosen, strict=True)) for chosen in product(*tries.values())]


def trial_of(part: SearchPart, changed: Mapping[str, Any]) -> Trial:
    """The settings of a search with some of them changed.

    Raises:
        RecipeError: The combination breaks a rule of the recipe.
    """
    layer: dict[str, dict[str, Any]] = {}
    for name, value in changed.items():
        section, *inner = name.split(".")
        level: dict[str, Any] = layer.setdefault(section, {})
        for step in inner[:-1]:
            level = level.setdefault(step, {})
            if not isinstance(level, dict):
                raise RecipeError(f"--try {name}: a field above it is tried too", "try one of them")
        level[inner[-1]] = value
    tried = read_part(SearchPart, None, (), {"generator": part.generator, "sampler": part.sampler}, layer)
    said = tuple(f"{name}={json.dumps(value)}" for name, value in changed.items())
    return Trial(said, tried.generator, tried.sampler)


class TrialEvaluator:
    """Measures the distance between a generator's images and the real images of a split.

    Args:
        cohort: The real cohort.
        preprocess: The preprocessing of the networks' input.
        plan: The plan of the images to draw.
        split: ``val`` to choose settings by, or ``test`` to report.

    Raises:
        UnsupportedClaim: The split has too few real images.
    """

    def __init__(self, cohort: Cohort, preprocess: Preprocess, plan: PlanChoice, split: str = "val") -> None:
        self.cohort, self.preprocess, self.plan = cohort, preprocess, plan
        self.network: FeatureNetwork = filter_bank(0, "auto").folds[0].network
        rows = cohort.rows(split)
        refusal = kernel_refusal(len(rows))
        if refusal is not None:
            raise UnsupportedClaim(f"the {split} split is too small to choose by: {refusal.partition(';')[0]}")
        self.real = self._features(network_images(cohort, rows, preprocess))
        self.patients = cohort.patients(rows)
        few = frechet_refusal(len(rows), self.network.num_features) is not None
        self.measure: Literal["frechet", "kernel"] = "kernel" if few else "frechet"

    def distance(self, bundle: GeneratorBundle, sampler: SamplerConfig, progress: Progress | None = None) -> float:
        """Distance of what a generator draws.

        Raises:
            UnsupportedClaim: the plan has too few images.
        """
        preprocess, settings = bundle.facts.preprocess, resolved(bundle, sampler)
        plan = make_plan(self.plan, self.cohort, bundle.facts.conditions, preprocess=preprocess)
        images, size = list(plan), int(settings["micro_batch"])
        refusal = self._refusal(len(images))
        if refusal is not None:
            raise UnsupportedClaim(f"the plan is too small to choose by: {refusal}")
        drawn = []
        for start in range(0, len(images), size):
            pixels = draw(bundle, images[start : start + size], settings, plan.masks)
            seen = np.stack([preprocess.apply(image, preprocess.channels) for image in pixels])
            drawn.append(self._features(seen))
            if progress is not None:
                progress(start + len(seen), len(images), "drawing")
        return self._between(np.concatenate(drawn))

    def floor(self, total: int) -> float | None:
        """Distance of real training images, drawn at random: what no generator is expected to beat by much.

        ``None`` where there are too few.
        """
        rng = np.random.default_rng(derive_seed(self.plan.seed, "floor"))
        rows = self.cohort.rows("train")
        if self._refusal(min(total, len(rows))) is not None:
            return None
        chosen = sorted(rng.choice(rows, min(total, len(rows)), replace=False).tolist())
        return self._between(self._features(network_images(self.cohort, chosen, self.preprocess)))

    def _between(self, features: Array) -> float:
        if self.measure == "frechet":
            return frechet_distance(features, self.real)
        return kernel_distance(features, self.real, second_owners=self.patients).value

    def _features(self, images: Array) -> Array:
        return self.network.features(images).astype(np.float64)

    def _refusal(self, total: int) -> str | None:
        if self.measure == "frechet":
            refusal = frechet_refusal(total, self.network.num_features)
            return None if refusal is None else refusal.partition(":")[0]
        refusal = kernel_refusal(total)
        return None if refusal is None else refusal.partition(";")[0]


class Trainings:
    """Generators of trials; each is trained once, and found again after an interruption.

    Args:
        cohort: real cohort.
        preprocess: what the networks see.
        work: private folder.
    """

    def __init__(self, cohort: Cohort, preprocess: Preprocess, work: Path) -> None:
        self.cohort, self.preprocess, self.work = cohort, preprocess, work

    def key(self, config: GeneratorConfig) -> str:
        """Of a training."""
        parts = [self.cohort.digest, self.preprocess.model_dump(mode="json"), config.model_dump(mode="json")]
        return json_digest(parts)[:16]

    def bundle(self, config: GeneratorConfig, progress: Progress) -> Path:
        """Where the generator is, trained."""
        folder, stages = self.work / self.key(config), self.work / "stages"  # autoencoder and latents are shared
        if not folder.is_dir():
            check_base(self.cohort, self.preprocess, config, work=stages, progress=progress)
            train_generator(self.cohort, self.preprocess, config, folder, work=stages, progress=progress)
        return folder


class _TrialDistance(Frozen):
    distance: float


def trial_distances(trials: Sequence[Trial], trainings: Trainings, evaluator: TrialEvaluator) -> list[float]:
    """Return the distance of every trial, in order; distances measured before an interruption are read from disk."""
    shown, found = watcher().stage("search"), []
    for number, trial in enumerate(trials, start=1):
        file = trainings.work / f"{json_digest([trainings.key(trial.generator), trial.sampler.model_dump()])[:16]}.json"
        distance = kept(_TrialDistance, file)
        if distance is None:
            folder = trainings.bundle(trial.generator, shown)
            work_folder(trainings.work)
            distance = _TrialDistance(distance=evaluator.distance(GeneratorBundle.load(folder), trial.sampler, shown))
            write_json(file, distance.model_dump(mode="json"))
        found.append(distance.distance)
        watcher().note(f"search: {number}/{len(trials)}  {found[-1]:.4f}  {' '.join(trial.settings)}")
    return found


@checked
def search(
    cohort: Cohort | Folder,
    tries: Mapping[str, Sequence[Any]],
    out: Folder,
    *,
    images: Count | None = None,
    size: int | Sequence[int] | None = None,
    preprocess: Mapping[str, Any] | PreprocessChoice | None = None,
    generator: Mapping[str, Any] | GeneratorConfig | None = None,
    sampler: Mapping[str, Any] | SamplerConfig | None = None,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and sample with every combination of settings, and choose on ``val``; the same call continues.

    Args:
        cohort: Real cohort.
        tries: Dotted fields of ``generator`` and ``sampler``, and the values to try of each:
            ``{"sampler.guidance": [1.0, 2.0]}``.
        out: Folder to make: the best ``bundle``, and ``search.json`` with all trials.
        images: Number of images drawn to evaluate each, distributed as ``train``.
        size: Side, or sides, of what the networks see, in pixels.
        preprocess: The ``preprocess`` section.
        generator: The ``generator`` section that all trials share.
        sampler: The ``sampler`` section that all trials share.
        recipe: Recipe whose sections are taken.
        settings: ``field=value`` as of ``--set``.

    Returns:
        Content of ``search.json``.

    Raises:
        InputError: ``out`` exists, or a generator cannot be trained so.
        RecipeError: A combination breaks a rule of the recipe.
        UnsupportedClaim: Too few images to choose by.
    """
    real, place = opened(cohort), Path(out)
    layers: tuple[dict[str, Any], ...] = (
        {"preprocess": preprocess, "generator": generator, "sampler": sampler},
        {"preprocess": preprocess_flags(real, size)},
        {} if images is None else {"plan": {"kind": "match", "total": images}},
    )
    part = read_part(SearchPart, recipe, settings, *layers)
    return searched(real, part, [trial_of(part, changed) for changed in combinations(tries)], place)


def searched(cohort: Cohort, part: SearchPart, trials: Sequence[Trial], out: Path) -> dict[str, Any]:
    """Try all, write ``search.json`` and publish the best ``bundle``.

    Args:
        cohort: Real cohort.
        part: Preprocess and plan, the same for all.
        trials: What is tried.
        out: Folder to make.

    Raises:
        InputError: ``out`` exists, or a generator cannot be trained so.
        UnsupportedClaim: Too few images to choose by.
    """
    refuse_existing(out)
    preprocess = part.preprocess.for_cohort(cohort)
    evaluator = TrialEvaluator(cohort, preprocess, part.plan)

    def run(work: Path) -> dict[str, Any]:
        trainings = Trainings(cohort, preprocess, work)
        distances = trial_distances(trials, trainings, evaluator)
        best = int(np.argmin(distances))
        bundle = trainings.bundle(trials[best].generator, ignore)
        settings = resolved(GeneratorBundle.load(bundle), trials[best].sampler)
        result: dict[str, Any] = {
            "estimand": f"{evaluator.measure} distance of drawn images to the real ones of val, in the filter bank",
            "network": evaluator.network.digest,
            "cohort": cohort.digest,
            "plan": part.plan.model_dump(mode="json"),
            "real_images": len(evaluator.real),
            "floor": evaluator.floor(len(evaluator.real)),
            "floor_images": min(len(evaluator.real), len(cohort.rows("train"))),
            "trials": [
                {"settings": list(trial.settings), "distance": distance}
                for trial, distance in zip(trials, distances, strict=True)
            ],
            "best": {"settings": list(trials[best].settings), "solver": settings["solver"], "steps": settings["steps"]},
            "machine": machine(),
            "versions": versions(),
        }
        with publishing(out) as partial:
            shutil.copytree(bundle, partial / "bundle")
            write_json(partial / SEARCH_FILE, result)
        return result

    return resumable(out, run)
