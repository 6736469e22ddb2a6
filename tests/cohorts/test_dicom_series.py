"""Who a slice belongs to: no patients are merged, and images are equal by place and pixels, never by an identifier."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian

from medphantom.cohorts.ingest import IngestResult
from medphantom.core.records import Array
from tests.cohorts.files import AXIAL, dicom_dataset, reasons, structure, take_in, uid, write_dicom, write_series


def volume_of(seed: int, total: int = 6) -> Array:
    return structure(seed, (total, 24, 20), "int16", 1000)


def positions(total: int = 6, start: float = 0.0) -> Array:
    return np.array([10.0, 20.0, start]) + np.arange(total)[:, np.newaxis] * [0, 0, 2.5]


def volumes(source: Path, out: Path, **options: object) -> tuple[IngestResult, list[bytes]]:
    result = take_in(source, out, spatial_dims=3, **options)
    return result, [record.pixels.tobytes() for record in result.cohort.records()]


def details(result: IngestResult) -> Counter[str]:
    return Counter(pl.read_parquet(result.private_folder / "rejections.parquet")["detail"].to_list())


def patient_of_path(result: IngestResult) -> dict[str, str]:
    links = pl.read_parquet(result.private_folder / "links.parquet")
    return dict(links.select("path", "patient_id").iter_rows())


@pytest.mark.parametrize("shared", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_two_patients_under_one_identifier_are_two_volumes_of_two_patients(tmp_path: Path, shared: str) -> None:
    common = {"SeriesInstanceUID": uid("one"), "StudyInstanceUID": uid("one study")}
    for number, patient in enumerate("AB"):
        own = {"SeriesInstanceUID": uid(patient), "StudyInstanceUID": uid(patient, "study"), shared: common[shared]}
        write_series(  # the second continues where the first ends: alone by geometry they would be one
            tmp_path / "s" / patient, volume_of(number), positions(start=15.0 * number), PatientID=patient, **own
        )
    result, found = volumes(tmp_path / "s", tmp_path / "c")
    assert sorted(found) == sorted(volume_of(number).tobytes() for number in (0, 1))
    assert result.cohort.manifest["patient"].n_unique() == 2
    assert {path[0]: patient for path, patient in patient_of_path(result).items()} == {"A": "A", "B": "B"}


def test_two_patients_with_all_identifiers_and_positions_equal_are_distinguished(tmp_path: Path) -> None:
    for number, patient in enumerate("AB"):
        write_series(
            tmp_path / "s" / patient, volume_of(number), positions(), PatientID=patient, SeriesInstanceUID=uid("one")
        )
    _, found = volumes(tmp_path / "s", tmp_path / "c")
    assert sorted(found) == sorted(volume_of(number).tobytes() for number in (0, 1))


def test_an_id_with_a_backslash_is_whole(tmp_path: Path) -> None:
    for number, patient in enumerate(("HOSP\\1", "HOSP\\2", "HOSP\\1")):
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number, dtype="uint16", high=999), PatientID=patient)
    result = take_in(tmp_path / "s", tmp_path / "c")
    ids = patient_of_path(result)
    assert ids["0.dcm"] == ids["2.dcm"] == "HOSP\\1"
    assert ids["1.dcm"] == "HOSP\\2"
    for number, issuer in enumerate(("Clinic\\A", "Clinic\\B")):
        pixels = structure(number, dtype="uint16", high=999)
        write_dicom(tmp_path / "t" / f"{number}.dcm", pixels, PatientID="1", IssuerOfPatientID=issuer)
    assert take_in(tmp_path / "t", tmp_path / "d").cohort.manifest["patient"].n_unique() == 2


def test_one_patient_written_in_two_ways_is_one_volume(tmp_path: Path) -> None:
    volume, places, unicode = volume_of(1), positions(), {"SpecificCharacterSet": "ISO_IR 192"}
    write_series(tmp_path / "s", volume[:3], places[:3], names=list("abc"), PatientID="17 ", **unicode)
    full_width = {"PatientID": "１７", "ImageComments": "x"}  # digits of another width
    write_series(tmp_path / "s", volume[3:], places[3:], names=list("def"), **full_width, **unicode)
    result, found = volumes(tmp_path / "s", tmp_path / "c")
    assert found == [volume.tobytes()]
    assert set(patient_of_path(result).values()) == {"17"}


def test_slices_that_name_no_patient_are_not_given_to_the_one_of_their_series(tmp_path: Path) -> None:
    write_series(tmp_path / "s", volume_of(1), positions(), names=list("abcdef"), PatientID="A")
    unnamed = positions(start=15.0)
    write_series(tmp_path / "s", volume_of(2), unnamed, names=list("ghijkl"), PatientID="", ImageComments="x")
    result, found = volumes(tmp_path / "s", tmp_path / "c")
    assert found == [volume_of(1).tobytes()]
    assert details(result) == {"names no patient, while other slices of its series do": 6}


def test_patients_by_path_are_distinguished_under_one_header(tmp_path: Path) -> None:
    for number, patient in enumerate("AB"):
        folder = tmp_path / "s" / f"p{patient}"
        start = 15.0 * number
        write_series(folder, volume_of(number), positions(start=start), PatientID="ANON", SeriesInstanceUID=uid("x"))
    result, found = volumes(tmp_path / "s", tmp_path / "c", patient_pattern="p([AB])/")
    assert sorted(found) == sorted(volume_of(number).tobytes() for number in (0, 1))
    assert result.cohort.manifest["patient"].n_unique() == 2


@pytest.mark.parametrize("sop", ["", uid("constant")])
def test_a_spoilt_instance_uid_loses_no_slice(tmp_path: Path, sop: str) -> None:
    for number in range(6):
        write_dicom(
            tmp_path / "s" / f"{number}.dcm",
            volume_of(1)[number],
            SOPInstanceUID=sop or uid("not written"),
            ImagePositionPatient=positions()[number].tolist(),
            ImageOrientationPatient=list(AXIAL),
            PixelSpacing=[0.8, 0.6],
        )
        if not sop:
            _without(tmp_path / "s" / f"{number}.dcm", "SOPInstanceUID")
    result, found = volumes(tmp_path / "s", tmp_path / "c")
    assert found == [volume_of(1).tobytes()]
    assert reasons(result) == {}


def _without(path: Path, keyword: str) -> None:
    ds = pydicom.dcmread(path)
    setattr(ds, keyword, "")
    ds.save_as(path)


@pytest.mark.parametrize("instances", ["same", "renumbered", "none"])
def test_the_same_slices_under_new_identifiers_are_copies(tmp_path: Path, instances: str) -> None:
    for copy in range(2):
        for number in range(6):
            count = {"same": number + 1, "renumbered": 6 * copy + number + 1, "none": None}[instances]
            write_dicom(
                tmp_path / "s" / f"{copy}-{number}.dcm",
                volume_of(1)[number],
                SeriesInstanceUID=uid("series"),
                SOPInstanceUID=uid(copy, number),
                ImagePositionPatient=positions()[number].tolist(),
                ImageOrientationPatient=list(AXIAL),
                PixelSpacing=[0.8, 0.6],
                InstanceNumber=count,
            )
    result, found = volumes(tmp_path / "s", tmp_path / "c")
    assert found == [volume_of(1).tobytes()]
    assert reasons(result) == {"duplicate": 6}


def test_one_slice_copied_with_another_time_is_a_copy(tmp_path: Path) -> None:
    write_series(tmp_path / "s", volume_of(1), positions(), ContentTime="101010")
    again = {"names": ["copy.dcm"], "SeriesInstanceUID": uid("series", "s"), "ContentTime": "111111"}
    write_series(tmp_path / "s", volume_of(1)[2:3], positions()[2:3], **again)
    result, found = volumes(tmp_path / "s", tmp_path / "c")
    assert found == [volume_of(1).tobytes()]
    assert details(result) == {"the same pixels at the same position as an earlier file": 1}


def test_equal_slices_of_two_phases_are_no_copies(tmp_path: Path) -> None:
    first, second = volume_of(1), volume_of(2)
    first[0] = second[0] = 0  # as above the head
    for echo, volume in ((1, first), (2, second)):
        names = [f"{echo}-{number}" for number in range(6)]
        write_series(tmp_path / "s", volume, positions(), names=names, SeriesInstanceUID=uid("x"), EchoNumbers=echo)
    _, found = volumes(tmp_path / "s", tmp_path / "c")
    assert found == [first.tobytes(), second.tobytes()]


def test_an_instance_uid_of_several_images_joins_no_table(tmp_path: Path) -> None:
    for number in range(4):
        shared = uid("shared") if number < 2 else uid(number)
        write_dicom(tmp_path / "s" / f"{number}.dcm", structure(number), SOPInstanceUID=shared)
    rows = {"SOPInstanceUID": [uid("shared"), uid(2), uid(3)], "finding": ["edema", "mass", "edema"]}
    pl.DataFrame(rows).write_csv(tmp_path / "t.csv")
    options = {"table": str(tmp_path / "t.csv"), "uid_column": "SOPInstanceUID", "label_columns": ("finding",)}
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=2, **options)
    assert reasons(result) == {"no_table_row": 2}


def test_slices_without_series_are_a_volume_where_nothing_contradicts_it(tmp_path: Path) -> None:
    write_series(tmp_path / "s" / "good", volume_of(1), positions(), SeriesInstanceUID="")
    both = {"names": [f"{number}b" for number in range(6)], "SeriesInstanceUID": "", "StudyInstanceUID": uid("other")}
    write_series(tmp_path / "s" / "bad", volume_of(2), positions(), SeriesInstanceUID="", StudyInstanceUID=uid("other"))
    write_series(tmp_path / "s" / "bad", volume_of(3), positions(), ImageComments="x", **both)
    nobody = {"SeriesInstanceUID": "", "StudyInstanceUID": "", "PatientID": ""}
    write_series(tmp_path / "s" / "nobody", volume_of(4), positions(), **nobody)
    result, found = volumes(tmp_path / "s", tmp_path / "c")
    assert found == [volume_of(1).tobytes()]
    assert details(result) == {
        "names no series, and the slices beside it do not form one volume without doubt": 12,
        "names neither series nor study nor patient": 6,
    }


def test_two_frames_of_reference_are_never_one_volume(tmp_path: Path) -> None:
    for number in range(2):
        write_series(
            tmp_path / "s" / str(number),
            volume_of(number),
            positions(start=15.0 * number),
            SeriesInstanceUID=uid("x"),
            FrameOfReferenceUID=uid("frame", number),
        )
    _, found = volumes(tmp_path / "s", tmp_path / "c")
    assert sorted(found) == sorted(volume_of(number).tobytes() for number in (0, 1))


def test_folders_tell_apart_what_no_header_does(tmp_path: Path) -> None:
    for number in range(2):
        write_series(
            tmp_path / "s" / str(number), volume_of(number), positions(), SeriesInstanceUID=uid("x"), ImageComments="x"
        )
    _, found = volumes(tmp_path / "s", tmp_path / "c")
    assert found == [volume_of(0).tobytes(), volume_of(1).tobytes()]


def test_byte_order_does_not_make_different_pixels_equal(tmp_path: Path) -> None:
    """The same bytes in another byte order are other pixels: no copy, but a contradiction."""
    write_series(tmp_path / "s", volume_of(1), positions())
    place = {"ImagePositionPatient": positions()[0].tolist(), "ImageOrientationPatient": list(AXIAL)}
    ds = dicom_dataset(volume_of(1)[0], SeriesInstanceUID=uid("series", "s"), PixelSpacing=[0.8, 0.6], **place)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.save_as(tmp_path / "s" / "z.dcm", enforce_file_format=True)
    write_series(tmp_path / "s" / "good", volume_of(2), positions())
    result, found = volumes(tmp_path / "s", tmp_path / "c")
    assert found == [volume_of(2).tobytes()]
    assert reasons(result) == {"geometry": 7}


@pytest.mark.parametrize("start", [1.25, 15.0])
def test_folders_that_number_their_slices_anew_are_volumes_of_their_own(tmp_path: Path, start: float) -> None:
    """All identifiers were overwritten equally, and the places fit between each other, or follow on each other."""
    for number, folder in enumerate("AB"):
        for place, (plane, position) in enumerate(
            zip(volume_of(number), positions(start=start * number), strict=True), start=1
        ):
            write_dicom(
                tmp_path / "s" / folder / f"{place}.dcm",
                plane,
                PatientID="ANON1",
                StudyInstanceUID=uid("study"),
                SeriesInstanceUID=uid("series"),
                SOPInstanceUID=uid("slice", number, place),
                InstanceNumber=place,
                ImagePositionPatient=[float(value) for value in position],
                ImageOrientationPatient=list(AXIAL),
                PixelSpacing=[0.8, 0.6],
            )
    _, found = volumes(tmp_path / "s", tmp_path / "c")
    assert sorted(found) == sorted(volume_of(number).tobytes() for number in (0, 1))
