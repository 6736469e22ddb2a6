"""Exchange of metric states between processes, of which some may hold fewer images than others, or none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from medphantom.core.records import Array

NAME_BYTES = 64
MOST_AXES = 5  # of a batch of volumes
TYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def gathered(state: Tensor, group: Any = None) -> list[Tensor]:
    """Gather a state from every process; a process without images takes width and type from the others."""
    facts = torch.zeros(2 + MOST_AXES, dtype=torch.int64, device=state.device)
    facts[: 2 + state.ndim] = torch.tensor([TYPES.index(state.dtype), state.ndim, *state.shape])
    everywhere = [torch.zeros_like(facts) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everywhere, facts, group=group)
    filled = [one for one in torch.stack(everywhere).tolist() if one[2]]
    if filled:
        state = state.to(TYPES[max(kind for kind, *_ in filled)])
        if not len(state):
            _, axes, _, *rest = filled[0]
            state = state.new_zeros((0, *rest[: axes - 1]))
    found: list[Tensor] = gather_all_tensors(state, group)
    return found


def as_bytes(names: Sequence[str]) -> Tensor:
    """Encode names as rows of equally many bytes, which processes can exchange: uint8 ``(N, 64)``, in the same order.

    A longer name is represented by its SHA-256, and an empty name by zeros.
    """
    rows = np.zeros((len(names), NAME_BYTES), dtype=np.uint8)
    for row, name in zip(rows, names, strict=True):
        code = name.encode()
        if len(code) > NAME_BYTES:
            code = hashlib.sha256(code).hexdigest().encode()
        row[: len(code)] = np.frombuffer(code, dtype=np.uint8)
    return torch.from_numpy(rows)


def as_names(rows: Array) -> list[str]:
    """Decode the rows of :func:`as_bytes`; each image without a name counts as its own patient."""
    codes = [row.tobytes().rstrip(b"\0") for row in rows]
    return [code.decode() if code else f"\x01{place}" for place, code in enumerate(codes)]
