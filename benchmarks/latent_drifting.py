"""Latent Drifting beside plain fine-tuning, offset noise and latent re-normalisation, on one public → private shift.

Every arm fine-tunes the same base in full with the same steps, batches and seeds. Each may try three trainings, each
sampled in three ways, compared with the private cohort's ``val`` images as by ``medphantom search``; the setting
that is best there is trained again from further seeds and scored on ``test``. Run by hand::

    medphantom run examples/mednist_base.yaml            # the public base: MedNIST without chest radiographs
    medphantom run examples/finetune_scarce.yaml         # makes the private cohort
    python -m benchmarks.latent_drifting --cohort runs/finetune_scarce/cohort
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import machine, versions, write_result
from medphantom.cohorts.store import Cohort
from medphantom.flows.operations.search import Trainings, Trial, TrialEvaluator, trial_distances
from medphantom.flows.process.progress import ignore, watching
from medphantom.flows.recipes.settings import SearchPart, read_part
from medphantom.generators.bundle import GeneratorBundle

RECIPE = Path(__file__).parents[1] / "examples" / "finetune_scarce.yaml"
RATE, STEPS_OF_SAMPLING = "generator.denoiser_fit.learning_rate", 20
RATES = tuple(f"{RATE}={rate}" for rate in (0.0005, 0.001, 0.002))
GUIDANCE = tuple(f"sampler.guidance={guidance}" for guidance in (1.0, 1.5, 2.0))
DELTAS = (-0.05, 0.05, 0.1)


def arms() -> dict[str, list[tuple[str, ...]]]:
    """Nine settings of each arm, three trainings by three ways of sampling."""
    scaled, offset = "generator.tuning.latent_scaling=cohort", "generator.tuning.offset_noise"
    drifted = [
        # the drift of a step adds up over all of them: these end at none, at δ, and at twice δ
        (f"generator.tuning.drift={delta}", f"sampler.drift={delta * share / STEPS_OF_SAMPLING}")
        for delta in DELTAS
        for share in (0, 1, 2)
    ]
    return {
        "plain": list(product(RATES, GUIDANCE)),
        "offset_noise": [(f"{offset}={size}", guided) for size in (0.05, 0.1, 0.2) for guided in GUIDANCE],
        "renormalised": [(scaled, *changed) for changed in product(RATES, GUIDANCE)],
        "latent_drifting": drifted,
    }


def common(options: argparse.Namespace) -> list[str]:
    """What all arms share."""
    fit = {"steps": options.steps, "batch_size": 32, "validate_every": options.steps // 2, "tracker": "none"}
    return [
        *(f"generator.denoiser_fit.{name}={value}" for name, value in fit.items()),
        f"sampler.steps={STEPS_OF_SAMPLING}",
        f"plan.total={options.images}",
        *([] if options.base is None else [f"generator.init_from={options.base.resolve()}"]),
    ]


def best_of(trials: Sequence[Trial], distances: Sequence[float]) -> Trial:
    """The trial that is nearest to ``val``."""
    return trials[int(np.argmin(distances))]


def again(trial: Trial, seed: int) -> Trial:
    """The same from another seed."""
    return Trial(trial.settings, trial.generator.model_copy(update={"seed": seed}), trial.sampler)


def main() -> None:
    """Compare the arms and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="bundle; by default that of the recipe")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the chosen setting")
    parser.add_argument("--work", type=Path, default=Path("runs/latent_drifting"))
    options = parser.parse_args()
    cohort, settings = Cohort.open(options.cohort), common(options)
    part = read_part(SearchPart, RECIPE, settings)
    preprocess = part.preprocess.for_cohort(cohort)
    trainings = Trainings(cohort, preprocess, options.work)
    later = part.plan.model_copy(update={"seed": part.plan.seed + 1})
    val, test = TrialEvaluator(cohort, preprocess, part.plan, "val"), TrialEvaluator(cohort, preprocess, later, "test")
    found: dict[str, Any] = {}
    with watching():
        for name, tries in arms().items():
            parts = [(changed, read_part(SearchPart, RECIPE, [*settings, *changed])) for changed in tries]
            trials = [Trial(tuple(changed), part.generator, part.sampler) for changed, part in parts]
            distances = trial_distances(trials, trainings, val)
            chosen = best_of(trials, distances)
            scores = [
                test.distance(GeneratorBundle.load(trainings.bundle(one.generator, ignore)), one.sampler)
                for one in (again(chosen, seed) for seed in range(options.seeds))
            ]
            found[name] = {
                "chosen": list(chosen.settings),
                "test": {"mean": float(np.mean(scores)), "each": scores, "seeds": options.seeds},
                "tried": [
                    {"settings": list(one.settings), "val": value} for one, value in zip(trials, distances, strict=True)
                ],
            }
            print(f"{name}: test {np.mean(scores):.4f} [{min(scores):.4f}, {max(scores):.4f}]", flush=True)
    result = {
        "steps": options.steps,
        "images": options.images,
        "training_images": len(cohort.rows("train")),
        "real_images": {"val": len(val.real), "test": len(test.real)},
        "measure": {"val": val.measure, "test": test.measure},
        "floor": test.floor(options.images),
        "arms": found,
        "machine": machine(),
        "versions": versions(),
    }
    print(write_result("latent_drifting", result))


if __name__ == "__main__":
    main()
