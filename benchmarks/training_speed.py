"""Training images a second of the denoiser, beside MONAI's own latent-diffusion loop with the same networks.

MONAI's loop is that of its tutorials: ``LatentDiffusionInferer`` encodes every batch again at every step, and
``DDPMScheduler`` adds the noise. Ours encodes the cohort once and draws from the kept posteriors; the time of that one
encoding is added for a whole run. MONAI's loop runs twice, at our precision and at float32, which is its own choice on
a CPU. All three alternate within one process. Run by hand on a quiet machine::

    python -m benchmarks.training_speed --size 64 --batch-size 64
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from monai.inferers import LatentDiffusionInferer
from monai.networks.schedulers import DDPMScheduler
from torch.nn import functional as F

from benchmarks.measuring import now, paired_ratio, rate, write_result
from benchmarks.peer import PeerAutoencoder, PeerDenoiser
from medphantom.conditioning.conditioner import Conditioner
from medphantom.conditioning.encoder import Conditions
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.generators.autoencoder import Autoencoder, build_autoencoder
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.denoiser import Denoiser, DenoiserLearner, build_denoiser
from medphantom.generators.facts import LatentScaling
from medphantom.generators.latents import balanced_scaling, encode_all
from medphantom.learning.batches import TensorBatches
from medphantom.learning.devices import resolve_device, resolve_precision
from medphantom.learning.fit import fit

LABELS = ("a", "b", "c", "d", "e", "f")


class PeerLoop:
    """MONAI's training step on the same images, conditions, batch size and optimiser.

    Args:
        config: its denoiser fit gives batch size and device.
        precision: of the computation.
        images: (N, C, *size).
        conditions: of the images.
        scaling: of the latents.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        *,
        precision: Literal["fp32", "bf16"],
        images: torch.Tensor,
        conditions: Conditions,
        scaling: LatentScaling,
    ) -> None:
        autoencoder, denoiser = networks(config, images.shape[2:])
        self.latent_shape = config.autoencoder.latent_shape(images.shape[2:])
        self.device = resolve_device(config.denoiser_fit.device)
        self.precision = precision
        self.images, self.conditions, self.batch = images, conditions, config.denoiser_fit.batch_size
        self.autoencoder = PeerAutoencoder(autoencoder, scaling).to(self.device)
        self.denoiser = PeerDenoiser(denoiser).to(self.device).train()
        self.scheduler = DDPMScheduler(num_train_timesteps=1000, schedule="scaled_linear_beta", clip_sample=False)
        self.inferer = LatentDiffusionInferer(self.scheduler)
        self.optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=True)

    def step(self) -> None:
        """One optimiser step."""
        rows = torch.randint(len(self.images), (self.batch,))
        images, conditions = self.images[rows].to(self.device), self.conditions[rows].to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            noise = torch.randn(self.batch, *self.latent_shape, device=self.device)
            times = torch.randint(1000, (self.batch,), device=self.device)
            predicted = self.inferer(
                inputs=images,
                autoencoder_model=self.autoencoder,
                diffusion_model=self.denoiser,
                noise=noise,
                timesteps=times,
                condition=self.denoiser.tokens(conditions),
            )
            loss = F.mse_loss(predicted.float(), noise)
        loss.backward()
        self.optimizer.step()


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps-per-round", type=int, default=8)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--name", default="", help="ending of the result file's name")
    arguments = parser.parse_args()
    config = GeneratorConfig()
    steps = arguments.steps_per_round * (arguments.rounds + 1)  # the first round warms up
    fitting = config.denoiser_fit.model_copy(
        update={
            "steps": steps,
            "batch_size": arguments.batch_size,
            "precision": arguments.precision,
            "validate_every": 0,
            "checkpoint_every": steps,
            "tracker": "none",
        }
    )
    config = config.model_copy(update={"denoiser_fit": fitting})
    result = measure(config, arguments.size, arguments.images, arguments.rounds, arguments.steps_per_round)
    write_result(f"training_speed{arguments.name}", result)


def measure(config: GeneratorConfig, size: int, total: int, rounds: int, per_round: int) -> dict[str, Any]:
    """Alternate rounds of both loops.

    Ours runs as users run it, in :func:`medphantom.learning.fit.fit`; its progress callback is where the other takes
    its turn.
    """
    images = torch.rand(total, 1, size, size) * 2 - 1
    empty = torch.zeros(total, 0)
    conditions = Conditions(F.one_hot(torch.arange(total) % len(LABELS), len(LABELS)), empty, empty.long())
    autoencoder, denoiser = networks(config, (size, size))
    autoencoder.to(resolve_device(config.denoiser_fit.device))
    started = now()
    latents = encode_all(autoencoder, images.half().numpy())
    encoding = now() - started
    scaling = balanced_scaling(autoencoder, latents, config.latent_balance, 0)
    ours: Literal["fp32", "bf16"] = resolve_precision(
        config.denoiser_fit.precision, resolve_device(config.denoiser_fit.device)
    )
    peers = {
        name: PeerLoop(config, precision=precision, images=images, conditions=conditions, scaling=scaling)
        for name, precision in (("monai", ours), ("monai_fp32", "fp32"))
    }
    learner = DenoiserLearner(
        denoiser,
        config.denoiser,
        objective=config.objective,
        scaling=scaling,
        monitored={},
        seed=0,
        decode=autoencoder.decode,
    )
    batches = TensorBatches({"mean": latents.mean, "log_var": latents.log_var, **conditions.tensors()})
    turns = Turns(peers, per_round)
    with tempfile.TemporaryDirectory() as work:
        fit(learner, batches, config.denoiser_fit, work=Path(work), progress=turns)
    setting = {"size": size, "images": total, "precision": ours, "threads": torch.get_num_threads()}
    steady = {name: times[1:] for name, times in turns.times.items()}  # the first round warms up
    return _result(config, {**setting, "steps_per_round": per_round}, encoding, steady)


class Turns:
    """The progress callback of our fit: after each round of its steps, the peers take theirs."""

    def __init__(self, peers: dict[str, PeerLoop], per_round: int) -> None:
        self.peers, self.per_round = peers, per_round
        self.times: dict[str, list[float]] = {"ours": [], **{name: [] for name in peers}}
        self.since = now()

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """As :class:`medphantom.core.progress.Progress`."""
        del total, what
        if done % self.per_round:
            return
        self.times["ours"].append(now() - self.since)
        for name, peer in self.peers.items():
            began = now()
            for _ in range(self.per_round):
                peer.step()
            self.times[name].append(now() - began)
        self.since = now()


def networks(config: GeneratorConfig, size: Sequence[int]) -> tuple[Autoencoder, Denoiser]:
    """Freshly made networks, the autoencoder frozen; the same ones at every call."""
    schema = ConditionSchema(labels=LABELS, exclusive=True)
    autoencoder = build_autoencoder(config.autoencoder, spatial_dims=2, image_channels=1, seed=0)
    denoiser = build_denoiser(config.denoiser, Conditioner(schema), config.autoencoder.latent_shape(size), seed=0)
    return autoencoder.eval().requires_grad_(False), denoiser


def _result(
    config: GeneratorConfig, setting: dict[str, Any], encoding: float, times: dict[str, list[float]]
) -> dict[str, Any]:
    per_round = setting["steps_per_round"]
    images = per_round * config.denoiser_fit.batch_size
    run = GeneratorConfig().denoiser_fit.steps  # the encoding is shared out over a run of the default length
    shared = encoding * per_round / run
    whole = [value + shared for value in times["ours"]]
    return {
        "setting": {
            **setting,
            "batch_size": config.denoiser_fit.batch_size,
            "autoencoder": config.autoencoder.model_dump(mode="json"),
            "denoiser": config.denoiser.model_dump(mode="json"),
            "rounds": len(times["ours"]),
        },
        "ours_images_per_s": rate(images, whole),
        "monai_images_per_s": rate(images, times["monai"]),
        "monai_fp32_images_per_s": rate(images, times["monai_fp32"]),
        "times_as_fast": paired_ratio(whole, times["monai"]),
        "times_as_fast_as_fp32": paired_ratio(whole, times["monai_fp32"]),
        "encoding_once_s": encoding,
        "note": f"ours includes its share of encoding {setting['images']} images once in a run of {run} steps",
    }


if __name__ == "__main__":
    main()
