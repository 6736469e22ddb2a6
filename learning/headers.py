"""How many weights files hold, by their headers: a forged configuration must not ask for a network larger than them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from medphantom.core.errors import ArtifactError, MedphantomError

SPARE = 1024  # weights that a network may hold beside those that are stored
TIMES = 2  # layers that are made and replaced are counted as well
FEWEST_BYTES = 2  # of a number in a file of torch's, whose header is not read


def stored_weights(folder: Path, error: type[MedphantomError] = ArtifactError, remedy: str = "fetch it again") -> int:
    """Numbers that the files of weights in a folder hold, at most.

    Those of safetensors by their headers, which the library checks against the files' sizes; those of torch by size.

    Args:
        folder: with files of weights.
        error: type of the error.
        remedy: what to do about it.

    Raises:
        MedphantomError: of type ``error``: a safetensors file is none.
    """
    total = sum(path.stat().st_size // FEWEST_BYTES for kind in ("*.pt", "*.pth") for path in folder.glob(kind))
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as content:
                total += sum(math.prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
        except (SafetensorError, OSError, ValueError):
            raise error(f"{file} is no safetensors file; pickled weights are never read", remedy) from None
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
    """Networks that the block builds may not be larger than what these folders hold; it ends at a layer too many.

    A layer asks for memory before it is counted, but touches none of it: it is filled afterwards.

    Args:
        folders: with files of weights.
        error: type of the error.
        remedy: what to do about it.
        times: the stored weights are counted so often.
        spare: weights that may come on top.

    Raises:
        MedphantomError: of type ``error``: the configuration is of a larger network than the weights beside it.
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
