"""The end of ingestion: drops duplicates, names patients and splits, writes rows, and keeps count of every file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cohorts.duplicates import NearDuplicates
from cohorts.errors import InputError, Reason, UnreadableImage
from cohorts.grouping import Planned
from cohorts.identity import IdentityKey
from cohorts.ingest_plan import Plan, patient_of
from cohorts.options import IngestOptions
from cohorts.private import PrivateFolder
from cohorts.readers.tasks import ReadResult, ReadyImage, Refusal
from cohorts.records import ImageRecord
from cohorts.table import RowContent
from cohorts.writer import CohortWriter


@dataclass
class Sink:
    """Takes results in order: drops duplicates, names patients, writes rows, and keeps count."""

    plan: Plan
    options: IngestOptions
    key: IdentityKey
    writer: CohortWriter
    private: PrivateFolder
    accepted: set[str] = field(default_factory=set)
    exact_duplicates: int = 0
    near_duplicates: int = 0
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.warnings += self.plan.warnings
        archive = self.plan.archive
        self.total = len(self.plan.images) if archive is None else sum(archive[1].parts.values())
        self._refused: dict[str, Reason] = {}  # first reason of each file
        self._frames: Counter[str] = Counter()
        self._ids: list[str] = []
        self._by_digest: dict[bytes, int] = {}
        self._near = NearDuplicates(self.plan.read_options.spatial_dims) if self.options.near_duplicates else None
        self._labels_of_first: dict[int, int] = {}
        self._other_labels = 0
        self._without_patient = 0
        self._mask_values: set[int] = set()
        self._has_text = False

    def refuse(self, paths: Iterable[str], refusal: Refusal) -> None:
        """Note a refusal, or stop at it when the options are strict."""
        if self.options.strict:
            raise InputError(
                f"a file of the source was refused ({refusal.reason.value}: {refusal.detail})",
                "run without strict to take the others, and see which in the private folder's rejections.parquet",
            )
        for path in paths:
            self.private.reject(path, refusal)
            self._refused.setdefault(path, refusal.reason)
            self._frames[path] += refusal.frame is not None

    def take(self, planned: Planned, result: ReadResult) -> None:
        """Take what one job gave."""
        for refusal in result.refusals:
            self.refuse(planned.paths, refusal)
        if not result.images:
            return
        try:
            content = RowContent()
            if self.plan.table is not None and planned.row is not None:
                content = self.plan.table.content(planned.row)
        except UnreadableImage as error:
            self.refuse(planned.paths, Refusal(error.reason, error.detail))
            return
        for ready in result.images:
            self._add(planned, ready, content)

    def _add(self, planned: Planned, ready: ReadyImage, content: RowContent) -> None:
        image = ready.image
        labels = self._labels(planned, ready, content)
        digest = bytes.fromhex(ready.digest)
        first = self._by_digest.setdefault(digest, len(self._ids))
        repeated = first != len(self._ids)
        if repeated:
            self.exact_duplicates += self.options.duplicates == "reject"
            self._other_labels += self._labels_of_first.get(first) != hash(tuple(sorted(labels.items())))
            if self.options.duplicates == "reject":
                self.refuse(planned.paths, Refusal(Reason.DUPLICATE, "the same pixels as an image before", image.frame))
                return
        else:
            self._labels_of_first[first] = hash(tuple(sorted(labels.items())))
        near = self._near.add(ready.thumbnail) if self._near is not None and ready.thumbnail is not None else None
        twin = first if repeated else None if near is None else near.number
        self.near_duplicates += twin is not None
        record = self._record(planned, ready, content, labels, None if twin is None else self._ids[twin])
        self._ids.append(record.image_id)
        self.writer.add(record, digest=ready.digest)

    def _record(
        self,
        planned: Planned,
        ready: ReadyImage,
        content: RowContent,
        labels: dict[str, bool | None],
        near_duplicate_of: str | None,
    ) -> ImageRecord:
        image, dicom = ready.image, planned.head.dicom
        known = patient_of(planned, content.patient, self.options)
        study = content.study or (dicom.study if dicom is not None else "")
        frame = "" if image.frame is None else str(image.frame)
        # without a patient id, a study stands for a patient, else the image itself
        identity = known or (f"study\0{study}" if study else f"image\0{planned.paths[0]}\0{frame}")
        self._without_patient += not known
        patient = self.key.pseudonym("patient", identity)
        image_id = self.key.pseudonym("image", f"{planned.paths[0]}\0{frame}")
        names = {spec.name for spec in self.plan.schema.attributes}
        attributes = {name: value for name, value in (dicom.attributes if dicom else {}).items() if name in names}
        attributes |= {name: value for name, value in content.attributes.items() if value is not None}
        if image.mask is not None:
            self._mask_values |= {int(value) for value in np.unique(image.mask)}
        self._has_text |= content.text is not None
        for path in planned.paths:
            self.accepted.add(path)
            self.private.link(path, "image", image_id=image_id, frame=image.frame, patient_id=known, patient=patient)
        return ImageRecord(
            image_id=image_id,
            patient=patient,
            pixels=image.pixels,
            split=self.key.split(identity, self.options.split),
            study=self.key.pseudonym("study", study) if study else None,
            channels=image.channels,
            inverted=image.inverted,
            spacing_mm=image.spacing_mm,
            affine=image.affine,
            modality=(dicom.modality if dicom is not None else None) or self.options.modality or None,
            labels=labels,
            attributes=attributes,
            text=content.text,
            mask=image.mask,
            voi=image.voi,
            near_duplicate_of=near_duplicate_of,
        )

    def _labels(self, planned: Planned, ready: ReadyImage, content: RowContent) -> dict[str, bool | None]:
        if planned.label is not None:
            return {name: name == planned.label for name in self.plan.schema.labels}
        return content.labels or ready.image.labels

    def close(self, source: Path) -> None:
        """Finish the schema and the warnings.

        Raises:
            InputError: no image was taken.
        """
        if not self._ids:
            counts = Counter(self._refused.values())
            summary = ", ".join(f"{total} {reason.value}" for reason, total in sorted(counts.items()))
            raise InputError(f"no image of {source} could be taken: {summary or 'nothing to read'}", "check the source")
        names = {value: self.options.mask_values.get(value, str(value)) for value in sorted(self._mask_values)}
        if 0 in names and 0 not in self.options.mask_values:
            names[0] = "background"
        self.writer.describe(
            mask_values=names,
            has_text=self._has_text,
            patients="per_image" if self._without_patient else "known",
        )
        if self._without_patient:
            self.warnings.append(
                f"{self._without_patient} of {len(self._ids)} images name no patient: splits may share patients"
            )
        if self.exact_duplicates:
            self.warnings.append(
                f"{self.exact_duplicates} images repeat the pixels of an earlier one and were left out"
            )
        if self._other_labels:
            self.warnings.append(f"{self._other_labels} exact duplicates carry other labels than the first copy")

    def rejected_files(self) -> Counter[Reason]:
        """Files that gave no image, by their first reason."""
        return Counter(reason for path, reason in self._refused.items() if path not in self.accepted)

    def rejected_frames(self) -> int:
        """Frames refused in files that gave other images."""
        return sum(total for path, total in self._frames.items() if path in self.accepted)
