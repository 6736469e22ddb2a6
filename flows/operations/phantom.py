"""``phantom``: simulated patients as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medphantom.core.arguments import Count, Seed, checked
from medphantom.core.progress import Progress
from medphantom.flows.operations.places import Folder, refuse_existing
from medphantom.flows.process.progress import watcher

if TYPE_CHECKING:
    from medphantom.phantoms.population import Population
    from medphantom.phantoms.write import PhantomSummary


@checked
def phantom(
    out: Folder,
    patients: int = 100,
    *,
    content: Literal["patients", "mixture"] = "patients",
    format: Literal["dicom", "png", "nifti"] = "dicom",  # noqa: A002 - the option's name on the command line
    spatial_dims: Literal[2, 3] | None = None,
    size: int | None = None,
    masks: bool = False,
    missing: float = 0.0,
    factors: Sequence[str] = (),
    seed: Seed = 0,
    bit_depth: Literal[8, 16] = 8,
    population: Population | None = None,
    workers: Count = 1,
    progress: Progress | None = None,
) -> PhantomSummary:
    """Write simulated patients as files: images with known factors, and made-up names in DICOM headers.

    Args:
        out: Folder to make.
        patients: Number of patients; most have one image, some up to four. Of a mixture, the number of images.
        content: ``patients``, or a ``mixture`` of procedural images, simulated slices and radiographs (PNG).
        format: ``dicom``, ``png`` (radiographs only) or ``nifti`` (volumes only).
        spatial_dims: 2 (radiographs) or 3 (volumes); by default 3 for NIfTI, else 2.
        size: Side in pixels; by default 256, volumes 64.
        masks: Also write masks of organs and findings.
        missing: Share of table cells that are left empty, 0 to 1.
        factors: Continuous factors written as further columns, e.g. ``anatomy.adiposity``.
        seed: The same seed gives the same patients.
        bit_depth: Bits per pixel of PNG files.
        population: How patients are drawn.
        workers: Number of processes; more than one needs a main module that can be imported.
        progress: Called with the number of patients written.

    Returns:
        Counts of what was written.

    Raises:
        InputError: An option is out of bounds, or ``out`` exists.
    """
    from medphantom.phantoms.write import write_phantoms

    refuse_existing(Path(out))
    return write_phantoms(
        Path(out),
        patients,
        content=content,
        format=format,
        spatial_dims=spatial_dims,
        size=size,
        masks=masks,
        missing=missing,
        factors=tuple(factors),
        seed=seed,
        bit_depth=bit_depth,
        population=population,
        workers=workers,
        progress=progress or watcher().stage("phantom"),
    )
