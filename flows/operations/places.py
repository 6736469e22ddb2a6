"""Where an operation reads and writes: folders or opened values, a place that must be free, and work beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medphantom.cohorts.store import Cohort
from medphantom.core.access import private_files
from medphantom.core.arguments import checked
from medphantom.core.errors import ArtifactError, InputError, UnsupportedClaim
from medphantom.core.folders import DIGEST_FILE, work_folder
from medphantom.core.guard import folder_path, user_path

if TYPE_CHECKING:
    from medphantom.generators.bundle import GeneratorBundle

KEPT = ("step-*", DIGEST_FILE, "parts/*")
"""Names within work that somebody would miss: checkpoints, what was published inside it, and finished scores."""

Folder = str | Path
Result = TypeVar("Result")


@checked
def opened(cohort: Cohort | Folder) -> Cohort:
    """A cohort as it is, or opened from its folder."""
    return cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)


def loaded(bundle: GeneratorBundle | Folder) -> GeneratorBundle:
    """A bundle as it is, or loaded from its folder (or ``base:NAME``) and checked against its digest.

    Raises:
        BundleError: The folder is no bundle, or was altered.
        InputError: Neither a bundle nor a folder was given.
    """
    from medphantom.generators.bundle import GeneratorBundle as Bundle

    if isinstance(bundle, Bundle):
        return bundle
    require_folder(bundle, "a bundle")
    return Bundle.load(bundle)


def require_folder(given: object, what: str) -> None:
    """Refuse what is no path of a folder.

    Raises:
        InputError: It is no text and no path.
    """
    if not isinstance(given, str | Path) or not str(given):
        raise InputError(f"{what} or its folder was expected, got {type(given).__name__}", "give a path")


def options_here(options: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Options of reading a source, with a relative path of a table or of masks found in the working folder.

    A path that lies only in the source stays as it is: there it is looked for first.

    Args:
        options: Fields of :class:`medphantom.cohorts.options.IngestOptions`, as arguments of an operation.
        source: Folder of the images.

    Raises:
        InputError: A path lies both in the working folder and in the source.
    """
    found = dict(options)
    for name in ("table", "masks"):
        value = found.get(name)
        if not isinstance(value, str | Path) or str(value) in {"auto", "none"} or Path(value).is_absolute():
            continue
        here, there = user_path(Path(value), base=Path.cwd()), user_path(Path(value), base=source)
        if here.exists() and there.exists() and not here.samefile(there):
            raise InputError(
                f"{name} {value} lies both in the working folder and in the source", "give it with its whole path"
            )
        found[name] = str(here) if here.exists() else str(value)
    return found


def preprocess_flags(cohort: Cohort, size: int | Sequence[int] | None) -> dict[str, object]:
    """The ``size`` argument of an operation as settings of the ``preprocess`` section; nothing where none was given."""
    if size is None:
        return {}
    return {"size": [size] * cohort.schema.spatial_dims if isinstance(size, int) else list(size)}


def work_beside(out: Path) -> Path:
    """Where an operation keeps checkpoints until its result is published: ``<out>.work``."""
    return out.with_name(f"{out.name}.work")


def refuse_existing(out: Path) -> None:
    """Stop before any work when the result would have no place.

    Raises:
        InputError: ``out`` exists and is not an empty folder, or cannot be made.
    """
    if folder_path(out).exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already", "choose another --out, or remove it first")
    _require_parent(out, next(parent for parent in out.absolute().parents if parent.exists()))


def refuse_file(file: Path, option: str = "--out") -> None:
    """Stop before any work when a file that is to be written would have no place, or lie in a published folder.

    Args:
        file: File to write.
        option: How the user calls it.

    Raises:
        InputError: It exists, its folder does not, or it would alter a published folder.
    """
    if user_path(file).exists():
        raise InputError(f"{file} exists already", f"choose another {option}, or remove it first")
    refuse_published(file, option)


def refuse_published(file: Path, option: str = "--out") -> None:
    """Stop when a file would lie in a folder that must stay as it is, or nowhere.

    Raises:
        InputError: Its folder does not exist, is no folder, cannot be written, or is published.
    """
    folder = user_path(file).absolute().parent
    _require_parent(file, folder)
    if any((parent / DIGEST_FILE).is_file() for parent in (folder, *folder.parents)):
        raise InputError(f"{file} lies in a published folder, which must stay as it is", f"choose another {option}")


def _require_parent(place: Path, parent: Path) -> None:
    """Refuse a place in something that is no folder or that cannot be written."""
    if not parent.is_dir():
        what = "is no folder" if parent.exists() else "does not exist"
        raise InputError(f"{place} cannot be made, since {parent} {what}", "check the path")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{place} cannot be made, since {parent} cannot be written", "choose another place")


def resumable(out: Path, run: Callable[[Path], Result], work: Path | None = None) -> Result:
    """Run something that keeps checkpoints, readable by their owner only, until its result is published.

    Args:
        out: Where the result is published.
        run: Takes the folder for checkpoints.
        work: That folder, where the caller keeps one; by default ``<out>.work``, which is removed at the end, and where
            the input is refused before there is anything to continue from.
    """
    if work is not None:
        return run(work)
    beside = work_beside(out)
    begun = beside.exists()
    try:
        with private_files():
            result = run(work_folder(beside))
    except (InputError, ArtifactError, UnsupportedClaim):
        if not begun and not any(any(beside.rglob(kept)) for kept in KEPT):
            shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(beside, ignore_errors=True)
    return result
