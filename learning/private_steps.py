"""Private steps (DP-SGD): each unit's gradient is clipped, noise is added to the sum, and every step is recorded.

A step is private because of the following. (1) Units are drawn independently with probability q, so that a batch may
be empty. (2) K gradients of a drawn unit are computed over its rows, with randomness that does not depend on the rows
of other units. (3) Their mean is clipped to norm C, which bounds the unit's influence, however many rows it has. (4)
Gaussian noise of standard deviation σ C is added to the sum. (5) The sum is divided by the *expected* number of units.
All later computations (Adam, averages of weights) only use this result. A resumed fit repeats the steps after its last
checkpoint with the same drawn units and the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medphantom.core.errors import InputError
from medphantom.core.extras import require
from medphantom.core.randomness import derive_seed, secret_numbers, seeded_layers, torch_generator
from medphantom.learning.accounting import DPParameters, delta_for, noise_for
from medphantom.learning.batches import StreamBatches
from medphantom.learning.devices import reduced
from medphantom.learning.fit_config import FitConfig
from medphantom.learning.learner import RowLearner
from medphantom.learning.ledger import PrivacyLedger
from medphantom.learning.noise import SCHEME, secret_noise
from medphantom.learning.private_config import PrivateFitConfig
from medphantom.learning.row_gradients import RowGradients, Rows, trained_parameters, wrong_rows

CHECKED_ROWS = 3


@dataclass(frozen=True)
class Units:
    """Assignment of rows to units.

    Attributes:
        of_row: Number, from 0, of the unit to which each row belongs, int64 ``(rows,)``.
    """

    of_row: Tensor

    def __len__(self) -> int:
        return int(self.of_row.max()) + 1

    def rows(self) -> list[Tensor]:
        """Return the row numbers of each unit in ascending order."""
        order = torch.argsort(self.of_row, stable=True)
        return list(torch.split(order, torch.bincount(self.of_row, minlength=len(self)).tolist()))


@dataclass(frozen=True)
class Private:
    """Settings that make a fit private.

    Attributes:
        config: Privacy budget and its settings.
        units: Units that are protected.
    """

    config: PrivateFitConfig
    units: Units


class PrivateSteps:
    """The gradients of a private fit, and its privacy ledger.

    Args:
        learner: Learner whose rows do not influence each other.
        batches: Source of the rows.
        private: Privacy budget and units.
        fit: Configuration of the fit; ``batch_size`` is the expected number of units per step.
        optimizer: Optimiser of the learner's network.
        accelerator: ``Accelerator`` of the accelerate library.
        work: Folder of the fit.
        identity: Digest of everything on which the fit depends.

    Raises:
        InputError: If Opacus is not installed, a step expects more units than there are, ε cannot be reached, or the
            layers of the network mix or count rows.
    """

    def __init__(
        self,
        learner: RowLearner,
        batches: StreamBatches,
        private: Private,
        fit: FitConfig,
        optimizer: torch.optim.Optimizer,
        *,
        accelerator: Any,
        work: Path,
        identity: str = "",
    ) -> None:
        require("private", "a private fit")
        from opacus.optimizers import DPOptimizer

        self.learner, self.batches, self.config = learner, batches, private.config
        self.accelerator, self.device = accelerator, accelerator.device
        self.rows_of = private.units.rows()
        _check_data(self.rows_of, batches, fit)
        self.expected_units = fit.batch_size
        self.parameters: list[Any] = list(trained_parameters(learner.network).values())
        self.ledger = PrivacyLedger(work, _dp_parameters(self.config, fit, len(self.rows_of)), f"{identity}; {SCHEME}")
        self.clipper = DPOptimizer(
            optimizer,
            noise_multiplier=0.0,  # it only clips; the noise is drawn here, from the key
            max_grad_norm=self.config.clip_norm,
            expected_batch_size=fit.batch_size,
        )
        self.hooks: RowGradients | None = None

    def begin(self, step: int, saved: dict[str, Any] | None) -> None:
        """Open a new ledger, or continue that of the checkpoint.

        Raises:
            ArtifactError: If steps were done, but their ledger or key is missing or belongs to other steps.
        """
        if step == 0 and self.accelerator.is_main_process:
            self.ledger.open()
        self.accelerator.wait_for_everyone()
        self.ledger.resume(step, saved)
        self._choose_gradients()

    def take(self, step: int) -> dict[str, Tensor]:
        """Leave the noised mean gradient of one step in ``grad``; return what to log, which is as private as the data.

        Args:
            step: Number of the step, from 0.
        """
        self.ledger.record_step(step, write=self.accelerator.is_main_process)
        drawn = self._draw_units(step)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        for parameter in self.parameters:
            parameter.grad, parameter.summed_grad = None, torch.zeros_like(parameter)
        losses = [self._add(step, part) for part in self._parts(drawn[rank::world])]
        summed, (loss, count) = self._over_processes(losses)
        for parameter, total, noise in zip(self.parameters, summed, self._noise(step), strict=True):
            noised = (total + noise.reshape(total.shape).to(total)) / self.expected_units
            parameter.grad = torch.empty_like(parameter).copy_(noised)  # in the parameter's memory layout
            parameter.grad_sample, parameter.summed_grad = None, None
        norm = torch.stack([parameter.grad.norm() for parameter in self.parameters]).norm()
        found = {"gradient_norm": norm}
        if count:
            found["loss"] = loss / count
        return found

    def close(self) -> None:
        """Remove the hooks from the network."""
        if self.hooks is not None:
            self.hooks.remove()
            self.hooks = None
        for parameter in self.parameters:
            for name in ("grad_sample", "summed_grad"):
                if hasattr(parameter, name):
                    delattr(parameter, name)

    def _over_processes(self, losses: list[Tensor]) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
        """Sum over all processes: the clipped gradients, and the losses with their number, which may be zero."""
        seen = torch.cat([torch.zeros(0, device=self.device), *(part.float() for part in losses)])
        counted = torch.stack([seen.sum(), torch.tensor(float(len(seen)), device=self.device)])
        *summed, counted = reduced(self.accelerator, [*(p.summed_grad for p in self.parameters), counted], "sum")
        return summed, (counted[0], counted[1])

    def _draw_units(self, step: int) -> list[int]:
        uniform = secret_numbers(self.ledger.key, "units", step).random(len(self.rows_of))
        return [int(unit) for unit in np.flatnonzero(uniform < self.ledger.parameters.sample_rate)]

    def _parts(self, drawn: list[int]) -> Iterator[list[int]]:
        """Yield groups of units that pass through the network together."""
        together = 1 if self.hooks is None else max(1, self.config.rows_at_once // self.config.draws)
        return (drawn[start : start + together] for start in range(0, len(drawn), together))

    def _add(self, step: int, units: list[int]) -> Tensor:
        """Add the clipped gradients of these units to the sum; return their losses."""
        prepared = [self._prepare(step, unit) for unit in units]
        rows = {name: torch.cat([part[name] for part in prepared]).to(self.device) for name in prepared[0]}
        with seeded_layers(self.device, derive_seed(0, self.ledger.key, "layers", step, units[0])):
            if self.hooks is None:
                losses = self._by_pass(rows)
            else:
                losses = self.hooks.compute(self.learner.row_losses, rows)
                for parameter in self.parameters:
                    samples = parameter.grad_sample
                    repeats = samples.reshape(len(units), self.config.draws, *samples.shape[1:])
                    parameter.grad_sample = repeats.mean(dim=1)
        self._drop_what_is_not_finite()
        self.clipper.clip_and_accumulate()
        for parameter in self.parameters:
            parameter.grad_sample = None
        return losses

    def _drop_what_is_not_finite(self) -> None:
        """Replace gradients that are not finite by zero, since clipping cannot bound them (∞ · 0 is undefined)."""
        norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in self.parameters if p.numel()])
        finite = torch.isfinite(norms.norm(dim=0))
        if not bool(finite.all()):
            for parameter in self.parameters:
                kept = finite.reshape(-1, *[1] * (parameter.grad_sample.ndim - 1))
                parameter.grad_sample = torch.where(kept, parameter.grad_sample, 0.0)

    def _by_pass(self, rows: Rows) -> Tensor:
        """Store the mean gradient of all rows, which belong to one unit, as ``grad_sample`` of one row."""
        total, found = len(next(iter(rows.values()))), []
        for parameter in self.parameters:
            parameter.grad = None
        for start in range(0, total, self.config.rows_at_once):
            part = {name: tensor[start : start + self.config.rows_at_once] for name, tensor in rows.items()}
            with self.accelerator.autocast():
                losses = self.learner.row_losses(part)
            torch.autograd.backward(losses.sum() / total)
            found.append(losses.detach())
        for parameter in self.parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad_sample, parameter.grad = gradient.unsqueeze(0), None
        return torch.cat(found)

    def _prepare(self, step: int, unit: int) -> Rows:
        """Prepare K rows of one unit, cycling through its rows in random order, with all their randomness."""
        generator = self._generator("unit", step, unit)
        rows, repeats = self.rows_of[unit], self.config.draws
        rounds = [torch.randperm(len(rows), generator=generator) for _ in range(-(-repeats // len(rows)))]
        return self.learner.prepare(self.batches.rows(rows[torch.cat(rounds)[:repeats]]), generator)

    # ---- randomness ----

    def _generator(self, *purpose: str | int) -> torch.Generator:
        return torch_generator(0, self.ledger.key, *purpose)

    def _noise(self, step: int) -> tuple[Tensor, ...]:
        """Return Gaussian noise for each parameter, flat, of standard deviation σ C."""
        sizes = [parameter.numel() for parameter in self.parameters]
        deviation = self.ledger.parameters.noise_multiplier * self.config.clip_norm
        noise = secret_noise(self.ledger.key, "noise", step, total=sum(sizes), deviation=deviation)
        return torch.split(noise, sizes)

    # ---- choice of the gradient method ----

    def _choose_gradients(self) -> None:
        network = self.learner.network
        network.train()
        parts = [self._prepare(0, unit) for unit in range(min(CHECKED_ROWS, len(self.rows_of)))]
        rows = {name: torch.cat([part[name][:1] for part in parts]).to(self.device) for name in parts[0]}
        _refuse_counting_layers(network, self.learner.row_losses, rows)
        wanted = self.config.gradients
        if wanted == "passes" or (wanted == "auto" and self.config.draws > 1):
            return
        wrong = wrong_rows(network, self.learner.row_losses, rows)
        if wrong is None:
            self.hooks = RowGradients(network)
        elif wanted == "hooks":
            raise InputError(
                f"the network cannot be trained with privacy.gradients = hooks: {wrong}", "use auto or passes"
            )


def _dp_parameters(config: PrivateFitConfig, fit: FitConfig, total_units: int) -> DPParameters:
    rate, delta = fit.batch_size / total_units, delta_for(config.delta, total_units)
    noise = 0.0
    if config.epsilon is not None:
        noise = noise_for(config.epsilon, delta, sample_rate=rate, steps=fit.steps)
    return DPParameters(noise, rate, delta, config.clip_norm, config.draws, total_units)


def _check_data(rows_of: list[Tensor], batches: StreamBatches, config: FitConfig) -> None:
    total = sum(len(rows) for rows in rows_of)
    if total != batches.total_rows:
        raise InputError(
            f"units are given for {total} rows, but the training data has {batches.total_rows}", "give one unit per row"
        )
    if any(len(rows) == 0 for rows in rows_of):
        raise InputError("a unit has no rows", "number units from 0 without gaps")
    if config.batch_size > len(rows_of):
        raise InputError(
            f"batch_size = {config.batch_size}, the expected number of patients per step, exceeds the number of "
            f"patients, {len(rows_of)}",
            "lower batch_size; a tenth of the patients or less uses the least budget",
        )


def _refuse_counting_layers(network: nn.Module, losses: Callable[[Rows], Tensor], rows: Rows) -> None:
    """Refuse layers that mix rows or accumulate statistics in their buffers, as batch normalisation does.

    Raises:
        InputError: If there is such a layer; the message names it.
    """
    before = {name: value.clone() for name, value in network.named_buffers()}
    with torch.no_grad():
        losses(rows)
        changed = [name for name, value in network.named_buffers() if not torch.equal(before[name], value)]
        for name in changed:
            network.get_buffer(name).copy_(before[name])
        network.eval()  # without dropout, which would look like mixing
        together, alone = losses(rows), losses({name: tensor[:1] for name, tensor in rows.items()})
        network.train()
    mixes = not torch.allclose(together[:1], alone, rtol=1e-2, atol=1e-4)
    if changed or mixes:
        found = (
            f"{changed[0]} accumulates statistics of the data" if changed else "its layers mix the images of a batch"
        )
        raise InputError(
            f"the network cannot be trained privately: {found}",
            "replace batch normalisation with group normalisation",
        )
