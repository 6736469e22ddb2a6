"""Grouping of files into images: one file each, or the slices of a series as a volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medphantom.cohorts.ingestion.series import forget_spoilt_identifiers, is_slice, pixel_digests, series_volumes
from medphantom.cohorts.ingestion.source import Refused, common_folder
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.readers.common import ReadOptions
from medphantom.cohorts.readers.npz import NpzHead
from medphantom.cohorts.readers.tasks import FileHead, ReadJob, Refusal
from medphantom.cohorts.records import Split
from medphantom.cohorts.tables.join import FileKey
from medphantom.core.errors import InputError, Reason


@dataclass(slots=True)
class Planned:
    """Files that will form one image or volume (or one per frame), and what is known about them.

    Attributes:
        paths: Relative paths; several are the slices of a volume in order.
        head: Header of the (first) file.
        affine: Voxel-to-world matrix of a volume from slices.
        spacing_mm: Spacing of a volume from slices.
        row: Row number in the table.
        label: Class given by the folder.
        mask: Path of the mask, relative to the plan's mask root.
        patient: Normalised patient id from table, path or header; empty if none is named.
        patient_source: Source of the patient id.
        names: All names of the patient from table, path and header, as ``(source, id)``.
        study: Normalised study id from the table.
        case: Identifier that files of one examination share, such as the channels of nnU-Net.
        split: Split given by the source; of several the most held-out one.
        splits: All splits given by folders, or else by its rows in the table.
        disagreeing: Attributes on which the headers of its slices disagree; they are missing.
        left_out: Whether an export of this project assigns it to no split.
        order: Sort key of the image: a path, then the number of the volume in its series; by default its own path.
        sops: SOPInstanceUIDs of the slices of a volume; unreliable ones are empty.
    """

    paths: tuple[str, ...]
    head: FileHead
    affine: tuple[float, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    row: int | None = None
    label: str | None = None
    mask: str | None = None
    patient: str = ""
    patient_source: str = ""
    names: tuple[tuple[str, str], ...] = ()
    study: str = ""
    case: str = ""
    split: Split | None = None
    splits: tuple[Split, ...] = ()
    disagreeing: tuple[str, ...] = ()
    left_out: bool = False
    order: tuple[str, int] = ("", 0)
    sops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.order[0]:
            self.order = (self.paths[0], 0)

    @property
    def weight_bytes(self) -> int:
        """Memory that the decoded images will need, in bytes."""
        return self.head.decoded_bytes * len(self.paths)

    def key(self) -> FileKey:
        """Keys that may identify it in a table."""
        dicom = self.head.dicom
        patient = self.patient or ("" if dicom is None else dicom.patient)
        if len(self.paths) == 1:
            uids = () if dicom is None else (dicom.sop, dicom.series)
            return FileKey(self.paths, tuple(uid for uid in uids if uid), patient)
        folder = common_folder(self.paths)
        series = "" if dicom is None else dicom.series
        return FileKey(
            (folder,) if folder and folder != "." else (),
            (series,) if series else (),
            patient,
            self.paths,
            tuple(uid for uid in self.sops if uid),
        )

    def job(
        self, root: Path, mask_root: Path, options: ReadOptions, states: Mapping[str, tuple[int, int] | None]
    ) -> ReadJob:
        """Return the job for a reader; ``states`` contains the state of each file when it was scanned."""
        assert self.head.kind is not None  # noqa: S101 - refused files are not planned
        return ReadJob(
            kind=self.head.kind,
            paths=tuple(str(root / path) for path in self.paths),
            options=options,
            weight_bytes=self.weight_bytes,
            affine=self.affine,
            spacing_mm=self.spacing_mm,
            mask=None if self.mask is None else str(mask_root / self.mask),
            states=tuple(states.get(path) for path in self.paths),
        )


def choose_spatial_dims(
    usable: Sequence[FileHead], options: IngestOptions, archive: tuple[str, NpzHead] | None
) -> Literal[2, 3]:
    """Return 2 or 3, as the options demand or else as most of the files have.

    Raises:
        InputError: If an archive contains the other kind.
    """
    if archive is not None:
        found: Literal[2, 3] = 3 if archive[1].spatial_dims == 3 else 2
        if options.spatial_dims not in {"auto", found}:
            raise InputError(f"the archive holds {found}-D images, spatial_dims is {options.spatial_dims}", "leave it")
        return found
    if options.spatial_dims != "auto":
        return options.spatial_dims
    in_volumes = sum(head.axes == 3 for head in usable if head.kind == "nifti")
    volumes, _ = series_volumes(usable, options, lambda _: None)  # the same place is the same file, for a count
    in_volumes += sum(len(volume.heads) for volume in volumes)
    in_volumes += sum(_is_multi_frame_volume(head, options) for head in usable)
    return 3 if 2 * in_volumes > len(usable) else 2


def _is_multi_frame_volume(head: FileHead, options: IngestOptions) -> bool:
    dicom = head.dicom
    return dicom is not None and dicom.frame_positions and dicom.frames >= options.min_slices


def group_files(
    heads: Sequence[FileHead], dims: Literal[2, 3], options: IngestOptions, refused: list[Refused], root: Path
) -> list[Planned]:
    """Return one plan per image or volume; files that cannot be part of one are added to ``refused``.

    Args:
        heads: Headers of the usable files.
        dims: Number of dimensions, 2 for images and 3 for volumes.
        options: Ingestion options of the user.
        refused: List to which files outside any volume are added.
        root: Source folder, read again only if two files share an identifier or a position.
    """
    digest = pixel_digests(root)
    if dims == 2:
        forget_spoilt_identifiers(heads, digest)
        return [Planned((head.path,), head) for head in heads]
    planned: list[Planned] = []
    for head in heads:
        if head.dicom is None or _is_multi_frame_volume(head, options):
            planned.append(Planned((head.path,), head))
        elif not is_slice(head):
            refused.append((head.path, Refusal(Reason.GEOMETRY, _why_no_volume(head))))
    volumes, without_volume = series_volumes(heads, options, digest)
    refused += without_volume
    forget_spoilt_identifiers(heads, digest)
    for volume in volumes:
        paths = tuple(head.path for head in volume.heads)
        sops = tuple("" if head.dicom is None else head.dicom.sop for head in volume.heads)
        head, disagreeing = _common_head(volume.heads)
        planned.append(
            Planned(
                paths,
                head,
                volume.affine,
                volume.spacing_mm,
                order=volume.order,
                sops=sops,
                disagreeing=disagreeing,
            )
        )
    return planned


def _common_head(heads: Sequence[FileHead]) -> tuple[FileHead, tuple[str, ...]]:
    """Return the first of several headers without the attributes on which they disagree, and the names of these."""
    first, stated = heads[0], [head.dicom.attributes for head in heads if head.dicom is not None]
    if first.dicom is None or all(attributes == stated[0] for attributes in stated):
        return first, ()
    values: dict[str, set[float | str | None]] = {}
    for attributes in stated:
        for name, value in attributes.items():
            values.setdefault(name, set()).add(value)
    common = {name: next(iter(found)) for name, found in values.items() if len(found) == 1}
    disagreeing = tuple(name for name, found in values.items() if len(found) > 1)
    return replace(first, dicom=replace(first.dicom, attributes=common)), disagreeing


def _why_no_volume(head: FileHead) -> str:
    dicom = head.dicom
    if dicom is not None and dicom.localizer:
        return "a localizer"
    if dicom is not None and dicom.frames > 1:
        return "frames have no positions, or are too few"
    return "a slice without position, orientation or spacing"
