"""Optional packages: which extra of an installation brings each, and the refusal of what needs one that is absent.

A plain installation contains everything that the main job needs. Whatever needs more calls :func:`require`, first where
its configuration is read, so that no work is lost, and again where the package is imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from medphantom.core.errors import InputError

Extra = Literal["private", "pretrained", "tensorboard", "onnx"]
PACKAGES: dict[Extra, tuple[str, ...]] = {
    "private": ("opacus",),
    "pretrained": ("transformers", "peft"),
    "tensorboard": ("tensorboard",),
    "onnx": ("onnxruntime",),
}
"""Packages of each extra of ``pyproject.toml``, by the names under which they are imported."""


def absent(extra: Extra) -> tuple[str, ...]:
    """Return the packages of an extra that cannot be imported here; none of them is imported for that."""
    return tuple(name for name in PACKAGES[extra] if not importable(name))


def importable(package: str) -> bool:
    """Return whether a top-level package can be found; it is not imported for that."""
    try:
        found = find_spec(package)
    except (ImportError, ValueError):  # an import hook that refuses it, or a module without a specification
        return False
    return found is not None and found.origin is not None  # a mere folder of that name has no origin


def require(extra: Extra, what: str) -> None:
    """Refuse what needs an extra that is not installed.

    Args:
        extra: Name of the extra.
        what: What needs it, in the user's words: the field with its value, or the file.

    Raises:
        InputError: If a package of the extra is absent; the line names it and the command that installs it.
    """
    missing = absent(extra)
    if missing:
        packages = f"the package {missing[0]}, which is" if len(missing) == 1 else f"{' and '.join(missing)}, which are"
        raise InputError(f"{what} needs {packages} not installed", f"pip install 'medphantom[{extra}]'")
