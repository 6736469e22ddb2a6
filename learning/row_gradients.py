"""The gradient of each row of a batch in one backward pass, by Opacus's hooks, and a check of its correctness.

Hooks infer how a layer's gradient is composed of rows. This fails silently if a layer's first axis is not the batch, or
if its input has another memory layout than expected, and then the guarantee of a private fit is void. Therefore nothing
relies on them before :func:`wrong_rows` has compared them with one backward pass per row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from medphantom.core.extras import require

TOLERANCE = 1e-3  # relative to the gradient's norm: float32 sums in another order
SHAKE = 0.02  # layers that are initialised to zero would hide wrong gradients

Losses = Callable[[dict[str, Tensor]], Tensor]
Rows = dict[str, Tensor]


def trained_parameters(network: nn.Module) -> dict[str, Any]:
    """Return the parameters that are trained, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def _contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


class RowGradients:
    """Hooks on a network; :meth:`compute` leaves ``grad_sample`` ``(B, *shape)`` on every trained parameter.

    Args:
        network: Network, in training mode whenever :meth:`compute` is called.

    Raises:
        InputError: If Opacus is not installed.
        NotImplementedError: If Opacus cannot handle a trained layer.
    """

    def __init__(self, network: nn.Module) -> None:
        require("private", "the hooks of a private fit")
        from opacus.grad_sample import GradSampleHooks

        self.parameters = list(trained_parameters(network).values())
        # unfolding in Opacus's convolutions reads channels-last memory in the wrong order, silently
        convolutions = (m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d))
        self._pre_hooks = [module.register_forward_pre_hook(_contiguous) for module in convolutions]
        try:
            self._hooks = GradSampleHooks(network, loss_reduction="sum", strict=True)
        except NotImplementedError:
            self._drop_pre_hooks()
            raise

    def compute(self, losses: Losses, rows: Rows) -> Tensor:
        """Return the losses ``(B,)`` of the rows; their gradients are then in ``grad_sample``."""
        for parameter in self.parameters:
            parameter.grad_sample = None
        self._hooks.enable_hooks()
        try:
            with torch.enable_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
                found = losses(rows)
                torch.autograd.backward(found.sum())
        finally:
            self._hooks.disable_hooks()
        for parameter in self.parameters:
            parameter.grad = None
            if parameter.grad_sample is None:  # no row went through this layer
                parameter.grad_sample = torch.zeros(len(found), *parameter.shape, device=parameter.device)
        return found.detach()

    def remove(self) -> None:
        """Restore the network to its original state."""
        self._hooks.cleanup()
        self._drop_pre_hooks()

    def _drop_pre_hooks(self) -> None:
        for hook in self._pre_hooks:
            hook.remove()


def wrong_rows(network: nn.Module, losses: Losses, rows: Rows) -> str | None:
    """Check whether hooks give every row the same gradient as a pass with that row alone.

    Args:
        network: Network in training mode; its weights are perturbed for the comparison and then restored.
        losses: Function from rows to losses ``(B,)``.
        rows: Rows of the batch to compare, at least two.

    Returns:
        ``None`` if they agree, else a description of the problem that names the first such layer.
    """
    parameters = trained_parameters(network)
    with _shaken(list(parameters.values())):
        try:
            hooks = RowGradients(network)
        except NotImplementedError:
            return "a layer with running statistics"
        try:
            together = hooks.compute(losses, rows)
            found = {name: p.grad_sample.clone() for name, p in parameters.items()}
        except Exception as error:  # hooks fail in as many ways as there are layers
            return f"hooks that raise an error ({type(error).__name__})"
        finally:
            hooks.remove()
        for row in range(len(together)):
            alone = {name: tensor[row : row + 1] for name, tensor in rows.items()}
            gradients = torch.autograd.grad(losses(alone).sum(), list(parameters.values()), allow_unused=True)
            whole = torch.stack([torch.zeros(()) if g is None else g.norm().cpu() for g in gradients]).norm()
            for (name, samples), right in zip(found.items(), gradients, strict=True):
                wanted = torch.zeros_like(parameters[name]) if right is None else right
                if samples.shape[0] != len(together):
                    return f"gradients of {samples.shape[0]} rows instead of {len(together)} in {name}"
                off = float((samples[row] - wanted).norm().cpu() / whole.clamp_min(1e-12))
                if not off <= TOLERANCE:  # also true for NaN
                    return f"gradients of single rows that are wrong in {name}"
    return None


@contextmanager
def _shaken(parameters: list[Any]) -> Iterator[None]:
    """Perturb the weights slightly, so that no layer is zero; restore them exactly at the end."""
    kept = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(SHAKE * torch.randn(parameter.shape, generator=generator).to(parameter))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
