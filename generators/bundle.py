"""A generator on disk: MONAI's own networks as config and safetensors, beside JSON that says what they are for.

The layout is described in ``docs/formats/bundle.md``. Nothing in a bundle is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cohorts.errors import BundleError
from cohorts.folders import (
    DIGEST_FILE,
    canonical_json,
    file_digest,
    pixel_digest,
    publishing,
    read_digest,
    read_json,
    write_digest,
    write_json,
)
from conditioning.conditioner import open_conditioner
from conditioning.config import EncoderSizes
from generators.autoencoder import Autoencoder
from generators.denoiser import Denoiser
from generators.facts import FACTS_FILE, BundleFacts

TRAINING_FILE = "training.json"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CLASSES = {"autoencoder": "AutoencoderKL", "denoiser": "DiffusionModelUNet", "conditioning": "ConditionEncoder"}
PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib"}
MAKE_AGAIN = "fetch or make the bundle again"

Network = TypeVar("Network", Autoencoder, Denoiser)


@dataclass(frozen=True, eq=False)
class GeneratorBundle:
    """A trained latent diffusion model; two are equal when their digests are.

    Attributes:
        facts: everything that is not a weight.
        autoencoder: in evaluation mode.
        denoiser: in evaluation mode.
        training: recipe and curves: ``{"recipe": …, "autoencoder": [rows], "denoiser": [rows], …}``.
    """

    facts: BundleFacts
    autoencoder: Autoencoder
    denoiser: Denoiser
    training: dict[str, Any]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GeneratorBundle) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"GeneratorBundle({self.facts.latent_shape} latents, digest {self.digest[:12]})"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over facts, curves, and every tensor's name, type, shape and values.

        Facts at their defaults do not enter, so that a fact which is added later leaves the digests of older bundles.
        """
        facts = self.facts.model_dump(mode="json", exclude_defaults=True)
        digest = hashlib.sha256(canonical_json([facts, self.training]).encode())
        digest.update((self.tokenizer_json or "").encode())
        for name, config, module in self._parts():
            digest.update(canonical_json([name, config]).encode())
            for key, tensor in sorted(module.state_dict().items()):
                digest.update(f"{key}\0{pixel_digest(tensor.detach().cpu().contiguous().numpy())}".encode())
        return digest.hexdigest()

    @property
    def tokenizer_json(self) -> str | None:
        """The tokenizer of the embedded text encoder, where there is one."""
        tokenizer = self.denoiser.conditioner.tokenizer
        return None if tokenizer is None else str(tokenizer.to_str(pretty=True))

    def save(self, path: str | Path) -> None:
        """Publish as a folder.

        Raises:
            InputError: the folder exists already and is not empty.
            ResourceError: the disk is full or cannot be written.
        """
        with publishing(Path(path)) as folder:
            write_json(folder / FACTS_FILE, self.facts.model_dump(mode="json"))
            write_json(folder / TRAINING_FILE, self.training)
            for name, config, module in self._parts():
                (folder / name).mkdir()
                write_json(folder / name / CONFIG_FILE, config)
                tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
                save_file(tensors, folder / name / WEIGHTS_FILE)
            if self.tokenizer_json is not None:
                (folder / "conditioning" / TOKENIZER_FILE).write_text(self.tokenizer_json, encoding="utf-8")
            files = {str(file.relative_to(folder)): file_digest(file) for file in sorted(_files(folder))}
            write_digest(folder, self.digest, files=files)

    @classmethod
    def load(cls, path: str | Path) -> GeneratorBundle:
        """Read a published bundle, and check every file and the whole against their digests.

        Raises:
            BundleError: the folder is unfinished, truncated, altered, of another version, or holds pickled weights.
        """
        folder = Path(path)
        published = read_digest(folder, error=BundleError)
        _refuse_pickles(folder)
        _check_files(folder, published.get("files"))
        try:
            facts = BundleFacts.model_validate(read_json(folder / FACTS_FILE, error=BundleError))
        except ValidationError:
            raise BundleError(f"{folder / FACTS_FILE} does not describe a generator", MAKE_AGAIN) from None
        autoencoder = _network(
            folder / "autoencoder",
            lambda arguments: Autoencoder(arguments, patch=facts.patch, shortcut=facts.shortcut),
            lambda network: {"autoencoder": network.net},
        )
        conditioner = open_conditioner(facts.conditions, folder / "conditioning" / TOKENIZER_FILE)
        sizes = _sizes(folder / "conditioning" / CONFIG_FILE)
        denoiser = _network(
            folder / "denoiser",
            lambda arguments: Denoiser(arguments, conditioner, sizes),
            lambda network: {"denoiser": network.net, "conditioning": network.conditioning},
        )
        training = read_json(folder / TRAINING_FILE, error=BundleError)
        bundle = cls(facts, autoencoder, denoiser, training)
        if bundle.digest != published["digest"]:
            raise BundleError(f"{folder} was altered: its digest is not that of its content", MAKE_AGAIN)
        return bundle

    def to(self, device: torch.device | str) -> GeneratorBundle:
        """The same bundle with its networks on a device (they are moved, not copied)."""
        self.autoencoder.to(device)
        self.denoiser.to(device)
        return self

    def _parts(self) -> Iterator[tuple[str, dict[str, Any], nn.Module]]:
        autoencoder = {"_class_name": CLASSES["autoencoder"], **self.autoencoder.arguments}
        denoiser = {"_class_name": CLASSES["denoiser"], **self.denoiser.arguments}
        sizes = self.denoiser.sizes.model_dump(mode="json", exclude_defaults=True)
        conditioning = {"_class_name": CLASSES["conditioning"], **sizes}
        yield "autoencoder", autoencoder, self.autoencoder.net
        yield "denoiser", denoiser, self.denoiser.net
        yield "conditioning", conditioning, self.denoiser.conditioning


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name != DIGEST_FILE)


def _refuse_pickles(folder: Path) -> None:
    for path in _files(folder):
        if path.suffix.lower() in PICKLES:
            raise BundleError(
                f"{path} may hold pickled objects, which can run code when read",
                "a bundle holds safetensors and JSON only",
            )


def _check_files(folder: Path, expected: Any) -> None:
    if not isinstance(expected, dict) or not expected:
        raise BundleError(f"{folder / DIGEST_FILE} lists no files", MAKE_AGAIN)
    for name, digest in expected.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise BundleError(f"{folder / DIGEST_FILE} names a file outside the bundle", MAKE_AGAIN)
        if not path.is_file():
            raise BundleError(f"{folder / name} is missing", MAKE_AGAIN)
        if file_digest(path) != digest:
            raise BundleError(f"{folder / name} is truncated or was altered", MAKE_AGAIN)


def _network(
    folder: Path, build: Callable[[dict[str, Any]], Network], parts: Callable[[Network], dict[str, nn.Module]]
) -> Network:
    """Build a network from its folder's config and fill each of its parts from the safetensors beside that folder."""
    config = read_json(folder / CONFIG_FILE, error=BundleError)
    if not isinstance(config, dict) or config.pop("_class_name", None) != CLASSES[folder.name]:
        raise BundleError(f"{folder / CONFIG_FILE} does not describe a {CLASSES[folder.name]}", MAKE_AGAIN)
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
            network = build(config)
    except (TypeError, ValueError, KeyError, RuntimeError):
        raise BundleError(f"{folder / CONFIG_FILE} does not describe a {CLASSES[folder.name]}", MAKE_AGAIN) from None
    for name, module in parts(network).items():
        weights = _weights(folder.parent / name / WEIGHTS_FILE)
        try:
            module.load_state_dict(weights)
        except RuntimeError:
            raise BundleError(
                f"{folder.parent / name / WEIGHTS_FILE} does not fit {folder / CONFIG_FILE}", MAKE_AGAIN
            ) from None
    return network.eval().requires_grad_(False)


def _sizes(path: Path) -> EncoderSizes:
    config = read_json(path, error=BundleError)
    if isinstance(config, dict) and config.pop("_class_name", None) == CLASSES["conditioning"]:
        with suppress(ValidationError):
            return EncoderSizes.model_validate(config)
    raise BundleError(f"{path} does not describe a {CLASSES['conditioning']}", MAKE_AGAIN)


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing", MAKE_AGAIN) from None
    except (SafetensorError, OSError, ValueError):
        raise BundleError(f"{path} is no safetensors file; pickled weights are never read", MAKE_AGAIN) from None
