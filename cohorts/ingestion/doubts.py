"""Doubts about patient identity that a tool may have caused: reported in counts, and never resolved by a guess."""

from __future__ import annotations

import re
from collections import defaultdict

from medphantom.cohorts.ingestion.people import HEADER, study_of
from medphantom.cohorts.ingestion.plan import Plan
from medphantom.cohorts.readers.dicom_file import UNDECODED

_ZEROS, _BETWEEN = re.compile(r"(?<!\d)0+(?=\d)"), re.compile(r"[\s_-]+")  # what tools change about an id
MANY_STUDIES = 5  # number of studies with one single id above which the id is doubted


def doubts(plan: Plan) -> list[str]:
    """Return doubts about patient identity, one line each, in counts: no patients are merged by a guess."""
    checks = (_alike_ids, _undecoded_ids, _misread_ids, _shared_studies, _one_for_all, _several_sexes, _torn_headers)
    return [line for check in checks if (line := check(plan))]


def _alike_ids(plan: Plan) -> str:
    """Report ids that differ only by case, leading zeros or separators: a tool may have made two of one patient."""
    ids = {image.patient for image in plan.images} - {""}
    alike = len(ids) - len({_BETWEEN.sub("-", _ZEROS.sub("", name.casefold())) for name in ids})
    if not alike:
        return ""
    return (
        f"{alike} patient ids differ from another by case, leading zeros or separators only; they count as different "
        "patients"
    )


def _undecoded_ids(plan: Plan) -> str:
    """Report ids that the character set of their header cannot represent: they are kept byte by byte."""
    found = {name for name in _ids_of_headers(plan) if UNDECODED in name}
    if not found:
        return ""
    return (
        f"{len(found)} patient ids hold bytes that the character set of their header cannot hold; the same person "
        "under a right character set counts as another one"
    )


def _misread_ids(plan: Plan) -> str:
    """Report ids whose bytes are UTF-8 although their header declares another character set."""
    found = {name for name in _ids_of_headers(plan) if UNDECODED not in name and _is_misread(name)}
    if not found:
        return ""
    return (
        f"{len(found)} patient ids read as if their header stated another character set than they are written in "
        "(UTF-8); the same person under a right character set counts as another one"
    )


def _is_misread(name: str) -> bool:
    try:
        return not name.isascii() and bool(name.encode("latin-1").decode("utf-8"))
    except UnicodeError:
        return False


def _shared_studies(plan: Plan) -> str:
    """Report studies of several patients: one of their two identifiers is wrong, and it is unknown which."""
    of_study: dict[str, set[str]] = defaultdict(set)
    for image in plan.images:
        if image.patient and (study := study_of(image)):
            of_study[study].add(image.patient)
    several = sum(len(patients) > 1 for patients in of_study.values())
    if not several:
        return ""
    return (
        f"{several} DICOM studies contain images of several patients, which are kept apart; if the studies are right, "
        "one person may be in several splits"
    )


def _one_for_all(plan: Plan) -> str:
    """Report a single id in the headers of many studies: a tool may have overwritten all ids."""
    named = [image for image in plan.images if image.patient_source == HEADER]
    studies = {study for image in named if (study := study_of(image))}
    if len({image.patient for image in named}) != 1 or len(studies) < MANY_STUDIES:
        return ""
    return (
        f"one patient id is in the headers of all {len(studies)} studies, which count as one person's; if a tool "
        "has overwritten all ids, name patients by patient_column or patient_pattern"
    )


def _several_sexes(plan: Plan) -> str:
    """Report patients whose headers declare both sexes: several people may have the same id."""
    sexes: dict[str, set[float | str | None]] = defaultdict(set)
    for image in plan.images:
        dicom = image.head.dicom
        if image.patient and dicom is not None and dicom.attributes.get("sex") in {"M", "F"}:
            sexes[image.patient].add(dicom.attributes["sex"])
    several = sum(len(stated) > 1 for stated in sexes.values())
    if not several:
        return ""
    return (
        f"headers declare both sexes for {several} patients, each of which counts as one person; if several people "
        "have the same id (such as from two sites), name patients by patient_column or patient_pattern"
    )


def _torn_headers(plan: Plan) -> str:
    """Report volumes whose slices declare different values of an attribute."""
    torn = [image.disagreeing for image in plan.images if image.disagreeing]
    names = ", ".join(sorted({name for each in torn for name in each}))
    return f"slices of {len(torn)} volumes disagree about {names}, which is not stated" if torn else ""


def _ids_of_headers(plan: Plan) -> set[str]:
    return {name for image in plan.images for source, name in image.names if source == HEADER}
