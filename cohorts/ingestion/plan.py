"""The plan before any pixel is read: grouping of files into images, their patients, and the cohort's columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from medphantom.cohorts.exported import ExportedImage
from medphantom.cohorts.ingestion.grouping import Planned
from medphantom.cohorts.ingestion.source import Refused
from medphantom.cohorts.ingestion.splits import Division
from medphantom.cohorts.readers.common import ReadOptions
from medphantom.cohorts.readers.npz import NpzHead
from medphantom.cohorts.readers.tasks import Refusal
from medphantom.cohorts.records import CohortSchema
from medphantom.cohorts.tables.table import Table


@dataclass(slots=True)
class Plan:
    """All planned steps of an ingestion.

    Attributes:
        root: Folder of the source.
        schema: Columns of the cohort.
        read_options: Options for the readers.
        mask_root: Folder to which mask paths are relative.
        total_files: Number of files found.
        images: Planned images in the order of their first path.
        refused: Files that will not be read.
        used: Other files that are used, as ``(path, role)``.
        table: Label table of the source.
        archive: Archive (``.npz``) that is the source, and its path.
        division: How the source divides its patients, if that is kept.
        is_export: Whether the source is an export of this project, with complete splits and vocabulary.
        is_drawn: Whether that export contains generated images.
        stand_ins: Reason why its pseudonyms may each represent an image instead of a patient; empty if they are
            patients.
        exported: Table entry of each file of an export.
        mask_values: Names of the integers of the masks, if the source has any.
        modality: DICOM modality code that the source declares for all its images.
        warnings: Warnings for the user.
        understood: Lines on how the source was read.
        states: Size and modification time of each file when it was scanned.
    """

    root: Path
    schema: CohortSchema
    read_options: ReadOptions
    mask_root: Path
    total_files: int
    images: list[Planned] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)
    table: Table | None = None
    archive: tuple[str, NpzHead] | None = None
    division: Division = field(default_factory=Division)
    is_export: bool = False
    is_drawn: bool = False
    stand_ins: str = ""
    exported: dict[str, ExportedImage] | None = None
    mask_values: dict[int, str] = field(default_factory=dict)
    modality: str | None = None
    warnings: list[str] = field(default_factory=list)
    understood: list[str] = field(default_factory=list)
    states: dict[str, tuple[int, int] | None] = field(default_factory=dict)

    def keep(self, verdict: Callable[[Planned], Refusal | None]) -> None:
        """Reject the images for which ``verdict`` returns a reason."""
        kept = []
        for image in self.images:
            refusal = verdict(image)
            if refusal is None:
                kept.append(image)
            else:
                self.refused += [(path, refusal) for path in image.paths]
        self.images = kept

    def use(self, path: str, role: str) -> None:
        """Record that a file is used, and therefore is not rejected."""
        self.refused = [item for item in self.refused if item[0] != path]
        self.used.append((path, role))
