"""Sampling images a second at equal Fréchet distance, beside MONAI's 1000-step DDPM loop on the same trained network.

Both draw for the same prompts; a round of ours and a round of theirs alternate. The Fréchet distance of each is
measured against the test split, in features of fixed filters, beside that of two halves of the test split. Run by hand,
on a quiet machine, with a bundle and the cohort that it was trained on::

    python -m benchmarks.sampling_speed --bundle runs/mednist/bundle --cohort runs/mednist/cohort --images 96
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import LatentDiffusionInferer
from monai.networks.schedulers import DDPMScheduler

from benchmarks.measuring import paired_ratio, rate, write_result
from benchmarks.peer import PeerAutoencoder, PeerDenoiser
from cohorts.preprocess import network_images
from cohorts.records import Array
from cohorts.store import Cohort
from conditioning.encoder import encode_prompts
from conditioning.plan import PlannedImage, plan_match
from generators.bundle import GeneratorBundle
from generators.config import SamplerConfig
from generators.generate import draw, resolved
from generators.reproducible import reproducible
from quality.filters import FilterBank
from quality.frechet import frechet_distance


class Peer:
    """MONAI's sampling loop with its 1000-step scheduler, unguided."""

    def __init__(self, bundle: GeneratorBundle, steps: int) -> None:
        if bundle.facts.objective.kind != "flow" or bundle.facts.objective.shift != 1:
            raise SystemExit("the peer's time table is written for the unshifted flow objective")
        self.bundle = bundle
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
        self.denoiser = PeerDenoiser(bundle.denoiser, self.scheduler.alphas_cumprod)

    def draw(self, images: Sequence[PlannedImage]) -> Array:
        """Network images (n, C, *size) of a micro-batch."""
        facts = self.bundle.facts
        conditions = encode_prompts(facts.conditions, [image.prompt for image in images])
        noise = torch.randn(len(images), *facts.latent_shape)
        with reproducible(facts.threads), torch.inference_mode():
            drawn = self.inferer.sample(
                input_noise=noise,
                autoencoder_model=self.autoencoder,
                diffusion_model=self.denoiser,
                conditioning=self.denoiser.tokens(conditions),
                verbose=False,
            )
        return drawn.clamp(-1, 1).numpy()


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--peer-steps", type=int, default=1000)
    arguments = parser.parse_args()
    bundle, cohort = GeneratorBundle.load(arguments.bundle), Cohort.open(arguments.cohort)
    sampler = SamplerConfig(steps=arguments.steps, guidance=arguments.guidance, device="cpu")
    result = measure(
        bundle,
        cohort,
        sampler,
        per_round=arguments.images,
        rounds=arguments.rounds,
        peer_steps=arguments.peer_steps,
    )
    write_result("sampling_speed", result)


def measure(
    bundle: GeneratorBundle, cohort: Cohort, sampler: SamplerConfig, *, per_round: int, rounds: int, peer_steps: int
) -> dict[str, Any]:
    """Alternate rounds of both, then compare what they drew with the test split."""
    settings = resolved(bundle, sampler)
    peer = Peer(bundle, peer_steps)
    plan = plan_match(cohort, per_round * rounds, seed=0, schema=bundle.facts.conditions).images
    size, preprocess = settings["micro_batch"], bundle.facts.preprocess
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    drawn: dict[str, list[Array]] = {"ours": [], "theirs": []}
    draw(bundle, plan[:size], settings)  # warms up
    for start in range(0, len(plan), per_round):
        batches = [plan[at : at + size] for at in range(start, start + per_round, size)]
        began = time.perf_counter()
        ours = [draw(bundle, batch, settings) for batch in batches]
        times["ours"].append(time.perf_counter() - began)
        drawn["ours"] += [np.stack([preprocess.apply(array) for array in batch]) for batch in ours]
        began = time.perf_counter()
        drawn["theirs"] += [peer.draw(batch) for batch in batches]
        times["theirs"].append(time.perf_counter() - began)
        print(f"{start + per_round} of {len(plan)} images: {times['ours'][-1]:.1f} s, {times['theirs'][-1]:.1f} s")
    distances = _distances(cohort, bundle, {name: np.concatenate(batches) for name, batches in drawn.items()})
    return {
        "setting": {
            **settings,
            "images": len(plan),
            "rounds": rounds,
            "monai": f"DDPMScheduler, {peer_steps} steps, unguided, float32",
            "bundle": bundle.digest,
            "latent_shape": list(bundle.facts.latent_shape),
        },
        "ours_images_per_s": rate(per_round, times["ours"]),
        "monai_images_per_s": rate(per_round, times["theirs"]),
        "times_as_fast": paired_ratio(times["ours"], times["theirs"]),
        "frechet_distance": distances,
    }


def _distances(cohort: Cohort, bundle: GeneratorBundle, drawn: dict[str, Array]) -> dict[str, float]:
    """Fréchet distance of each set to one half of the test split, and of the other half to it, at equal n."""
    rows = np.random.default_rng(0).permutation(cohort.rows("test"))
    half = min(len(rows) // 2, len(drawn["ours"]))
    network = FilterBank().eval()

    def features(images: Array) -> Array:
        with torch.inference_mode():
            found: Array = network(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))).numpy()
        return found

    first, second = (
        features(network_images(cohort, [int(row) for row in part], bundle.facts.preprocess))
        for part in (rows[:half], rows[half : 2 * half])
    )
    result = {name: frechet_distance(features(images[:half]), first) for name, images in drawn.items()}
    return {**result, "real": frechet_distance(second, first), "n": float(half)}


if __name__ == "__main__":
    main()
