"""Where an operation reads and writes: folders or opened values, a place that must be free, and work beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from medphantom.cohorts.store import Cohort
from medphantom.core.access import private_files
from medphantom.core.errors import InputError
from medphantom.core.folders import work_folder
from medphantom.core.guard import folder_path

if TYPE_CHECKING:
    from medphantom.generators.bundle import GeneratorBundle

Folder = str | Path
Result = TypeVar("Result")


def opened(cohort: Cohort | Folder) -> Cohort:
    """A cohort as it is, or opened from its folder."""
    return cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)


def loaded(bundle: GeneratorBundle | Folder) -> GeneratorBundle:
    """A bundle as it is, or loaded from its folder and checked against its digest."""
    from medphantom.generators.bundle import GeneratorBundle as Bundle

    return bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)


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
        InputError: ``out`` exists and is not an empty folder.
    """
    if folder_path(out).exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already", "choose another --out, or remove it first")


def resumable(out: Path, run: Callable[[Path], Result], work: Path | None = None) -> Result:
    """Run something that keeps checkpoints, readable by their owner only, until its result is published.

    Args:
        out: Where the result is published.
        run: Takes the folder for checkpoints.
        work: That folder, where the caller keeps one; by default ``<out>.work``, which is removed at the end.
    """
    if work is not None:
        return run(work)
    beside = work_beside(out)
    with private_files():
        result = run(work_folder(beside))
    shutil.rmtree(beside, ignore_errors=True)
    return result
