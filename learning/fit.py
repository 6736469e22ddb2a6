"""The fit loop: any learner, any device, exact resume, the best averaged weights at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn

from medphantom.core.errors import InputError
from medphantom.core.folders import json_digest
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed, seeded_layers, torch_generator
from medphantom.learning.averages import MovingAverage
from medphantom.learning.batches import Batches, StreamBatches
from medphantom.learning.checkpoint import latest_checkpoint, refuse_other_settings, save_checkpoint
from medphantom.learning.devices import make_accelerator, reduced
from medphantom.learning.fit_config import FitConfig
from medphantom.learning.guarantee import Guarantee
from medphantom.learning.history import History, NotFinite
from medphantom.learning.interruption import Postponed
from medphantom.learning.learner import Learner, RowLearner
from medphantom.learning.memorization import membership_signal
from medphantom.learning.optimizer import (
    adamw,
    frozen_names,
    load_optimizer,
    load_trained_state,
    no_gradients_for,
    optimizer_tensors,
    trained_state,
)
from medphantom.learning.private_steps import Private, PrivateSteps

__all__ = ["Batches", "FitConfig", "FitResult", "Learner", "fit"]

CHECKPOINTS = "checkpoints"
RATE_AFTER_A_FAILURE = 0.5

log = logging.getLogger(__name__)

Grids = Callable[[int, Path], None]
"""Is told the step and the file of each sample grid."""


@dataclass(frozen=True)
class FitResult:
    """Result of a fit; the learner's network has the weights of ``best_step``.

    Attributes:
        best_step: Number of steps after which the selected weights were validated (the last step without validation).
        best_loss: Validation loss of the selected weights, ``None`` without validation.
        history: Rows written to ``metrics.jsonl``.
        finished: Whether all steps were done; ``False`` if ``stop`` requested an early end.
        resumed_from: Step of the checkpoint from which this call continued; 0 if there was none.
        memorized_at: Step at which memorisation of training rows was detected; ``None`` if it was not.
        not_finite_at: Step at which a loss or gradient was not finite, after which the fit returned to the previous
            checkpoint and continued at half the learning rate; ``None`` if that never happened.
        private: Whether the steps were private, with or without noise; losses of such a fit stay in its work folder.
        guarantee: Guarantee of a private fit for its own steps; ``None`` without noise, and if the fit was not private.
    """

    best_step: int
    best_loss: float | None
    history: list[dict[str, Any]]
    finished: bool
    resumed_from: int
    private: bool = False
    guarantee: Guarantee | None = None
    memorized_at: int | None = None
    not_finite_at: int | None = None


def fit(
    learner: Learner,
    batches: Batches,
    config: FitConfig,
    *,
    work: Path,
    identity: str = "",
    name: str = "training",
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    private: Private | None = None,
    grids: Grids | None = None,
) -> FitResult:
    """Fit the learner's network, continuing from the last intact checkpoint in ``work`` if there is one.

    On the CPU a resumed fit ends with the same bits as an uninterrupted one at the same number of threads. If all steps
    are already done, the selected weights are loaded and nothing is computed.

    If a loss or gradient is not finite, the fit returns once to its last checkpoint and continues at half the learning
    rate; as checkpoints are also written by minutes, such a fit (and only such a one) may end with other bits the next
    time. A private fit stops instead: every step spends privacy budget, and the decision to repeat the same steps would
    depend on what private data did to the first attempt.

    Args:
        learner: Network and losses; the network ends in evaluation mode on the device, with the selected weights.
        batches: Source of training data.
        config: Configuration of the fit.
        work: Private folder of this fit: ``checkpoints/``, ``metrics.jsonl``, ``grids/``, ``tensorboard/``.
        identity: Digest of everything else on which the result depends (data, network configuration); a checkpoint with
            another identity is refused.
        name: Name of this fit in progress reports.
        progress: Callback that is called after every step.
        stop: Callback that is called after every step; ``True`` writes a checkpoint and ends the fit early.
        private: Settings of a fit under differential privacy. Then ``batch_size`` is the expected number of units per
            step, ``clip_norm`` and ``accumulate`` have no effect, and validation is only reported: the last weights are
            kept, since selecting weights by private data would spend privacy budget.
        grids: Callback that is told the step and the file of each sample grid.

    Raises:
        InputError: If there is no data, the batch cannot be divided among passes and processes, or a private fit is
            impossible with this learner, budget or data.
        ArtifactError: If the checkpoint in ``work`` belongs to another configuration, identity or network.
        ResourceError: If the device or precision is not available, or the disk is full.
        NotFinite: If a loss or gradient is not finite in a private fit or after the learning rate was halved.
    """
    run = _Run(learner, batches, config, work=work, identity=identity, private=private, grids=grids)
    try:
        resumed_from = run.resume()
        finished = run.train(name, progress, stop)
        return run.result(finished, resumed_from)
    finally:
        run.end()


class _Run:
    """One call of :func:`fit`: the state between its steps."""

    def __init__(
        self,
        learner: Learner,
        batches: Batches,
        config: FitConfig,
        *,
        work: Path,
        identity: str,
        private: Private | None,
        grids: Grids | None,
    ) -> None:
        self.grids = grids
        self.learner, self.batches, self.config, self.work = learner, batches, config, work
        self.accelerator = make_accelerator(
            config.device, config.precision, accumulate=config.accumulate, tracker=config.tracked_by, work=work
        )
        self.device: torch.device = self.accelerator.device
        self.settings = {
            **config.consequential(),
            "identity": identity,
            "precision": str(self.accelerator.mixed_precision),
            "network": _shapes(learner.network),
            "adversary": {} if learner.adversary is None else _shapes(learner.adversary),
            **({} if private is None else {"privacy": private.config.model_dump(mode="json")}),
        }
        passes = config.accumulate * self.accelerator.num_processes
        if config.batch_size % passes:
            raise InputError(
                f"batch_size must be a multiple of accumulate × processes = {passes}, got {config.batch_size}",
                "change batch_size or accumulate",
            )
        self.rows_per_pass = config.batch_size // passes
        learner.network.to(self.device)
        self._share(learner.network)
        self.trained = _trainable(learner.network)
        self.optimizer = adamw(learner.network, config.learning_rate, config)
        self.adversary_optimizer: torch.optim.Optimizer | None = None
        if learner.adversary is not None:
            learner.adversary.to(self.device)
            self._share(learner.adversary)
            rate = config.adversary_learning_rate or config.learning_rate
            self.adversary_optimizer = adamw(learner.adversary, rate, config)
        self.frozen = frozen_names(learner.network)
        self.average = None if config.ema_decay is None else MovingAverage(learner.network, config.ema_decay)
        if private is not None and config.on_memorization == "stop":
            raise InputError(
                "a private fit cannot stop at a validation result, which the privacy ledger does not cover",
                "set on_memorization to flag",
            )
        self.private = None if private is None else self._private_steps(private)
        self.history = History(self.accelerator, work, config)
        self.step = 0
        self.saved_at = time.monotonic()
        self.not_finite_at: int | None = None
        self.best: dict[str, Any] | None = None
        self.best_weights: dict[str, Tensor] = {}

    @property
    def evaluated(self) -> nn.Module:
        """The network used for validation, sample grids and the result."""
        return self.learner.network if self.average is None else self.average.module

    # ---- resume ----

    def resume(self) -> int:
        """Continue from the last intact checkpoint; return its step, 0 if there is none."""
        found = latest_checkpoint(self.work / CHECKPOINTS)
        self.accelerator.wait_for_everyone()  # all processes look for checkpoints before one writes the first
        if found is not None:
            refuse_other_settings(found.state["settings"], self.settings, self.work)
            self.step = found.step
            load_trained_state(self.learner.network, found.groups["network"], self.frozen)
            load_optimizer(self.optimizer, found.groups["optimizer"])
            if self.average is not None:
                load_trained_state(self.average.module, found.groups["average"], self.frozen)
                self.average.updates = found.step
            if self.learner.adversary is not None and self.adversary_optimizer is not None:
                self.learner.adversary.load_state_dict(found.groups["adversary"])
                load_optimizer(self.adversary_optimizer, found.groups["adversary_optimizer"])
            self.best, self.best_weights = found.state["best"], found.groups.get("best", {})
            self.not_finite_at = found.state.get("not_finite_at", self.not_finite_at)
        self.history.begin(self.step, {} if found is None else found.state["history"])
        if self.private is not None:
            self.private.begin(self.step, None if found is None else found.state.get("privacy"))
        elif found is None:
            self.save()  # the state to return to if a loss is not finite
        return self.step

    def save(self) -> None:
        """Write a checkpoint of the current state in the main process."""
        self.history.collect()
        if self.accelerator.is_main_process:
            groups = {
                "network": trained_state(self.learner.network, self.frozen),
                "optimizer": optimizer_tensors(self.optimizer),
            }
            if self.average is not None:
                groups["average"] = trained_state(self.average.module, self.frozen)
            if self.learner.adversary is not None and self.adversary_optimizer is not None:
                groups["adversary"] = self.learner.adversary.state_dict()
                groups["adversary_optimizer"] = optimizer_tensors(self.adversary_optimizer)
            if self.best is not None:
                groups["best"] = self.best_weights
            state: dict[str, Any] = {"settings": self.settings, "best": self.best, "history": self.history.state()}
            if self.not_finite_at is not None:
                state["not_finite_at"] = self.not_finite_at
            if self.private is not None:
                state["privacy"] = self.private.ledger.state(self.step)
            save_checkpoint(self.work / CHECKPOINTS, self.step, groups, state)
        self.accelerator.wait_for_everyone()

    # ---- training ----

    def train(self, name: str, progress: Progress | None, stop: Callable[[], bool] | None) -> bool:
        """Do the remaining steps, at half the learning rate after a failure; return whether all are done."""
        try:
            with Postponed() as interruption:
                return self._train(name, progress, stop, interruption)
        except NotFinite as error:
            together = error.everywhere or self.accelerator.num_processes == 1
            if self.private is not None or not together:
                raise
            if self.not_finite_at is not None:
                what = f"{error.what}, also at half the learning rate (first failure at step {self.not_finite_at})"
                raise NotFinite(what, error.remedy, step=error.step, everywhere=error.everywhere) from None
            self._go_back(error)
        return self.train(name, progress, stop)

    def _go_back(self, error: NotFinite) -> None:
        """Return to the last checkpoint, before which all losses were finite, and halve the learning rate."""
        self.history.end()
        self.not_finite_at = error.step
        if latest_checkpoint(self.work / CHECKPOINTS) is None:
            raise error  # the checkpoints were removed: these weights cannot be used
        self.resume()
        self.history.log_halved(self.step, error.step, RATE_AFTER_A_FAILURE)
        log.warning("%s; continuing from step %d at half the learning rate", error.what, self.step)

    def _train(
        self, name: str, progress: Progress | None, stop: Callable[[], bool] | None, interruption: Postponed
    ) -> bool:
        config = self.config
        self.learner.network.train()
        ended = self._ended_by_memorization()
        while self.step < config.steps and not ended:
            self._one_step()
            self.step += 1
            last = self.step == config.steps
            if self.step % config.log_every == 0 or last:
                self.history.log_training(self.step)
            if config.validate_every and (self.step % config.validate_every == 0 or last):
                self._validate()
                ended = self._ended_by_memorization()
            if config.grid_every and (self.step % config.grid_every == 0 or last):
                self._grid()
            stopping = self._stop_requested(stop)
            interrupted = self._alone and interruption.requested
            due = self.step % config.checkpoint_every == 0 or self._minutes_have_passed()
            if due or last or stopping or ended or interrupted:
                self.save()
                self.saved_at = time.monotonic()
            interruption.raise_now(f"step {self.step} of {config.steps} of {name} is kept" if interrupted else "")
            if progress is not None and self.accelerator.is_main_process:
                progress(self.step, config.steps, name)
            if stopping:
                break
        return self.step == config.steps or ended

    def _ended_by_memorization(self) -> bool:
        """Return whether a validation ended the fit, now or before an interruption; the main process decides."""
        if self.config.on_memorization != "stop":
            return False
        return self._agreed(self.history.memorized_at() is not None)

    def _one_step(self) -> None:
        learner, config = self.learner, self.config
        learner.step = self.step
        halved = 1.0 if self.not_finite_at is None else RATE_AFTER_A_FAILURE
        factor = config.learning_rate_factor(self.step) * halved
        if self.private is not None:
            self._private_step(self.private, factor)
            return
        with no_gradients_for(learner.adversary):
            batches, logged = self._pass_all("loss", learner.loss, self.optimizer)
        logged["gradient_norm"] = self._update(self.optimizer, self.trained, factor)
        if self.average is not None:
            self.average.update()
        if self.adversary_optimizer is not None and learner.adversary is not None:
            _, losses = self._pass_all("adversary", learner.adversary_loss, self.adversary_optimizer, batches)
            if losses:
                self._update(self.adversary_optimizer, _trainable(learner.adversary), factor)
                logged.update({f"adversary_{key}": value for key, value in losses.items()})
        self.history.note(self.step, logged, factor * config.learning_rate)

    def _private_step(self, private: PrivateSteps, factor: float) -> None:
        logged = private.take(self.step)
        self._move(self.optimizer, factor)
        if self.average is not None:
            self.average.update()
        self.history.note(self.step, logged, factor * self.config.learning_rate)

    def _pass_all(
        self,
        purpose: str,
        loss: Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        batches: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Compute the gradients of one optimiser step, summed over its passes; return its batches and mean losses."""
        config, rank, world = self.config, self.accelerator.process_index, self.accelerator.num_processes
        optimizer.zero_grad(set_to_none=True)
        seen: list[dict[str, Tensor]] = []
        means: dict[str, Tensor] = {}
        for part in range(config.accumulate):
            place = part * world + rank
            index = self.step * config.accumulate * world + place
            batch = self._fetch(index) if batches is None else batches[part]
            with self._seeded(purpose, self.step, place), self.accelerator.autocast():
                losses = loss(batch, torch_generator(config.seed, purpose, self.step, place))
            if losses:
                self.accelerator.backward(losses["loss"])
            seen.append(batch)
            for key, value in losses.items():
                means[key] = means.get(key, 0.0) + value.detach().float() / config.accumulate
        return seen, means

    def _fetch(self, index: int) -> dict[str, Tensor]:
        batch = self.batches.batch(index, self.rows_per_pass, self.config.seed)
        return {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}

    def _update(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], factor: float) -> Tensor:
        """Do one optimiser step at ``factor`` times the peak learning rate; return the gradient's unclipped norm."""
        self._average_gradients(parameters)
        bound = self.config.clip_norm or float("inf")
        norm: Tensor = self.accelerator.clip_grad_norm_(parameters, bound)
        self._move(optimizer, factor)
        return norm.detach()

    def _move(self, optimizer: torch.optim.Optimizer, factor: float) -> None:
        """Apply the current gradients at ``factor`` times the peak learning rate."""
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.step()

    def _average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average the gradients over processes.

        This replaces wrapping the network (DDP), so that a learner may call any of its methods in any order.
        """
        if self.accelerator.num_processes > 1:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            for parameter, mean in zip(parameters, reduced(self.accelerator, gradients, "mean"), strict=True):
                parameter.grad = mean

    def _minutes_have_passed(self) -> bool:
        minutes = self.config.checkpoint_minutes
        return self._alone and minutes is not None and time.monotonic() - self.saved_at >= 60 * minutes

    # ---- validation ----

    @contextmanager
    def _evaluating(self) -> Iterator[nn.Module]:
        network = self.evaluated
        network.eval()
        with torch.no_grad(), self._seeded("judge", 0, 0), self.accelerator.autocast():
            yield network
        self.learner.network.train()

    def _validate(self) -> None:
        if self.accelerator.is_main_process:
            with self._evaluating() as network:
                validation = self.learner.validate(network, "val")
                training = self.learner.validate(network, "train") if validation else {}
            if validation:
                self.history.log_validation(self.step, validation, training, self._membership())
                chooses = self.private is None  # a choice by private data would not be covered by the ledger
                if chooses and (self.best is None or validation["loss"] < self.best["loss"]):
                    self.best = {"step": self.step, "loss": validation["loss"]}
                    self.best_weights = _copied(network, self.frozen)
        self.accelerator.wait_for_everyone()

    def _membership(self) -> dict[str, float]:
        """Return the online membership score, or nothing if there are no rows to compare or it is not requested."""
        train, val = (self.learner.per_sample_losses(split) for split in ("train", "val"))
        found = membership_signal(train, val) if train is not None and val is not None else None
        if found is None or self.config.on_memorization == "ignore":
            return {}
        return {"membership": found.share, "membership_low": found.low}

    def _grid(self) -> None:
        if self.accelerator.is_main_process:
            with self._evaluating() as network:
                images = self.learner.grid(network)
            if images is not None:
                file = self.history.show(self.step, images, real=self.learner.grid_shows_real_images)
                if self.grids is not None:
                    self.grids(self.step, file)
        self.accelerator.wait_for_everyone()

    # ---- the end ----

    def result(self, finished: bool, resumed_from: int) -> FitResult:
        """Load the selected weights into the learner's network in every process."""
        weights = self.best_weights if self.best is not None else _copied(self.evaluated, self.frozen)
        if self.accelerator.is_main_process:
            load_trained_state(self.learner.network, weights, self.frozen)
        self._share(self.learner.network)
        self.learner.network.eval()
        step, loss = (self.step, None) if self.best is None else (self.best["step"], self.best["loss"])
        return FitResult(
            step,
            loss,
            self.history.rows,
            finished,
            resumed_from,
            self.private is not None,
            None if self.private is None else self.private.ledger.guarantee(),
            self.history.memorized_at(),
            self.not_finite_at,
        )

    def end(self) -> None:
        """Close open resources and remove the hooks from the network."""
        self.history.end()
        if self.private is not None:
            self.private.close()

    # ---- helpers ----

    @property
    def _alone(self) -> bool:
        """Whether this is the only process; of several, each would write at another step."""
        return bool(self.accelerator.num_processes == 1)

    def _share(self, module: nn.Module) -> None:
        """Copy the weights of the main process to every process."""
        if self.accelerator.num_processes > 1:
            with torch.no_grad():
                for tensor in module.state_dict().values():
                    tensor.copy_(broadcast(tensor.clone(), from_process=0))

    def _stop_requested(self, stop: Callable[[], bool] | None) -> bool:
        return stop is not None and self._agreed(stop())

    def _agreed(self, wanted: bool) -> bool:
        """Return whether any process wants it."""
        if wanted:
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def _seeded(self, *purpose: str | int) -> AbstractContextManager[None]:
        return seeded_layers(self.device, derive_seed(self.config.seed, "layers", *purpose))

    def _private_steps(self, private: Private) -> PrivateSteps:
        learner, batches = self.learner, self.batches
        if not isinstance(learner, RowLearner) or not isinstance(batches, StreamBatches) or learner.adversary:
            raise InputError(
                "only losses that are a mean over rows can be fitted privately", "train it without privacy"
            )
        return PrivateSteps(
            learner,
            batches,
            private,
            self.config,
            self.optimizer,
            accelerator=self.accelerator,
            work=self.work,
            identity=json_digest(self.settings),
        )


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _copied(network: nn.Module, frozen: frozenset[str]) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu", copy=True) for key, value in trained_state(network, frozen).items()}


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in module.state_dict().items()}
