"""Pretrained image encoders as feature networks, by hub id or local folder, from safetensors without remote code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medphantom.conditioning.foreign import foreign_networks
from medphantom.core.errors import InputError
from medphantom.core.extras import require
from medphantom.core.guard import user_path
from medphantom.core.records import Array
from medphantom.quality.networks.classifier import weights_digest

BATCH = 32
NO_ENCODER, ONE_WIDTH = "is no image encoder of one width", "choose a vision transformer"
TRIALS = 4  # images that are encoded twice for a check
SAME = 1e-4  # tolerance relative to the largest feature, because the order of summation may differ between calls
CONFIG_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


class ImageEncoder(nn.Module):
    """A transformers image encoder (DINOv2, RAD-DINO, ViT, …) on images in -1…1.

    Args:
        model: encoder loaded by ``AutoModel``.
        processor: processor loaded by ``AutoImageProcessor``; it resizes and normalises images as in the training of
            the encoder.
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.model = model
        self.processor = processor

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """The encoder's pooled output ``(N, d)``, or its first token if it has none."""
        pixels = self.processor(
            images=list(_bytes(images_NCHW)), return_tensors="pt", input_data_format="channels_last"
        )
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
        InputError: transformers is not installed, or the encoder is not available, has no safetensors, lacks weights,
            is no image encoder, or is not deterministic.
    """
    require("pretrained", f"feature network {source!r}")
    from transformers import AutoImageProcessor, AutoModel

    folder = user_path(source)
    local = folder.is_dir()
    missing = [name for name in CONFIG_FILES[:2] if local and not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"feature network {source} lacks {missing[0]}", f"give a folder with {', '.join(CONFIG_FILES)}"
        )
    where = str(folder) if local else source
    remedy = f"give a folder with {', '.join(CONFIG_FILES)}, or a hub id where the hub can be reached"
    with foreign_networks(
        f"feature network {source!r}", "cannot be loaded", remedy, source=where, folders=[folder] if local else []
    ):
        processor = AutoImageProcessor.from_pretrained(where, local_files_only=local, trust_remote_code=False)
        model, info = AutoModel.from_pretrained(
            where, local_files_only=local, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    _check_whole(f"feature network {source!r}", info)
    size = getattr(model.config, "hidden_size", None)
    if not isinstance(size, int):
        raise InputError(f"feature network {source!r} {NO_ENCODER}", ONE_WIDTH)
    module = ImageEncoder(model.eval(), processor)
    _check_answers(f"feature network {source!r}", module, size, where)
    return module, size, folder.name if local else source


def _check_whole(what: str, info: dict[str, Any]) -> None:
    """Refuse a network with weights that were not loaded, which the library initialises randomly."""
    absent = sorted(info["missing_keys"])
    others = len(info.get("mismatched_keys") or ())
    if absent or others:
        first = f" ({absent[0]}{', …' if len(absent) > 1 else ''})" if absent else ""
        raise InputError(
            f"{what}: {len(absent)} of its weights are missing from the checkpoint{first}, {others} are of another "
            "shape; they would be random",
            "bring the config.json and the weights that were saved together",
        )


def _check_answers(what: str, module: nn.Module, size: int, source: str) -> None:
    """Refuse an encoder that is not deterministic, or does not return one vector of its width per image."""
    grey = torch.rand((TRIALS, 1, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    remedy = "choose an encoder of images, such as DINOv2"
    with foreign_networks(what, "cannot encode an image", remedy, source=source), torch.inference_mode():
        first, again = module(grey).float(), module(grey).float()
    if first.shape != (TRIALS, size):
        raise InputError(f"{what} {NO_ENCODER}", ONE_WIDTH)
    if not bool(torch.isfinite(first).all()):
        raise InputError(f"{what} returns NaN or infinity", "download its weights again")
    if float((first - again).abs().max()) > SAME * float(first.abs().max()):
        raise InputError(
            f"{what} returns different features for the same image",
            "choose an encoder without dropout or random masks at inference (masked autoencoders have them)",
        )


class TextImageEncoder:
    """A transformers pair of encoders of images and texts (CLIP, SigLIP, …) on images in -1…1.

    Args:
        model: model loaded by ``AutoModel``, with ``get_image_features`` and ``get_text_features``.
        processor: processor loaded by ``AutoImageProcessor``.
        tokenizer: tokenizer loaded by ``AutoTokenizer``; longer texts are truncated.
    """

    def __init__(self, model: Any, processor: Any, tokenizer: Any) -> None:
        self.model = model
        self.processor = processor
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def __call__(self, images_NCHW: Array, texts: Sequence[str]) -> tuple[Array, Array]:
        """Unit vectors of images and texts, float64 ``(n, d)`` each; volumes by their middle slice."""
        seen, read = [], []
        length = min(int(self.model.config.text_config.max_position_embeddings), int(self.tokenizer.model_max_length))
        for start in range(0, len(texts), BATCH):
            part = slice(start, start + BATCH)
            images = torch.from_numpy(images_NCHW[part])
            flat = images if images.ndim == 4 else images[:, :, images.shape[2] // 2]
            pixels = self.processor(images=list(_bytes(flat)), return_tensors="pt", input_data_format="channels_last")
            seen.append(_unit(self.model.get_image_features(pixel_values=pixels["pixel_values"])))
            words = self.tokenizer(
                list(texts[part]), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            read.append(_unit(self.model.get_text_features(**words)))
        return np.concatenate(seen), np.concatenate(read)


def _unit(found: Any) -> Array:
    vectors = found if isinstance(found, Tensor) else found.pooler_output
    result: Array = functional.normalize(vectors.double(), dim=1).numpy()
    return result


def _bytes(images_NCHW: Tensor) -> Array:
    """Images in -1…1 as colour bytes, channels last."""
    colour = images_NCHW if images_NCHW.shape[1] == 3 else images_NCHW[:, :1].repeat(1, 3, 1, 1)
    found: Array = ((colour.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return found


def load_text_image_encoder(source: str) -> tuple[TextImageEncoder, str, str]:
    """Load a pair of encoders.

    Args:
        source: folder with configuration, tokenizer, ``preprocessor_config.json`` and ``model.safetensors``, or a hub
            id.

    Returns:
        The encoders, a name for tables, and the digest of their weights.

    Raises:
        InputError: transformers is not installed, or the encoders are not available, have no safetensors, lack weights,
            or are no such pair.
    """
    require("pretrained", f"text encoder {source!r}")
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = user_path(source)
    local = folder.is_dir()
    where = str(folder) if local else source
    remedy = "give a folder with config.json, the tokenizer, preprocessor_config.json and model.safetensors"
    with foreign_networks(
        f"text encoder {source!r}", "cannot be loaded", remedy, source=where, folders=[folder] if local else []
    ):
        processor = AutoImageProcessor.from_pretrained(where, local_files_only=local, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=local, trust_remote_code=False)
        model, info = AutoModel.from_pretrained(
            where, local_files_only=local, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    _check_whole(f"text encoder {source!r}", info)
    if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
        raise InputError(f"{source!r} does not encode both images and texts", "choose a CLIP or SigLIP model")
    model = model.eval().requires_grad_(False)
    return TextImageEncoder(model, processor, tokenizer), folder.name if local else source, weights_digest(model)


class _Inception(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NCHW: Tensor) -> Tensor:
        colour = images_NCHW if images_NCHW.shape[1] == 3 else images_NCHW[:, :1].repeat(1, 3, 1, 1)
        found: Tensor = self.network(((colour.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
        return found


def load_inception() -> tuple[nn.Module, int, str]:
    """The Inception network of the original FID, as provided by torchmetrics.

    Raises:
        InputError: the required package is not installed, or the weights are not available.
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
