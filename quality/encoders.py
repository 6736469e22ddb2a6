"""Pretrained image encoders as feature networks: by hub id or local folder, safetensors only, no foreign code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cohorts.errors import InputError

CONFIG_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


class ImageEncoder(nn.Module):
    """A transformers image encoder (DINOv2, RAD-DINO, ViT, …) on images in -1…1.

    Args:
        model: from ``AutoModel``.
        processor: from ``AutoImageProcessor``; it resizes and normalises as the encoder was trained.
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.model = model
        self.processor = processor

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """The encoder's own pooled output ``(N, d)``, or its first token where it has none."""
        colour = images_NCHW if images_NCHW.shape[1] == 3 else images_NCHW[:, :1].repeat(1, 3, 1, 1)
        bytes_NHWC = ((colour.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        pixels = self.processor(images=list(bytes_NHWC), return_tensors="pt", input_data_format="channels_last")
        out = self.model(pixel_values=pixels["pixel_values"].to(images_NCHW.device))
        pooled = getattr(out, "pooler_output", None)
        found: Tensor = out.last_hidden_state[:, 0] if pooled is None else pooled
        return found.flatten(1)


def load_encoder(source: str) -> tuple[ImageEncoder, int, str]:
    """Load an encoder.

    Args:
        source: folder with ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``, or a hub id.

    Returns:
        The module, its number of features, and a name for tables.

    Raises:
        InputError: it cannot be had, has no safetensors, or is no image encoder.
    """
    from transformers import AutoImageProcessor, AutoModel

    folder = Path(source).expanduser()
    local = folder.is_dir()
    missing = [name for name in CONFIG_FILES[:2] if local and not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"feature network {source} lacks {missing[0]}", f"bring the folder with {', '.join(CONFIG_FILES)}"
        )
    where = str(folder) if local else source
    try:
        processor = AutoImageProcessor.from_pretrained(where, local_files_only=local)
        model = AutoModel.from_pretrained(where, local_files_only=local, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise InputError(
            f"feature network {source!r} cannot be loaded ({type(error).__name__})",
            f"give a folder with {', '.join(CONFIG_FILES)}, or a hub id where the hub can be reached",
        ) from None
    size = getattr(model.config, "hidden_size", None)
    if not isinstance(size, int):
        raise InputError(f"feature network {source!r} is no image encoder of one width", "choose a vision transformer")
    return ImageEncoder(model.eval(), processor), size, folder.name if local else source


class _Inception(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NCHW: Tensor) -> Tensor:
        colour = images_NCHW if images_NCHW.shape[1] == 3 else images_NCHW[:, :1].repeat(1, 3, 1, 1)
        found: Tensor = self.network(((colour.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
        return found


def load_inception() -> tuple[nn.Module, int, str]:
    """The Inception network of the original FID, as torchmetrics brings it.

    Raises:
        InputError: the package that holds it is not installed, or its weights cannot be had.
    """
    from torchmetrics.image.fid import NoTrainInceptionV3

    try:
        network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
    except ModuleNotFoundError:
        raise InputError(
            "feature network 'inception' needs the package torch-fidelity, which is not installed",
            "pip install torch-fidelity (with a torchvision that fits your torch), or choose another network",
        ) from None
    except OSError:
        raise InputError(
            "feature network 'inception' cannot load its weights",
            "put pt_inception-2015-12-05-6726825d.pth into torch's hub cache (checkpoints)",
        ) from None
    return _Inception(network), 2048, "inception"
