"""Bases that ship with the package: trained networks that learned from no patient, each a bundle with a card."""

from __future__ import annotations

from pathlib import Path

from medphantom.core.errors import BundleError, InputError
from medphantom.core.folders import file_digest, json_digest
from medphantom.core.guard import reading
from medphantom.core.wording import closest

PREFIX = "base:"
CARD_FILE = "CARD.md"
DIGESTS = {
    "generic": "2dd5ca508789663124197ed22992a1df82236cd2f653c9f5a128e36f96727e6e",
    "radiograph": "9b9bf75274cbdb9708fbb7dcbc76a7f4743fafbadcebfcd5252a777e46f5babf",
}
"""Digests of the shipped bases by name; a recipe names one as ``base:generic``."""
FILES = {
    "generic": "727ae3002a58dc0c5da9bdc4d87403fe7511e9d6019dad95f29fe75a98adb75e",
    "radiograph": "26d99aa07f1beae88aa4c6afc8642e0301ca06756996ae3b5bf3dc3ab36390d8",
}
"""Digests of all files of each shipped base, its card included, from :func:`files_digest`."""
SHIPPED = tuple(DIGESTS)
AGAIN = "install medphantom again"

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


def files_digest(folder: Path) -> str:
    """Return the digest of the names and contents of all files of a folder."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return json_digest({file.relative_to(folder).as_posix(): file_digest(file) for file in files})


def require_as_shipped(folder: Path, digest: str) -> None:
    """Refuse what lies in the place of a base of this package and is not it, however it is named.

    Args:
        folder: Folder of any bundle; others than the bases of this package are not looked at.
        digest: Its digest.

    Raises:
        BundleError: If it was replaced, or any of its files, its card included, was changed, added or removed.
    """
    for name in _names_here(folder):
        if digest != DIGESTS.get(name):
            raise BundleError(f"{PREFIX}{name} is not the base that ships with this version", AGAIN)
        with reading(folder, BundleError, "cannot be read", AGAIN):
            found = files_digest(folder)
        if found != FILES.get(name):
            raise BundleError(f"{PREFIX}{name} does not have the files that ship with this version", AGAIN)


def _names_here(folder: Path) -> set[str]:
    """Return the names under which a folder lies among the bases of this package, as it is named or by a link."""
    places, here = (folder.absolute(), folder.resolve()), _HERE.resolve()
    return {place.name for place in places if place.parent.resolve() == here}
