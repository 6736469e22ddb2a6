"""Learned vectors as embedding tables: private fits need per-sample gradients, which layers can provide.

A bare parameter has one gradient for the whole batch; a table that every image looks up has one gradient per image. In
bundles the tables are stored as bare parameters, so that older bundles open and keep their digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn


class WithTables(nn.Module):
    """A module with tables that are stored as bare vectors."""

    stored: ClassVar[Mapping[str, int]]
    """Number of axes with which each such table is stored."""

    def __init__(self) -> None:
        super().__init__()
        cast("Any", self).register_load_state_dict_pre_hook(_read_stored)


def _read_stored(module: WithTables, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    for name in module.stored:
        if prefix + name in state:
            found = state.pop(prefix + name)
            state[f"{prefix}{name}.weight"] = found.reshape(-1, found.shape[-1])


def stored_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict as stored in bundles; loading it into the module restores the module."""
    state = module.state_dict()
    for place, part in module.named_modules():
        for name, axes in part.stored.items() if isinstance(part, WithTables) else ():
            key = f"{place}.{name}" if place else name
            rows = state.pop(f"{key}.weight")
            state[key] = rows[0] if axes == 1 else rows.reshape(*[1] * (axes - 2), *rows.shape)
    return dict(state)


def table(rows_ND: Tensor) -> nn.Embedding:
    """Return a table that is initialised with these learned vectors."""
    rows, width = rows_ND.shape
    return nn.Embedding(rows, width, _weight=rows_ND)


def for_each(vectors: nn.Embedding, total: int) -> Tensor:
    """Return all rows of a table, once for each of ``total`` images: ``(total, N, D)``."""
    rows = torch.arange(vectors.num_embeddings, device=vectors.weight.device)
    found: Tensor = vectors(rows.expand(total, -1))
    return found
