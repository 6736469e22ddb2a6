"""Bases that ship with the package: trained networks that learned from no patient, each a bundle with a card."""

from __future__ import annotations

from pathlib import Path

from medphantom.core.errors import BundleError, InputError
from medphantom.core.wording import closest

PREFIX = "base:"
CARD_FILE = "CARD.md"
DIGESTS = {
    "generic": "2dd5ca508789663124197ed22992a1df82236cd2f653c9f5a128e36f96727e6e",
    "radiograph": "9b9bf75274cbdb9708fbb7dcbc76a7f4743fafbadcebfcd5252a777e46f5babf",
}
"""Digests of the shipped bases by name; a recipe names one as ``base:generic``."""
SHIPPED = tuple(DIGESTS)

_HERE = Path(__file__).parent


def source_path(source: str) -> Path:
    """Return the folder of a base as a recipe names it.

    Args:
        source: ``base:NAME`` for a base of this package, else a folder or a hub id, which is returned as a path.

    Raises:
        InputError: If this package has no such base.

    Example:
        >>> source_path("base:generic").name
        'generic'
        >>> source_path("runs/mine/bundle").name
        'bundle'
        >>> source_path("base:radiographs")
        Traceback (most recent call last):
        medphantom.core.errors.InputError: there is no base 'radiographs'; did you mean radiograph?
    """
    if not source.startswith(PREFIX):
        return Path(source)
    name = source.removeprefix(PREFIX)
    if name not in SHIPPED:
        known = ", ".join(SHIPPED)
        raise InputError(f"there is no base {name!r}", closest(name, known) or f"known: {known}")
    return _HERE / name


def is_shipped(source: str) -> bool:
    """Return whether a recipe names a base of this package."""
    return source.startswith(PREFIX)


def require_as_shipped(source: str, digest: str) -> None:
    """Refuse a base of this package whose files are not those that were published with it.

    Raises:
        BundleError: If it was replaced.
    """
    if is_shipped(source) and digest != DIGESTS[source.removeprefix(PREFIX)]:
        raise BundleError(f"{source} is not the base that ships with this version", "install medphantom again")
