"""What few patients share is published nowhere, unless it was named; and nothing else of a source is either."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pytest

from medphantom.cohorts.export import export_cohort
from medphantom.cohorts.ingestion.sharers import Sharers
from medphantom.cohorts.store import Cohort
from tests.cohorts.files import KEY, structure, take_in, uid, write_dicom, write_png

PLANTED = ("Zacharias", "Quistorp", "Xanthippe", "Yngwie", "Krummhorn", "Wolpertinger", "Oleander", "Tschirnhaus")


def findings(source: Path, shares: dict[str, int], total: int = 20) -> Path:
    """Pictures of as many patients, and a table of findings that so many of them share."""
    lines = ["image,patient_id,findings"]
    for number in range(total):
        write_png(source / f"{number}.png", structure(number))
        found = "|".join(name for name, share in shares.items() if number < share) or "No Finding"
        lines.append(f"{number}.png,p{number},{found}")
    (source / "t.csv").write_text("\n".join(lines) + "\n")
    return source


def test_a_label_needs_patients_who_share_it(tmp_path: Path) -> None:
    source = findings(tmp_path / "s", {"common": 9, "just enough": 5, "zebra": 4})
    result = take_in(source, tmp_path / "c", min_patients=5)
    assert result.cohort.schema.labels == ("common", "just enough")
    assert any(
        "labels: 2 of 3 from the table; 1 are shared by fewer than 5 patients" in line for line in result.understood
    )
    assert not any("zebra" in line for line in (*result.understood, *result.warnings))
    assert "label:zebra" not in result.cohort.manifest.columns
    result.cohort.verify()
    named = take_in(source, tmp_path / "d", min_patients=5, labels=("zebra",)).cohort
    assert named.schema.labels == ("common", "just enough", "zebra")


def test_images_of_one_patient_are_not_many_patients(tmp_path: Path) -> None:
    lines = ["image,patient_id,label"]
    for number in range(20):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
        lines.append(f"{number}.png,{0 if number < 10 else number},{'a' if number < 10 else 'b'}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    assert take_in(tmp_path / "s", tmp_path / "c", min_patients=5).cohort.schema.labels == ("b",)


def test_a_class_that_is_dropped_leaves_its_images_without_one(tmp_path: Path) -> None:
    for number in range(20):
        name = "rare" if number < 2 else ("one", "other")[number % 2]
        write_png(tmp_path / "s" / name / f"{number}.png", structure(number))
    cohort = take_in(tmp_path / "s", tmp_path / "c", folders="classes", min_patients=5).cohort
    assert cohort.schema.labels == ("one", "other")
    assert cohort.schema.exclusive
    stated = cohort.labels()
    assert sorted(stated.sum(axis=1).tolist()) == [-2, -2, *[1] * 18]


def test_a_category_that_is_dropped_is_not_stated(tmp_path: Path) -> None:
    lines = ["image,patient_id,sex,site"]
    for number in range(20):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
        lines.append(f"{number}.png,{number},{'D' if number < 2 else 'MF'[number % 2]},clinic {number}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    options = {"attributes": ("sex:categorical", "site:categorical"), "min_patients": 5}
    result = take_in(tmp_path / "s", tmp_path / "c", **options)
    assert result.cohort.schema.attribute("sex").categories == ("F", "M")
    assert result.cohort.attribute("sex").count(None) == 2
    assert [spec.name for spec in result.cohort.schema.attributes] == ["sex"]  # each site has one patient
    assert any("attribute site: 20 categories" in line for line in result.understood)
    kept = take_in(tmp_path / "s", tmp_path / "d", categories={"site": ("clinic 3",)}, **options).cohort
    assert kept.schema.attribute("site").categories == ("clinic 3",)


@pytest.mark.parametrize("patients", [4, 5])
def test_the_minimum_is_a_minimum(patients: int) -> None:
    sharers = Sharers(5)
    for number in range(patients):
        for _ in range(3):
            sharers.note(f"p{number}", {"a": True, "b": False}, {"sex": "F", "age": 3.0})
    assert sharers.rare_labels(["a", "b"], named=()) == (["b"] if patients == 5 else ["a", "b"])
    assert sharers.rare_labels(["a", "b"], named=["a", "b"]) == []
    assert sharers.rare_categories({}) == ({} if patients == 5 else {"sex": ["F"]})


def everything_written(folder: Path) -> str:
    """Names of files, and all that they hold, Parquet as text."""
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(str(path.relative_to(folder)))
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
            parts += [f"{name} {frame[name].to_list()}" for name in frame.columns]
        if path.is_file():
            parts.append(path.read_bytes().decode("latin-1"))
    return "\n".join(parts)


def test_nothing_planted_is_exported(tmp_path: Path) -> None:
    lines = ["image,patient_id,diagnosis,sex,view,site"]
    for number in range(24):
        name = PLANTED[number % len(PLANTED)]
        path = f"{name}_{number}/scan_{name}.dcm"
        write_dicom(
            tmp_path / "s" / path,
            structure(number, dtype="uint16", high=999),
            PatientID=f"{name}{number}",
            PatientName=f"{name}^A",
            StudyDescription=name,
            SeriesDescription=name,
            StudyInstanceUID=uid(number),
            ViewPosition=name.upper()[:16],
            BodyPartExamined=name.upper()[:16],
            Modality="CR",
            InstitutionName=name,
        )
        lines.append(
            f"{path},{name}{number},seen by Dr {name} on day {number},{name},{name} {number},{name} ward {number}"
        )
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c", min_patients=5)
    export_cohort(result.cohort, tmp_path / "x")
    written = everything_written(tmp_path / "c") + everything_written(tmp_path / "x")
    remarks = "\n".join((*result.understood, *result.warnings))
    for name in PLANTED:
        assert name.lower() not in written.lower()
        assert name.lower() not in remarks.lower()
    assert len(Cohort.open(tmp_path / "c")) == 24


def test_folders_that_are_patients_are_exported_nowhere(tmp_path: Path) -> None:
    for number in range(24):
        name = f"{PLANTED[number // 3]}_ANNA"
        write_png(tmp_path / "s" / name / f"{name}{number}.png", structure(number))
    result = take_in(tmp_path / "s", tmp_path / "c", folders="patients", min_patients=5)
    export_cohort(result.cohort, tmp_path / "x")
    written = everything_written(tmp_path / "c") + everything_written(tmp_path / "x")
    assert not any(name.lower() in written.lower() for name in PLANTED)
    assert KEY.pseudonym("patient", f"{PLANTED[0]}_ANNA") in written


def test_a_rare_modality_and_the_name_of_a_rare_mask_value_are_not_published(tmp_path: Path) -> None:
    for number in range(12):
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID=f"p{number}", Modality="DX" if number else "PX")
    assert set(take_in(tmp_path / "s", tmp_path / "c", min_patients=5).cohort.manifest["modality"]) == {"DX", None}

    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "n" / folder).mkdir(parents=True)
    for number in range(10):
        volume = structure(number, (12, 11, 10), "int16", 900)
        mask = (volume > 450).astype(np.uint8)
        mask[0, 0, 0] = 2 if number == 0 else 0
        nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "n" / "imagesTr" / f"c{number}_0000.nii.gz")
        nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "n" / "labelsTr" / f"c{number}.nii.gz")
    facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1, "Wolpertinger": 2}}
    (tmp_path / "n" / "dataset.json").write_text(json.dumps(facts))
    result = take_in(tmp_path / "n", tmp_path / "d", min_patients=5)
    assert result.cohort.schema.mask_values == {0: "background", 1: "tumour", 2: "2"}
    assert any("names of 1 values that fewer than 5 patients share" in line for line in result.understood)
    assert "Wolpertinger" not in everything_written(tmp_path / "d")


def test_an_age_that_is_none_is_counted(tmp_path: Path) -> None:
    for number, age in enumerate(("45", "411Y", "050Y", "", "061Y")):
        pixels = structure(number, dtype="uint16", high=999)
        with warnings.catch_warnings():  # pydicom warns of what it writes
            warnings.simplefilter("ignore")
            write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID=f"p{number}", PatientAge=age)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert sorted(result.cohort.attribute("age"), key=str) == [50.0, 61.0, None, None, None]
    assert any(line.startswith("header PatientAge: 2 images hold no value") for line in result.understood)
