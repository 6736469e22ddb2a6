"""Which optional packages a generator needs, told from its configuration or from its facts alone. No torch here."""

from __future__ import annotations

from contextlib import suppress

from medphantom.core.errors import ArtifactError, InputError
from medphantom.core.extras import require
from medphantom.core.folders import DIGEST_FILE
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.facts import BundleFacts, read_facts
from medphantom.shipped import PREFIX, SHIPPED, is_shipped, source_path

FITS = ("features_fit", "text_fit", "autoencoder_fit", "denoiser_fit")


def require_for_training(config: GeneratorConfig) -> None:
    """Refuse a configuration whose training needs a package that is not installed.

    Args:
        config: Configuration of the generator, with ``init_from`` as it will be opened.

    Raises:
        InputError: If one is absent; the line names field, package and extra.
    """
    if config.privacy is not None:
        require("private", "generator.privacy")
    for name in FITS:
        if getattr(config, name).tracker == "tensorboard":
            require("tensorboard", f"generator.{name}.tracker: tensorboard")
    if config.conditioning.text is not None:
        require("pretrained", "generator.conditioning.text")
    base = config.init_from
    if base is None:
        return
    require_base(base)
    if config.tuning.method == "lora":
        require("pretrained", "generator.tuning.method: lora")
    if is_pipeline(base):
        require("pretrained", f"generator.init_from: {base} (a Stable Diffusion pipeline)")
    elif is_bundle(base):
        with suppress(ArtifactError):  # whoever opens it tells what is wrong with it
            require_for_use(read_facts(base)[0], f"the base {base}")


def require_for_use(facts: BundleFacts, what: str) -> None:
    """Refuse a bundle whose networks need a package that is not installed.

    Args:
        facts: Facts of the bundle.
        what: The bundle in the user's words.

    Raises:
        InputError: If one is absent; the line names package and extra.
    """
    if facts.conditions.text is not None:
        require("pretrained", what)
    base = facts.base
    if base is not None and base.needed and (base.tuning.method == "lora" or base.kind == "stable_diffusion"):
        require("pretrained", what)


def require_base(source: str) -> None:
    """Refuse a base that cannot be a folder of networks or a hub id.

    Raises:
        InputError: If it is a file, a folder that does not exist, or nearly the name of a base that ships.
    """
    folder = source_path(source)
    if _is_nearly_shipped(source) and not folder.exists():
        raise InputError(
            f"base {source} is no folder and no hub id",
            f"bases that ship are written {' or '.join(PREFIX + name for name in SHIPPED)}",
        )
    if folder.is_file():
        raise InputError(
            f"base {source} is a single file, but a base is a folder",
            "convert a single checkpoint: StableDiffusionPipeline.from_single_file(…).save_pretrained(…)",
        )
    if folder.is_absolute() and not folder.is_dir():
        raise InputError(f"base {source} does not exist", "create the base first, or give a hub id")


def _is_nearly_shipped(source: str) -> bool:
    """Return whether a text differs from ``base:NAME`` in capitals or spaces only; no hub id has a colon."""
    return not is_shipped(source) and source.strip().casefold().startswith(PREFIX)


def is_bundle(source: str) -> bool:
    """Return whether a base is the folder of a published bundle."""
    return (source_path(source) / DIGEST_FILE).is_file()


def is_pipeline(source: str) -> bool:
    """Return whether a base is a Stable Diffusion pipeline: a folder in diffusers' layout, or else a hub id."""
    folder = source_path(source)
    if folder.is_dir():
        return (folder / "unet").is_dir() and not (is_bundle(source) or (folder / "configs").is_dir())
    return not (folder.is_absolute() or folder.exists())
