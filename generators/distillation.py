"""Distillation of a trained denoiser into one that draws in a few calls, from its own images alone.

The path from noise to image is cut into as many windows as there are calls. The trained denoiser follows the paths of
many images with guidance and in small steps; a copy of it then learns the straight way across each window, so that one
Euler step crosses it (piecewise rectified flow: Yan et al. 2024, PeRFlow, arXiv 2405.07510; Liu et al. 2023, rectified
flow). It learns only at the beginnings of the windows, where alone it is called; in a trial the error after 100 steps
was half of what 200 steps at all places left. Guidance becomes a part of the network, which halves the cost of every
call once more. No real image is seen again: what is learned are images that the denoiser drew.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medphantom.conditioning.encoder import Conditions
from medphantom.conditioning.guidance import guided
from medphantom.core.errors import ArtifactError
from medphantom.core.folders import no_space_becomes_one_line
from medphantom.core.guard import reading
from medphantom.core.progress import Progress
from medphantom.generators.config import Distillation, Objective
from medphantom.generators.inversion import Denoise
from medphantom.generators.networks import AnyDenoiser
from medphantom.generators.objective import time_of, velocity_loss
from medphantom.generators.sampler import make_solver
from medphantom.learning.learner import RowLearner

STEPS_PER_WINDOW = 3
"""Steps of Heun's rule with which the trained denoiser crosses a window; each costs two calls."""
IMAGES_AT_ONCE = 64


def window_levels(objective: Objective, calls: int) -> tuple[float, ...]:
    """Return the noise levels between the windows, from 1 to 0: the grid of the Euler solver with as many calls.

    Args:
        objective: Objective of kind ``flow``.
        calls: Number of windows.

    Example:
        >>> window_levels(Objective(), 4)
        (1.0, 0.75, 0.5, 0.25, 0.0)
    """
    return tuple(round(float(level), 6) for level in make_solver(objective, "euler", calls).sigmas)


def whole_windows(objective: Objective, calls: int, strength: float) -> tuple[float, int]:
    """Return the first border of the windows that is at least as noisy as asked for, and the windows from there on.

    A distilled network is called at borders only. An edit that went back less far than that of other generators would
    make a planted copy easier to find, and the privacy gate more lenient.

    Args:
        objective: Objective of kind ``flow``.
        calls: Number of windows.
        strength: Time, above 0 and at most 1.

    Returns:
        Time of the border, and the number of windows between it and 0.

    Example:
        >>> whole_windows(Objective(), 4, 0.3), whole_windows(Objective(), 16, 0.3)
        ((0.5, 2), (0.3125, 5))
    """
    times = [time_of(objective, 1 - level, level) for level in window_levels(objective, calls)]
    place = max(index for index, time in enumerate(times) if time >= strength)
    return times[place], calls - place


@torch.no_grad()
def follow_paths(
    denoiser: AnyDenoiser,
    conditions: Conditions,
    noise: Tensor,
    *,
    objective: Objective,
    config: Distillation,
    progress: Progress | None = None,
) -> Tensor:
    """Follow the paths of images with the trained denoiser.

    Args:
        denoiser: Trained denoiser, on its device.
        conditions: Conditions of the N images.
        noise: Noise of the images, (N, C, *latent), on the CPU.
        objective: Objective of kind ``flow``.
        config: Number of calls and guidance.
        progress: Callback that receives the number of images done.

    Returns:
        Noisy latents at the borders of the windows, (N, calls + 1, C, *latent), on the CPU.
    """
    device, levels = next(denoiser.parameters()).device, window_levels(objective, config.calls)
    found = noise.new_empty(len(noise), len(levels), *noise.shape[1:])
    for start in range(0, len(noise), IMAGES_AT_ONCE):
        rows = torch.arange(start, min(start + IMAGES_AT_ONCE, len(noise)))
        denoise = guided(denoiser, conditions[rows].to(device), scale=config.guidance)
        x = noise[rows].to(device)
        found[rows, 0] = noise[rows]
        for place, (level, last) in enumerate(pairwise(levels), start=1):
            x = _cross(denoise, x, level, last, objective)
            found[rows, place] = x.cpu()
        if progress is not None:
            progress(int(rows[-1]) + 1, len(noise), "paths to distil")
    return found


def _cross(denoise: Denoise, x: Tensor, level: float, last: float, objective: Objective) -> Tensor:
    """Cross a window by Heun's rule (Karras et al. 2022, algorithm 1); its step to level 0 is Euler's."""
    for now, then in pairwise(torch.linspace(level, last, STEPS_PER_WINDOW + 1).tolist()):
        slope = _slope(denoise, x, now, objective)
        if then > 0:
            slope = (slope + _slope(denoise, x + (then - now) * slope, then, objective)) / 2
        x = x + (then - now) * slope
    return x


def _slope(denoise: Denoise, x: Tensor, level: float, objective: Objective) -> Tensor:
    return denoise(x, torch.full((len(x),), time_of(objective, 1 - level, level), device=x.device))


def kept_paths(file: Path, follow: Callable[[], Tensor]) -> Tensor:
    """Return paths from a file, or follow them and write it atomically, so that an interruption loses none.

    Args:
        file: Private file, named by all on which the paths depend.
        follow: Function that follows them.
    """
    try:
        with reading(file):
            return load_file(file)["path"]
    except ArtifactError:
        found = follow()
    temporary = file.with_name(f".{file.name}.tmp")
    with no_space_becomes_one_line(file):
        save_file({"path": found.contiguous()}, temporary)
        temporary.replace(file)
    return found


class FewCallLearner(RowLearner):
    """Teaches a copy of the denoiser to cross each window in one call.

    Batches hold ``path``, (B, calls + 1, C, *latent) from :func:`follow_paths`, and the tensors of
    :class:`medphantom.conditioning.encoder.Conditions`.

    Args:
        network: Copy of the trained denoiser.
        objective: Objective of kind ``flow``.
        calls: Number of windows.
    """

    grid_shows_real_images = False

    def __init__(self, network: nn.Module, *, objective: Objective, calls: int) -> None:
        super().__init__(network)
        levels = window_levels(objective, calls)
        self.widths = torch.tensor([high - low for high, low in pairwise(levels)])
        self.times = torch.tensor([time_of(objective, 1 - level, level) for level in levels[:-1]])

    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Draw a window for each row, see :meth:`RowLearner.prepare`."""
        path = batch["path"]
        rows, window = torch.arange(len(path)), torch.randint(len(self.widths), (len(path),), generator=generator)
        first, last = path[rows, window], path[rows, window + 1]
        width = self.widths[window].reshape(-1, *[1] * (first.ndim - 1)).to(path)
        return {
            "x_t": first,
            "wanted": (first - last) / width,
            "time": self.times[window].to(path),
            **{name: value for name, value in batch.items() if name != "path"},
        }

    def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
        """Return the squared error of the straight way, see :meth:`RowLearner.row_losses`."""
        conditions = Conditions.from_tensors(prepared)
        return velocity_loss(self.network(prepared["x_t"], prepared["time"], conditions), prepared["wanted"])
