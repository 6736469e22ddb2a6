"""What the fit loop asks of whoever wants a network fitted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from medphantom.learning.memorization import SampleLosses


class Learner(ABC):
    """A network and how to judge it. The loop sets everything else: device, precision, schedule, averages, resume.

    Whatever else the learner holds is not kept in checkpoints, so ``loss`` must be a function of the network, the
    batch, the generator and :attr:`step` alone: then a resumed fit equals an uninterrupted one.

    Attributes:
        network: optimised, averaged and kept in checkpoints; ``loss`` may call any of its methods.
        adversary: the discriminator of a GAN phase, with an optimiser of its own; ``None``: no such phase.
        step: optimiser step now being computed, from 0; set by the loop.
        grid_shows_real_images: whether :meth:`grid` may show real images (reconstructions do); such grids stay in the
            work folder and out of trackers unless ``FitConfig.track_real_images`` allows them.
    """

    adversary: nn.Module | None = None
    step: int = 0
    grid_shows_real_images: bool = True

    def __init__(self, network: nn.Module, adversary: nn.Module | None = None) -> None:
        self.network = network
        self.adversary = adversary

    @abstractmethod
    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            batch: tensors on the device of the network.
            generator: CPU generator of this step; the only source of randomness to use.

        Returns:
            ``loss``, a scalar to minimise, and other scalars to log.
        """

    def adversary_loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of the adversary on the same batch, after the network's step; empty: it rests in this step."""
        del batch, generator
        return {}

    def validate(self, network: nn.Module, split: Literal["val", "train"]) -> dict[str, float]:
        """Judge averaged weights at fixed noise; called without gradients and in evaluation mode.

        Args:
            network: a network like :attr:`network` that holds the averaged weights.
            split: ``val``: the rows that choose the checkpoint; ``train``: an equally large fixed part of the training
                rows, judged in the same way, so that the difference of the two is the train–val gap.

        Returns:
            ``loss``, the smaller the better, and others to log; empty: there is nothing to judge by.
        """
        del network, split
        return {}

    def per_sample_losses(self, split: Literal["val", "train"]) -> SampleLosses | None:
        """Errors of single rows that the last :meth:`validate` of that split saw; ``None``: there are none."""
        del split
        return None

    def grid(self, network: nn.Module) -> Tensor | None:
        """Images to look at while training, ``(N, C, H, W)`` in 0…1 with C = 1 or 3; ``None``: none.

        Args:
            network: a network like :attr:`network` that holds the averaged weights.
        """
        del network
        return None


class RowLearner(Learner):
    """A learner whose loss is a mean over rows that do not see each other: what a private fit can be made of."""

    @abstractmethod
    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """All that is random about the losses of a batch, drawn; each row by itself or with rows of its unit.

        Args:
            batch: tensors on the device of the network, B rows each.
            generator: CPU generator; the only source of randomness to use.

        Returns:
            name → tensor of B rows, for :meth:`row_losses`.
        """

    @abstractmethod
    def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
        """Loss of each row, ``(B,)``: a function of that row and the network alone."""

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """As :meth:`Learner.loss`: the mean over rows."""
        return {"loss": self.row_losses(self.prepare(batch, generator)).mean()}
