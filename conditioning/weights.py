"""Weights in the layout of diffusers and transformers: which file of a network is read, and whether it is complete.

Both libraries initialise missing weights at random and only warn; here that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from medphantom.conditioning.foreign import foreign_networks
from medphantom.core.errors import ArtifactError, InputError
from medphantom.core.folders import read_json

CONFIG_FILE = "config.json"
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
PREFERRED = (None, "fp16", "bf16")  # full precision first; what else a folder names, by name
HUB_VARIANTS = (None, "fp16")
ABSENT = "not appear to have"  # both libraries' message for a model on the hub without such a file
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Found:
    """Weights in a folder.

    Attributes:
        variant: ``None``, or the word between name and suffix: ``fp16`` of ``model.fp16.safetensors``.
        file: Weight file, or the index of its shards.
    """

    variant: str | None
    file: str


def find_weights(folder: Path, stem: str, what: str) -> Found:
    """Return the weights to read from a folder: those of full precision, else ``fp16``, else another variant.

    Args:
        folder: Folder of one network, with ``config.json``.
        stem: Stem of the file name: ``model`` in transformers, ``diffusion_pytorch_model`` in diffusers.
        what: Name of the network in messages.

    Raises:
        InputError: If the configuration, the safetensors or a shard is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{what} cannot be had: there is no folder {folder}", f"provide it, with {CONFIG_FILE}")
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(
            f"{what} cannot be had: {folder} has no {CONFIG_FILE}",
            "check that the folder contains config.json and safetensors: provide those saved with the weights",
        )
    whole = re.compile(rf"{re.escape(stem)}(?:\.(?P<after>[\w-]+))?\.safetensors")
    index = re.compile(rf"{re.escape(stem)}\.safetensors\.index(?:\.(?P<after>[\w-]+))?\.json")
    found: dict[str | None, str] = {}
    for path in sorted(folder.iterdir()):
        match = whole.fullmatch(path.name) or index.fullmatch(path.name)
        if match and not re.fullmatch(r"\d{5}-of-\d{5}", match["after"] or ""):
            found.setdefault(match["after"], path.name)
    if not found:
        raise _no_weights(folder, stem, what)
    variant = next((one for one in PREFERRED if one in found), None)
    if variant not in found:
        variant = min(one for one in found if one is not None)
    if found[variant].endswith(".json"):
        _check_shards(folder / found[variant], what)
    return Found(variant, found[variant])


def _no_weights(folder: Path, stem: str, what: str) -> InputError:
    pickled = sorted({path.suffix for path in folder.iterdir() if path.suffix in PICKLED})
    provide = f"provide {folder / f'{stem}.safetensors'}"
    if pickled:
        return InputError(
            f"{what} cannot be had: {folder} has pickled weights only ({', '.join(pickled)}), which are never read",
            f"{provide}: save_pretrained(…, safe_serialization=True) writes it",
        )
    return InputError(f"{what} cannot be had: {folder} lacks its weights", provide)


def _check_shards(index: Path, what: str) -> None:
    try:
        content = read_json(index)
    except ArtifactError:
        content = None
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise InputError(f"{what} cannot be had: {index} lists no shards", "provide the index of these weights")
    files = set(shards.values())
    missing = sorted(name for name in files if Path(name).name != name or not (index.parent / name).is_file())
    if missing:
        raise InputError(
            f"{what} cannot be had: {len(missing)} of its {len(files)} weight files are missing",
            f"provide all that {index} lists",
        )


def load_whole(
    source: str,
    subfolder: str,
    stem: str,
    what: str,
    read: Callable[[str | None], tuple[Any, dict[str, Any]]],
    *,
    spare: Sequence[str] = (),
    superfluous: bool = False,
) -> tuple[Any, str]:
    """Return a network of which every weight was read.

    Args:
        source: Folder or hub id.
        subfolder: Subfolder of the network; empty if it is the folder itself.
        stem: Stem of the weight file's name.
        what: Name of the network in messages.
        read: Function from a variant to the network and the library's loading report (``output_loading_info=True``).
        spare: Prefixes of unused weights: they may be missing, and are then zero.
        superfluous: Whether a file may contain weights of more than the network (the other half of a CLIP model).

    Returns:
        The network, and the name of the file.

    Raises:
        InputError: If it is not available, or its weights do not fit its configuration.
    """
    local = Path(source).is_dir()
    if local:
        found = find_weights(Path(source) / subfolder, stem, what)
        place = Path(source) / subfolder
        remedy = (
            f"check that the folder contains config.json and complete safetensors that fit it: {place / found.file}"
        )
        with foreign_networks(what, "cannot be had", remedy, source=source, folders=[place]):
            network, info = read(found.variant)
    else:
        with foreign_networks(what, "cannot be had", source=source):
            network, info, found = _from_hub(stem, what, read)
    missing = [name for name in info["missing_keys"] if not name.startswith(tuple(spare))]
    unexpected = [] if superfluous else list(info["unexpected_keys"])
    if missing or unexpected or info.get("mismatched_keys"):
        raise InputError(
            f"{what} cannot be had: {len(missing)} of its weights are missing from {found.file}, {len(unexpected)} "
            f"are of another network, {len(info.get('mismatched_keys') or ())} are of another shape",
            "provide the config.json and the weights that were saved together",
        )
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name in info["missing_keys"]:
                tensor.zero_()
    return network, found.file


def _from_hub(
    stem: str, what: str, read: Callable[[str | None], tuple[Any, dict[str, Any]]]
) -> tuple[Any, dict[str, Any], Found]:
    for variant in HUB_VARIANTS:
        try:
            network, info = read(variant)
        except UNREADABLE as error:
            if ABSENT not in str(error):
                break  # no connection, or no such model: requesting another variant would only wait once more
            continue
        word = "" if variant is None else f".{variant}"
        return network, info, Found(variant, f"{stem}{word}.safetensors")
    raise InputError(
        f"{what} cannot be had",
        f"give a folder with its config.json and {stem}.safetensors, in diffusers' or transformers' layout, or "
        "connect to the hub",
    )
