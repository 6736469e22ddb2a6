"""Latent Drifting beside plain fine-tuning, offset noise and latent re-normalisation, on one public → private shift.

Every arm fine-tunes the same base in full with the same steps, batches and seeds. Each may try the same number of
settings (three trainings, each sampled in three ways), judged by the Fréchet distance to the private cohort's ``val``
images; the setting that is best there is trained again from further seeds and scored on ``test``. Run by hand::

    medphantom run examples/mednist_base.yaml            # the public base: MedNIST without chest radiographs
    medphantom run examples/finetune_scarce.yaml         # makes the private cohort
    python -m benchmarks.latent_drifting --base runs/mednist_base/bundle --cohort runs/finetune_scarce/cohort
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import machine, versions, write_result
from cohorts.preprocess import Preprocess, network_images
from cohorts.records import Array
from cohorts.store import Cohort
from conditioning.plan import SamplingPlan, plan_match
from generators.bundle import GeneratorBundle
from generators.config import GeneratorConfig, SamplerConfig
from generators.generate import draw, resolved
from generators.train import train_generator
from learning.fit_config import FitConfig
from quality.filters import FilterBank
from quality.frechet import frechet_distance

RATES = (5e-4, 1e-3, 2e-3)
GUIDANCE = (1.0, 1.5, 2.0)
STEPS_OF_SAMPLING = 20


@dataclass(frozen=True)
class Trial:
    """One training of an arm.

    Attributes:
        rate: learning rate.
        tuning: fields of :class:`generators.config.FineTuning`.
        samplers: ways to sample from it.
    """

    rate: float = 1e-3
    tuning: dict[str, Any] = field(default_factory=dict)
    samplers: tuple[dict[str, float], ...] = tuple({"guidance": guidance} for guidance in GUIDANCE)


ARMS: dict[str, tuple[Trial, ...]] = {
    "plain": tuple(Trial(rate=rate) for rate in RATES),
    "offset_noise": tuple(Trial(tuning={"offset_noise": size}) for size in (0.05, 0.1, 0.2)),
    "renormalised": tuple(Trial(rate=rate, tuning={"latent_scaling": "cohort"}) for rate in RATES),
    "latent_drifting": tuple(
        Trial(
            tuning={"drift": delta},
            # the drift of a step adds up over all of them: these end at none, at δ, and at twice δ
            samplers=tuple({"guidance": 1.5, "drift": delta * share / STEPS_OF_SAMPLING} for share in (0, 1, 2)),
        )
        for delta in (-0.05, 0.05, 0.1)
    ),
}


class Shift:
    """A base, a private cohort, and what images of it are judged against.

    Args:
        base: bundle.
        cohort: private cohort.
        steps: of every training.
        images: drawn for every judgement.
        work: folder for checkpoints and bundles.
    """

    def __init__(self, base: Path, cohort: Cohort, steps: int, images: int, work: Path) -> None:
        self.base, self.cohort, self.steps, self.images, self.work = base, cohort, steps, images, work
        size = GeneratorBundle.load(base).facts.preprocess.size
        self.preprocess = Preprocess.for_cohort(cohort, size)
        self.bank = FilterBank().eval()
        self.judges = {
            split: self._features(network_images(cohort, cohort.rows(split), self.preprocess))
            for split in ("val", "test")
        }

    def bundle(self, trial: Trial, seed: int) -> GeneratorBundle:
        """The base after a trial's training; found again when it was done before."""
        config = GeneratorConfig.model_validate(
            {
                "init_from": str(self.base),
                "tuning": trial.tuning,
                "denoiser_fit": FitConfig(
                    steps=self.steps,
                    batch_size=32,
                    learning_rate=trial.rate,
                    ema_decay=0.99,
                    validate_every=self.steps // 2,
                    tracker="none",
                ),
                "seed": seed,
            }
        )
        name = f"{trial.rate:g}-{'-'.join(f'{key}={value}' for key, value in trial.tuning.items()) or 'plain'}-{seed}"
        out = self.work / name
        if not (out / "bundle").is_dir():
            train_generator(self.cohort, self.preprocess, config, out / "bundle", work=out / "work")
        return GeneratorBundle.load(out / "bundle")

    def distance(self, bundle: GeneratorBundle, sampler: dict[str, float], split: str, seed: int) -> float:
        """Fréchet distance of drawn images to those of a split, for its kind of prompts."""
        plan = plan_match(self.cohort, self.images, seed, schema=bundle.facts.conditions)
        settings = resolved(bundle, SamplerConfig.model_validate({"steps": STEPS_OF_SAMPLING, **sampler}))
        drawn = np.concatenate([self._drawn(bundle, part, settings) for part in parts(plan, bundle.facts.micro_batch)])
        return frechet_distance(self._features(drawn), self.judges[split])

    def floor(self) -> float:
        """Distance between the real images of ``val`` and ``test``."""
        return frechet_distance(self.judges["val"], self.judges["test"])

    def _drawn(self, bundle: GeneratorBundle, part: Any, settings: dict[str, Any]) -> Array:
        stored = draw(bundle, part, settings)
        return np.stack([self.preprocess.apply(pixels) for pixels in stored])

    def _features(self, images: Array) -> Array:
        with torch.inference_mode():
            blocks = [self.bank(torch.from_numpy(images[start : start + 128])) for start in range(0, len(images), 128)]
        return np.concatenate([block.numpy() for block in blocks]).astype(np.float64)


def parts(plan: SamplingPlan, size: int) -> Iterator[Any]:
    """A plan in micro-batches."""
    images = list(plan)
    for start in range(0, len(images), size):
        yield images[start : start + size]


def search(shift: Shift, trials: tuple[Trial, ...]) -> tuple[Trial, dict[str, float], list[dict[str, Any]]]:
    """The setting of an arm that is nearest to ``val``, and all that was tried."""
    tried, best = [], None
    for trial in trials:
        bundle = shift.bundle(trial, seed=0)
        for sampler in trial.samplers:
            value = shift.distance(bundle, sampler, "val", seed=1)
            tried.append({"rate": trial.rate, "tuning": trial.tuning, "sampler": sampler, "val": value})
            print(f"  {trial.rate:g} {trial.tuning} {sampler}: val {value:.4f}", flush=True)
            if best is None or value < best[0]:
                best = (value, trial, sampler)
    assert best is not None  # noqa: S101 - every arm has trials
    return best[1], best[2], tried


def main() -> None:
    """Compare the arms and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the chosen setting")
    parser.add_argument("--work", type=Path, default=Path("runs/latent_drifting"))
    options = parser.parse_args()
    shift = Shift(options.base, Cohort.open(options.cohort), options.steps, options.images, options.work)
    arms = {}
    for name, trials in ARMS.items():
        print(name, flush=True)
        trial, sampler, tried = search(shift, trials)
        scores = [
            shift.distance(shift.bundle(trial, seed), sampler, "test", seed=2 + seed) for seed in range(options.seeds)
        ]
        arms[name] = {
            "chosen": {"rate": trial.rate, "tuning": trial.tuning, "sampler": sampler},
            "test": {"mean": float(np.mean(scores)), "low": min(scores), "high": max(scores), "seeds": options.seeds},
            "tried": tried,
        }
        print(f"  test {np.mean(scores):.4f} [{min(scores):.4f}, {max(scores):.4f}]", flush=True)
    result = {
        "steps": options.steps,
        "images": options.images,
        "training_images": len(shift.cohort.rows("train")),
        "real_against_real": shift.floor(),
        "arms": arms,
        "machine": machine(),
        "versions": versions(),
    }
    print(write_result("latent_drifting", result))


if __name__ == "__main__":
    main()
