"""A distilled generator in four calls beside the whole one in twenty and in four: distances and images a second.

One generator is fine-tuned from a base on each cohort and distilled; all arms draw the same prompts from the same noise
and are scored against the same test images in two feature networks. Run by hand on an idle machine, on cohorts that
``medphantom ingest`` made; an interrupted run continues::

    python -m benchmarks.few_calls --cohort mednist=runs/mednist/cohort --work runs/few_calls
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import medphantom as mp
from benchmarks.bases import NETWORKS, cohorts
from benchmarks.measuring import seconds, write_result
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.flows.runs.hooks import hooks_of
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import GeneratorConfig, SamplerConfig
from medphantom.generators.generate import draw, generate, resolved
from medphantom.generators.train import train_generator
from medphantom.quality.assessment.assess import assess
from medphantom.quality.config import AssessConfig

CALLS = 4


def bundles(cohort: Cohort, options: argparse.Namespace, place: Path, seed: int) -> dict[str, GeneratorBundle]:
    """The whole generator and the distilled one, which share everything up to the trained denoiser."""
    preprocess = Preprocess.for_cohort(cohort, (options.size, options.size))
    fit = {"steps": options.steps, "batch_size": 64, "learning_rate": 1e-3, "validate_every": 500, "tracker": "none"}
    given: dict[str, Any] = {"init_from": options.base, "denoiser_fit": fit, "seed": seed}
    few = {"calls": CALLS, "images": options.paths, "guidance": options.guidance}
    found = {}
    for name, more in (("whole", {}), ("distilled", {"distillation": few})):
        out = place / name
        if not out.is_dir():
            config = GeneratorConfig.model_validate({**given, **more})
            train_generator(cohort, preprocess, config, out, work=place / "work", progress=_told)
        found[name] = GeneratorBundle.load(out)
    return found


def _told(done: int, total: int, what: str = "") -> None:
    if done % 100 == 0 or done == total:
        print(f"{what} {done}/{total}", flush=True)


def arms(options: argparse.Namespace) -> dict[str, tuple[str, SamplerConfig]]:
    """Which bundle draws in which way."""
    whole = {"guidance": options.guidance}
    return {
        "whole, 20 calls": ("whole", SamplerConfig(solver="heun", steps=20, **whole)),
        "whole, 4 calls": ("whole", SamplerConfig(solver="dpmpp_2m", steps=CALLS, **whole)),
        "distilled, 4 calls": ("distilled", SamplerConfig()),
    }


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--work", type=Path, required=True, help="folder for bundles and images, kept")
    parser.add_argument("--base", default="base:generic")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--paths", type=int, default=2000)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--drawn", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    rows = []
    for name, cohort in cohorts(options.cohort).items():
        for seed in range(options.seeds):
            place = options.work / f"{name}-{seed}"
            place.mkdir(parents=True, exist_ok=True)
            made = bundles(cohort, options, place, seed)
            plan = mp.plan(made["whole"], match=options.drawn, cohort=cohort, seed=seed)
            for arm, (which, sampler) in arms(options).items():
                rows.append(
                    {"cohort": name, "seed": seed, "arm": arm}
                    | _scored(cohort, made[which], plan, sampler, place / arm.replace(", ", "_").replace(" ", "_"))
                )
                print(rows[-1], flush=True)
    facts = {key: value for key, value in vars(options).items() if key not in {"cohort", "work"}}
    print(write_result("few_calls", {**facts, "rows": rows}))


def _scored(cohort: Cohort, bundle: GeneratorBundle, plan: Any, sampler: SamplerConfig, place: Path) -> dict[str, Any]:
    """Draw an arm's images, score them, and time one micro-batch."""
    out = place / "drawn"
    drawn = Cohort.open(out) if out.is_dir() else generate(bundle, plan, out, work=place / "work", sampler=sampler)
    settings, batch = resolved(bundle, sampler), list(plan)[: bundle.facts.micro_batch]
    took = min(seconds(lambda: draw(bundle, batch, settings)) for _ in range(3))
    config = AssessConfig.model_validate(
        {
            "networks": NETWORKS,
            "membership": {"enabled": False},
            "utility": {"enabled": False},
            "copies": {"kinds": [], "core": [], "controls": 0},
        }
    )
    report = assess(cohort, drawn, bundle.facts.preprocess, config, work=place / "scores", hooks=hooks_of(bundle))
    mp.contact_sheet(drawn, 24).save(place.with_suffix(".png"))
    wanted = ("frechet", "frechet_over_reconstruction", "coverage", "kernel")
    scores = [
        {"name": one.name, "network": one.network, "value": one.value, "interval": one.interval, "floor": one.floor}
        for one in report.estimates
        if one.name in wanted and one.label is None
    ]
    return {"images_per_s": len(batch) / took, "images": len(drawn), "scores": scores}


if __name__ == "__main__":
    main()
