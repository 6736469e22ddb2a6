"""Number of weights in files, by their headers: a forged configuration must not request a network larger than them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from medphantom.core.errors import ArtifactError, MedphantomError

SPARE = 1024  # weights that a network may have beyond the stored ones
TIMES = 2  # layers that are created and replaced are counted as well
FEWEST_BYTES = 2  # per number in a torch file, whose header is not read


def stored_weights(folder: Path, error: type[MedphantomError] = ArtifactError, remedy: str = "fetch it again") -> int:
    """Return an upper bound on the number of weights in the weight files of a folder.

    Safetensors are counted by their headers, which the library checks against the file sizes, torch files by their
    size.

    Args:
        folder: Folder with weight files.
        error: Type of the error.
        remedy: What to do about it.

    Raises:
        MedphantomError: Of type ``error``, if a safetensors file is invalid.
    """
    total = sum(path.stat().st_size // FEWEST_BYTES for kind in ("*.pt", "*.pth") for path in folder.glob(kind))
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as content:
                total += sum(math.prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
        except (SafetensorError, OSError, ValueError):
            raise error(f"{file} is not a safetensors file; pickled weights are never read", remedy) from None
    return total


@contextmanager
def no_more_weights_than(
    folders: Sequence[Path],
    error: type[MedphantomError] = ArtifactError,
    remedy: str = "fetch it again",
    *,
    times: int = TIMES,
    spare: int = SPARE,
) -> Iterator[None]:
    """Limit networks that the block builds to the size of the weights in these folders; it ends at a layer too many.

    A layer allocates memory before it is counted, but does not touch it, since it is filled afterwards.

    Args:
        folders: Folders with weight files.
        error: Type of the error.
        remedy: What to do about it.
        times: Factor by which the stored weights are multiplied.
        spare: Number of weights that are allowed in addition.

    Raises:
        MedphantomError: Of type ``error``, if the configuration describes a larger network than the weights beside it.
    """
    limit = times * sum(stored_weights(folder, error, remedy) for folder in folders) + spare
    seen = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal seen
        del module, name
        seen += 0 if parameter is None else parameter.numel()
        if seen > limit:
            raise error(f"{folders[0]} describes a larger network than the weights in it", remedy)

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
