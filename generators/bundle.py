"""A generator on disk: MONAI networks as config and safetensors, and JSON files that describe their use.

The layout is described in ``docs/formats/bundle.md``. Nothing in a bundle is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from medphantom.conditioning.conditioner import open_conditioner
from medphantom.conditioning.config import EncoderSizes
from medphantom.core.errors import BundleError
from medphantom.core.folders import file_digest, publishing, write_digest, write_json
from medphantom.core.guard import reading
from medphantom.generators.autoencoder import Autoencoder
from medphantom.generators.base import open_base
from medphantom.generators.denoiser import Denoiser
from medphantom.generators.facts import FACTS_FILE, TRAINING_FILE, BaseFacts, BundleFacts, whole_digest
from medphantom.generators.methods import load_tuned, lora_arguments, tuned_tensors
from medphantom.generators.networks import AnyAutoencoder, AnyDenoiser
from medphantom.generators.stored import (
    CONFIG_FILE,
    LORA_FILE,
    MAKE_AGAIN,
    TOKENIZER_FILE,
    UNET_FILE,
    WEIGHTS_FILE,
    Part,
    Published,
    conditioning_part,
    files_of,
    networks_digest,
    sizes_of,
    tokenizer_json_of,
    weights_of,
    whole_networks,
    whole_parts,
)


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
        """Digest of the content; see :func:`medphantom.generators.facts.whole_digest`."""
        return whole_digest(self.facts, self.training, self.networks_digest)

    @cached_property
    def networks_digest(self) -> str:
        """Digest of the networks alone; see :func:`medphantom.generators.stored.networks_digest`."""
        return networks_digest(self.tokenizer_json, self._parts())

    @property
    def needs_base(self) -> bool:
        """Whether the bundle contains only the changes to a base."""
        return self.facts.base is not None and self.facts.base.needed

    @property
    def tokenizer_json(self) -> str | None:
        """The tokenizer of the embedded text encoder, if there is one."""
        return tokenizer_json_of(self.denoiser)

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Publish the bundle as a folder.

        Args:
            path: Folder to make.
            half: Whether tensors are stored as float16, in half the space; the bundle must have been rounded
                (:meth:`rounded`), so that what is read is what is published.

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
                if half:
                    tensors = {key: _half(value) for key, value in tensors.items()}
                save_file(tensors, folder / part.folder / part.file, metadata=_metadata(part))
            if self.tokenizer_json is not None:
                (folder / "conditioning" / TOKENIZER_FILE).write_text(self.tokenizer_json, encoding="utf-8")
            files = {str(file.relative_to(folder)): file_digest(file) for file in sorted(files_of(folder))}
            write_digest(folder, self.digest, networks=self.networks_digest, files=files)

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
            InputError: If its networks need a package that is not installed, or its base is not available.
        """
        published = Published.read(path, linked=linked)
        folder, facts = published.folder, published.facts
        autoencoder: AnyAutoencoder
        denoiser: AnyDenoiser
        with reading(folder, BundleError, "describes networks that cannot be built", MAKE_AGAIN):
            if facts.base is not None and facts.base.needed:
                autoencoder, denoiser = _tuned_networks(folder, facts, facts.base)
            else:
                autoencoder, denoiser = whole_networks(folder, facts)
            bundle = cls(facts, autoencoder, denoiser, published.training)
            networks = bundle.networks_digest
        published.require(networks)
        return bundle

    def rounded(self) -> GeneratorBundle:
        """Round all weights to what float16 can hold, in place, and return a bundle of them with its own digest."""
        with torch.no_grad():
            for network in (self.autoencoder, self.denoiser):
                for value in (*network.parameters(), *network.buffers()):
                    if value.is_floating_point():
                        value.copy_(value.half().to(value.dtype))
        return GeneratorBundle(self.facts, self.autoencoder, self.denoiser, self.training)

    def to(self, device: torch.device | str) -> GeneratorBundle:
        """Move the networks of the bundle to a device (without copying) and return the bundle."""
        self.autoencoder.to(device)
        self.denoiser.to(device)
        return self

    def _parts(self) -> Iterator[Part]:
        base, autoencoder, denoiser = self.facts.base, self.autoencoder, self.denoiser
        if base is not None and base.needed:
            yield _tuned_part(base, denoiser)
        elif isinstance(autoencoder, Autoencoder) and isinstance(denoiser, Denoiser):
            yield from whole_parts(autoencoder, denoiser)
        if isinstance(denoiser, Denoiser):
            yield conditioning_part(denoiser)


def _tuned_part(base: BaseFacts, denoiser: AnyDenoiser) -> Part:
    """Return what was learned on top of a base; for a pipeline, in a form that diffusers reads."""
    tensors = tuned_tensors(denoiser, base.tuning)
    if base.kind == "stable_diffusion" and base.tuning.method == "full":
        config = {key: value for key, value in denoiser.net.config.items() if key != "_name_or_path"}
        return Part("unet", {"_class_name": "UNet2DConditionModel", **config}, tensors, UNET_FILE)
    config = {"_class_name": "FineTuning", **base.tuning.model_dump(mode="json")}
    if base.kind == "stable_diffusion" and base.tuning.method == "lora":
        config["adapter"] = lora_arguments(denoiser.net, base.tuning)
        return Part("lora", config, {f"unet.{name}": tensor for name, tensor in tensors.items()}, LORA_FILE)
    return Part("tuned", config, tensors)


def _half(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float16 that holds the same values.

    Raises:
        BundleError: If it cannot.
    """
    if not tensor.is_floating_point():
        return tensor
    short = tensor.half()
    if not torch.equal(short.to(tensor.dtype), tensor):
        raise BundleError("weights cannot be stored as float16 without a change", "round the bundle first")
    return short


def _metadata(part: Part) -> dict[str, str]:
    """Return the metadata that diffusers expects in a file of LoRA weights."""
    metadata = {"format": "pt"}
    if part.file == LORA_FILE:
        adapter = {f"unet.{key}": value for key, value in part.config["adapter"].items()}
        metadata["lora_adapter_metadata"] = json.dumps(adapter, sort_keys=True)
    return metadata


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
    sizes = sizes_of(described) if tuned.kind != "stable_diffusion" else EncoderSizes(dim=base.context_dim)
    denoiser = base.denoiser(conditioner, sizes, seed=0)
    name, file = {
        ("stable_diffusion", "full"): ("unet", UNET_FILE),
        ("stable_diffusion", "lora"): ("lora", LORA_FILE),
    }.get((tuned.kind, tuned.tuning.method), ("tuned", WEIGHTS_FILE))
    tensors = {
        key.removeprefix("unet.") if name == "lora" else key: t for key, t in weights_of(folder / name / file).items()
    }
    with reading(folder / name / file, BundleError, f"does not fit base {tuned.source}", MAKE_AGAIN):
        load_tuned(denoiser, tuned.tuning, tensors)
        if isinstance(denoiser, Denoiser):
            denoiser.conditioning.load_state_dict(weights_of(folder / "conditioning" / WEIGHTS_FILE))
    return base.autoencoder(facts.preprocess.channels), denoiser.eval().requires_grad_(False)
