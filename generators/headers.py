"""How many weights a file holds by its header: a forged configuration must not ask for a network larger than it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from cohorts.errors import BundleError

SPARE = 1024  # weights that a network may hold beside those that are stored


def stored_weights(folder: Path) -> int:
    """Numbers that the safetensors files of a folder hold, by their headers, which the library checks against sizes.

    Raises:
        BundleError: a file is none.
    """
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as content:
                total += sum(math.prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
        except (SafetensorError, OSError, ValueError):
            raise BundleError(
                f"{file} is no safetensors file; pickled weights are never read", "fetch or make the bundle again"
            ) from None
    return total


@contextmanager
def no_more_weights_than(folders: Sequence[Path]) -> Iterator[None]:
    """Networks that the block builds may not be larger than what these folders hold; it ends at a layer too many.

    A layer asks for memory before it is counted, but touches none of it: it is filled afterwards. Layers that are made
    and replaced are counted too, hence twice the weights.

    Raises:
        BundleError: the configuration is of a larger network than the weights beside it.
    """
    limit = 2 * sum(stored_weights(folder) for folder in folders) + SPARE
    seen = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal seen
        del module, name
        seen += 0 if parameter is None else parameter.numel()
        if seen > limit:
            raise BundleError(
                f"{folders[0]} describes a larger network than the weights in it", "fetch or make the bundle again"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
