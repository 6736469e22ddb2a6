"""Batches as pure functions of their index: an endless stream of shuffled epochs that needs no state to resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from medphantom.core.errors import InputError
from medphantom.core.randomness import torch_generator


class Batches(Protocol):
    """Source of training data."""

    def batch(self, index: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return rows ``index * size`` up to ``(index + 1) * size`` of an endless shuffled stream, on the CPU.

        It must be a pure function of its arguments. Then an optimiser step uses the same images however it is
        distributed over accumulation and processes, and nothing has to be restored to resume.

        Args:
            index: Number of the batch, from 0.
            size: Number of rows per batch.
            seed: Seed of the shuffling.

        Returns:
            Mapping from name to a tensor whose first axis has ``size`` rows.
        """


def epoch_order(total_rows: int, epoch: int, seed: int) -> Tensor:
    """Return the order of one epoch: a permutation of ``total_rows`` as int64 ``(total_rows,)``."""
    return torch.randperm(total_rows, generator=torch_generator(seed, "epoch", epoch))


def stream_rows(total_rows: int, start: int, count: int, seed: int) -> Tensor:
    """Return rows at positions ``start`` to ``start + count`` of all concatenated epochs, int64 ``(count,)``.

    A batch may extend beyond the end of an epoch, or be larger than one: it continues in the next epoch's order, so
    that every row is used equally often and a small data set never fails.

    Raises:
        InputError: If there are no rows.
    """
    if total_rows < 1:
        raise InputError("there is nothing to learn from: the training data has no rows", "give at least one image")
    first, last = start // total_rows, (start + count - 1) // total_rows
    orders = torch.cat([epoch_order(total_rows, epoch, seed) for epoch in range(first, last + 1)])
    offset = start - first * total_rows
    return orders[offset : offset + count]


class StreamBatches:
    """Batches from any function that reads rows by number.

    Args:
        total_rows: Number of rows in total.
        read: Pure function from row numbers ``(n,)`` int64 to a mapping from name to CPU tensor with n rows.

    Raises:
        InputError: If there are no rows.
    """

    def __init__(self, total_rows: int, read: Callable[[Tensor], dict[str, Tensor]]) -> None:
        if total_rows < 1:
            raise InputError("there is nothing to learn from: the training data has no rows", "give at least one image")
        self.total_rows = total_rows
        self._read = read

    def batch(self, index: int, size: int, seed: int) -> dict[str, Tensor]:
        """Return a batch, as described in :meth:`Batches.batch`."""
        return self.rows(stream_rows(self.total_rows, index * size, size, seed))

    def rows(self, numbers: Tensor) -> dict[str, Tensor]:
        """Return these rows, int64 ``(n,)``, as a mapping from name to CPU tensor with n rows."""
        return self._read(numbers)


class TensorBatches(StreamBatches):
    """Batches from tensors in memory that share their first axis.

    Raises:
        InputError: If there are no tensors or no rows, or the tensors differ in their number of rows.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"training tensors differ in their number of rows: {lengths}", "give one row per image")
        super().__init__(next(iter(lengths.values()), 0), lambda rows: {k: v[rows] for k, v in tensors.items()})
