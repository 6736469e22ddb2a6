"""Time of a differentially private step over a plain one, for full, attention-only and LoRA fine-tuning.

The same denoiser, latents, expected batch and precision; each image looked at once per step. Both run in
:func:`medphantom.learning.fit.fit`, in turns; a step's time is that between two calls of its progress, without the
first ones. Run by hand on a quiet machine::

    python -m benchmarks.private_step_speed --batch-size 64 --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional as F

from benchmarks.measuring import now, write_result
from benchmarks.training_speed import LABELS, networks
from medphantom.conditioning.encoder import Conditions
from medphantom.generators.config import FineTuning, GeneratorConfig
from medphantom.generators.denoiser import DenoiserLearner
from medphantom.generators.facts import LatentScaling
from medphantom.generators.methods import make_trainable
from medphantom.learning.batches import TensorBatches
from medphantom.learning.fit import fit
from medphantom.learning.fit_config import FitConfig
from medphantom.learning.private_config import PrivateFitConfig
from medphantom.learning.private_steps import Private, Units

Method = Literal["full", "attention", "lora"]
Gradients = Literal["passes", "hooks"]
METHODS: tuple[Method, ...] = ("full", "attention", "lora")
GRADIENTS: tuple[Gradients, ...] = ("passes", "hooks")
WARM_UP = 2
SIZE = 64


class Steps:
    """Progress that notes the time of every step."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """As :class:`medphantom.core.progress.Progress`."""
        del done, total, what
        self.moments.append(now())

    def seconds(self) -> float:
        """Median time of a step."""
        gaps = [late - early for early, late in zip(self.moments, self.moments[1:], strict=False)]
        return statistics.median(gaps[WARM_UP - 1 :])


def step_seconds(method: Method, gradients: Gradients | None, *, total: int, batch: int, steps: int) -> float:
    """Median seconds of a step; without ``gradients``: of a plain one."""
    config = GeneratorConfig()
    _, denoiser = networks(config, (SIZE, SIZE))
    make_trainable(denoiser, FineTuning(method=method))
    shape = config.autoencoder.latent_shape((SIZE, SIZE))
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(total, *shape, generator=generator)
    empty = torch.zeros(total, 0)
    conditions = Conditions(F.one_hot(torch.arange(total) % len(LABELS), len(LABELS)), empty, empty.long())
    learner = DenoiserLearner(
        denoiser,
        config.denoiser,
        objective=config.objective,
        scaling=LatentScaling(mean=(0.0,) * shape[0], std=(1.0,) * shape[0]),
        monitored={},
        seed=0,
        decode=lambda latents: latents,
    )
    batches = TensorBatches({"mean": mean, "log_var": torch.full_like(mean, -10), **conditions.tensors()})
    private = None
    if gradients is not None:
        private = Private(PrivateFitConfig(epsilon=8, draws=1, gradients=gradients), Units(torch.arange(total)))
    fitting = FitConfig(
        steps=steps + WARM_UP,
        batch_size=batch,
        validate_every=0,
        checkpoint_every=steps + WARM_UP,
        tracker="none",
        precision="fp32",
    )
    noted = Steps()
    with tempfile.TemporaryDirectory() as work:
        fit(learner, batches, fitting, work=Path(work), progress=noted, private=private)
    return noted.seconds()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    sizes = {"total": given.images, "batch": given.batch_size, "steps": given.steps}
    result: dict[str, Any] = {"settings": {**vars(given), "precision": "fp32", "threads": torch.get_num_threads()}}
    for method in METHODS:
        rounds: list[dict[str, float]] = []
        for _ in range(given.rounds):
            one = {"plain": step_seconds(method, None, **sizes)}
            one |= {name: step_seconds(method, name, **sizes) for name in GRADIENTS}
            rounds.append(one)
        ratios = {name: sorted(one[name] / one["plain"] for one in rounds) for name in GRADIENTS}
        result[method] = {
            name: {"median": statistics.median(found), "lowest": found[0], "highest": found[-1]}
            for name, found in ratios.items()
        }
        result[method]["rounds"] = rounds
        print(method, {name: round(statistics.median(found), 2) for name, found in ratios.items()}, flush=True)
    print(write_result("private_step_speed", result))


if __name__ == "__main__":
    main()
