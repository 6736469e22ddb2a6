"""What the shipped bases bring: their autoencoder beside one fitted to the cohort, fine-tuning beside training anew.

Both arms get the same wall-clock seconds on the same cores. Run by hand on an idle machine, on cohorts that
``medphantom ingest`` made::

    python -m benchmarks.bases reconstruction --cohort mednist=runs/mednist/cohort --seconds 600
    python -m benchmarks.bases tuning --cohort nih=runs/nih/cohort --images 50 200 1000 --seconds 300 --seeds 3
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import medphantom as mp
from benchmarks.measuring import write_result
from medphantom.cohorts.preprocess import network_images
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.thin import thin
from medphantom.core.records import Array
from medphantom.flows.recipes.recipe import PreprocessChoice
from medphantom.flows.runs.calibration import calibrate
from medphantom.flows.runs.costs import Sections
from medphantom.generators.base import open_base
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.fitting import Fitting, fit_autoencoder
from medphantom.generators.networks import AnyAutoencoder
from medphantom.generators.reconstruction import spectrum_error
from medphantom.quality.config import ClassifierConfig
from medphantom.quality.networks.classifier import fit_classifier, predict
from medphantom.quality.stats.auroc import auroc

AUTOENCODER_SHARE = 0.4  # of the seconds of what starts from nothing
NETWORKS = ("filters", "radiomics")
BATCH = {"autoencoder": 16, "denoiser": 64}


def cohorts(given: list[str]) -> dict[str, Cohort]:
    """Cohorts by name, from ``NAME=FOLDER``."""
    return {name: Cohort.open(folder) for name, _, folder in (one.partition("=") for one in given)}


def rebuilt(autoencoder: AnyAutoencoder, images: Array) -> Array:
    """Images through an autoencoder, in -1…1."""
    with torch.inference_mode():
        parts = [
            autoencoder.decode(autoencoder.encode(torch.from_numpy(part))[0]).clamp(-1, 1).numpy()
            for part in np.array_split(images, max(1, len(images) // 64))
        ]
    return np.concatenate(parts)


def errors(images: Array, again: Array) -> dict[str, float]:
    """Errors of reconstructions: peak signal-to-noise ratio (range 2), absolute error, error of the spectrum."""
    square = ((again - images) ** 2).mean(axis=tuple(range(1, images.ndim)))
    return {
        "psnr_db": float((10 * np.log10(4 / square)).mean()),
        "absolute": float(np.abs(again - images).mean()),
        "spectrum": float(spectrum_error(torch.from_numpy(images), torch.from_numpy(again))),
    }


def separability(cohort: Cohort, seen: dict[str, Array], again: dict[str, Array], work: Path) -> dict[str, Any]:
    """AUROC of each label on test images as they are and reconstructed, by one classifier of real training images."""
    targets = {split: cohort.labels(cohort.rows(split)) for split in ("train", "test")}
    exclusive = cohort.schema.exclusive
    network = fit_classifier(
        seen["train"], targets["train"], exclusive=exclusive, num_features=64,
        config=ClassifierConfig(), seed=0, work=work,
    )  # fmt: skip
    found: dict[str, Any] = {}
    for name, images in {"before": seen["test"], **again}.items():
        scores = predict(network, images, exclusive=exclusive, device="auto")
        for place, label in enumerate(cohort.schema.labels):
            known = targets["test"][:, place] >= 0
            value = auroc(targets["test"][known, place] == 1, scores[known, place])
            found.setdefault(label, {})[name] = value
    return found


def fitted(seen: dict[str, Array], cohort: Cohort, size: int, seconds: float, work: Path) -> tuple[Any, int]:
    """An autoencoder fitted to the training images for some seconds, and its number of steps."""
    preprocess = PreprocessChoice(size=(size, size)).for_cohort(cohort)
    config = GeneratorConfig.model_validate({"autoencoder_fit": {"steps": 1, "tracker": "none"}})
    fit_autoencoder(_fitting(config, preprocess, seen, work / "warm"), None)
    trial = config.model_copy(update={"autoencoder_fit": config.autoencoder_fit.model_copy(update={"steps": 40})})
    began = time.perf_counter()
    fit_autoencoder(_fitting(trial, preprocess, seen, work / "timed"), None)
    steps = max(40, round(seconds / (time.perf_counter() - began) * 40))
    final = config.model_copy(update={"autoencoder_fit": config.autoencoder_fit.model_copy(update={"steps": steps})})
    return fit_autoencoder(_fitting(final, preprocess, seen, work / "fit"), None)[0].eval(), steps


def _fitting(config: GeneratorConfig, preprocess: Any, seen: dict[str, Array], work: Path) -> Fitting:
    images = {split: seen[split] for split in ("train", "val")}
    return Fitting(config, preprocess, images, "benchmark", work, None)  # type: ignore[arg-type]  # both splits


def reconstruction(options: argparse.Namespace) -> dict[str, Any]:
    """The shipped autoencoder beside one fitted to each cohort."""
    shipped = open_base("base:generic").autoencoder(1)
    found: dict[str, Any] = {}
    for name, cohort in cohorts(options.cohort).items():
        preprocess = PreprocessChoice(size=(options.size, options.size)).for_cohort(cohort)
        seen = {split: network_images(cohort, cohort.rows(split), preprocess) for split in ("train", "val", "test")}
        with tempfile.TemporaryDirectory() as folder:
            own, steps = fitted(seen, cohort, options.size, options.seconds, Path(folder))
            again = {"shipped": rebuilt(shipped, seen["test"]), "fitted": rebuilt(own, seen["test"])}
            labels = separability(cohort, seen, again, Path(folder)) if cohort.schema.labels else {}
        found[name] = {
            "test_images": len(seen["test"]),
            "fitted_steps": steps,
            **{arm: errors(seen["test"], images) for arm, images in again.items()},
            "auroc": labels,
        }
        print(name, found[name], flush=True)
    return {"size": options.size, "seconds": options.seconds, "cohorts": found}


def arms(cohort: Cohort, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings of the generator for each arm, with the steps that fit into the seconds."""
    preprocess = PreprocessChoice(size=(options.size, options.size)).for_cohort(cohort)
    for base in (*options.base, None):
        config = GeneratorConfig(init_from=base, denoiser=_small())
        images = len(cohort.rows("train"))
        measured = calibrate(Sections(preprocess=preprocess, generator=config), images)
        if base is not None:
            steps = round(options.seconds / (measured.train_s / config.denoiser_fit.steps))
            yield base, {"init_from": base, "denoiser_fit": _fit(steps)}
            continue
        alone = config.model_copy(update={"denoiser_fit": config.denoiser_fit.model_copy(update={"steps": 1})})
        autoencoder_s = calibrate(Sections(preprocess=preprocess, generator=alone), images).train_s
        denoiser_s = measured.train_s - autoencoder_s
        first = options.seconds * AUTOENCODER_SHARE / (autoencoder_s / config.autoencoder_fit.steps)
        then = options.seconds * (1 - AUTOENCODER_SHARE) / (denoiser_s / config.denoiser_fit.steps)
        yield (
            "nothing",
            {
                "denoiser": _small().model_dump(),
                "autoencoder_fit": {"steps": round(first), "batch_size": BATCH["autoencoder"], "tracker": "none"},
                "denoiser_fit": _fit(round(then)),
            },
        )


def _small() -> Any:
    from medphantom.generators.config import DenoiserConfig

    return DenoiserConfig(channels=(32, 64, 96))


def _fit(steps: int) -> dict[str, Any]:
    return {"steps": steps, "batch_size": BATCH["denoiser"], "validate_every": max(1, steps // 4), "tracker": "none"}


def tuning(options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tuning from each base beside starting from nothing, at equal seconds, by number of training images."""
    found: list[dict[str, Any]] = []
    for name, cohort in cohorts(options.cohort).items():
        whole = len(cohort.rows("train"))
        for wanted in options.images:
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    place = Path(folder)
                    fewer = cohort if wanted >= whole else thin(cohort, place / "fewer", wanted / whole, seed)
                    for arm, generator in arms(fewer, options):
                        row = _trial(fewer, {**generator, "seed": seed}, options, place / arm.replace(":", "_"))
                        learned = len(fewer.rows("train"))
                        found.append({"cohort": name, "images": learned, "seed": seed, "arm": arm, **row})
                        print(found[-1], flush=True)
    return {"size": options.size, "seconds": options.seconds, "drawn": options.drawn, "trials": found}


def _trial(cohort: Cohort, generator: dict[str, Any], options: argparse.Namespace, place: Path) -> dict[str, Any]:
    place.mkdir()
    began = time.perf_counter()
    bundle = mp.train(cohort, place / "bundle", size=options.size, generator=generator)
    spent = time.perf_counter() - began
    made = mp.generate(bundle, mp.plan(bundle, match=options.drawn, cohort=cohort), place / "drawn")
    report = mp.assess(
        cohort, made, place / "report", bundle=bundle,
        assess={"networks": NETWORKS, "membership": {"enabled": False}, "utility": {"enabled": False},
                "copies": {"controls": 0}},
    )  # fmt: skip
    scores = [score.model_dump(mode="json") for score in report.estimates if score.network in NETWORKS]
    return {"seconds": spent, "steps": generator["denoiser_fit"]["steps"], "scores": scores}


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["reconstruction", "tuning"])
    parser.add_argument("--cohort", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--images", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--drawn", type=int, default=300)
    parser.add_argument("--base", action="append", help="by default base:generic")
    options = parser.parse_args()
    options.base = options.base or ["base:generic"]
    run = reconstruction if options.what == "reconstruction" else tuning
    print(write_result(f"bases_{options.what}", run(options)))


if __name__ == "__main__":
    main()
