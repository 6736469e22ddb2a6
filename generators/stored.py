"""Folders of a bundle: what was published there, checked file by file, and the networks that need no other base."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medphantom.conditioning.conditioner import open_conditioner
from medphantom.conditioning.config import EncoderSizes
from medphantom.conditioning.tables import stored_state
from medphantom.core.errors import BundleError, InputError
from medphantom.core.folders import (
    DIGEST_FILE,
    canonical_json,
    file_digest,
    inside,
    pixel_digest,
    read_digest,
    read_json,
)
from medphantom.core.guard import parse_model, reading
from medphantom.generators.autoencoder import Autoencoder
from medphantom.generators.denoiser import Denoiser
from medphantom.generators.facts import BundleFacts, read_description, whole_digest
from medphantom.generators.networks import AnyDenoiser
from medphantom.generators.requirements import require_for_use
from medphantom.learning.headers import no_more_weights_than
from medphantom.shipped import source_path

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CLASSES = {"autoencoder": "AutoencoderKL", "denoiser": "DiffusionModelUNet", "conditioning": "ConditionEncoder"}
# names of the files that diffusers reads
UNET_FILE = "diffusion_pytorch_model.safetensors"
LORA_FILE = "pytorch_lora_weights.safetensors"
PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib"}
MAKE_AGAIN = "fetch or create the bundle again"

Network = TypeVar("Network", Autoencoder, Denoiser)


@dataclass(frozen=True)
class Part:
    """One folder of a bundle: ``config.json`` and one file of tensors.

    Attributes:
        folder: Name of the folder.
        config: Parsed content of ``config.json``.
        tensors: Tensors of the network by name.
        file: Name of the tensor file.
    """

    folder: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    file: str = WEIGHTS_FILE


@dataclass(frozen=True)
class Published:
    """A bundle's folder whose files are as they were published.

    Attributes:
        folder: The folder.
        digest: Digest of the whole, as published.
        facts: All information except the weights.
        training: Recipe and curves.
    """

    folder: Path
    digest: str
    facts: BundleFacts
    training: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path, *, linked: Path | None = None) -> Published:
        """Verify every file of a bundle against its digest, and read what describes it.

        Args:
            path: Folder of the bundle, or ``base:NAME``.
            linked: Folder around it that its files may be links into; by default no link may leave ``path``.

        Raises:
            BundleError: If the folder is incomplete, truncated, altered, of another version, or contains pickled
                weights.
            InputError: If its networks need a package that is not installed.
        """
        folder = source_path(str(path))
        published = read_digest(folder, error=BundleError)
        _refuse_pickles(folder)
        _check_files(folder, published.get("files"), linked or folder)
        found = read_description(folder)
        require_for_use(found.facts, f"the bundle {folder}")
        return cls(folder, found.digest, found.facts, found.training)

    def require(self, networks: str) -> None:
        """Refuse networks that are not the published ones.

        Args:
            networks: Their digest, from :func:`networks_digest`.

        Raises:
            BundleError: If they differ.
        """
        if whole_digest(self.facts, self.training, networks) != self.digest:
            raise BundleError(f"{self.folder} was altered: its digest does not match its content", MAKE_AGAIN)


def networks_digest(tokenizer_json: str | None, parts: Iterable[Part]) -> str:
    """SHA-256 digest of the tokenizer, and of every tensor's name, type, shape and values."""
    digest = hashlib.sha256((tokenizer_json or "").encode())
    for part in parts:
        digest.update(canonical_json([part.folder, part.config]).encode())
        for key, tensor in sorted(part.tensors.items()):
            digest.update(f"{key}\0{pixel_digest(tensor.detach().cpu().contiguous().numpy())}".encode())
    return digest.hexdigest()


def tokenizer_json_of(denoiser: AnyDenoiser) -> str | None:
    """The tokenizer of the embedded text encoder as JSON, if there is one."""
    tokenizer = denoiser.conditioner.tokenizer
    return None if tokenizer is None else str(tokenizer.to_str(pretty=True))


def whole_parts(autoencoder: Autoencoder, denoiser: Denoiser) -> Iterator[Part]:
    """Folders of networks that need no base, without the condition encoder."""
    yield Part("autoencoder", described(autoencoder.arguments, "autoencoder"), tensors_of(autoencoder.net))
    yield Part("denoiser", described(denoiser.arguments, "denoiser"), tensors_of(denoiser.net))


def conditioning_part(denoiser: Denoiser) -> Part:
    """Folder of the condition encoder."""
    sizes = denoiser.sizes.model_dump(mode="json", exclude_defaults=True)
    return Part("conditioning", described(sizes, "conditioning"), tensors_of(denoiser.conditioning))


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a network as they are stored."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in stored_state(module).items()}


def described(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The content of ``config.json`` of a network."""
    return {"_class_name": CLASSES[name], **config}


def whole_networks(folder: Path, facts: BundleFacts) -> tuple[Autoencoder, Denoiser]:
    """Build the networks of a bundle that needs no base, and load their weights.

    Raises:
        BundleError: If a file is missing, damaged, or describes networks that do not fit their weights.
    """
    autoencoder = network_of(
        folder / "autoencoder",
        lambda arguments: Autoencoder(
            arguments,
            patch=facts.patch,
            shortcut=facts.shortcut,
            unit_range=facts.unit_range,
            window=facts.window,
        ),
        lambda network: {"autoencoder": network.net},
    )
    conditioner = open_conditioner(facts.conditions, folder / "conditioning" / TOKENIZER_FILE)
    sizes = sizes_of(folder / "conditioning" / CONFIG_FILE)
    levels = None if facts.objective.table is None else facts.objective.table.steps
    denoiser = network_of(
        folder / "denoiser",
        lambda arguments: Denoiser(arguments, conditioner, sizes, levels=levels),
        lambda network: {"denoiser": network.net, "conditioning": network.conditioning},
    )
    return autoencoder, denoiser


def files_of(folder: Path) -> Iterator[Path]:
    """Files of a bundle, without that of its digest."""
    return (path for path in folder.rglob("*") if path.is_file() and path.name != DIGEST_FILE)


def _refuse_pickles(folder: Path) -> None:
    for path in files_of(folder):
        if path.suffix.lower() in PICKLES:
            raise BundleError(
                f"{path} may contain pickled objects, which can run code when read",
                "a bundle contains safetensors and JSON only",
            )


def _check_files(folder: Path, expected: Any, root: Path) -> None:
    if not isinstance(expected, dict) or not expected:
        raise BundleError(f"{folder / DIGEST_FILE} lists no files", MAKE_AGAIN)
    for name, digest in expected.items():
        try:
            path = inside(root, folder.relative_to(root) / name)
        except InputError:
            raise BundleError(f"{folder / DIGEST_FILE} names a file outside the bundle", MAKE_AGAIN) from None
        with reading(folder / DIGEST_FILE, BundleError, "names a file that cannot be read", MAKE_AGAIN):
            if not path.is_file():
                raise BundleError(f"{folder / name} is missing", MAKE_AGAIN)
            if file_digest(path) != digest:
                raise BundleError(f"{folder / name} is truncated or was altered", MAKE_AGAIN)


def network_of(
    folder: Path, build: Callable[[dict[str, Any]], Network], parts: Callable[[Network], dict[str, nn.Module]]
) -> Network:
    """Build a network from its folder's config and load each of its parts from the safetensors beside that folder."""
    config = read_json(folder / CONFIG_FILE, error=BundleError)
    if not isinstance(config, dict) or config.pop("_class_name", None) != CLASSES[folder.name]:
        raise BundleError(f"{folder / CONFIG_FILE} does not describe a {CLASSES[folder.name]}", MAKE_AGAIN)
    with (
        reading(folder / CONFIG_FILE, BundleError, f"does not describe a {CLASSES[folder.name]}", MAKE_AGAIN),
        no_more_weights_than([folder, folder.parent / "conditioning"], BundleError, MAKE_AGAIN),
        torch.random.fork_rng(devices=[]),  # initial weights are drawn and discarded
    ):
        network = build(config)
    for name, module in parts(network).items():
        weights = weights_of(folder.parent / name / WEIGHTS_FILE)
        problem = f"does not fit {folder / CONFIG_FILE}"
        with reading(folder.parent / name / WEIGHTS_FILE, BundleError, problem, MAKE_AGAIN):
            module.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def sizes_of(path: Path) -> EncoderSizes:
    """Read the sizes of the condition encoder.

    Raises:
        BundleError: If the file does not describe one.
    """
    config, said = read_json(path, error=BundleError), f"does not describe a {CLASSES['conditioning']}; {MAKE_AGAIN}"
    if not isinstance(config, dict) or config.pop("_class_name", None) != CLASSES["conditioning"]:
        raise BundleError(f"{path} does not describe a {CLASSES['conditioning']}", MAKE_AGAIN)
    return parse_model(EncoderSizes, config, path, BundleError, said)


def weights_of(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        BundleError: If it is no safetensors file.
    """
    with reading(path, BundleError, "is not a safetensors file; pickled weights are never read", MAKE_AGAIN):
        return load_file(path)
