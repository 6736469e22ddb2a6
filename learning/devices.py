"""Device and precision of computations: the only place that configures accelerate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor

from medphantom.core.errors import ResourceError
from medphantom.core.extras import require

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]


def reduced(accelerator: Accelerator, tensors: Sequence[Tensor], how: Literal["mean", "sum"]) -> list[Tensor]:
    """Return the mean or sum of tensors over all processes in one message; with one process the tensors unchanged."""
    if accelerator.num_processes == 1:
        return list(tensors)
    flat: Tensor = accelerator.reduce(torch.cat([tensor.reshape(-1) for tensor in tensors]), reduction=how)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    # in the memory layout of each
    return [torch.empty_like(old).copy_(new.view_as(old)) for old, new in zip(tensors, parts, strict=True)]


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """Return the device to use; ``auto`` selects a CUDA device if there is one.

    Raises:
        ResourceError: If ``cuda`` was requested but is not available.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ResourceError("device = cuda, but this machine has no usable CUDA device", "set device to auto or cpu")
    return "cuda" if available and device != "cpu" else "cpu"


def resolve_precision(precision: Precision, device: Literal["cpu", "cuda"]) -> Literal["fp32", "bf16"]:
    """Return the precision; ``auto`` is bfloat16 where it is faster: CUDA devices and CPUs that support it in hardware.

    Raises:
        ResourceError: If ``bf16`` was requested on a CUDA device that does not support it.
    """
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        if precision == "bf16" and not fast:
            raise ResourceError("precision = bf16, but this CUDA device does not support it", "set precision to fp32")
    else:
        fast = _has_amx()
    if precision == "auto":
        return "bf16" if fast else "fp32"
    return precision


def _has_amx() -> bool:
    """Return whether the CPU has bfloat16 matrix units (AMX).

    Seconds per training step in float32 → bfloat16, one thread of a Xeon with AMX, torch 2.13, of an autoencoder (0.45
    M, 64 px, batch 16) and a denoiser (10.7 M, 16×16 latents, batch 64), with oneDNN limited to an instruction set:

        AMX               1.12 → 0.27   1.51 → 0.86
        AVX-512 + BF16    2.60 → 2.31   3.68 → 3.21   (busy machine: compare within the line)
        AVX-512           1.72 → 4.05   3.17 → 13.2
    """
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch < 2.11 cannot tell
    return bool(capabilities.get("amx_bf16", False))


def make_accelerator(
    device: Device, precision: Precision, *, accumulate: int, tracker: Literal["tensorboard", "none"], work: Path
) -> Any:
    """Return an accelerate ``Accelerator`` for one fit.

    accelerate keeps its settings for the lifetime of the process; they are reset here first, so that fits with
    different precision or device can follow each other.

    Raises:
        InputError: If TensorBoard is the tracker but is not installed.
        ResourceError: If the device or precision is not available.
    """
    if tracker == "tensorboard":
        require("tensorboard", "tracker: tensorboard")
    where = resolve_device(device)
    how = resolve_precision(precision, where)
    # The only way that accelerate offers; a process group of several processes must stay as it is.
    single = not PartialState._shared_state or PartialState().num_processes == 1  # noqa: SLF001
    AcceleratorState._reset_state(reset_partial_state=single)  # noqa: SLF001
    return Accelerator(
        cpu=where == "cpu",
        mixed_precision="bf16" if how == "bf16" else "no",
        gradient_accumulation_steps=accumulate,
        log_with=None if tracker == "none" else tracker,
        project_dir=work,
    )


def leave_processes() -> None:
    """Wait until every process of this program is here and disconnect them; call it last in such a program.

    A process that simply ends closes the connections of others that may still be in their last exchange, which then
    abort. With one process this does nothing.
    """
    if PartialState._shared_state and PartialState().num_processes > 1:  # noqa: SLF001 - accelerate has no other way
        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()
