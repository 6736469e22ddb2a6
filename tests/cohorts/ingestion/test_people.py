"""Who a patient is: never assumed, never two people in one, the same person however a tool wrote the id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
import pydicom
import pytest
import tifffile

from medphantom.core.errors import InputError
from medphantom.core.naming import plain_id
from tests.cohorts.files import KEY, structure, take_in, uid, write_dicom, write_png, write_series

NAMES = ("MEIER_ANNA", "SCHMIDT_JAN", "WEBER_LEA")


def folders_of_people(source: Path, images: int = 4) -> Path:
    for place, name in enumerate(NAMES):
        for number in range(images):
            write_png(source / name / f"{number}.png", structure(10 * place + number))
    return source


def test_folders_are_never_assumed_to_be_classes_or_patients(tmp_path: Path) -> None:
    source = folders_of_people(tmp_path / "s")
    with pytest.raises(
        InputError, match="12 images lie in 3 folders, and nothing says whether these are classes or"
    ) as e:
        take_in(source, tmp_path / "c")
    assert "folders=classes (3 public labels)" in str(e.value)
    assert "folders=patients (3 patients, no labels)" in str(e.value)
    assert not any(name in str(e.value) for name in NAMES)
    assert not (tmp_path / "c").exists()


def test_folders_that_are_patients_stay_in_one_split_and_name_nothing_public(tmp_path: Path) -> None:
    result = take_in(folders_of_people(tmp_path / "s"), tmp_path / "c", folders="patients")
    cohort = result.cohort
    assert cohort.schema.patients == "known"
    assert cohort.schema.labels == ()
    assert set(cohort.manifest["patient"]) == {KEY.pseudonym("patient", name) for name in NAMES}
    assert cohort.manifest.group_by("patient").agg(pl.col("split").n_unique())["split"].to_list() == [1, 1, 1]
    published = b"".join(path.read_bytes() for path in sorted((tmp_path / "c").rglob("*")) if path.is_file())
    assert not any(part.encode() in published for name in NAMES for part in name.split("_"))


def test_patients_below_a_single_class_are_no_labels(tmp_path: Path) -> None:
    for place, name in enumerate(NAMES):
        for number in range(6):
            write_png(tmp_path / "s" / "pneumonia" / name / f"{number}.png", structure(10 * place + number))
    for folders in ("classes/patients", "classes"):
        cohort = take_in(tmp_path / "s", tmp_path / folders.replace("/", "_"), folders=folders).cohort
        assert cohort.schema.labels == ()
    both = take_in(tmp_path / "s", tmp_path / "b", folders="-/patients").cohort
    assert both.manifest["patient"].n_unique() == 3
    with pytest.raises(InputError, match=r"folders=-/classes \(3 public labels\), folders=-/patients"):
        take_in(tmp_path / "s", tmp_path / "c")


def test_levels_of_folders_do_not_depend_on_what_else_is_there(tmp_path: Path) -> None:
    for number in range(16):
        write_png(tmp_path / "s" / "siteA" / f"P{number // 2}" / f"{number}.png", structure(number))
    before = take_in(tmp_path / "s", tmp_path / "a", folders="-/patients").cohort
    write_png(tmp_path / "s" / "siteB" / "P9" / "x.png", structure(99))
    after = take_in(tmp_path / "s", tmp_path / "b", folders="-/patients").cohort
    known = dict(after.manifest.select("image_id", "split").iter_rows())
    assert all(known[image] == split for image, split in before.manifest.select("image_id", "split").iter_rows())


def test_one_stray_file_does_not_answer_the_question(tmp_path: Path) -> None:
    folders_of_people(tmp_path / "s" / "all")
    write_png(tmp_path / "s" / "overview.png", structure(500))
    with pytest.raises(InputError, match="lie in 3 folders"):
        take_in(tmp_path / "s", tmp_path / "c")


def test_classes_and_patients_may_lie_in_each_other(tmp_path: Path) -> None:
    for number in range(12):
        write_png(
            tmp_path / "s" / ("sick", "well")[number % 2] / f"p{number // 4}" / f"{number}.png", structure(number)
        )
    cohort = take_in(tmp_path / "s", tmp_path / "c", folders="classes/patients").cohort
    assert cohort.schema.labels == ("sick", "well")
    assert cohort.manifest["patient"].n_unique() == 3


def test_folder_classes_and_a_patient_table_are_combined(tmp_path: Path) -> None:
    lines = ["file,patient_id"]
    for number in range(12):
        name = f"{('sick', 'well')[number % 2]}/{number}.png"
        write_png(tmp_path / "s" / name, structure(number))
        lines.append(f"{name},{number // 3}")
    (tmp_path / "s" / "patients.csv").write_text("\n".join(lines) + "\n")
    cohort = take_in(tmp_path / "s", tmp_path / "c", folders="classes").cohort
    assert cohort.schema.labels == ("sick", "well")
    assert cohort.schema.patients == "known"
    assert cohort.manifest["patient"].n_unique() == 4


def test_one_file_is_one_patient(tmp_path: Path) -> None:
    frames = np.stack([structure(number, (12, 10, 9), "int16", 900) for number in range(8)], axis=-1)
    (tmp_path / "n").mkdir()
    nib.save(nib.Nifti1Image(frames, np.eye(4)), tmp_path / "n" / "perfusion.nii.gz")
    cohort = take_in(tmp_path / "n", tmp_path / "c", spatial_dims=3).cohort
    assert len(cohort) == 8
    assert cohort.manifest["patient"].n_unique() == cohort.manifest["split"].n_unique() == 1
    assert cohort.schema.patients == "per_image"

    (tmp_path / "t").mkdir()
    pages = np.stack([structure(100 + number) for number in range(6)])
    tifffile.imwrite(tmp_path / "t" / "a.tif", pages, photometric="minisblack")
    cohort = take_in(tmp_path / "t", tmp_path / "d", spatial_dims=2).cohort
    assert len(cohort) == 6
    assert cohort.manifest["patient"].n_unique() == cohort.manifest["split"].n_unique() == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        (" 7 ", "7"),
        ("Ａ１", "A1"),
        ("e\u0301", "é"),
        ("A\u200b1", "A1"),
        ("A  1", "A 1"),
        ("12", "12.00"),
    ],
)
def test_ids_that_tools_wrote_otherwise_are_equal(one: str, other: str) -> None:
    assert plain_id(one) == plain_id(other)


@pytest.mark.parametrize(("one", "other"), [("1", "01"), ("a1", "A1"), ("1.5", "15"), ("1.0.2", "1.2"), ("-1", "1")])
def test_ids_that_differ_stay_apart(one: str, other: str) -> None:
    assert plain_id(one) != plain_id(other)


def test_ids_that_are_nearly_equal_are_reported(tmp_path: Path) -> None:
    for number, name in enumerate(("P7", "p7", "08", "8", "x")):
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number, dtype="uint16", high=999), PatientID=name)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.cohort.manifest["patient"].n_unique() == 5
    assert any("2 patient ids differ from another by case, leading zeros or separators" in w for w in result.warnings)


def test_headers_and_tables_name_the_same_patient(tmp_path: Path) -> None:
    for number in range(4):
        write_dicom(
            tmp_path / "s" / f"{number}.dcm", structure(number, dtype="uint16", high=999), PatientID=f" {number} "
        )
    (tmp_path / "s" / "t.csv").write_text("patient_id,label\n" + "".join(f"{n}.0,x\n" for n in range(4)))
    cohort = take_in(tmp_path / "s", tmp_path / "c", table="t.csv", join="patient", labels=("x",)).cohort
    assert set(cohort.manifest["patient"]) == {KEY.pseudonym("patient", str(n)) for n in range(4)}


def test_bids_subjects_are_patients(tmp_path: Path) -> None:
    for subject in ("01", "02", "03"):
        for session in ("ses-1", "ses-2"):
            folder = tmp_path / "s" / f"sub-{subject}" / session / "anat"
            folder.mkdir(parents=True)
            volume = structure(int(subject) * 10 + int(session[-1]), (16, 12, 11), "int16", 900)
            nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / f"sub-{subject}_{session}_T1w.nii.gz")
            mask = (volume > 500).astype(np.uint8)
            nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / f"sub-{subject}_{session}_dseg.nii.gz")
    (tmp_path / "s" / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t40\tF\nsub-02\t50\tM\nsub-03\t60\tF\n"
    )
    result = take_in(tmp_path / "s", tmp_path / "c")
    cohort = result.cohort
    assert cohort.schema.patients == "known"
    assert (len(cohort), cohort.manifest["patient"].n_unique()) == (6, 3)
    assert cohort.schema.mask_values == {0: "background", 1: "1"}
    assert sorted(set(cohort.attribute("age"))) == [40, 50, 60]


def test_an_image_that_the_table_does_not_name_follows_its_header(tmp_path: Path) -> None:
    lines = ["image,patient_id,diagnosis"]
    for number in range(12):
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID=f"ID{number // 2}")
        lines.append(f"{number}.dcm,{f'T{number // 2}' if number % 2 else ''},a")  # merged cells of a spreadsheet
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    assert set(cohort.manifest["patient"]) == {KEY.pseudonym("patient", f"T{n}") for n in range(6)}


def test_a_header_that_is_several_patients_of_the_table_is_reported(tmp_path: Path) -> None:
    lines = ["image,patient_id,diagnosis"]
    for number in range(6):
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID="SAME" if number < 4 else f"H{number}")
        lines.append(f"{number}.dcm,T{number},a")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert any(
        "1 patient ids of headers, folders or paths belong to several patients" in line for line in result.warnings
    )


def test_one_id_under_two_issuers_is_two_people(tmp_path: Path) -> None:
    for number in range(4):
        pixels = structure(number, dtype="uint16", high=999)
        issuer = ("Clinic A", "Clinic B")[number // 2]
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID="1", IssuerOfPatientID=issuer)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.cohort.manifest["patient"].n_unique() == 2


def test_an_image_without_id_belongs_to_the_one_patient_of_its_study_or_to_nobody(tmp_path: Path) -> None:
    for number, patient in enumerate(("A", "", "B", "C", "")):
        study = "1.2.3" if number < 2 else "1.2.4"
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID=patient, StudyInstanceUID=study)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert len(result.cohort) == 4
    assert result.cohort.manifest["patient"].to_list().count(KEY.pseudonym("patient", "A")) == 2
    assert {reason.value: n for reason, n in result.rejected.items()} == {"geometry": 1}


def test_names_that_are_no_utf8_are_names(tmp_path: Path) -> None:
    for number in range(3):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
    odd = os.fsencode(tmp_path / "s") + b"/M\xfcller.png"
    (tmp_path / "s" / "0.png").rename(os.fsdecode(odd))
    assert len(take_in(tmp_path / "s", tmp_path / "c").cohort) == 3


@pytest.mark.parametrize("word", ["ANONYMOUS", "unknown", "N/A", "-"])
def test_a_word_for_nobody_in_a_header_is_nobody(tmp_path: Path, word: str) -> None:
    for number in range(6):
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID=word, StudyInstanceUID=f"1.2.{number}")
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    assert cohort.schema.patients == "per_image"
    assert cohort.manifest["patient"].n_unique() == 6


def test_links_into_a_cache_are_read_when_requested(tmp_path: Path) -> None:
    for number in range(6):
        blob = tmp_path / "cache" / f"{number:040x}.png"
        write_png(blob, structure(number))
        (tmp_path / "s").mkdir(exist_ok=True)
        (tmp_path / "s" / f"{number}.png").symlink_to(blob)
    (tmp_path / "more").mkdir()
    write_png(tmp_path / "more" / "x.png", structure(50))
    (tmp_path / "s" / "folder").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "loop").symlink_to(tmp_path / "more")
    with pytest.raises(InputError, match="outside_source"):
        take_in(tmp_path / "s", tmp_path / "c")
    assert len(take_in(tmp_path / "s", tmp_path / "d", follow_links=True).cohort) == 7


def test_a_cohort_without_labels_says_so_and_why(tmp_path: Path) -> None:
    folders_of_people(tmp_path / "s")
    remarks = take_in(tmp_path / "s", tmp_path / "c", folders="patients").understood
    assert "labels: none; there is no table, and folders were not said to be classes" in remarks
    assert "patients: 12 images by folder" in remarks


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("sub-{p:02}", {}),
        ("K{p:02}", {"folders": "patients"}),
        ("all", {"patient_pattern": r"(K\d+)_", "folders": "ignore"}),
    ],
)
def test_a_cell_that_is_empty_makes_no_second_patient(tmp_path: Path, folder: str, options: dict[str, Any]) -> None:
    lines = ["file,patient_id,diagnosis"]
    for person in range(12):
        for number in range(2):
            name = f"K{person:02}_{number}.png"
            write_png(tmp_path / "s" / folder.format(p=person) / name, structure(10 * person + number))
            lines.append(f"{name},{f'MRN{person}' if number else ''},a")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    cohort = take_in(tmp_path / "s", tmp_path / "c", **options).cohort
    assert set(cohort.manifest["patient"]) == {KEY.pseudonym("patient", f"MRN{n}") for n in range(12)}


def test_a_study_of_the_table_binds_its_images(tmp_path: Path) -> None:
    lines = ["file,patient_id,study_id,diagnosis"]
    for person in range(12):
        for number in range(2):
            write_png(tmp_path / "s" / f"{person}_{number}.png", structure(10 * person + number))
            lines.append(f"{person}_{number}.png,{f'MRN{person}' if number else ''},S{person},a")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    assert cohort.manifest["patient"].n_unique() == 12


def test_a_case_binds_its_channels_whatever_the_table_names(tmp_path: Path) -> None:
    lines = ["file,patient_id,diagnosis"]
    for number in range(12):
        for channel in range(2):
            name = f"case_{number:03d}_{channel:04d}.png"
            write_png(tmp_path / "s" / "imagesTr" / name, structure(10 * number + channel))
            lines.append(f"{name},{f'P{number}' if channel else ''},a")
    (tmp_path / "s" / "dataset.json").write_text('{"labels": {"background": 0}}')
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    assert len(cohort) == 24
    assert cohort.manifest["patient"].n_unique() == 12


@pytest.mark.parametrize(
    ("folders", "options", "elements"),
    [
        (("anna", "berta"), {"folders": "patients"}, ({}, {})),
        (("sub-01", "sub-02"), {}, ({}, {})),
        (("a", "b"), {"folders": "ignore"}, ({"IssuerOfPatientID": "HOSP A"}, {"IssuerOfPatientID": "HOSP B"})),
    ],
)
@pytest.mark.parametrize("interleaved", [False, True])
def test_slices_of_two_people_under_one_series_are_never_one_volume(
    tmp_path: Path,
    folders: tuple[str, str],
    options: dict[str, Any],
    elements: tuple[dict[str, str], dict[str, str]],
    interleaved: bool,
) -> None:
    """A tool gave everybody one id, one study and one series; folders or the issuer still tell who is who."""
    for person, folder in enumerate(folders):
        volume = structure(person, (6, 16, 16), "uint16", 999)
        heights = [2.0 * number + person if interleaved else 6.0 * person + number for number in range(6)]
        places = [(0.0, 0.0, height) for height in heights]
        same = {"PatientID": "7", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
        write_series(tmp_path / "s" / folder, volume, places, **same, **elements[person])
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, min_slices=3, **options)
    assert result.cohort.manifest["patient"].n_unique() == 2
    links = pl.read_parquet(result.private_folder / "links.parquet")
    by_image = links.with_columns(folder=pl.col("path").str.split("/").list.first()).group_by("image_id")
    assert by_image.agg(pl.col("folder").n_unique())["folder"].to_list() == [1, 1]


def test_a_folder_for_nobody_leaves_the_header_to_say_who_it_is(tmp_path: Path) -> None:
    for number in range(6):
        folder = "unknown" if number < 4 else f"P{number}"
        pixels = structure(number, dtype="uint16", high=999)
        study = {"StudyInstanceUID": uid(number)}
        write_dicom(tmp_path / "s" / folder / f"{number}.dcm", pixels, PatientID=f"P{number}", **study)
    cohort = take_in(tmp_path / "s", tmp_path / "c", folders="patients").cohort
    assert set(cohort.manifest["patient"]) == {KEY.pseudonym("patient", f"P{number}") for number in range(6)}


def test_names_are_bridged_as_far_as_they_go(tmp_path: Path) -> None:
    """The table names the first, whose header the second shares, whose study the third shares, which names nobody."""
    lines = ["image,patient_id"]
    for person in range(4):
        for number, header in enumerate((f"H{person}", f"H{person}", "")):
            pixels = structure(10 * person + number, dtype="uint16", high=999)
            study = {"StudyInstanceUID": uid("first" if number == 0 else "second", person)}
            write_dicom(tmp_path / "s" / f"{person}_{number}.dcm", pixels, PatientID=header, **study)
            lines.append(f"{person}_{number}.dcm,{'' if number else f'T{person}'}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    cohort = take_in(tmp_path / "s", tmp_path / "c", table="t.csv").cohort
    assert cohort.manifest["patient"].value_counts()["count"].to_list() == [3] * 4


def test_an_image_without_issuer_follows_its_study(tmp_path: Path) -> None:
    for hospital in "AB":
        for number in range(3):
            pixels = structure(10 * ord(hospital) + number, dtype="uint16", high=999)
            issuer = {"IssuerOfPatientID": f"HOSP {hospital}"} if number else {}
            study = {"StudyInstanceUID": uid(hospital)}
            write_dicom(tmp_path / "s" / f"{hospital}{number}.dcm", pixels, PatientID="0", **study, **issuer)
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    assert cohort.manifest["patient"].value_counts()["count"].to_list() == [3, 3]


def volume_of_each(source: Path, people: int, slices: int = 4) -> list[list[str]]:
    """Write a volume of each person; returns the SOPInstanceUIDs of its slices."""
    found = []
    for person in range(people):
        volume = structure(person, (slices, 16, 16), "uint16", 999)
        named = {"PatientID": f"P{person}", "StudyInstanceUID": uid("study", person)}
        series = uid("series", person)
        places = [(0.0, 0.0, float(number)) for number in range(slices)]
        write_series(source / f"v{person}", volume, places, SeriesInstanceUID=series, **named)
        files = sorted((source / f"v{person}").iterdir())
        found.append([str(pydicom.dcmread(file).SOPInstanceUID) for file in files])
    return found


@pytest.mark.parametrize("by", ["path", "uid"])
def test_a_volume_whose_slices_have_rows_of_their_own_has_what_any_of_them_states(tmp_path: Path, by: str) -> None:
    slices = volume_of_each(tmp_path / "s", 6)
    lines = ["file_name,bleeding" if by == "path" else "SOPInstanceUID,bleeding"]
    for person, uids in enumerate(slices):
        for number, name in enumerate(uids):
            key = f"v{person}/{number:03d}.dcm" if by == "path" else name
            lines.append(f"{key},{int(person % 2 == 1 and number == 2)}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    options = {"spatial_dims": 3, "min_slices": 3, "label_columns": ("bleeding",)}
    result = take_in(tmp_path / "s", tmp_path / "c", **options)
    states = dict(result.cohort.manifest.select("patient", "label:bleeding").iter_rows())
    assert states == {KEY.pseudonym("patient", f"P{person}"): person % 2 == 1 for person in range(6)}
    assert not any("belong to no image" in line for line in result.warnings)


def test_a_volume_whose_slices_are_several_peoples_by_the_table_is_nobodys(tmp_path: Path) -> None:
    volume_of_each(tmp_path / "s", 3)
    lines = ["file_name,patient_id"]
    for person in range(3):
        lines += [f"v{person}/{number:03d}.dcm,T{person if number < 2 else 2}" for number in range(4)]
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, min_slices=3)
    assert {reason.value: total for reason, total in result.rejected.items()} == {"bad_table_row": 8}
    assert result.cohort.manifest["patient"].to_list() == [KEY.pseudonym("patient", "T2")]


def test_ids_that_their_character_set_cannot_hold_stay_apart(tmp_path: Path) -> None:
    """Latin letters declared as UTF-8: a decoder puts one and the same sign in place of each."""
    for number, letter in enumerate("üöäü"):
        pixels = structure(number, dtype="uint16", high=999)
        stated = {"SpecificCharacterSet": "ISO_IR 192", "StudyInstanceUID": uid(number)}
        file = tmp_path / "s" / f"{number}.dcm"
        write_dicom(file, pixels, PatientID="M_ller-7", **stated)
        file.write_bytes(file.read_bytes().replace(b"M_ller-7", f"M{letter}ller-7".encode("latin-1")))
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.cohort.manifest["patient"].n_unique() == 3
    assert any("3 patient ids hold bytes" in line for line in result.warnings)


@pytest.mark.parametrize(("name", "options"), [("P1", {"folders": "-/patients"}), ("sub-01", {})])
def test_one_folder_name_at_several_sites_is_reported(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    for place, site in enumerate(("siteA", "siteB")):
        for number in range(3):
            write_png(tmp_path / "s" / site / name / f"{number}.png", structure(10 * place + number))
    warned = take_in(tmp_path / "s", tmp_path / "c", **options).warnings
    assert any("1 folders that name a patient are in several parent folders" in line for line in warned)
    pattern = {"patient_pattern": rf"(site\w/{name})"}
    apart = take_in(tmp_path / "s", tmp_path / "d", **options, **pattern)
    assert apart.cohort.manifest["patient"].n_unique() == 2
    assert not any("several parent folders" in line for line in apart.warnings)


def test_a_second_issuer_of_an_id_renames_nobody(tmp_path: Path) -> None:
    def hospital(name: str, seed: int) -> None:
        for number in range(12):
            pixels = structure(100 * seed + number, dtype="uint16", high=999)
            named = {"PatientID": str(number), "IssuerOfPatientID": name, "StudyInstanceUID": uid(name, number)}
            write_dicom(tmp_path / "s" / name / f"{number}.dcm", pixels, **named)

    hospital("HOSP A", 1)
    before = take_in(tmp_path / "s", tmp_path / "a").cohort.manifest
    hospital("HOSP B", 2)
    after = take_in(tmp_path / "s", tmp_path / "b").cohort.manifest
    assert after["patient"].n_unique() == 24
    was = before.select("image_id", "patient", "split")
    assert was.join(after.select("image_id", "patient", "split"), on=["image_id", "patient", "split"]).height == 12


def test_issuers_that_differ_within_a_study_are_reported(tmp_path: Path) -> None:
    for number, issuer in enumerate(("MGH", "Massachusetts General Hospital")):
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, PatientID="1", IssuerOfPatientID=issuer)
    warned = take_in(tmp_path / "s", tmp_path / "c").warnings
    assert any("1 patient ids occur in one study under several issuers" in line for line in warned)


def ids_in_bytes(folder: Path, ids: list[bytes], **elements: Any) -> Any:
    """Ingest one DICOM image per id, whose bytes the header declares as given."""
    for number, name in enumerate(ids):
        file = folder / "s" / f"{number}.dcm"
        placeholder = b"x" * len(name)
        named = {"PatientID": placeholder.decode(), "StudyInstanceUID": uid(number), **elements}
        write_dicom(file, structure(number, dtype="uint16", high=999), **named)
        file.write_bytes(file.read_bytes().replace(placeholder, name))
    return take_in(folder / "s", folder / "c")


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 6"])
def test_ids_of_utf8_under_another_character_set_stay_apart_and_are_told(tmp_path: Path, charset: str) -> None:
    ids = [name.encode() for name in ("MÄLLER-7", "MÖLLER-7", "MÜLLER-7", "MÜLLER-7", "Mäller-7", "Möller-7")]
    result = ids_in_bytes(tmp_path, ids, SpecificCharacterSet=charset)
    assert result.cohort.manifest["patient"].n_unique() == 5
    reported = [line for line in result.warnings if "under a right character set counts as another one" in line]
    assert sum(int(line.split()[0]) for line in reported) == 5, reported


def test_a_name_in_latin_letters_is_no_misread_one(tmp_path: Path) -> None:
    ids = [name.encode("latin-1") for name in ("Müller-77", "Möller-77", "Ãlvarez-7")]
    result = ids_in_bytes(tmp_path, ids, SpecificCharacterSet="ISO_IR 100")
    assert result.cohort.manifest["patient"].n_unique() == 3
    assert not any("character set" in line for line in result.warnings)


def test_a_study_of_several_patients_is_reported(tmp_path: Path) -> None:
    for number, patient in enumerate(("A", "B", "C")):
        stated = {"PatientID": patient, "StudyInstanceUID": uid(number // 2)}
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number, dtype="uint16", high=999), **stated)
    warned = take_in(tmp_path / "s", tmp_path / "c").warnings
    assert any(line.startswith("1 DICOM studies contain images of several patients") for line in warned), warned


@pytest.mark.parametrize(("name", "patients"), [("CASE", 1), ("DEIDENTIFIED", 6), ("Removed", 6)])
def test_one_id_in_every_header_is_reported_or_names_nobody(tmp_path: Path, name: str, patients: int) -> None:
    for number in range(6):
        stated = {"PatientID": name, "StudyInstanceUID": uid(number)}
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number, dtype="uint16", high=999), **stated)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.cohort.manifest["patient"].n_unique() == patients
    reported = any("one patient id is in the headers of all 6 studies" in line for line in result.warnings)
    assert reported == (patients == 1)


@pytest.mark.parametrize("written", ['="00{n}"', '"=""00{n}"""', "'00{n}", "00{n}"])
def test_ids_that_are_marked_as_text_are_the_ids(tmp_path: Path, written: str) -> None:
    for number in range(4):
        stated = {"PatientID": f"00{number}", "StudyInstanceUID": uid(number)}
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number, dtype="uint16", high=999), **stated)
    cells = [written.replace("{n}", str(number)) for number in range(4)]
    rows = [f"{number % 2},{cell}" for number, cell in enumerate(cells)]
    (tmp_path / "s" / "t.csv").write_text("\n".join(["nodule,patient_id", *rows]) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c", label_columns=("nodule",))
    assert result.cohort.schema.labels == ("nodule",)
    assert set(result.cohort.manifest["patient"]) == {KEY.pseudonym("patient", f"00{n}") for n in range(4)}


def test_both_sexes_under_one_id_are_reported(tmp_path: Path) -> None:
    for number, site in enumerate(("A", "B")):
        stated = {"PatientID": "1", "PatientSex": "MF"[number], "StudyInstanceUID": uid(site)}
        write_dicom(tmp_path / "s" / site / "1.dcm", structure(number, dtype="uint16", high=999), **stated)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.cohort.manifest["patient"].n_unique() == 1
    assert any("both sexes for 1 patients" in line for line in result.warnings)


@pytest.mark.parametrize("ids", [("AB-12", "AB 12"), ("PAT-007", "PAT-7"), ("ab_1", "AB-1")])
def test_ids_that_a_tool_may_have_changed_are_reported(tmp_path: Path, ids: tuple[str, str]) -> None:
    for number, name in enumerate(ids):
        stated = {"PatientID": name, "StudyInstanceUID": uid(number)}
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number, dtype="uint16", high=999), **stated)
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.cohort.manifest["patient"].n_unique() == 2
    assert any("1 patient ids differ from another" in line for line in result.warnings)


def test_a_trial_is_no_study(tmp_path: Path) -> None:
    """A column of studies that several patients share does not say whose the others are."""
    lines = ["file_name,patient_id,study_id"]
    for number in range(8):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
        lines.append(f"{number}.png,{f'P{number}' if number in {0, 1, 4} else ''},{'TRIAL' if number < 4 else 'OTHER'}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    cohort = take_in(tmp_path / "s", tmp_path / "c").cohort
    assert cohort.manifest.filter(pl.col("patient") == KEY.pseudonym("patient", "P4")).height == 1


def test_slices_that_disagree_about_a_patient_state_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for patient in range(6):
        for place in range(4):
            stated = {"PatientSex": "MF"[place % 2] if patient == 0 else "F", "PatientAge": "050Y"}
            write_dicom(
                tmp_path / "s" / str(patient) / f"{place}.dcm",
                rng.integers(0, 999, (24, 24), dtype=np.uint16),
                PatientID=f"P{patient}",
                StudyInstanceUID=uid("study", patient),
                SeriesInstanceUID=uid("series", patient),
                SOPInstanceUID=uid("slice", patient, place),
                ImagePositionPatient=[0.0, 0.0, 2.0 * place],
                ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                PixelSpacing=[1.0, 1.0],
                **stated,
            )
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, min_slices=3, folders="ignore")
    records = {record.patient: record.attributes for record in result.cohort.records()}
    first = KEY.pseudonym("patient", "P0")
    assert {patient: found["sex"] for patient, found in records.items()} == {
        patient: None if patient == first else "F" for patient in records
    }
    assert any("slices of 1 volumes disagree about sex" in line for line in result.warnings)


@pytest.mark.parametrize("same", [False, True])
def test_two_numberings_of_people_are_kept_apart(tmp_path: Path, same: bool) -> None:
    """The table numbers six people otherwise than their headers do, and leaves two cells empty."""
    lines = ["file_name,patient_id"]
    for number in range(6):
        stated = {"PatientID": str(number + 1), "StudyInstanceUID": uid(number)}
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number, dtype="uint16", high=999), **stated)
        named = number + 1 if same else 6 - number
        lines.append(f"{number}.dcm,{'' if number in {0, 1} else named}")
    (tmp_path / "s" / "t.csv").write_text("\n".join(lines) + "\n")
    result = take_in(tmp_path / "s", tmp_path / "c")
    assert result.cohort.manifest["patient"].n_unique() == 6
    assert any("give" in line and "another person" in line for line in result.warnings) is not same
