"""The patient of each image from table, path or header, normalised, and the split that the source assigns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath

from medphantom.cohorts.ingestion.folder_names import (
    BY_FOLDER,
    BY_PATTERN,
    BY_SUBJECT,
    FolderNames,
    ask,
    folders_above,
    named_by_path,
    split_by_path,
)
from medphantom.cohorts.ingestion.grouping import Planned
from medphantom.cohorts.ingestion.layout import Layout
from medphantom.cohorts.ingestion.mask_places import CHANNEL_ENDING
from medphantom.cohorts.ingestion.plan import Plan
from medphantom.cohorts.ingestion.splits import Division
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.readers.tasks import Refusal
from medphantom.cohorts.records import HELD_OUT_FIRST, LEFT_OUT_SPLIT, SPLITS
from medphantom.cohorts.tables.join import stem
from medphantom.core.errors import InputError, Reason
from medphantom.core.naming import issued_id, plain_id

TABLE, HEADER = "the table", "DICOM header"
SOURCES = (TABLE, BY_PATTERN, BY_FOLDER, BY_SUBJECT, HEADER)
"""Sources of patient names, most reliable first."""
BRIDGED = "another image of the same patient, which a surer source names"


def name_by_path(plan: Plan, names: FolderNames, layout: Layout, options: IngestOptions) -> None:
    """Set the patient ids of planned images from paths or headers: pattern, folder, BIDS subject, header."""
    places: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for number, image in enumerate(plan.images):
        by_header = plain_id(image.head.dicom.patient) if image.head.dicom is not None else ""
        by_path = named_by_path(names, number, image.paths[0], options)
        image.names = (*by_path, *([(HEADER, by_header)] if by_header else []))
        image.patient_source, image.patient = image.names[0] if image.names else ("", "")
        if image.patient_source in {BY_FOLDER, BY_SUBJECT}:
            places[image.patient].add(folders_above(names, number, image.patient_source, options))
        sides = {split for path in image.paths if (split := split_by_path(path)) is not None}
        image.splits = tuple(split for split in HELD_OUT_FIRST if split in sides)
        image.split = next(iter(image.splits), None)
        if layout.dataset is not None:
            image.case = CHANNEL_ENDING.sub("", PurePosixPath(stem(image.paths[0])).name)

    if several := sum(len(above) > 1 for above in places.values()):
        plan.warnings.append(
            f"{several} folders that name a patient are in several parent folders, and each counts as one person; if "
            "these are sites with their own numbering, include the site in the group of patient_pattern"
        )


def bridge_names(plan: Plan) -> None:
    """Let an image follow the patient that more reliable sources assign to its header, path, study or case.

    An empty cell, a pattern that matches only some files, or a channel without a row would otherwise turn one person
    into two patients. A name that belongs to several patients of more reliable sources may be a placeholder, or one
    person under several names: no patients are merged, and a warning reports it.
    """
    called: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    belongs = _belonging(plan)
    ranks = [_sureness(image) for image in plan.images]
    followed = True
    while followed:  # each image follows a more reliable name than its own, so this terminates
        called.clear()
        for image, sure, own in zip(plan.images, ranks, belongs, strict=True):
            for key in (*image.names, *own) if image.patient else ():
                called[key][image.patient] = min(sure, called[key].get(image.patient, sure))
        followed = False
        for number, image in enumerate(plan.images):
            mine = ranks[number]
            surer = (
                {patient: sure for key in keys for patient, sure in called.get(key, {}).items() if sure < mine}
                for keys in (image.names, belongs[number])  # the study is used if no name applies
            )
            found = next((patients for patients in surer if patients), {})
            if len(found) == 1:
                ((image.patient, ranks[number]),) = found.items()
                image.patient_source, followed = BRIDGED, True
    several = sum(
        sum(sure < SOURCES.index(source) for sure in patients.values()) > 1
        for (source, _), patients in called.items()
        if source in SOURCES
    )
    if several:
        plan.warnings.append(
            f"{several} patient ids of headers, folders or paths belong to several patients by a more reliable source, "
            "which takes precedence; if the former are right, one person may be in several splits"
        )


def keep_numberings_apart(plan: Plan) -> None:
    """Separate people to whom two sources give the same id if the sources number people differently.

    If the table's patient 6 has the header id 2, a header id 6 that no table names is another person.
    """
    others: dict[tuple[str, str], set[str]] = defaultdict(set)  # patient and less reliable source → its ids
    for image in plan.images:
        for source, name in image.names:
            if image.patient and _sureness(image) < SOURCES.index(source):
                others[image.patient, source].add(name)
    apart = set()
    for image in plan.images:
        called = others.get((image.patient, image.patient_source))
        if called and image.patient not in called:
            apart.add(image.patient)
            image.patient = f"{image.patient} ({image.patient_source})"
    if apart:
        plan.warnings.append(
            f"{len(apart)} patients without a more reliable source have an id that such a source gives to another "
            "person; they count as different people"
        )


def _belonging(plan: Plan) -> list[tuple[tuple[str, str], ...]]:
    """Return studies and case of each image; a study column with several patients per study is ignored."""
    people: dict[str, set[str]] = defaultdict(set)
    for image in plan.images:
        if image.study and image.patient:
            people[image.study].add(image.patient)
    is_of_one = all(len(named) == 1 for named in people.values())

    def of(image: Planned) -> tuple[tuple[str, str], ...]:
        kinds = (
            ("study", image.study if is_of_one else ""),
            ("DICOM study", study_of(image)),
            ("case", image.case),
        )
        return tuple((kind, value) for kind, value in kinds if value)

    return [of(image) for image in plan.images]


def _sureness(image: Planned) -> int:
    """Return the rank of the source of an image's patient, most reliable first; without a patient last."""
    return SOURCES.index(image.patient_source) if image.patient_source in SOURCES else len(SOURCES)


def tell_issuers_apart(plan: Plan) -> None:
    """Name patients by id and issuer (DICOM PS3.3 C.7.1.1, IssuerOfPatientID), if the header declares one.

    This always applies, not only if a second issuer uses the id, so that no name changes when other files are added or
    removed. An image without an issuer has the only issuer of its id; with several issuers it follows its study.
    """
    issuers: dict[str, set[str]] = defaultdict(set)
    of_study: dict[tuple[str, str], set[str]] = defaultdict(set)
    headers = [image.head.dicom for image in plan.images if image.head.dicom is not None and image.head.dicom.patient]
    for header in headers:
        if header.issuer:
            issuers[header.patient].add(header.issuer)
            of_study[header.patient, header.study].add(header.issuer)
    for image in plan.images:
        dicom = image.head.dicom
        known = issuers.get(dicom.patient, set()) if dicom is not None else set()
        if dicom is None or not known:
            continue
        issuer = dicom.issuer or (next(iter(known)) if len(known) == 1 else "")
        issued = issued_id(dicom.patient, issuer) if issuer else ""
        image.names = tuple(
            (source, issued if source == HEADER else name) for source, name in image.names if source != HEADER or issued
        )
        if image.patient_source == HEADER:
            image.patient_source, image.patient = (HEADER, issued) if issued else ("", "")
    if torn := sum(len(stated) > 1 for (_, study), stated in of_study.items() if study):
        plan.warnings.append(
            f"{torn} patient ids occur in one study under several issuers and count as several people; if these are "
            "spellings of one issuer, one person may be in several splits"
        )


def refuse_nobodys(plan: Plan) -> None:
    """Reject DICOM images without a patient whose study has several patients, since they may belong to any of these."""
    named: dict[str, set[str]] = defaultdict(set)
    for image in plan.images:
        if image.patient and (study := study_of(image)):
            named[study].add(image.patient)
    several = {study for study, patients in named.items() if len(patients) > 1}
    nobody = Refusal(Reason.GEOMETRY, "names no patient, and its study names several")
    plan.keep(lambda image: nobody if not image.patient and study_of(image) in several else None)


def study_of(image: Planned) -> str:
    """Return the StudyInstanceUID of an image; empty if there is none."""
    return image.head.dicom.study if image.head.dicom is not None else ""


def settle_people(plan: Plan) -> None:
    """Determine the patient of each planned image once the table is joined, in a fixed order of steps."""
    name_by_table(plan)
    tell_issuers_apart(plan)
    bridge_names(plan)
    keep_numberings_apart(plan)
    refuse_nobodys(plan)


def name_by_table(plan: Plan) -> None:
    """Let the table's patients, studies and splits take precedence."""
    contradicting = 0
    for image in plan.images:
        if plan.table is None or image.row is None:
            continue
        patient, image.study, splits = plan.table.who(image.row)
        image.splits = tuple(split for split in HELD_OUT_FIRST if split in splits) or image.splits
        contradicting += bool(splits) and image.split is not None and image.split not in splits
        if patient:
            image.patient_source, image.patient = TABLE, patient
        image.split = next(iter(image.splits), None)
        image.left_out = LEFT_OUT_SPLIT in splits
    if contradicting:
        plan.warnings.append(
            f"{contradicting} images are in folders of another split than in the table, which takes precedence"
        )


def require_patients(plan: Plan, names: FolderNames, options: IngestOptions) -> None:
    """Stop if images without a patient are in several folders whose meaning is not given.

    Raises:
        InputError: With both readings, and the option for each.
    """
    if options.folders != "ask" or names.open_level is None or not folders_matter(plan):
        return
    raise ask(names, labels_known=plan.table is not None and bool(plan.table.labels))


def folders_matter(plan: Plan) -> bool:
    """Return whether folders may name patients: an image without a header has no patient, or most images have none.

    A few DICOM files without an id among many with one do not stop the ingestion; study or series identify them.
    """
    unknown = [image for image in plan.images if not image.patient]
    return any(image.head.dicom is None for image in unknown) or 2 * len(unknown) > len(plan.images)


def identity_of(image: Planned, part: int | None = None) -> str:
    """Return the identity of the patient: the id, else the study, the series or the case, else the file.

    Args:
        image: Planned image to identify.
        part: Row of an archive, each of which is a separate image; pages and frames of a file are not.
    """
    if image.patient:
        return image.patient
    dicom = image.head.dicom
    study = image.study or (dicom.study if dicom is not None else "")
    if study:
        return f"study\0{study}"
    if dicom is not None and dicom.series:
        return f"series\0{dicom.series}"
    if image.case:
        return f"case\0{image.case}"
    return f"image\0{image.paths[0]}\0{'' if part is None else part}"


def divide(plan: Plan, options: IngestOptions) -> Division:
    """Return how the source divides its patients, if that is used.

    Raises:
        InputError: If the division was requested and there is none.
    """
    if options.source_splits == "ignore":
        return Division()
    assigned = [image for image in plan.images if image.split is not None]
    stated = [(identity_of(image), split) for image in assigned for split in image.splits or (image.split,) if split]
    unmistakable = bool(stated) and len(assigned) == sum(not image.left_out for image in plan.images)
    if options.source_splits == "auto" and not unmistakable:
        if stated:
            plan.warnings.append(
                f"{len(assigned)} of {len(plan.images)} images are in a split of the source, which is not kept since "
                "others are in none; set source_splits to use or ignore"
            )
        return Division()
    if not stated:
        raise InputError("the source divides its images into no splits", "leave source_splits at auto")
    division = Division.of(stated, exact=plan.is_export)
    if "train" not in division.theirs:
        plan.warnings.append("the source assigns no image to train; source_splits=ignore divides its images again")
    return _settled(plan, division, options)


def divide_archive(parts: Mapping[str, int], options: IngestOptions) -> Division:
    """Return how the parts of an archive divide its rows, each of which knows its part."""
    named = frozenset(split for split in SPLITS if parts.get(split))
    return Division() if options.source_splits == "ignore" else Division(theirs=named)


def _settled(plan: Plan, division: Division, options: IngestOptions) -> Division:
    if division.on_both_sides:
        both = len(division.on_both_sides)
        if options.split_conflicts == "refuse":
            plan.keep(lambda image: _on_both_sides if identity_of(image) in division.on_both_sides else None)
            plan.warnings.append(f"{both} patients are in several splits of the source; their images were left out")
        else:
            plan.warnings.append(
                f"{both} patients are in several splits of the source; all their images go to the most held-out one"
            )
    return division


_on_both_sides = Refusal(Reason.SPLIT_CONFLICT, "its patient is in several splits of the source")
