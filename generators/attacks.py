"""Membership inference attacks on a generator's weights: was an image among the training images?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medphantom.cohorts.preprocess import network_images
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.conditioner import row_prompts
from medphantom.conditioning.encoder import Conditions
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.latents import scaled
from medphantom.generators.objective import add_noise, alpha_sigma, denoised, target
from medphantom.generators.reproducible import reproducible
from medphantom.generators.sampler import noise_of
from medphantom.learning.devices import resolve_device

LOSS, PROXIMAL = "loss", "proximal initialization"
LOSS_TIMES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
FIRST_TIME = 0.02  # time at which the image itself stands in for its noised version
PROXIMAL_TIMES = (0.2, 0.4)
NORM = 4


def membership_scores(
    bundle: GeneratorBundle, cohort: Cohort, rows: Sequence[int], *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Array]:
    """Return membership scores of rows; a higher score means that the generator more likely learned from the row.

    *loss*: the denoiser's negative error, over several times and the same noise for every image (Carlini et al. 2023,
    section 5.2; Matsumoto et al. 2023). *proximal initialization*: the negative difference between the noise that the
    denoiser predicts for the image itself and for the image with that noise added (Kong et al. 2024, ICLR, equation 9
    with its 4-norm; arXiv 2305.18355).

    Args:
        bundle: Generator that is attacked.
        cohort: Cohort of real images.
        rows: Row numbers of the images.
        seed: Seed of the noise.
        progress: Callback that receives the number of images done.

    Returns:
        Scores ``(n,)`` by name of the attack.

    Raises:
        InputError: If the generator was distilled.
    """
    facts = bundle.facts
    facts.require_whole_path("an attack on the weights")
    prompts = row_prompts(cohort, rows, facts.conditions)
    device = resolve_device("auto")
    bundle.to(device)
    found: dict[str, list[Array]] = {LOSS: [], PROXIMAL: []}
    with reproducible(facts.threads), torch.inference_mode():
        for start in range(0, len(rows), facts.micro_batch):
            mine = list(rows[start : start + facts.micro_batch])
            images = torch.from_numpy(network_images(cohort, mine, facts.preprocess)).to(device)
            latents = scaled(bundle.autoencoder.encode(images)[0], facts.latent_scaling)
            said = bundle.denoiser.conditioner.of_prompts(prompts[start : start + len(mine)]).to(device)
            attack = _Attack(bundle, latents, said, seed)
            found[LOSS].append(attack.loss())
            found[PROXIMAL].append(attack.proximal())
            if progress is not None:
                progress(start + len(mine), len(rows), "membership")
    return {name: np.concatenate(parts) for name, parts in found.items()}


class _Attack:
    """Both attacks on one batch of latents."""

    def __init__(self, bundle: GeneratorBundle, latents: Tensor, said: Conditions, seed: int) -> None:
        self.bundle, self.latents, self.said, self.seed = bundle, latents, said, seed
        self.objective = bundle.facts.objective

    def _times(self, time: float) -> Tensor:
        return torch.full((len(self.latents),), time, device=self.latents.device)

    def _noise_seen(self, x_t: Tensor, time: float) -> Tensor:
        time_B = self._times(time)
        x0 = denoised(self.objective, x_t, self.bundle.denoiser(x_t, time_B, self.said).float(), time_B)
        alpha, sigma = (float(part) for part in alpha_sigma(self.objective, torch.tensor([time])))
        return (x_t - alpha * x0) / sigma

    def loss(self) -> Array:
        """Return the denoiser's negative error, ``(n,)``: mean over the times, with one noise for every image."""
        total = torch.zeros(len(self.latents), device=self.latents.device)
        for number, time in enumerate(LOSS_TIMES):
            one = noise_of([derive_seed(self.seed, "membership", number)], self.latents.shape[1:])
            noise = one.to(self.latents.device).expand_as(self.latents)
            time_B = self._times(time)
            output = self.bundle.denoiser(add_noise(self.objective, self.latents, noise, time_B), time_B, self.said)
            error = output.float() - target(self.objective, self.latents, noise, time_B)
            total += error.square().flatten(1).mean(dim=1)
        found: Array = -(total / len(LOSS_TIMES)).cpu().numpy()
        return found

    def proximal(self) -> Array:
        """Return the negative difference of predicted noise before and after adding it to the image, ``(n,)``."""
        first = self._noise_seen(self.latents, FIRST_TIME)
        total = torch.zeros(len(self.latents), device=self.latents.device)
        for time in PROXIMAL_TIMES:
            noised = add_noise(self.objective, self.latents, first, self._times(time))
            total += torch.linalg.vector_norm((self._noise_seen(noised, time) - first).flatten(1), ord=NORM, dim=1)
        found: Array = -(total / len(PROXIMAL_TIMES)).cpu().numpy()
        return found
