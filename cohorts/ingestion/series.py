"""Grouping of single-frame DICOM files into volumes: no patients are merged, and no single identifier is trusted.

Files are grouped by patient *and* study *and* series *and* frame of reference, since tools corrupt any one of these.
Two files are the same image if their position and their pixels are equal, never because an identifier is.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medphantom.cohorts.ingestion.folder_names import folder_names, named_by_path
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.readers.dicom_file import PIXEL_KEYWORDS, open_dicom, quietly, values_of
from medphantom.cohorts.readers.dicom_geometry import Plane
from medphantom.cohorts.readers.dicom_header import DicomHead
from medphantom.cohorts.readers.dicom_stacks import REPEATED, Stack, find_stacks
from medphantom.cohorts.readers.tasks import FileHead, Refusal
from medphantom.core.errors import Reason, UnreadableImage
from medphantom.core.naming import issued_id

Digest = Callable[[FileHead], Hashable]
COPY = Refusal(Reason.DUPLICATE, "the same pixels at the same position as an earlier file")
NOBODY = Refusal(Reason.GEOMETRY, "names no patient, while other slices of its series do")
UNNAMED = Refusal(Reason.GEOMETRY, "names no series, and the slices beside it do not form one volume without doubt")
ANONYMOUS = Refusal(Reason.GEOMETRY, "names neither series nor study nor patient")
_VALUE_KEYWORDS = (
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "DoseGridScaling",
    "DoseUnits",
    "Units",
    "PhotometricInterpretation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "Rows",
    "Columns",
)


@dataclass(frozen=True, slots=True)
class SeriesVolume:
    """Slices of one volume, in order.

    Attributes:
        heads: Headers of the slices, one per file.
        affine: Voxel-to-world matrix of the volume.
        spacing_mm: Spacing along slices, rows and columns.
        order: Sort key among other images: the first path of its series, then its number within the series.
    """

    heads: tuple[FileHead, ...]
    affine: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    order: tuple[str, int]


def is_slice(head: FileHead) -> bool:
    """Return whether a file may be a slice: one frame with a position, and not a localizer."""
    dicom = head.dicom
    return dicom is not None and dicom.frames == 1 and dicom.plane is not None and not dicom.localizer


def series_volumes(
    heads: Iterable[FileHead], options: IngestOptions, digest: Digest
) -> tuple[list[SeriesVolume], list[tuple[str, Refusal]]]:
    """Return the volumes of all slices, and the files that belong to none.

    Args:
        heads: Headers of any files; those that are not slices are skipped.
        options: Ingestion options with ``min_slices`` and the settings that identify patients by paths.
        digest: Function that identifies the pixels of a file; it is called only if two files share a position.
    """
    refused: list[tuple[str, Refusal]] = []
    volumes: list[SeriesVolume] = []
    for members, named in _groups([head for head in heads if is_slice(head)], options, refused):
        finder = _Finder(members, options.min_slices, digest)
        found = finder.volumes()
        copies_only = all(refusal is COPY for _, refusal in finder.refused)
        if named or (len(found) == 1 and copies_only and _agree(found[0].heads)):
            volumes += found
            refused += finder.refused
        else:
            refused += [(head.path, UNNAMED) for head in members]
    return volumes, refused


def forget_spoilt_identifiers(heads: Sequence[FileHead], digest: Digest) -> None:
    """Clear identifiers that different images share, so that they do not join a table.

    A SOPInstanceUID on files of different pixels identifies none of them, nor does a SeriesInstanceUID that several
    patients or studies have. Call it once the series are found.
    """
    by_sop: dict[str, list[FileHead]] = defaultdict(list)
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for head in heads:
        if head.dicom is not None:
            by_sop[head.dicom.sop].append(head)
            owners[head.dicom.series].add((head.dicom.patient, head.dicom.study))
    for sop, sharing in by_sop.items():
        if sop and len(sharing) > 1 and len({digest(head) for head in sharing}) > 1:
            for head in sharing:
                _dicom(head).sop = ""
    for head in heads:
        if head.dicom is not None and len(owners[head.dicom.series]) > 1:
            head.dicom.series = ""


def pixel_digests(root: Path) -> Digest:
    """Return a function that digests the encoded pixels of a file below ``root`` and their value transform, cached.

    It decodes nothing, since codecs run in worker processes only: a copy with another compression is not recognised. A
    file that cannot be read is equal to no other.
    """
    known: dict[str, Hashable] = {}

    def digest(head: FileHead) -> Hashable:
        if head.path not in known:
            try:
                known[head.path] = _encoded_digest(root / head.path)
            except (UnreadableImage, OSError):
                known[head.path] = head.path
        return known[head.path]

    return digest


def _encoded_digest(path: Path) -> str:
    with quietly():
        ds = open_dicom(path)
        found = hashlib.blake2b(str(ds.file_meta.TransferSyntaxUID.is_little_endian).encode(), digest_size=16)
        found.update(repr([values_of(ds, keyword) for keyword in _VALUE_KEYWORDS]).encode())
        for keyword in PIXEL_KEYWORDS:
            found.update(ds.get(keyword) or b"")
    return found.hexdigest()


def _dicom(head: FileHead) -> DicomHead:
    assert head.dicom is not None  # noqa: S101 - only slices get here
    return head.dicom


def _plane(head: FileHead) -> Plane:
    plane = _dicom(head).plane
    assert plane is not None  # noqa: S101 - only slices get here
    return plane


def _patients(heads: Sequence[FileHead], options: IngestOptions) -> dict[str, str]:
    """Return the patient of each file: from its path by pattern, folder or BIDS subject, else from its header.

    An id of a header includes its issuer, since two hospitals may use the same id for two people.
    """
    names = folder_names([head.path for head in heads])
    issuers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for head in heads:
        dicom = _dicom(head)
        issuers[dicom.patient, dicom.series] |= {dicom.issuer} - {""}
    found = {}
    for number, head in enumerate(heads):
        dicom, known = _dicom(head), named_by_path(names, number, head.path, options)
        issued = issuers[dicom.patient, dicom.series]
        issuer = dicom.issuer or (next(iter(issued)) if len(issued) == 1 else "")
        found[head.path] = next((name for _, name in known), issued_id(dicom.patient, issuer))
    return found


def _groups(
    slices: Sequence[FileHead], options: IngestOptions, refused: list[tuple[str, Refusal]]
) -> list[tuple[list[FileHead], bool]]:
    """Return slices that may share a volume, and whether a series names them; the others are added to ``refused``.

    A slice without a patient among others with one is assigned to nobody: assigning it to them would be a guess about a
    person, and as a separate person it could enter another split than the rest of that person.
    """
    groups: dict[tuple[Hashable, ...], list[FileHead]] = defaultdict(list)
    people: dict[tuple[str, ...], set[str]] = defaultdict(set)
    series_of: dict[str, tuple[str, ...]] = {}
    patients = _patients(slices, options)
    for head in slices:
        dicom = _dicom(head)
        folder = "" if dicom.series else PurePosixPath(head.path).parent.as_posix()
        series_of[head.path] = (dicom.study, dicom.series, folder)
        people[series_of[head.path]].add(patients[head.path])
    for head in slices:
        dicom, patient, series = _dicom(head), patients[head.path], series_of[head.path]
        if not patient and len(people[series]) > 1:
            refused.append((head.path, NOBODY))
        elif not (patient or dicom.study or dicom.series):
            refused.append((head.path, ANONYMOUS))
        else:
            groups[patient, series, dicom.frame_of_reference, dicom.modality].append(head)
    return [(members, bool(_dicom(members[0]).series)) for members in groups.values()]


def _agree(members: Sequence[FileHead]) -> bool:
    """Return whether slices without a series may form one: at most one series number, and no repeated number."""
    numbers = [_dicom(head).instance for head in members if _dicom(head).instance]
    return len({_plane(head).traits[:1] for head in members}) == 1 and len(set(numbers)) == len(numbers)


def _by_folder(heads: Sequence[FileHead]) -> list[list[FileHead]]:
    folders: dict[str, list[FileHead]] = defaultdict(list)
    for head in heads:
        folders[PurePosixPath(head.path).parent.as_posix()].append(head)
    return list(folders.values())


def _numbered_by_folder(heads: Sequence[FileHead]) -> bool:
    """Return whether slices are numbered from the start in each of several folders, as in different volumes.

    Their positions may interleave or follow each other if a tool gave all of them one series.
    """
    numbers = [[_dicom(head).instance for head in members] for members in _by_folder(heads)]
    every = [number for each in numbers for number in each]
    return len(numbers) > 1 and len(set(every)) < len(every) and all(len(set(each)) == len(each) for each in numbers)


class _Finder:
    """Finds the volumes of one group: first copies, then stacks, then slices that only their folder separates."""

    def __init__(self, members: Sequence[FileHead], min_slices: int, digest: Digest) -> None:
        self.refused: list[tuple[str, Refusal]] = []
        self._first = min(head.path for head in members)
        self._min_slices = min_slices
        self._digest = digest
        self._members = self._without_copies(members, lambda head: (_plane(head), _dicom(head).instance))

    def volumes(self) -> list[SeriesVolume]:
        """Return the volumes in the order of what distinguishes them; files of no volume are in ``refused``."""
        found, repeated = self._stacked(self._members)
        if repeated:
            alone = self._without_copies(repeated, lambda head: (_plane(head).position, _plane(head).orientation))
            more, repeated = self._stacked(alone)
            found += more
        whole = [volume for volume in found if not _numbered_by_folder(volume[0])]
        apart = [head for heads, _ in found if _numbered_by_folder(heads) for head in heads]
        found = whole
        for members in (*_by_folder(apart), *_by_folder(repeated)):
            more, repeated = self._stacked(members)
            found += more
            self.refused += [(head.path, Refusal(Reason.GEOMETRY, REPEATED)) for head in repeated]
        return [
            SeriesVolume(heads, stack.affine, stack.spacing_mm, (self._first, number))
            for number, (heads, stack) in enumerate(found)
        ]

    def _without_copies(self, members: Sequence[FileHead], place: Digest) -> list[FileHead]:
        """Return the members without those that repeat position and pixels of an earlier one."""
        together: dict[Hashable, list[FileHead]] = defaultdict(list)
        for head in members:
            together[place(head)].append(head)
        copies: set[str] = set()
        for same in together.values():
            seen: set[Hashable] = set()
            for head in same if len(same) > 1 else ():
                if self._digest(head) in seen:
                    copies.add(head.path)
                seen.add(self._digest(head))
        self.refused += [(path, COPY) for path in sorted(copies)]
        return [head for head in members if head.path not in copies]

    def _stacked(self, members: Sequence[FileHead]) -> tuple[list[tuple[tuple[FileHead, ...], Stack]], list[FileHead]]:
        """Return stacks with their files, and the files at indistinguishable positions; others are rejected."""
        stacks, leftovers = find_stacks([_plane(head) for head in members], self._min_slices)
        repeated: list[FileHead] = []
        for leftover in leftovers:
            heads = [members[i] for i in leftover.planes]
            if leftover.detail == REPEATED:
                repeated += heads
            else:
                self.refused += [(head.path, Refusal(Reason.GEOMETRY, leftover.detail)) for head in heads]
        return [(tuple(members[i] for i in stack.order), stack) for stack in stacks], repeated
