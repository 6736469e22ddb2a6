"""History of a fit: ``metrics.jsonl``, TensorBoard and sample grids, without duplicates after a resume."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medphantom.core.errors import MedphantomError
from medphantom.core.folders import no_space_becomes_one_line, work_folder
from medphantom.learning.fit_config import FitConfig

METRICS_FILE = "metrics.jsonl"
GRIDS = "grids"


class NotFinite(MedphantomError):
    """A loss or a gradient is no longer finite.

    Attributes:
        step: Number of steps begun, including the failed one.
        everywhere: Whether all processes raise it together.
    """

    def __init__(self, what: str, remedy: str, *, step: int, everywhere: bool) -> None:
        super().__init__(what, remedy)
        self.step, self.everywhere = step, everywhere


class History:
    """The rows of one fit; only the main process writes them.

    Args:
        accelerator: ``Accelerator`` of the accelerate library.
        work: Folder of the fit.
        config: Configuration of what to log and how often.
    """

    def __init__(self, accelerator: Any, work: Path, config: FitConfig) -> None:
        self._accelerator = accelerator
        self._work = work
        self._config = config
        self._tracker = config.tracked_by
        self.rows: list[dict[str, Any]] = []
        self._fresh: list[
            tuple[int, dict[str, Tensor], float]
        ] = []  # still on the device, since reading them would block
        self._waiting: list[dict[str, float]] = []  # checked, but not yet part of a row
        self._since = time.monotonic()

    def begin(self, step: int, state: dict[str, Any]) -> None:
        """Start, or continue from a checkpoint: later rows on disk are dropped, since their steps are repeated."""
        self._fresh.clear()
        self.rows = list(state.get("rows", []))
        self._waiting = list(state.get("waiting", []))
        self._since = time.monotonic()
        if self._accelerator.is_main_process:
            with no_space_becomes_one_line(self._work / METRICS_FILE):
                work_folder(self._work)
                temporary = self._work / f".{METRICS_FILE}.tmp"
                temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
                temporary.replace(self._work / METRICS_FILE)
        if self._tracker == "tensorboard" and step < self._config.steps:
            # TensorBoard hides what was logged beyond purge_step before.
            self._accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": step + 1}})

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must contain to continue this history."""
        return {"rows": self.rows, "waiting": self._waiting}

    def note(self, step: int, losses: dict[str, Tensor], learning_rate: float) -> None:
        """Record the scalars of one step (from 0) without waiting for the device."""
        self._fresh.append((step, losses, learning_rate))

    def collect(self) -> None:
        """Move the recorded scalars to the CPU.

        Raises:
            NotFinite: If a loss or the gradient is not finite.
        """
        if not self._fresh:
            return
        names = [(step, key) for step, losses, _ in self._fresh for key in losses]
        stacked = torch.stack([value.float() for _, losses, _ in self._fresh for value in losses.values()])
        values = dict(zip(names, self._accelerator.reduce(stacked, reduction="mean").tolist(), strict=True))
        for step, losses, learning_rate in self._fresh:
            row = {key: values[step, key] for key in losses}
            for key, value in row.items():
                if not math.isfinite(value):
                    raise NotFinite(
                        f"{key.replace('_', ' ')} is not finite at step {step + 1}",
                        "lower learning_rate or clip_norm, lengthen warmup_steps, or set precision to fp32",
                        step=step + 1,
                        everywhere=True,
                    )
            self._waiting.append({**row, "learning_rate": learning_rate})
        self._fresh.clear()

    def log_training(self, step: int) -> None:
        """Write one row: means since the last such row, the learning rate, and images per second."""
        self.collect()
        keys = dict.fromkeys(key for row in self._waiting for key in row if key != "learning_rate")
        means = {
            key: math.fsum(row[key] for row in self._waiting if key in row) / sum(key in row for row in self._waiting)
            for key in keys
        }
        now = time.monotonic()
        rate = len(self._waiting) * self._config.batch_size / max(now - self._since, 1e-9)
        means |= {"learning_rate": self._waiting[-1]["learning_rate"], "images_per_s": round(rate, 3)}
        self._since = now
        self._waiting = []
        self._add(step, means)

    def log_validation(
        self, step: int, validation: dict[str, float], training: dict[str, float], more: dict[str, float]
    ) -> None:
        """Write one row: ``val_…`` and ``train_…``, ``gap`` = validation − training loss, and further values as given.

        Raises:
            NotFinite: If the validation loss is not finite.
        """
        if not math.isfinite(validation["loss"]):
            raise NotFinite(
                f"the validation loss is not finite at step {step}", "lower learning_rate", step=step, everywhere=False
            )
        row = {f"val_{key}": float(value) for key, value in validation.items()}
        row |= {f"train_{key}": float(value) for key, value in training.items()}
        if "loss" in training:
            row["gap"] = row["val_loss"] - row["train_loss"]
        row |= more
        if self.memorized_at({"step": step, **row}) is not None:
            row["memorized"] = 1.0
        self._add(step, row)

    def log_halved(self, step: int, failed_at: int, factor: float) -> None:
        """Write one row that records the return to this step after a loss that was not finite, and the lower rate."""
        self._add(step, {"not_finite_at": failed_at, "learning_rate_factor": factor})

    def memorized_at(self, *more: dict[str, Any]) -> int | None:
        """Return the step at which two consecutive validations detected memorisation; ``None`` if there is none."""
        above = False
        for row in (*self.rows, *more):
            if "membership_low" not in row:
                continue
            if above and row["membership_low"] > self._config.memorization_limit:
                return int(row["step"])
            above = row["membership_low"] > self._config.memorization_limit
        return None

    def show(self, step: int, images: Tensor, *, real: bool) -> Path:
        """Write a grid as PNG to the work folder, and to the tracker unless it may show real images.

        Returns:
            The file.
        """
        tiles = images.detach().float().clamp(0, 1).cpu()
        folder = self._work / GRIDS
        with no_space_becomes_one_line(folder):
            work_folder(folder)
            file = folder / f"step-{step:09d}.png"
            Image.fromarray(_tiled(tiles)).save(file)
        if self._tracker != "none" and (self._config.track_real_images or not real):
            self._accelerator.get_tracker("tensorboard").log_images({"grid": tiles.numpy()}, step=step)
        return file

    def end(self) -> None:
        """Close the trackers.

        This does not use accelerate's ``end_training``, which also ends the process group that a next fit needs.
        """
        for tracker in self._accelerator.trackers:
            tracker.finish()

    def _add(self, step: int, values: dict[str, float]) -> None:
        row = {"step": step, **values}
        self.rows.append(row)
        if self._accelerator.is_main_process:
            file = self._work / METRICS_FILE
            with no_space_becomes_one_line(file), file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        self._accelerator.log(values, step=step)


def _tiled(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Arrange images (N, C, H, W) in 0…1 as one nearly square uint8 picture."""
    total, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(total))
    rows = math.ceil(total / columns)
    canvas = torch.zeros(rows * columns, channels, height, width)
    canvas[:total] = images
    sheet = canvas.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels = (sheet.reshape(rows * height, columns * width, channels) * 255).round().to(torch.uint8).numpy()
    return pixels[..., 0] if channels == 1 else pixels
