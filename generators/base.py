"""Pretrained models for fine-tuning (a bundle, a MONAI model or a Stable Diffusion pipeline) behind one interface."""

from __future__ import annotations

from medphantom.conditioning.foreign import foreign_networks
from medphantom.core.errors import BundleError, InputError
from medphantom.core.folders import DIGEST_FILE
from medphantom.core.guard import reading
from medphantom.generators.config import FineTuning
from medphantom.generators.lineage import Lineage
from medphantom.generators.networks import Base, NetworkBase
from medphantom.generators.requirements import require_base
from medphantom.generators.stored import (
    MAKE_AGAIN,
    Published,
    conditioning_part,
    networks_digest,
    tokenizer_json_of,
    whole_networks,
    whole_parts,
)
from medphantom.shipped import source_path


def open_base(source: str, tuning: FineTuning | None = None) -> Base:
    """Open the base that a recipe names.

    Args:
        source: ``base:NAME`` of a base that ships, folder of a bundle, folder in the layout of MONAI's bundles, or
            folder or hub id in diffusers' layout.
        tuning: Fine-tuning settings, which give the value range of images for a MONAI base.

    Raises:
        InputError: If it is not available, or of no kind that can be fine-tuned.
        BundleError: If a bundle is damaged or itself only stores changes to another base.
    """
    require_base(source)
    folder = source_path(source)
    if (folder / DIGEST_FILE).is_file():
        return _bundle(source)
    if (folder / "configs").is_dir():
        from medphantom.generators.monai_base import LAYOUT, MonaiParts

        with foreign_networks(f"base {source}", remedy=LAYOUT, source=source, folders=[folder / "models"]):
            parts = MonaiParts(source, unit_range=(tuning or FineTuning()).value_range == "unit")
        return NetworkBase(
            "monai",
            source,
            parts.digest,
            parts.objective,
            parts.scaling,
            parts.autoencoder,
            parts.denoiser,
            Lineage(unknown=("its MONAI base",)),
        )
    if folder.is_dir() and not (folder / "unet").is_dir():
        raise InputError(
            f"{source} is neither a bundle nor a folder in the layout of MONAI or diffusers",
            "give a folder that contains bundle.json, configs/ and models/, or a diffusers pipeline (unet/ vae/ …)",
        )
    from medphantom.generators.stable import StableBase  # loads diffusers' networks

    remedy = "give a diffusers pipeline of the Stable Diffusion 1.x or 2.x class"
    with foreign_networks(f"base {source}", remedy=remedy, source=source):
        return StableBase(source)


def _bundle(source: str) -> NetworkBase:
    published = Published.read(source)
    facts = published.facts
    facts.require_whole_path("fine-tuning")
    if facts.base is not None and facts.base.needed:
        raise BundleError(f"{source} contains only the changes to another base", "fine-tune that base instead")
    with reading(published.folder, BundleError, "describes networks that cannot be built", MAKE_AGAIN):
        autoencoder, denoiser = whole_networks(published.folder, facts)
        parts = (*whole_parts(autoencoder, denoiser), conditioning_part(denoiser))
        digest = networks_digest(tokenizer_json_of(denoiser), parts)
    published.require(digest)
    return NetworkBase(
        "bundle",
        source,
        published.digest,
        facts.objective,
        facts.latent_scaling,
        autoencoder,
        denoiser,
        facts.lineage,
    )
