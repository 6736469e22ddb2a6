"""Low-strength edits: images that are partly noised and denoised again, like copies that someone tries to disguise."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from medphantom.conditioning.encoder import Conditions
from medphantom.conditioning.prompt import Prompt
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.distillation import whole_windows
from medphantom.generators.generate import batch_by_batch
from medphantom.generators.inversion import ddim_step, follow, time_grid
from medphantom.generators.latents import scaled, unscaled
from medphantom.generators.objective import add_noise
from medphantom.generators.sampler import noise_of
from medphantom.learning.devices import resolve_device

STRENGTH = 0.3
STEPS = 6


def edited(bundle: GeneratorBundle, images: Array, *, strength: float = STRENGTH, seed: int = 0) -> Array:
    """Return images noised up to ``strength`` and denoised without a prompt (SDEdit; Meng et al. 2022, algorithm 1).

    Args:
        bundle: Bundle of the generator.
        images: Images, float ``(N, C, *size)`` in -1…1.
        strength: How far they are taken back towards noise, above 0 (not at all), at most 1 (pure noise). A distilled
            generator takes them back over whole windows, at least as far.
        seed: Seed of the noise.

    Returns:
        float32 images of the same shape, in -1…1.

    Raises:
        InputError: If the images do not have the generator's size.
    """
    facts, device = bundle.facts, resolve_device("auto")
    bundle.to(device)
    steps = STEPS
    if facts.few_calls is not None:
        strength, steps = whole_windows(facts.objective, facts.few_calls.calls, strength)

    def edit(block: Tensor, rows: range) -> Tensor:
        latents = scaled(bundle.autoencoder.encode(block)[0], facts.latent_scaling)
        noise = noise_of([derive_seed(seed, "edit", row) for row in rows], latents.shape[1:]).to(device)
        time_B = torch.full((len(rows),), strength, device=device)
        nothing = bundle.denoiser.conditioner.of_prompts([Prompt()] * len(rows)).to(device)
        step = ddim_step(partial(_denoised, bundle, nothing), facts.objective)
        drawn = follow(step, add_noise(facts.objective, latents, noise, time_B), time_grid(steps, strength))
        decoded: Tensor = bundle.autoencoder.decode(unscaled(drawn, facts.latent_scaling))
        return decoded

    return batch_by_batch(bundle, images, edit)


def _denoised(bundle: GeneratorBundle, said: Conditions, x_t: Tensor, time_B: Tensor) -> Tensor:
    found: Tensor = bundle.denoiser(x_t, time_B, said)
    return found
