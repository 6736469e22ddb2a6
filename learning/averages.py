"""The moving average of the weights, which validation, sample grids and the result use."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


class MovingAverage:
    """An exponential moving average of a network's weights; buffers follow the network, frozen weights are shared.

    The decay is warmed up as in TensorFlow's ExponentialMovingAverage. It keeps a whole module, so that validation does
    not swap weights. The weights are paired once: torch's own ``AveragedModel`` walks through both modules at every
    step, which takes longer than the average itself.

    Args:
        network: Network on its device; the same object is averaged at every step.
        decay: Decay of the average in [0, 1).

    Attributes:
        module: Network with the averaged weights, which need no gradients.
        updates: Number of averaged steps; set it when the weights of a checkpoint were loaded into ``module``.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> average = MovingAverage(network, 0.5)
        >>> average.update()
        >>> torch.equal(average.module.weight, network.weight)
        True
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.module = deepcopy(network)
        self._means: list[Tensor] = []
        self._nows: list[Tensor] = []
        for mean, now in zip(self.module.parameters(), network.parameters(), strict=True):
            if now.requires_grad:
                self._means.append(mean)
                self._nows.append(now)
            else:
                mean.data = now.data
        self.module.requires_grad_(False)
        places = zip(self.module.modules(), network.modules(), strict=True)
        self._buffers = [(mine, its, name) for mine, its in places for name, _ in its.named_buffers(recurse=False)]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights of the network into the average; the first call copies them."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 1.0
        torch._foreach_lerp_(self._means, self._nows, weight)
        for mine, its, name in self._buffers:
            getattr(mine, name).copy_(getattr(its, name))
        self.updates += 1
