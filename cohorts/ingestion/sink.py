"""The end of ingestion: drops duplicates, assigns pseudonyms and splits, writes rows, and counts every file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medphantom.cohorts.duplicates import NearDuplicates
from medphantom.cohorts.exported import source_values
from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.ingestion.grouping import Planned
from medphantom.cohorts.ingestion.people import identity_of
from medphantom.cohorts.ingestion.plan import Plan
from medphantom.cohorts.ingestion.repeats import Repeats
from medphantom.cohorts.ingestion.sharers import Sharers
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.origin import Origin
from medphantom.cohorts.private import PrivateFolder
from medphantom.cohorts.readers.tasks import ReadResult, ReadyImage, Refusal
from medphantom.cohorts.records import LEFT_OUT_SPLIT, SPLITS, ImageRecord, Split
from medphantom.cohorts.tables.ages import settled_age
from medphantom.cohorts.tables.table import RowContent, Table
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError, Reason, UnreadableImage
from medphantom.core.folders import pixel_digest

PSEUDONYM = re.compile(r"[0-9a-f]{16}")
ONE_ROW_EACH = "give each of these files one row, or one file per frame, volume or page"
MODALITY, MASK = "\0modality", "\0mask"  # no attribute can be called so


@dataclass(frozen=True, slots=True)
class _Row:
    """Data of a written row that later decisions need; ``identity`` is empty if its patient is known.

    ``left_out`` is set if an export of this project leaves the image out.
    """

    image_id: str
    patient: str
    split: Split
    given: Split | None
    identity: str
    left_out: bool


@dataclass
class Sink:
    """Receives results in order: drops duplicates, assigns pseudonyms, writes rows, and counts files."""

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
        self._rows: list[_Row] = []
        self._by_digest: dict[bytes, int] = {}
        searched = self.options.near_duplicates != "off"
        self._near = NearDuplicates(self.plan.read_options.spatial_dims) if searched else None
        self._repeats = Repeats()
        self._sharers = Sharers(self.options.min_patients)
        self._labels_of_first: dict[int, int] = {}
        self._other_labels = self._other_patients = self._rows_by_frame = 0
        self._mask_values: set[int] = set()
        self._has_text = False

    def refuse(self, paths: Iterable[str], refusal: Refusal) -> None:
        """Record a rejection, or stop at it if the options are strict."""
        if self.options.strict:
            raise InputError(
                f"a file of the source was refused ({refusal.reason.value}: {refusal.detail})",
                "run without strict to take the others, and see which with medphantom inspect --rejected",
            )
        for path in paths:
            self.private.reject(path, refusal)
            self._refused.setdefault(path, refusal.reason)
            self._frames[path] += refusal.frame is not None

    def take(self, planned: Planned, result: ReadResult) -> None:
        """Process the result of one job."""
        for refusal in result.refusals:
            self.refuse(planned.paths, refusal)
        if not result.images:
            return
        try:
            content = RowContent()
            if self.plan.table is not None and planned.row is not None:
                self._require_one_statement(planned.row, self.plan.table, result)
                content = self.plan.table.content(planned.row)
        except UnreadableImage as error:
            self.refuse(planned.paths, Refusal(error.reason, error.detail))
            return
        for ready in result.images:
            self._add(planned, self._with_source_values(planned, ready), content)

    def _require_one_statement(self, row: int, table: Table, result: ReadResult) -> None:
        """Refuse rows of a file with several images that may refer to one of these each.

        Raises:
            UnreadableImage: If there are several such rows, and they differ.
        """
        if any(ready.image.frame is not None for ready in result.images) and table.states_several(row):
            self._rows_by_frame += 1
            raise UnreadableImage(
                Reason.AMBIGUOUS_TABLE_ROW,
                "it holds several images, and its rows differ without saying of which they are",
            )

    def _with_source_values(self, planned: Planned, ready: ReadyImage) -> ReadyImage:
        """Restore the source values of an image from an export of this project."""
        said = (self.plan.exported or {}).get(planned.paths[0])
        if said is None:
            return ready
        if said.has_header and self.plan.read_options.spatial_dims == 2:  # a volume's place stands in its file
            spacing = said.spacing_mm
            ready.image.spacing_mm = spacing if spacing is not None and len(spacing) == 2 else None
        ready.image.voi = said.voi
        if (said.slope, said.intercept) == (1, 0):
            return ready
        ready.image.pixels = source_values(ready.image.pixels, said.slope, said.intercept, exact=said.exact)
        ready.image.inverted = said.slope < 0
        return replace(ready, digest=pixel_digest(ready.image.pixels))

    def _add(self, planned: Planned, ready: ReadyImage, content: RowContent) -> None:
        labels = self._labels(planned, ready, content)
        first = self._by_digest.setdefault(bytes.fromhex(ready.digest), len(self._rows))
        repeated = first != len(self._rows)
        if repeated and self._repeat_refused(planned, ready, labels, first):
            return
        near = self._neighbours(ready)
        if near and not repeated and self.options.near_duplicates == "drop":
            refusal = Refusal(Reason.DUPLICATE, "a near duplicate of an earlier image", ready.image.frame)
            self.near_duplicates += 1
            self.refuse(planned.paths, refusal)
            self._by_digest.pop(bytes.fromhex(ready.digest))
            return
        self._labels_of_first.setdefault(first, _mark(labels))
        earlier = [first, *(number for number in near if number != first)] if repeated else near
        self.near_duplicates += bool(earlier)
        self._repeats.add(earlier)
        if self._near is not None and ready.thumbnail is not None:
            self._near.add(ready.thumbnail)
        self._write(planned, ready, content, labels, self._rows[earlier[0]].image_id if earlier else None)

    def _neighbours(self, ready: ReadyImage) -> list[int]:
        return [] if self._near is None or ready.thumbnail is None else self._near.similar(ready.thumbnail)

    def _repeat_refused(self, planned: Planned, ready: ReadyImage, labels: dict[str, bool | None], first: int) -> bool:
        """Return whether an image that repeats the pixels of an earlier one is left out; note contradicting labels."""
        differ = self._labels_of_first.get(first) != _mark(labels)
        self._other_labels += differ
        self._other_patients += bool(planned.patient) and self._rows[first].patient != self._pseudonym(planned)
        self.exact_duplicates += self.options.duplicates == "reject"
        if self.options.duplicates != "reject":
            return False
        detail = "the same pixels as an earlier image" + (", under other labels" if differ else "")
        for path in planned.paths:
            self.private.link(
                path,
                "duplicate",
                image_id=self._rows[first].image_id,
                frame=ready.image.frame,
                patient_id=planned.patient,
                patient=self._pseudonym(planned),
            )
        self.refuse(planned.paths, Refusal(Reason.DUPLICATE, detail, ready.image.frame))
        return True

    def _write(
        self,
        planned: Planned,
        ready: ReadyImage,
        content: RowContent,
        labels: dict[str, bool | None],
        near_duplicate_of: str | None,
    ) -> None:
        image, dicom = ready.image, planned.head.dicom
        study = planned.study or (dicom.study if dicom is not None else "")
        frame = "" if image.frame is None else str(image.frame)
        # a row of an archive is an image of its own; pages and frames of one file are of one patient
        identity = identity_of(planned, None if self.plan.archive is None else image.frame)
        given = self._given(planned, image.part)
        patient = self._pseudonym_of(planned, identity)
        image_id = self.key.pseudonym("image", f"{planned.paths[0]}\0{frame}")
        split = self.plan.division.split(identity, self.key, self.options.split, given)
        attributes = self._attributes(planned, content)
        if image.mask is not None:
            values = {int(value) for value in np.unique(image.mask)}
            self._mask_values |= values
            self._sharers.note_values(patient, MASK, map(str, values))
        self._has_text |= content.text is not None
        for path in planned.paths:
            self.accepted.add(path)
            self.private.link(
                path, "image", image_id=image_id, frame=image.frame, patient_id=planned.patient, patient=patient
            )
        said = (self.plan.exported or {}).get(planned.paths[0])
        modality = (dicom.modality if dicom is not None else None) or self.options.modality or self.plan.modality
        modality = modality or (said.modality if said is not None else None)
        header = dicom.patient if dicom is not None else ""
        if header and header != planned.patient:  # a withdrawal may come under the number of the file
            self.private.link(planned.paths[0], "header id", image_id=image_id, patient_id=header, patient=patient)
        self._sharers.note(patient, labels, {**attributes, MODALITY: modality})
        known = bool(planned.patient) and not self.plan.stand_ins
        self._rows.append(_Row(image_id, patient, split, given, "" if known else identity, planned.left_out))
        record = ImageRecord(
            image_id=image_id,
            patient=patient,
            pixels=image.pixels,
            split=split,
            study=self.key.pseudonym("study", study) if study else None,
            channels=image.channels,
            inverted=image.inverted,
            spacing_mm=image.spacing_mm,
            affine=image.affine,
            modality=modality,
            labels=labels,
            attributes=attributes,
            text=content.text,
            mask=image.mask,
            voi=image.voi,
            near_duplicate_of=near_duplicate_of,
        )
        self.writer.add(record, digest=ready.digest)

    def _pseudonym(self, planned: Planned) -> str:
        return self._pseudonym_of(planned, identity_of(planned))

    def _pseudonym_of(self, planned: Planned, identity: str) -> str:
        """Return the pseudonym of a patient; exports keep theirs, by which a withdrawal finds the patient."""
        if self.plan.is_export and PSEUDONYM.fullmatch(planned.patient):
            return planned.patient
        return self.key.pseudonym("patient", identity)

    def _given(self, planned: Planned, part: str) -> Split | None:
        """Return the split that the source assigns to an image, if its division is kept."""
        if not self.plan.division.theirs:
            return None
        name = part or planned.split
        return next((split for split in SPLITS if split == name), None)

    def _attributes(self, planned: Planned, content: RowContent) -> dict[str, float | str | None]:
        dicom, names = planned.head.dicom, {spec.name for spec in self.plan.schema.attributes}
        attributes = {name: value for name, value in (dicom.attributes if dicom else {}).items() if name in names}
        attributes = {name: value for name, value in attributes.items() if name not in content.unread}
        if isinstance(age := attributes.get("age"), float):
            attributes["age"] = settled_age(age, self.options)
        return attributes | {name: value for name, value in content.attributes.items() if value is not None}

    def _labels(self, planned: Planned, ready: ReadyImage, content: RowContent) -> dict[str, bool | None]:
        if planned.label is not None:
            return {name: name == planned.label for name in self.plan.schema.labels}
        return content.labels or ready.image.labels

    def close(self, source: Path) -> None:
        """Finalise splits, vocabulary and warnings.

        Raises:
            InputError: If no image was ingested.
        """
        if not self._rows:
            counts = Counter(self._refused.values())
            summary = ", ".join(f"{total} {reason.value}" for reason, total in sorted(counts.items()))
            raise InputError(
                f"no image of {source} could be taken: {summary or 'nothing to read'}",
                ONE_ROW_EACH if self._rows_by_frame else "check the source",
            )
        found = {v: name for v, name in self.plan.mask_values.items() if not self._sharers.is_rare(MASK, str(v))}
        self.rare_masks = len(self._mask_values & set(self.plan.mask_values) - set(found))
        given_names = found | self.options.mask_values
        names = {value: given_names.get(value, str(value)) for value in sorted(self._mask_values)}
        if 0 in names and 0 not in given_names:
            names[0] = "background"
        without_patient = sum(bool(row.identity) for row in self._rows)
        self.writer.describe(
            mask_values=names,
            has_text=self._has_text,
            patients="per_image" if without_patient else "known",
            origin=self._origin(),
        )
        self._settle()
        self._warn(without_patient)

    def _origin(self) -> Origin | None:
        """Return the key of the cohort; for generated images, the patients behind them are unknown."""
        if not self.plan.is_export:
            return self.key.origin()
        return None if self.plan.is_drawn else self.key.origin().model_copy(update={"names": None})

    def _settle(self) -> None:
        """Decide what depends on all images: splits of near duplicates, and terms that too few patients share."""
        splits = self._final_splits()
        changed = {row.image_id: split for row, split in zip(self._rows, splits, strict=True) if split != row.split}
        table = self.plan.table
        named: set[str] = {*self.options.labels, *self.options.label_columns, *self.options.label_names}
        if self.plan.is_export and table is not None:
            named |= set(table.labels)  # an export of ours: its vocabulary was looked at before
        self.rare_labels = self._sharers.rare_labels(self.plan.schema.labels, named)
        categories = {} if self.plan.is_export else self._sharers.rare_categories(self.options.categories)
        categories.pop(MASK, None)  # numbers of masks stay, their names do not
        modalities = self._rare_modalities(categories)
        self.rare_categories = {name: len(values) for name, values in {**categories, **modalities}.items()}
        self.left_out = splits.count(LEFT_OUT_SPLIT)
        if changed or self.rare_labels or categories or modalities:
            self.writer.settle(
                splits=changed,
                without_labels=self.rare_labels,
                without_categories=categories,
                without_modalities=modalities.get("modality", ()),
            )

    def _rare_modalities(self, categories: dict[str, list[str]]) -> dict[str, list[str]]:
        """Remove the modality from the rare categories: a modality of all images identifies nobody."""
        rare = categories.pop(MODALITY, [])
        return {"modality": rare} if rare and self._sharers.total_of(MODALITY) > 1 else {}

    def _final_splits(self) -> list[str]:
        splits: list[str] = [LEFT_OUT_SPLIT if row.left_out else row.split for row in self._rows]
        if self._near is None and self.options.duplicates == "reject":
            return splits
        if self.options.near_duplicates == "together":
            sides = [self._side(row) if row.identity else None for row in self._rows]
            for number, first in enumerate(self._repeats.groups(sides, [row.identity for row in self._rows])):
                row = self._rows[first]
                if first != number and not self._rows[number].left_out:
                    splits[number] = self.plan.division.split(row.identity, self.key, self.options.split, row.given)
        for number in self._repeats.left_out(splits, [row.patient for row in self._rows]):
            splits[number] = LEFT_OUT_SPLIT
        return splits

    def _side(self, row: _Row) -> str:
        """Return the side of the source's division for an image of an unknown patient."""
        return self.plan.division.of_patient.get(row.identity) or row.given or ""

    def _warn(self, without_patient: int) -> None:
        total = len(self._rows)
        if self.plan.stand_ins:
            self.warnings.append(f"{self.plan.stand_ins}: splits may share patients")
        elif without_patient:
            self.warnings.append(f"{without_patient} of {total} images name no patient: splits may share patients")
        if self.exact_duplicates:
            self.warnings.append(
                f"{self.exact_duplicates} images repeat the pixels of an earlier one and were left out"
            )
        if self._rows_by_frame:
            self.warnings.append(
                f"{self._rows_by_frame} files with several images have rows that differ without naming the image to "
                f"which each row belongs; they are refused; {ONE_ROW_EACH}"
            )
        if self._other_labels:
            self.warnings.append(
                f"{self._other_labels} exact duplicates have other labels than the first copy"
                + ("; medphantom inspect --rejected names them" if self.options.duplicates == "reject" else "")
            )
        if self._other_patients:
            self.warnings.append(
                f"{self._other_patients} exact duplicates belong to another patient than the first copy: "
                "one person under two ids, or a picture in two folders"
            )
        if self.options.near_duplicates == "off":
            self.warnings.append("near duplicates were not searched: evaluation images may duplicate training images")
        if self.left_out:
            self.warnings.append(
                f"{self.left_out} images outside train nearly repeat a training image of another patient; they "
                "are used for neither training nor scores"
            )

    def rejected_files(self) -> Counter[Reason]:
        """Count files that gave no image, by their first reason."""
        return Counter(reason for path, reason in self._refused.items() if path not in self.accepted)

    def rejected_frames(self) -> int:
        """Count frames rejected in files that gave other images."""
        return sum(total for path, total in self._frames.items() if path in self.accepted)


def _mark(labels: dict[str, bool | None]) -> int:
    return hash(tuple(sorted(labels.items())))
