"""A generator on disk: MONAI networks as config and safetensors, and JSON files that describe their use.

The layout is described in ``docs/formats/bundle.md``. Nothing in a bundle is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
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
    publishing,
    read_digest,
    read_json,
    write_digest,
    write_json,
)
from medphantom.core.guard import parse_model, reading
from medphantom.generators.autoencoder import Autoencoder
from medphantom.generators.base import AnyAutoencoder, AnyDenoiser, open_base
from medphantom.generators.denoiser import Denoiser
from medphantom.generators.facts import FACTS_FILE, BaseFacts, BundleFacts, parse_facts
from medphantom.generators.methods import load_tuned, lora_arguments, tuned_tensors
from medphantom.learning.headers import no_more_weights_than

TRAINING_FILE = "training.json"
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
class _Part:
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


@dataclass(frozen=True, eq=False)
class GeneratorBundle:
    """A trained latent diffusion model; two bundles are equal if their digests are.

    Attributes:
        facts: All information except the weights.
        autoencoder: Autoencoder in evaluation mode.
        denoiser: Denoiser in evaluation mode.
        training: Recipe and curves: ``{"recipe": …, "autoencoder": [rows], "denoiser": [rows], …}``.
    """

    facts: BundleFacts
    autoencoder: AnyAutoencoder
    denoiser: AnyDenoiser
    training: dict[str, Any]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GeneratorBundle) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"GeneratorBundle({self.facts.latent_shape} latents, digest {self.digest[:12]})"

    @cached_property
    def digest(self) -> str:
        """SHA-256 digest of facts, curves, and every tensor's name, type, shape and values.

        Facts at their defaults are excluded, so that adding a fact later does not change the digests of older bundles.
        """
        facts = self.facts.model_dump(mode="json", exclude_defaults=True)
        digest = hashlib.sha256(canonical_json([facts, self.training]).encode())
        digest.update((self.tokenizer_json or "").encode())
        for part in self._parts():
            digest.update(canonical_json([part.folder, part.config]).encode())
            for key, tensor in sorted(part.tensors.items()):
                digest.update(f"{key}\0{pixel_digest(tensor.detach().cpu().contiguous().numpy())}".encode())
        return digest.hexdigest()

    @property
    def needs_base(self) -> bool:
        """Whether the bundle contains only the changes to a base."""
        return self.facts.base is not None and self.facts.base.needed

    @property
    def tokenizer_json(self) -> str | None:
        """The tokenizer of the embedded text encoder, if there is one."""
        tokenizer = self.denoiser.conditioner.tokenizer
        return None if tokenizer is None else str(tokenizer.to_str(pretty=True))

    def save(self, path: str | Path) -> None:
        """Publish the bundle as a folder.

        Raises:
            InputError: If the folder already exists and is not empty.
            ResourceError: If the disk is full or cannot be written.
        """
        with publishing(Path(path)) as folder:
            write_json(folder / FACTS_FILE, self.facts.model_dump(mode="json"))
            write_json(folder / TRAINING_FILE, self.training)
            for part in self._parts():
                (folder / part.folder).mkdir()
                write_json(folder / part.folder / CONFIG_FILE, part.config)
                tensors = {key: value.detach().cpu().contiguous() for key, value in part.tensors.items()}
                save_file(tensors, folder / part.folder / part.file, metadata=_metadata(part))
            if self.tokenizer_json is not None:
                (folder / "conditioning" / TOKENIZER_FILE).write_text(self.tokenizer_json, encoding="utf-8")
            files = {str(file.relative_to(folder)): file_digest(file) for file in sorted(_files(folder))}
            write_digest(folder, self.digest, files=files)

    @classmethod
    def load(cls, path: str | Path, *, linked: Path | None = None) -> GeneratorBundle:
        """Read a published bundle, and verify every file and the whole against their digests.

        Args:
            path: the folder.
            linked: a folder around it that its files may be links into, as in the hub's cache, which keeps the files
                of all revisions beside the snapshots; by default no link may leave ``path``.

        Raises:
            BundleError: If the folder is incomplete, truncated, altered, of another version, or contains pickled
                weights.
        """
        folder = Path(path)
        published = read_digest(folder, error=BundleError)
        _refuse_pickles(folder)
        _check_files(folder, published.get("files"), linked or folder)
        facts = parse_facts(folder)
        training = read_json(folder / TRAINING_FILE, error=BundleError)
        if not isinstance(training, dict):
            raise BundleError(f"{folder / TRAINING_FILE} does not describe a training run", MAKE_AGAIN)
        with reading(folder, BundleError, "describes networks that cannot be built", MAKE_AGAIN):
            if facts.base is not None and facts.base.needed:
                autoencoder, denoiser = _tuned_networks(folder, facts, facts.base)
            else:
                autoencoder, denoiser = _whole_networks(folder, facts)
            bundle = cls(facts, autoencoder, denoiser, training)
            digest = bundle.digest
        if digest != published["digest"]:
            raise BundleError(f"{folder} was altered: its digest does not match its content", MAKE_AGAIN)
        return bundle

    def to(self, device: torch.device | str) -> GeneratorBundle:
        """Move the networks of the bundle to a device (without copying) and return the bundle."""
        self.autoencoder.to(device)
        self.denoiser.to(device)
        return self

    def _parts(self) -> Iterator[_Part]:
        base, autoencoder, denoiser = self.facts.base, self.autoencoder, self.denoiser
        if base is not None and base.needed:
            yield _tuned_part(base, denoiser)
        elif isinstance(autoencoder, Autoencoder) and isinstance(denoiser, Denoiser):
            yield _Part("autoencoder", _class(autoencoder.arguments, "autoencoder"), _whole(autoencoder.net))
            yield _Part("denoiser", _class(denoiser.arguments, "denoiser"), _whole(denoiser.net))
        if isinstance(denoiser, Denoiser):
            sizes = denoiser.sizes.model_dump(mode="json", exclude_defaults=True)
            yield _Part("conditioning", _class(sizes, "conditioning"), _whole(denoiser.conditioning))


def _whole(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in stored_state(module).items()}


def _class(config: dict[str, Any], name: str) -> dict[str, Any]:
    return {"_class_name": CLASSES[name], **config}


def _tuned_part(base: BaseFacts, denoiser: AnyDenoiser) -> _Part:
    """Return what was learned on top of a base; for a pipeline, in a form that diffusers reads."""
    tensors = tuned_tensors(denoiser, base.tuning)
    if base.kind == "stable_diffusion" and base.tuning.method == "full":
        config = {key: value for key, value in denoiser.net.config.items() if key != "_name_or_path"}
        return _Part("unet", {"_class_name": "UNet2DConditionModel", **config}, tensors, UNET_FILE)
    config = {"_class_name": "FineTuning", **base.tuning.model_dump(mode="json")}
    if base.kind == "stable_diffusion" and base.tuning.method == "lora":
        config["adapter"] = lora_arguments(denoiser.net, base.tuning)
        return _Part("lora", config, {f"unet.{name}": tensor for name, tensor in tensors.items()}, LORA_FILE)
    return _Part("tuned", config, tensors)


def _metadata(part: _Part) -> dict[str, str]:
    """Return the metadata that diffusers expects in a file of LoRA weights."""
    metadata = {"format": "pt"}
    if part.file == LORA_FILE:
        adapter = {f"unet.{key}": value for key, value in part.config["adapter"].items()}
        metadata["lora_adapter_metadata"] = json.dumps(adapter, sort_keys=True)
    return metadata


def _whole_networks(folder: Path, facts: BundleFacts) -> tuple[Autoencoder, Denoiser]:
    autoencoder = _network(
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
    sizes = _sizes(folder / "conditioning" / CONFIG_FILE)
    levels = None if facts.objective.table is None else facts.objective.table.steps
    denoiser = _network(
        folder / "denoiser",
        lambda arguments: Denoiser(arguments, conditioner, sizes, levels=levels),
        lambda network: {"denoiser": network.net, "conditioning": network.conditioning},
    )
    return autoencoder, denoiser


def _tuned_networks(folder: Path, facts: BundleFacts, tuned: BaseFacts) -> tuple[AnyAutoencoder, AnyDenoiser]:
    """Return the base's networks with the fine-tuned weights applied."""
    base = open_base(tuned.source, tuned.tuning)
    if base.digest != tuned.digest:
        raise BundleError(
            f"base {tuned.source} is not the one that {folder} was fine-tuned from",
            "provide the revision that was used",
        )
    conditioner = open_conditioner(facts.conditions, folder / "conditioning" / TOKENIZER_FILE)
    described = folder / "conditioning" / CONFIG_FILE
    sizes = _sizes(described) if tuned.kind != "stable_diffusion" else EncoderSizes(dim=base.context_dim)
    denoiser = base.denoiser(conditioner, sizes, seed=0)
    name, file = {
        ("stable_diffusion", "full"): ("unet", UNET_FILE),
        ("stable_diffusion", "lora"): ("lora", LORA_FILE),
    }.get((tuned.kind, tuned.tuning.method), ("tuned", WEIGHTS_FILE))
    tensors = {
        key.removeprefix("unet.") if name == "lora" else key: t for key, t in _weights(folder / name / file).items()
    }
    with reading(folder / name / file, BundleError, f"does not fit base {tuned.source}", MAKE_AGAIN):
        load_tuned(denoiser, tuned.tuning, tensors)
        if isinstance(denoiser, Denoiser):
            denoiser.conditioning.load_state_dict(_weights(folder / "conditioning" / WEIGHTS_FILE))
    return base.autoencoder(facts.preprocess.channels), denoiser.eval().requires_grad_(False)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name != DIGEST_FILE)


def _refuse_pickles(folder: Path) -> None:
    for path in _files(folder):
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


def _network(
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
        weights = _weights(folder.parent / name / WEIGHTS_FILE)
        problem = f"does not fit {folder / CONFIG_FILE}"
        with reading(folder.parent / name / WEIGHTS_FILE, BundleError, problem, MAKE_AGAIN):
            module.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def _sizes(path: Path) -> EncoderSizes:
    config, said = read_json(path, error=BundleError), f"does not describe a {CLASSES['conditioning']}; {MAKE_AGAIN}"
    if not isinstance(config, dict) or config.pop("_class_name", None) != CLASSES["conditioning"]:
        raise BundleError(f"{path} does not describe a {CLASSES['conditioning']}", MAKE_AGAIN)
    return parse_model(EncoderSizes, config, path, BundleError, said)


def _weights(path: Path) -> dict[str, Tensor]:
    with reading(path, BundleError, "is not a safetensors file; pickled weights are never read", MAKE_AGAIN):
        return load_file(path)
