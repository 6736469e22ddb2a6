"""The copy gate on whole generators: honest ones, each trained from a seed of its own, and an overfitted one.

The honest ones are fine-tuned from a public base to most patients; the overfitted control model sees some
sixty images a thousand times each. The images of each are searched for copies of its training images, and its patients
are attacked by membership inference. Settings are those of ``examples/finetune_scarce.yaml`` except for those below.
Run by hand, an hour on two cores; what was trained is kept in ``--work``, and the same command continues::

    medphantom run examples/mednist_base.yaml
    python -m benchmarks.generator_gate --seeds 5

The phrase from which pseudonyms derive decides which patients are in ``train``. Honest generators of several divisions
separate what they disclose from the random variation of a single division::

    python -m benchmarks.generator_gate --seeds 1 --honest --phrase "another division" --work runs/another_division
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring import write_result
from benchmarks.membership import attacked, words_of
from medphantom.cohorts.preprocess import network_images
from medphantom.cohorts.store import Cohort
from medphantom.flows.operations.ingest import ingest_cohort
from medphantom.flows.process.progress import watching
from medphantom.flows.recipes.plans import make_plan
from medphantom.flows.recipes.recipe import Recipe, load_recipe
from medphantom.flows.runs.control import memorised
from medphantom.flows.runs.hooks import hooks_of
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.generate import generate
from medphantom.generators.train import train_generator
from medphantom.quality.assessment.assess import screen_copies
from medphantom.quality.report.pictures import flatten
from medphantom.quality.results.quality_report import CopySummary

RECIPE = Path(__file__).parents[1] / "examples" / "finetune_scarce.yaml"
MANY = "{train: 0.6, val: 0.1, holdout: 0.2, test: 0.1}"
PATIENTS = 49  # with sixty images
SHOWN = 40


@dataclass(frozen=True)
class Arm:
    """One generator.

    Attributes:
        name: of its folder.
        seed: of the training and of what is drawn.
        cohort: folder of the cohort that it learns from.
        settings: changes of the recipe.
    """

    name: str
    seed: int
    cohort: Path
    settings: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        """What is trained and drawn."""
        seeds = (f"generator.seed={self.seed}", f"plan.seed={self.seed}")
        return load_recipe(RECIPE, [*self.settings, *seeds]).recipe


def arms(options: argparse.Namespace) -> Iterator[Arm]:
    """The honest ones, then the other one."""
    fit = {"steps": options.steps, "batch_size": 32, "validate_every": 100, "tracker": "none"}
    settings = (
        f"cohort.options.split={MANY}",
        *(f"generator.denoiser_fit.{name}={value}" for name, value in fit.items()),
        f"plan.total={options.images}",
        *(() if options.base is None else (f"generator.init_from={options.base.resolve()}",)),
        *(() if options.phrase is None else (f"cohort.public_phrase={options.phrase}",)),
    )
    honest = [Arm(f"honest_{seed}", seed, options.work / "cohort", settings) for seed in range(options.seeds)]
    yield from honest
    if options.honest:
        return
    cohort = cohort_of(honest[0].recipe, honest[0].cohort)
    rows = cohort.rows("train")
    learned = len(set(cohort.patients(rows)))
    few = memorised(honest[0].recipe, learned, len(rows), patients=PATIENTS, looks=options.looks)
    yield Arm("memorised", 0, options.work / "cohort_of_few", (*settings, *few))


def cohort_of(recipe: Recipe, path: Path) -> Cohort:
    """The cohort, made unless it is there."""
    return Cohort.open(path) if path.is_dir() else ingest_cohort(recipe.cohort, path).cohort


def gate_result(arm: Arm, options: argparse.Namespace) -> tuple[CopySummary, dict[str, Any]]:
    """Train, draw, search; and what it learned from, and what membership reaches."""
    recipe, folder = arm.recipe, options.work / arm.name
    cohort = cohort_of(recipe, arm.cohort)
    preprocess = recipe.preprocess.for_cohort(cohort)
    if not (folder / "bundle").is_dir():
        train_generator(cohort, preprocess, recipe.generator, folder / "bundle", work=folder / "work")
    bundle = GeneratorBundle.load(folder / "bundle")
    if not (folder / "synthetic").is_dir():
        plan = make_plan(recipe.plan, cohort, bundle.facts.conditions, preprocess=bundle.facts.preprocess)
        generate(bundle, plan, folder / "synthetic", work=folder / "drawing", sampler=recipe.sampler)
    synthetic = Cohort.open(folder / "synthetic")
    summary = screen_copies(
        cohort, synthetic, preprocess, recipe.assess, work=folder / "screen", hooks=hooks_of(bundle)
    )
    if summary is None:
        raise RuntimeError("nothing to search in")
    drawn = network_images(synthetic, synthetic.rows()[:SHOWN], preprocess)
    picture(drawn).save(folder / "drawn.png")
    sizes = {f"{split}_images": len(cohort.rows(split)) for split in ("train", "holdout")}
    membership = attacked(cohort, synthetic, preprocess, recipe.assess)
    steps = recipe.generator.denoiser_fit.steps
    return summary, {**sizes, "steps": steps, "seed": arm.seed, "membership": membership}


def picture(images: np.ndarray) -> Image.Image:
    """Images side by side, eight to a line."""
    tiles = [flatten(image) for image in images]
    lines = [np.concatenate(tiles[start : start + 8], axis=1) for start in range(0, len(tiles) // 8 * 8, 8)]
    return Image.fromarray(np.concatenate(lines))


def facts_of(summary: CopySummary) -> dict[str, Any]:
    """What of a search is written down."""
    return {
        "verdict": summary.verdict,
        "reasons": list(summary.reasons),
        "tests": [result.model_dump(mode="json") for result in summary.results],
        "share_nearest_in_train": [[s.value, *(s.interval or ())] for s in summary.share_nearest_in_train],
        "flagged": summary.total_flagged,
        "recall": {
            kind.kind: None if kind.recall is None else [kind.recall.value, *(kind.recall.interval or ())]
            for kind in summary.controls
        },
        "not_covered": [kind.kind for kind in summary.controls if not kind.covered],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="bundle; by default that of the recipe")
    parser.add_argument("--seeds", type=int, default=5, help="honest generators")
    parser.add_argument("--honest", action="store_true", help="only those")
    parser.add_argument("--phrase", help="of the division of patients; by default that of the recipe")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument(
        "--looks", type=int, default=1000, help="number of times that the overfitted model sees each image"
    )
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--work", type=Path, default=Path("runs/generator_gate"))
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    with watching():
        for arm in arms(options):
            summary, facts = gate_result(arm, options)
            found[arm.name] = {**facts, **facts_of(summary)}
            print(f"{arm.name}: copies {summary.verdict}: {summary.reasons[0]}")
            print(f"  membership from the images: {words_of(facts['membership'])}", flush=True)
    settings = {key: value for key, value in vars(options).items() if key not in {"base", "work"}}
    print(write_result("generator_gate", {"settings": settings, "generators": found}))


if __name__ == "__main__":
    main()
