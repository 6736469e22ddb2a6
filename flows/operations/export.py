"""``export``: a cohort as files that other tools load."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import checked
from medphantom.core.progress import Progress
from medphantom.flows.operations.places import Folder, opened
from medphantom.flows.process.progress import warn, watcher


@checked
def export(
    cohort: Cohort | Folder,
    out: Folder,
    *,
    format: Literal["png", "nifti"] = "png",  # noqa: A002 - the option's name on the command line
    layout: Literal["auto", "labels", "table"] = "auto",
    progress: Progress | None = None,
) -> Path:
    """Write a cohort as files that other tools load, and warn where values had to be rounded.

    Args:
        cohort: Usually a synthetic cohort.
        out: Folder to make.
        format: ``png`` or ``nifti``.
        layout: ``labels`` makes a folder per label, ``table`` writes ``metadata.csv``, ``auto`` takes what fits.
        progress: Called with the number of images written.

    Returns:
        The folder.

    Raises:
        InputError: The format cannot hold these images, or ``out`` exists.
    """
    from medphantom.cohorts.export import export_cohort
    from medphantom.cohorts.exported import rounding

    shown = progress or watcher().stage("export")
    made = export_cohort(opened(cohort), Path(out), format=format, layout=layout, progress=shown)
    if remark := rounding(made):
        warn(remark, "export")
    return made
