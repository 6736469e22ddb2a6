"""What can be set about a fit. No torch here: recipes are read and unchanged reruns are skipped without it."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Any, Literal

from pydantic import Field

from medphantom.core.records import Frozen

# Fields that change neither the weights nor the choice among them: a fit may be resumed with other values of these.
_WITHOUT_CONSEQUENCE = {"device", "tracker", "log_every", "grid_every", "checkpoint_every", "track_real_images"}


class FitConfig(Frozen):
    """How a network is fitted.

    Attributes:
        steps: optimiser steps.
        batch_size: images per optimiser step, over all processes and passes together; where it exceeds the data, it
            goes on into the next epoch.
        accumulate: passes that one step is split into, to save memory; it does not change what a step sees.
        learning_rate: peak learning rate of AdamW.
        warmup_steps: steps over which the learning rate rises linearly.
        schedule: ``cosine`` falls to zero at the last step, ``constant`` stays at the peak.
        weight_decay: decoupled weight decay, of matrices and kernels only (not of biases, norms and scales).
        betas: decay rates of AdamW's moments.
        clip_norm: largest norm of the gradient; null: not clipped.
        ema_decay: decay of the moving average of the weights, warmed up as (1 + step) / (10 + step); null: no average,
            and validation and the result use the weights themselves.
        precision: ``auto`` is bfloat16 on CUDA devices that support it and on CPUs with AMX, and float32 elsewhere.
        validate_every: steps between validations, which choose the weights that are kept; 0: never, and the last
            weights are kept. The last step is always validated otherwise.
        checkpoint_every: steps between checkpoints; the last step always has one.
        grid_every: steps between sample grids; 0: none.
        log_every: steps between rows of the training loss.
        tracker: where curves are shown beside ``metrics.jsonl``.
        track_real_images: also hand grids that may show real images to the tracker.
        seed: everything random derives from it.
        device: ``auto`` takes a CUDA device where there is one.
        on_memorization: what is done once a validation shows that the network tells training rows from others: ``flag``
            notes it in the curve, ``stop`` also ends the fit there, ``ignore`` neither.
        memorization_limit: share of pairs of a training and a validation row in which the training row has the smaller
            error, above which (95 % lower bound, in two validations running) that is taken to be so; one half is
            honest.
        adversary_learning_rate: peak learning rate of the adversary, where there is one; null: ``learning_rate``.
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
    grid_every: Annotated[int, Field(ge=0)] = 0
    log_every: Annotated[int, Field(ge=1)] = 10
    tracker: Literal["tensorboard", "none"] = "tensorboard"
    track_real_images: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    on_memorization: Literal["flag", "stop", "ignore"] = "flag"
    memorization_limit: Annotated[float, Field(ge=0.5, lt=1)] = 0.6
    adversary_learning_rate: Annotated[float, Field(gt=0)] | None = None

    def consequential(self) -> dict[str, Any]:
        """The fields on which the result depends: a checkpoint made with others must not be resumed."""
        return self.model_dump(mode="json", exclude=_WITHOUT_CONSEQUENCE)

    def learning_rate_factor(self, step: int) -> float:
        """Learning rate of the step (from 0) as a fraction of its peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + cos(pi * done))
