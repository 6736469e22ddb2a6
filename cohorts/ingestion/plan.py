"""Before any pixel is read: which files make which images, whose they are, and what the cohort's columns will be."""

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
    """All that ingestion will do.

    Attributes:
        root: source folder.
        schema: columns of the cohort.
        read_options: for the readers.
        mask_root: folder that mask paths are relative to.
        total_files: files found.
        images: planned images in the order of their first path.
        refused: files that will not be read.
        used: other files that serve a purpose: ``(path, role)``.
        table: the label table.
        archive: the ``.npz`` that is the source, and its path.
        division: how the source divides its patients, where that is kept.
        is_export: the source is an export of ours, whose splits and vocabulary are all there.
        is_drawn: that export is of images that a generator drew.
        stand_ins: why its pseudonyms may each stand for an image instead of a patient; empty: they are patients.
        exported: of an export, what its table says of each file.
        mask_values: names of the integers of the masks, where the source has some.
        modality: DICOM modality code that the source names for all its images.
        warnings: what the user should know.
        understood: lines that say how the source was read.
        states: size and time of the last change of each file when it was looked at.
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
        """Refuse the images of which ``verdict`` says why."""
        kept = []
        for image in self.images:
            refusal = verdict(image)
            if refusal is None:
                kept.append(image)
            else:
                self.refused += [(path, refusal) for path in image.paths]
        self.images = kept

    def use(self, path: str, role: str) -> None:
        """Note that a file serves a purpose, and so is not refused."""
        self.refused = [item for item in self.refused if item[0] != path]
        self.used.append((path, role))
