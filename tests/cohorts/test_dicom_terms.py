"""Codes of headers reach a cohort only as defined terms of the standard; a name in their place does not."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from medphantom.cohorts.readers.dicom_header import read_head
from medphantom.cohorts.readers.dicom_terms import BODY_PARTS, DEFINED_TERMS, MODALITIES, defined_term
from tests.cohorts.files import dicom_dataset, structure, take_in


def written(path: Path, **elements: object) -> Path:
    with pydicom.config.disable_value_validation():
        ds = dicom_dataset(structure(1), **elements)
        path.parent.mkdir(exist_ok=True)
        ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("keyword", "text", "term"),
    [
        ("ViewPosition", "PA", "PA"),
        ("ViewPosition", " llo ", "LLO"),
        ("ViewPosition", "MLO", "MLO"),
        ("ViewPosition", "SMITH", None),
        ("ViewPosition", "P A", None),
        ("BodyPartExamined", "chest", "CHEST"),
        ("BodyPartExamined", "JOHN DOE", None),
        ("Modality", "dx", "DX"),
        ("Modality", "ST", "ST"),  # retired: single-photon emission, still in headers
        ("Modality", "XYZ", None),
        ("PatientSex", "o", "O"),
        ("PatientSex", "MALE", None),
    ],
)
def test_case_and_spaces_are_forgiven_and_nothing_else(keyword: str, text: str, term: str | None) -> None:
    assert defined_term(keyword, text) == term


def test_every_term_fits_a_code_string() -> None:
    for terms in DEFINED_TERMS.values():
        assert all(0 < len(term) <= 16 and term == term.upper() and " " not in term for term in terms)  # PS3.5 6.2
    assert {"CT", "MR", "CR", "DX", "MG", "US", "PT", "NM", "XA", "OT"} <= MODALITIES
    assert {"HEAD", "CHEST", "ABDOMEN", "PELVIS", "WHOLEBODY", "4THVENTRICLE"} <= BODY_PARTS


def test_unknown_codes_are_dropped_and_named_by_keyword_alone(tmp_path: Path) -> None:
    secret = {"ViewPosition": "SMITH", "BodyPartExamined": "JONES CHEST", "Modality": "MILLER", "PatientSex": "WOMAN"}
    head = read_head(written(tmp_path / "a", **secret))
    assert set(head.unknown_codes) == set(secret)
    assert head.modality is None
    assert not head.attributes
    assert not any(value in repr(head) for value in secret.values())
    known = {"ViewPosition": "PA", "BodyPartExamined": "CHEST", "Modality": "DX", "PatientSex": "F"}
    head = read_head(written(tmp_path / "b", **known))
    assert head.unknown_codes == ()
    assert head.attributes == {"sex": "F", "view": "PA", "body_part": "CHEST"}
    assert read_head(written(tmp_path / "c", ViewPosition="", PatientSex="")).unknown_codes == ()


def test_a_name_where_a_code_belongs_reaches_no_byte_of_a_cohort(tmp_path: Path) -> None:
    codes = {"ViewPosition": "SMITHSONIAN", "BodyPartExamined": "BARNABY", "Modality": "WINTERBOTTOM"}
    written(tmp_path / "s" / "a", **codes, PatientSex="F")
    result = take_in(tmp_path / "s", tmp_path / "c")
    everything = b"".join(path.read_bytes() for path in sorted(result.cohort.path.rglob("*")) if path.is_file())
    everything += repr(result.cohort.manifest.to_dicts()).encode() + repr(result.warnings).encode()
    assert not any(value.encode() in everything for value in codes.values())
    assert [spec.name for spec in result.cohort.schema.attributes] == ["sex"]
