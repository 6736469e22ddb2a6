"""Configuration of a fit. It does not import torch, so recipes and unchanged reruns do not load it."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Any, Literal

from pydantic import Field

from medphantom.core.extras import absent
from medphantom.core.records import Frozen

# Fields that affect neither the weights nor their selection: a fit may be resumed with other values of these.
_WITHOUT_CONSEQUENCE = {
    "device",
    "tracker",
    "log_every",
    "grid_every",
    "checkpoint_every",
    "checkpoint_minutes",
    "track_real_images",
}


class FitConfig(Frozen):
    """Configuration of how a network is fitted.

    Attributes:
        steps: Number of optimiser steps.
        batch_size: Images per optimiser step, over all processes and passes together; if it exceeds the data set, it
            continues into the next epoch.
        accumulate: Number of passes into which one step is split to save memory; the result does not depend on it.
        learning_rate: Peak learning rate of AdamW.
        warmup_steps: Number of steps over which the learning rate rises linearly.
        schedule: Learning rate schedule: ``cosine`` falls to zero at the last step, ``constant`` stays at the peak.
        weight_decay: Decoupled weight decay, applied to matrices and kernels only (not to biases, norms and scales).
        betas: Decay rates of AdamW's moments.
        clip_norm: Largest norm of the gradient; null means no clipping.
        ema_decay: Decay of the moving average of the weights, warmed up as (1 + step) / (10 + step); with null there is
            no average, and validation and the result use the weights themselves.
        precision: Numerical precision: ``auto`` is bfloat16 on CUDA devices that support it and on CPUs with AMX, and
            float32 elsewhere.
        validate_every: Steps between validations, which select the weights that are kept; the last step is always
            validated. With 0 there is no validation, and the last weights are kept.
        checkpoint_every: Steps between checkpoints; the last step always has one.
        checkpoint_minutes: Minutes after which a checkpoint is written before ``checkpoint_every`` steps are done, so
            that slow steps lose little; null means never. Fits of several processes write by steps alone.
        grid_every: Steps between sample grids; 0 means none.
        log_every: Steps between rows of the training loss.
        tracker: Experiment tracker that shows the curves in addition to ``metrics.jsonl``: ``tensorboard`` needs the
            extra ``tensorboard``, ``auto`` uses TensorBoard where it is installed, ``none`` uses no tracker.
        track_real_images: Whether to send grids that may show real images to the tracker too.
        seed: Seed from which all randomness derives.
        device: Device of the computation: ``auto`` selects a CUDA device if there is one.
        on_memorization: What to do once a validation detects memorisation, that is, lower errors on training rows than
            on others: ``flag`` notes it in the curve, ``stop`` also ends the fit there, ``ignore`` does neither.
        memorization_limit: Share of pairs of a training and a validation row in which the training row has the smaller
            error, above which (95 % lower bound, in two consecutive validations) memorisation is detected; the value is
            one half without memorisation.
        adversary_learning_rate: Peak learning rate of the adversary, if there is one; null means ``learning_rate``.
    """

    steps: Annotated[int, Field(ge=1)] = 1000
    batch_size: Annotated[int, Field(ge=1)] = 16
    accumulate: Annotated[int, Field(ge=1)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = 0.999
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    validate_every: Annotated[int, Field(ge=0)] = 250
    checkpoint_every: Annotated[int, Field(ge=1)] = 250
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = 5.0
    grid_every: Annotated[int, Field(ge=0)] = 0
    log_every: Annotated[int, Field(ge=1)] = 10
    tracker: Literal["auto", "tensorboard", "none"] = "auto"
    track_real_images: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    on_memorization: Literal["flag", "stop", "ignore"] = "flag"
    memorization_limit: Annotated[float, Field(ge=0.5, lt=1)] = 0.6
    adversary_learning_rate: Annotated[float, Field(gt=0)] | None = None

    @property
    def tracked_by(self) -> Literal["tensorboard", "none"]:
        """The tracker, with ``auto`` resolved by what is installed."""
        if self.tracker == "auto":
            return "none" if absent("tensorboard") else "tensorboard"
        return self.tracker

    def consequential(self) -> dict[str, Any]:
        """Return the fields on which the result depends: a checkpoint with other values must not be resumed."""
        return self.model_dump(mode="json", exclude=_WITHOUT_CONSEQUENCE)

    def learning_rate_factor(self, step: int) -> float:
        """Return the learning rate of a step (from 0) as a fraction of its peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + cos(pi * done))
