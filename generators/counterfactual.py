"""Counterfactual images by abduction of the noise, action on the prompt, and prediction of the changed image.

Abduction runs the sampler backwards from the image's latent, conditioned on its known factors; prediction runs it
forwards again. The factual image is processed in the same way, so that a null action shows the error of the method
itself, and nothing is ever copied from the source. The way back (``reversed``) starts from the counterfactual image,
not from its latent, and uses nothing of the source but its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from medphantom.cohorts.preprocess import network_images
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.conditioner import row_prompts
from medphantom.conditioning.encoder import Conditions
from medphantom.conditioning.guidance import guided
from medphantom.conditioning.prompt import Intervention, Prompt
from medphantom.core.errors import InputError
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import CounterfactualConfig
from medphantom.generators.inversion import Denoise, Step, ddim_step, follow, invert, time_grid
from medphantom.generators.latents import scaled, unscaled
from medphantom.generators.objective import add_noise
from medphantom.generators.reproducible import reproducible
from medphantom.generators.sampler import noise_of
from medphantom.learning.devices import resolve_device

MADE = ("factual", "counterfactual", "reversed", "reconstruction")


@dataclass(frozen=True)
class Counterfactuals:
    """Images of one method, in network values -1…1, float32 ``(N, C, *size)``.

    Attributes:
        factual: Images under the known factors, which is the null action.
        counterfactual: Images under the intervention.
        reversed: The counterfactual taken back: abduction under the intervention, prediction under the known factors;
            ``None`` if not requested.
        reconstruction: Source images reconstructed by the autoencoder alone.
        source: Source images in network values.
        before: Factual prompt of each image, from the cohort.
        after: Prompt of each counterfactual.
    """

    factual: Array
    counterfactual: Array
    reversed: Array | None
    reconstruction: Array
    source: Array
    before: tuple[Prompt, ...]
    after: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.source)


def counterfactual_images(
    bundle: GeneratorBundle,
    cohort: Cohort,
    rows: Sequence[int],
    interventions: Sequence[Intervention],
    config: CounterfactualConfig,
    *,
    back: bool = True,
    progress: Progress | None = None,
) -> Counterfactuals:
    """Generate counterfactuals of rows of a cohort.

    Args:
        bundle: Bundle of the generator.
        cohort: Real images, whose labels and attributes are the factual prompts.
        rows: Row numbers of the images.
        interventions: Interventions, one per row.
        config: Counterfactual method and its settings.
        back: Whether to take each counterfactual back, which doubles the cost.
        progress: Callback that receives the number of steps done, of those of all images together.

    Raises:
        InputError: If there are no rows, or the generator reads only text or masks, or was distilled.
        PromptError: If an intervention is on a value that the generator was not trained on.
    """
    schema = bundle.facts.conditions
    bundle.facts.require_whole_path("a counterfactual")
    if not len(rows) or len(rows) != len(interventions):
        raise InputError(
            f"counterfactuals need images and one intervention each, got {len(rows)} and {len(interventions)}"
        )
    if "labels" not in schema.reads and not schema.templated:
        raise InputError("this generator reads no labels to intervene on", "train it with conditioning.labels")
    factual = row_prompts(cohort, rows, schema)
    changed = [action.applied(prompt, schema) for action, prompt in zip(interventions, factual, strict=True)]
    source = network_images(cohort, rows, bundle.facts.preprocess)
    made = {name: np.empty_like(source) for name in MADE if back or name != "reversed"}
    size, device = config.micro_batch or bundle.facts.micro_batch, resolve_device(config.device)
    bundle.to(device)
    starts = range(0, len(rows), size)
    steps = _Steps(config, len(starts) * (2 if back else 1), progress)
    of_prompts = bundle.denoiser.conditioner.of_prompts
    with reproducible(config.threads or bundle.facts.threads), torch.inference_mode():
        for start in starts:
            places = [min(start + place, len(rows) - 1) for place in range(size)]  # padded, as in sampling
            total = min(size, len(rows) - start)
            said = [of_prompts([p[i] for i in places]).to(device) for p in (factual, changed)]
            batch = torch.from_numpy(source[places]).to(device)
            for name, images in _through(bundle, steps, batch, places, (said[0], said[1]), back=back).items():
                made[name][start : start + total] = images[:total].cpu().numpy()
    return Counterfactuals(
        made["factual"],
        made["counterfactual"],
        made.get("reversed"),
        made["reconstruction"],
        source,
        tuple(factual),
        tuple(changed),
    )


class _Steps:
    """Steps of a method, told one by one: each is one call of the denoiser with one or two prompts.

    Args:
        config: Counterfactual method and its settings.
        ways: Number of ways from images to their noise and back.
        progress: Callback that receives their number.
    """

    def __init__(self, config: CounterfactualConfig, ways: int, progress: Progress | None) -> None:
        abduced = 0 if config.method == "sdedit" else config.iterations
        self.config, self.done, self.total = config, 0, ways * config.steps * (abduced + 2)
        self._progress = progress

    def counted(self, step: Step) -> Step:
        """Return the step, told each time it is taken."""

        def taken(x: Tensor, t: float, s: float) -> Tensor:
            found = step(x, t, s)
            self.done += 1
            if self._progress is not None:
                self._progress(self.done, self.total, "counterfactual steps")
            return found

        return taken


def _through(
    bundle: GeneratorBundle,
    counted: _Steps,
    images: Tensor,
    places: Sequence[int],
    prompts: tuple[Conditions, Conditions],
    *,
    back: bool,
) -> dict[str, Tensor]:
    """Return the results of one micro-batch by name (:data:`MADE`)."""
    scaling, (before, after), config = bundle.facts.latent_scaling, prompts, counted.config

    def decoded(latents: Tensor) -> Tensor:
        return bundle.autoencoder.decode(unscaled(latents, scaling)).clamp(-1, 1)

    def noise(purpose: str) -> Tensor:
        seeds = [derive_seed(config.seed, purpose, place) for place in places]
        return noise_of(seeds, latents.shape[1:]).to(latents.device)

    latents = scaled(bundle.autoencoder.encode(images)[0], scaling)
    made = {"reconstruction": decoded(latents)}
    there = _Method(bundle, counted, before)
    factual, counterfactual = there.predict(there.abduct(latents, noise("counterfactual")), after)
    made |= {"factual": decoded(factual), "counterfactual": decoded(counterfactual)}
    if back:
        again = scaled(bundle.autoencoder.encode(made["counterfactual"])[0], scaling)
        returned = _Method(bundle, counted, after)
        made["reversed"] = decoded(returned.predict(returned.abduct(again, noise("reversed")), before)[1])
    return made


class _Method:
    """Abduction and prediction of one micro-batch.

    Args:
        bundle: Bundle of the generator.
        steps: Settings of the method, told of every step.
        before: Factual conditions of the images.
    """

    def __init__(self, bundle: GeneratorBundle, steps: _Steps, before: Conditions) -> None:
        self.denoiser, self.objective = bundle.denoiser, bundle.facts.objective
        self.steps, self.config, self.before = steps, steps.config, before
        self.times = time_grid(self.config.steps, self.config.strength)

    def abduct(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Return what leads to these latents at time ``strength``: by exact inversion, or by new noise (SDEdit)."""
        if self.config.method == "sdedit":  # Meng et al. 2022, algorithm 1
            time_B = torch.full((len(latents),), self.config.strength, device=latents.device)
            return add_noise(self.objective, latents, noise, time_B)
        step = self.steps.counted(ddim_step(lambda x, t: self.denoiser(x, t, self.before), self.objective))
        return invert(step, latents, self.times, iterations=self.config.iterations)

    def predict(self, begin: Tensor, wanted: Conditions) -> tuple[Tensor, Tensor]:
        """Return the latents that the sampler reaches under the factual conditions and under ``wanted``."""
        if self.config.method == "sdedit":
            guided_steps = (ddim_step(self._guided(said), self.objective) for said in (self.before, wanted))
            steps = [self.steps.counted(step) for step in guided_steps]
            return follow(steps[0], begin, self.times), follow(steps[1], begin, self.times)
        path, differences = self._own_path(begin, wanted)
        return path[-1], self._changed_path(path, change_region(differences, self.config.locality), wanted)

    def _own_path(self, begin: Tensor, wanted: Conditions) -> tuple[list[Tensor], list[Tensor]]:
        """Return the path under the factual conditions, and at each step the difference that ``wanted`` makes."""
        path, differences = [begin], []
        for t, s in pairwise(self.times):

            def denoise(x: Tensor, time_B: Tensor) -> Tensor:
                before, difference = self._contrast(x, time_B, wanted)
                differences.append(difference)
                return before

            path.append(self._step(denoise)(path[-1], t, s))
        return path, differences

    def _changed_path(self, path: list[Tensor], region: Tensor, wanted: Conditions) -> Tensor:
        """Return ``D(x, before) + w (D(x, wanted) - D(x, before))`` within the region, and the image's own path
        outside.

        Guidance relative to an empty prompt would amplify all conditions, changed or not, and the image would drift
        where the intervention has no effect; compare Brooks et al. 2023, equation 3, with two conditions.
        """

        def denoise(x: Tensor, time_B: Tensor) -> Tensor:
            before, difference = self._contrast(x, time_B, wanted)
            return before + self.config.guidance * region * difference

        x = path[0]
        for place, (t, s) in enumerate(pairwise(self.times), start=1):
            x = torch.lerp(path[place], self._step(denoise)(x, t, s), region)
        return x

    def _contrast(self, x: Tensor, time_B: Tensor, wanted: Conditions) -> tuple[Tensor, Tensor]:
        """Return the denoiser's output under the factual conditions, and its difference under ``wanted``."""
        both = wanted.joined(self.before)
        after, before = self.denoiser(torch.cat([x, x]), torch.cat([time_B, time_B]), both).float().chunk(2)
        return before, after - before

    def _step(self, denoise: Denoise) -> Step:
        drift = self.config.drift if self.config.method == "latent_drifting" else 0.0
        return self.steps.counted(ddim_step(denoise, self.objective, drift=drift))

    def _guided(self, wanted: Conditions) -> Denoise:
        return guided(self.denoiser, wanted, scale=self.config.guidance)


def change_region(differences: Sequence[Tensor], locality: float) -> Tensor:
    """Return where two prompts differ about an image, 0…1, ``(B, 1, *latent)``.

    It follows DiffEdit (Couairon et al. 2023, section 3.2), with the differences of all steps of the image's own path
    instead of those at one noise level: their mean magnitude, relative to its maximum. Below ``locality`` it counts as
    0, above twice that as 1. Smoothing over neighbours would include, in a small latent, more of the surroundings of
    the change than it gains inside (measured against the true counterfactuals of simulated patients).

    Args:
        differences: Differences of the denoiser's outputs at each step, ``(B, L, *latent)``.
        locality: Threshold, 0…0.5; 0 means everywhere.
    """
    size = torch.stack([step.abs().mean(dim=1, keepdim=True) for step in differences]).mean(dim=0)
    if locality == 0:
        return torch.ones_like(size)
    largest = size.flatten(1).amax(dim=1).reshape(-1, *[1] * (size.ndim - 1))
    return ((size / largest.clamp_min(1e-12) - locality) / locality).clamp(0, 1)
