"""Sampling images a second at equal Fréchet distance, beside MONAI's 1000-step DDPM loop on the same trained network.

Both draw for the same prompts, unguided; rounds of ours at several numbers of steps and a round of theirs alternate.
The Fréchet distance of each is measured against one half of the test split, in features of fixed filters, beside that
of the other half. Few images make that distance noisy, so ours is drawn again at other seeds: the range over them says
which difference to theirs means something. Run by hand, on a quiet machine, with a bundle and the cohort that it was
trained on::

    python -m benchmarks.sampling_speed --bundle runs/mednist/bundle --cohort runs/mednist/cohort --images 32
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.inferers import LatentDiffusionInferer
from monai.networks.schedulers import DDPMScheduler

from benchmarks.measuring import now, paired_ratio, rate, write_result
from benchmarks.peer import PeerAutoencoder, PeerDenoiser
from medphantom.cohorts.preprocess import network_images
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.encoder import encode_prompts
from medphantom.conditioning.plan import PlannedImage, plan_match
from medphantom.core.records import Array
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import SamplerConfig
from medphantom.generators.generate import draw, resolved
from medphantom.generators.reproducible import reproducible
from medphantom.generators.sampler import noise_of
from medphantom.learning.devices import resolve_device
from medphantom.quality.fidelity.frechet import frechet_distance
from medphantom.quality.networks.filters import FilterBank


class Peer:
    """MONAI's sampling loop with its 1000-step scheduler, unguided."""

    def __init__(self, bundle: GeneratorBundle, steps: int, device: str) -> None:
        if bundle.facts.objective.kind != "flow" or bundle.facts.objective.shift != 1:
            raise SystemExit("the peer's time table is written for the unshifted flow objective")
        self.bundle, self.device = bundle.to(device), device
        self.scheduler = DDPMScheduler(
            num_train_timesteps=steps,
            schedule="scaled_linear_beta",
            beta_start=0.0015,
            beta_end=0.0195,
            clip_sample=False,
        )
        self.scheduler.set_timesteps(steps)
        self.inferer = LatentDiffusionInferer(self.scheduler)
        self.autoencoder = PeerAutoencoder(bundle.autoencoder, bundle.facts.latent_scaling)
        self.denoiser = PeerDenoiser(bundle.denoiser, self.scheduler.alphas_cumprod.to(device))

    def draw(self, images: Sequence[PlannedImage]) -> Array:
        """Network images (n, C, *size) of a micro-batch, from the noise that ours start from."""
        facts = self.bundle.facts
        conditions = encode_prompts(facts.conditions, [image.prompt for image in images]).to(self.device)
        noise = noise_of([image.seed for image in images], facts.latent_shape).to(self.device)
        with reproducible(facts.threads), torch.inference_mode():
            drawn = self.inferer.sample(
                input_noise=noise,
                autoencoder_model=self.autoencoder,
                diffusion_model=self.denoiser,
                conditioning=self.denoiser.tokens(conditions),
                verbose=False,
            )
        return drawn.clamp(-1, 1).cpu().numpy()


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--repeats", type=int, default=5, help="further seeds of ours, for the noise of the distance")
    parser.add_argument("--peer-steps", type=int, default=1000)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    bundle, cohort = GeneratorBundle.load(arguments.bundle), Cohort.open(arguments.cohort)
    result = measure(
        bundle,
        cohort,
        arguments.steps,
        per_round=arguments.images,
        rounds=arguments.rounds,
        repeats=arguments.repeats,
        peer_steps=arguments.peer_steps,
        device=resolve_device(arguments.device),
    )
    write_result("sampling_speed", result)


def measure(
    bundle: GeneratorBundle,
    cohort: Cohort,
    steps: Sequence[int],
    *,
    per_round: int,
    rounds: int,
    repeats: int,
    peer_steps: int,
    device: Literal["cpu", "cuda"],
) -> dict[str, Any]:
    """Alternate rounds of both, then compare what they drew with the test split."""
    ours = {count: Ours(bundle, count, device) for count in steps}
    peer = Peer(bundle, peer_steps, device)
    plans = [plan_match(cohort, per_round * rounds, seed=s, schema=bundle.facts.conditions) for s in range(1 + repeats)]
    names = [*(str(count) for count in steps), "monai"]
    draws = [*(one.draw for one in ours.values()), peer.draw]
    times: dict[str, list[float]] = {name: [] for name in names}
    drawn: dict[str, list[Array]] = {name: [] for name in names}
    size = bundle.facts.micro_batch
    ours[steps[0]].draw(plans[0].images[:size])  # warms up
    for start in range(0, len(plans[0]), per_round):
        batches = [plans[0].images[at : at + size] for at in range(start, start + per_round, size)]
        for name, draw_batch in zip(names, draws, strict=True):
            began = now()
            drawn[name] += [draw_batch(batch) for batch in batches]
            times[name].append(now() - began)
        print(f"{start + per_round} of {len(plans[0])} images:", {name: round(times[name][-1], 1) for name in names})
    distance = Distance(cohort, bundle, len(plans[0]))
    again = {
        str(count): [
            distance(np.concatenate([one.draw(plan.images[at : at + size]) for at in range(0, len(plan), size)]))
            for plan in plans[1:]
        ]
        for count, one in ours.items()
    }
    return {
        "setting": {
            **ours[steps[0]].settings,
            "steps": list(steps),
            "images": len(plans[0]),
            "rounds": rounds,
            "monai": f"DDPMScheduler, {peer_steps} steps, unguided, float32",
            "bundle": bundle.digest,
            "latent_shape": list(bundle.facts.latent_shape),
        },
        "images_per_s": {name: rate(per_round, times[name]) for name in names},
        "times_as_fast": {name: paired_ratio(times[name], times["monai"]) for name in names[:-1]},
        "frechet_distance": {
            **{name: distance(np.concatenate(drawn[name])) for name in names},
            "other_seeds": again,
            "real": distance.real,
            "n": distance.images,
        },
    }


class Ours:
    """Our sampler at one number of steps, unguided."""

    def __init__(self, bundle: GeneratorBundle, steps: int, device: Literal["cpu", "cuda"]) -> None:
        self.bundle = bundle
        self.settings = resolved(bundle, SamplerConfig(steps=steps, guidance=1.0, device=device))

    def draw(self, images: Sequence[PlannedImage]) -> Array:
        """Network images (n, C, *size) of a micro-batch."""
        preprocess = self.bundle.facts.preprocess
        return np.stack([preprocess.apply(array) for array in draw(self.bundle, images, self.settings)])


class Distance:
    """Fréchet distance of images to one half of the test split, at most so many of each.

    Attributes:
        images: how many of each.
        real: distance of the other half.
    """

    def __init__(self, cohort: Cohort, bundle: GeneratorBundle, most: int) -> None:
        rows = np.random.default_rng(0).permutation(cohort.rows("test"))
        self.images = min(len(rows) // 2, most)
        self._network = FilterBank().eval()
        parts = rows[: self.images], rows[self.images : 2 * self.images]
        first, second = (network_images(cohort, [int(r) for r in part], bundle.facts.preprocess) for part in parts)
        self._first = self._features(first)
        self.real = self(second)

    def __call__(self, images: Array) -> float:
        """Distance of network images (n, C, *size)."""
        return float(frechet_distance(self._features(images[: self.images]), self._first))

    def _features(self, images: Array) -> Array:
        with torch.inference_mode():
            found: Array = self._network(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))).numpy()
        return found


if __name__ == "__main__":
    main()
