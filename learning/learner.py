"""The interface between the fit loop and the networks that it fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from medphantom.learning.memorization import SampleLosses


class Learner(ABC):
    """A network with its losses. The loop controls everything else: device, precision, schedule, averages, resume.

    Other attributes of the learner are not stored in checkpoints, so ``loss`` must be a function of the network, the
    batch, the generator and :attr:`step` alone: then a resumed fit equals an uninterrupted one.

    Attributes:
        network: Network that is optimised, averaged and checkpointed; ``loss`` may call any of its methods.
        adversary: Discriminator of a GAN phase, with its own optimiser; ``None`` if there is no such phase.
        step: Number of the optimiser step that is being computed, from 0; set by the loop.
        grid_shows_real_images: Whether :meth:`grid` may show real images, as reconstructions do. Such grids stay in the
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
        """Return the losses of a batch.

        Args:
            batch: Tensors on the device of the network.
            generator: CPU generator of this step, the only permitted source of randomness.

        Returns:
            ``loss``, a scalar to minimise, and other scalars to log.
        """

    def adversary_loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the adversary's losses on the same batch, after the network's step; empty to skip the step."""
        del batch, generator
        return {}

    def validate(self, network: nn.Module, split: Literal["val", "train"]) -> dict[str, float]:
        """Evaluate averaged weights at fixed noise; called without gradients and in evaluation mode.

        Args:
            network: Network of the same type as :attr:`network` with the averaged weights.
            split: ``val`` for the rows that select the checkpoint, ``train`` for a fixed part of the training rows of
                the same size, evaluated in the same way, so that the difference of the two is the train–val gap.

        Returns:
            ``loss``, where smaller is better, and other values to log; empty if there is nothing to evaluate.
        """
        del network, split
        return {}

    def per_sample_losses(self, split: Literal["val", "train"]) -> SampleLosses | None:
        """Return the per-sample losses of the last :meth:`validate` of that split; ``None`` if there are none."""
        del split
        return None

    def grid(self, network: nn.Module) -> Tensor | None:
        """Return images for monitoring the training, ``(N, C, H, W)`` in 0…1 with C = 1 or 3; ``None`` for no grid.

        Args:
            network: Network of the same type as :attr:`network` with the averaged weights.
        """
        del network
        return None


class RowLearner(Learner):
    """A learner whose loss is a mean over rows that do not influence each other, as private training requires."""

    @abstractmethod
    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Draw all randomness of the losses of a batch; each row independently or together with rows of its unit.

        Args:
            batch: Tensors on the device of the network, B rows each.
            generator: CPU generator, the only permitted source of randomness.

        Returns:
            Mapping from name to a tensor of B rows, for :meth:`row_losses`.
        """

    @abstractmethod
    def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
        """Return the loss of each row, ``(B,)``, as a function of that row and the network alone."""

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the mean loss over rows, as described in :meth:`Learner.loss`."""
        return {"loss": self.row_losses(self.prepare(batch, generator)).mean()}
