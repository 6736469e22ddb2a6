"""Fine-tuning methods of a pretrained denoiser: all weights, its attention, low-rank changes (LoRA), or a ControlNet.

Attention layers are called ``attn1`` (self-attention) and ``attn2`` (cross-attention to the condition) in the networks
of both MONAI and diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from medphantom.core.errors import InputError
from medphantom.core.extras import require
from medphantom.generators.config import FineTuning

ATTENTION = (".attn1.", ".attn2.")


def lora_arguments(net: nn.Module, tuning: FineTuning) -> dict[str, Any]:
    """Return arguments of peft's ``LoraConfig`` as JSON values: every linear layer of the attention (Hu et al. 2022).

    Raises:
        InputError: If the network has no attention.
    """
    linear = {
        name.removesuffix(".base_layer")
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear) and any(part in name for part in ATTENTION) and ".lora_" not in name
    }
    if not linear:
        raise InputError("the base's denoiser has no attention to fine-tune", "use generator.tuning.method full")
    return {"r": tuning.rank, "lora_alpha": tuning.alpha or tuning.rank, "target_modules": sorted(linear)}


def _put_in(net: nn.Module, tuning: FineTuning) -> None:
    """Insert low-rank layers without any initial effect: the second factor is zero."""
    require("pretrained", "tuning.method: lora")
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(**lora_arguments(net, tuning), init_lora_weights="gaussian"), net)


def make_trainable(denoiser: Any, tuning: FineTuning) -> None:
    """Freeze what the method does not train; for LoRA, insert the low-rank layers (without any initial effect).

    Args:
        denoiser: Denoiser whose ``net`` is MONAI's or diffusers' UNet.
        tuning: Configuration of the fine-tuning.

    Raises:
        InputError: If the network has no attention, there is no mask for a ControlNet, or LoRA is asked for without the
            package peft.
    """
    net: nn.Module = denoiser.net
    net.requires_grad_(tuning.method == "full")
    if tuning.method == "lora":
        _put_in(net, tuning)
    elif tuning.method == "attention":
        attention = [p for name, p in net.named_parameters() if any(part in name for part in ATTENTION)]
        if not attention:
            raise InputError("the base's denoiser has no attention to fine-tune", "use generator.tuning.method full")
        for parameter in attention:
            parameter.requires_grad_(True)
    elif tuning.method == "control":
        denoiser.requires_grad_(False)
        _control(denoiser).requires_grad_(True)


def _control(denoiser: Any) -> nn.Module:
    control: nn.Module | None = getattr(denoiser, "control", None)
    if control is None:
        raise InputError("a ControlNet needs masks as conditions", "set generator.conditioning.mask to {}")
    return control


def tuned_tensors(denoiser: Any, tuning: FineTuning) -> dict[str, Tensor]:
    """Return the trained tensors by the names that :func:`load_tuned` takes; a bundle stores these only."""
    net: nn.Module = denoiser.net
    if tuning.method == "full":
        return dict(net.state_dict())
    if tuning.method == "control":
        return dict(_control(denoiser).state_dict())
    if tuning.method == "lora":
        from peft import get_peft_model_state_dict

        return dict(get_peft_model_state_dict(net))
    return {name: value for name, value in net.state_dict().items() if any(part in name for part in ATTENTION)}


def load_tuned(denoiser: Any, tuning: FineTuning, tensors: Mapping[str, Tensor]) -> None:
    """Load the trained tensors into the base's networks.

    Raises:
        RuntimeError: If the tensors do not belong to these networks.
    """
    net: nn.Module = denoiser.net
    if tuning.method in {"full", "control"}:
        (net if tuning.method == "full" else _control(denoiser)).load_state_dict(dict(tensors))
    elif tuning.method == "lora":
        _put_in(net, tuning)
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        expected = get_peft_model_state_dict(net)
        if {k: v.shape for k, v in expected.items()} != {k: v.shape for k, v in tensors.items()}:
            raise RuntimeError("the low-rank layers do not match this network")
        set_peft_model_state_dict(net, dict(tensors))
    else:
        found: Any = net.load_state_dict(dict(tensors), strict=False)
        if found.unexpected_keys or any(any(part in name for part in ATTENTION) for name in found.missing_keys):
            raise RuntimeError("the attention layers do not match this network")
