"""The optimiser, the trained weights of a network, and both on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from medphantom.core.errors import MedphantomError
from medphantom.learning.fit_config import FitConfig


@contextmanager
def no_gradients_for(module: nn.Module | None) -> Iterator[None]:
    """Let gradients flow through the module without collecting them for its own parameters."""
    parameters = [] if module is None else [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def adamw(network: nn.Module, rate: float, config: FitConfig) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019) with weight decay on matrices and kernels only."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise MedphantomError(
            "there is nothing to fit: the network has no trainable parameter", "unfreeze some of them"
        )
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay, "peak": rate},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "peak": rate},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=config.betas, fused=True)


def frozen_names(network: nn.Module) -> frozenset[str]:
    """Return the names of the weights that no step changes; checkpoints and results do not contain them."""
    parameters = network.named_parameters(remove_duplicate=False)
    return frozenset(name for name, parameter in parameters if not parameter.requires_grad)


def trained_state(network: nn.Module, frozen: frozenset[str]) -> dict[str, Tensor]:
    """Return the state dict without frozen weights."""
    return {name: value for name, value in network.state_dict().items() if name not in frozen}


def load_trained_state(network: nn.Module, tensors: Mapping[str, Tensor], frozen: frozenset[str]) -> None:
    """Restore what :func:`trained_state` returned.

    Raises:
        RuntimeError: If names or shapes differ.
    """
    found = network.load_state_dict(dict(tensors), strict=False)
    if found.unexpected_keys or set(found.missing_keys) != frozen:
        raise RuntimeError("the weights are not those of this network")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's moments by ``<parameter index>.<name>``; learning rates derive from the step instead."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what :func:`optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # Moments need the memory layout of their parameter (e.g. channels last): the fused step pairs them by address.
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)
