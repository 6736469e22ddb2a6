"""Tables with a row per slice: what they say of a volume is what all of its rows say together."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from medphantom.cohorts.ingest import IngestResult
from medphantom.cohorts.tables.join import FileKey
from medphantom.core.errors import UnreadableImage
from tests.cohorts.files import structure, take_in, uid, write_series
from tests.cohorts.tables.written import joined, present

VOLUMES, SLICES = 6, 6


def write_volumes(source: Path) -> None:
    for number in range(VOLUMES):
        write_series(
            source / f"v{number}",
            structure(number, (SLICES, 24, 24), "uint16", 1000),
            [(0, 0, place) for place in range(SLICES)],
            PatientID=f"P{number}",
            StudyInstanceUID=uid("study", number),
            SeriesInstanceUID=uid("series", number),
        )


def names(number: int, by: str) -> list[str]:
    """What the column that joins holds for the slices of a volume."""
    if by == "file_name":
        return [f"v{number}/{place:03d}.dcm" for place in range(SLICES)]
    patient, study, series = f"P{number}", uid("study", number), uid("series", number)
    return [uid(series, place, patient, study) for place in range(SLICES)]


def labels_by_volume(result: IngestResult, label: str) -> dict[str, bool | None]:
    links = pl.read_parquet(result.private_folder / "links.parquet").filter(pl.col("role") == "image")
    folder_of = {image_id: path.split("/")[0] for path, image_id in links["path", "image_id"].iter_rows()}
    rows = result.cohort.manifest.select("image_id", f"label:{label}").iter_rows()
    return dict(sorted((folder_of[image_id], value) for image_id, value in rows))


@pytest.mark.parametrize("by", ["file_name", "SOPInstanceUID"])
def test_a_label_of_any_slice_is_a_label_of_the_volume(tmp_path: Path, by: str) -> None:
    write_volumes(tmp_path / "s")
    rows = "".join(
        f"{name},{int(number % 2 == 1 and place == 3)}\n"
        for number in range(VOLUMES)
        for place, name in enumerate(names(number, by))
    )
    (tmp_path / "s" / "t.csv").write_text(f"{by},bleeding\n{rows}")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, label_columns=("bleeding",))
    assert labels_by_volume(result, "bleeding") == {f"v{number}": number % 2 == 1 for number in range(VOLUMES)}
    assert not any("belong to no image" in warning for warning in result.warnings)
    assert f"{VOLUMES} images have several rows, whose labels are united" in result.understood


def test_slices_that_name_two_patients_refuse_their_volume(tmp_path: Path) -> None:
    write_volumes(tmp_path / "s")
    rows = "".join(
        f"{name},{'other' if (number, place) == (2, 4) else f'P{number}'},{'mass' if number % 2 else 'cyst'},{age}\n"
        for number in range(VOLUMES)
        for place, (name, age) in enumerate(zip(names(number, "file_name"), (50, 50, 50, 51, 50, 50), strict=True))
    )
    (tmp_path / "s" / "t.csv").write_text(f"file_name,patient_id,label,age\n{rows}")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    assert {reason.value: total for reason, total in result.rejected.items()} == {"bad_table_row": SLICES}
    assert result.cohort.attribute("age") == [None] * (VOLUMES - 1)
    assert f"column 'age': rows of {VOLUMES} images contradict each other and are not stated" in result.understood


def test_rows_of_some_slices_only_are_remarked(tmp_path: Path) -> None:
    write_volumes(tmp_path / "s")
    rows = "".join(f"{names(number, 'file_name')[5]},{number % 2}\n" for number in range(VOLUMES))
    (tmp_path / "s" / "t.csv").write_text(f"file_name,bleeding\n{rows}")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3, label_columns=("bleeding",))
    assert labels_by_volume(result, "bleeding") == {f"v{number}": number % 2 == 1 for number in range(VOLUMES)}
    assert f"{VOLUMES} volumes have rows for some of their slices only: the others state nothing" in result.understood


def test_boxes_in_slices_are_united(tmp_path: Path) -> None:
    write_volumes(tmp_path / "s")
    rows = "".join(
        f"{name},1,1,4,4,{finding}\n"
        for number in range(VOLUMES)
        for place, name in enumerate(names(number, "SOPInstanceUID"))
        for finding in (("Mass", "Cyst") if (number, place) == (1, 2) else ("No Finding",))
    )
    (tmp_path / "s" / "t.csv").write_text(f"SOPInstanceUID,x,y,width,height,finding\n{rows}")
    result = take_in(tmp_path / "s", tmp_path / "c", spatial_dims=3)
    for label in ("Mass", "Cyst"):
        assert labels_by_volume(result, label) == {f"v{number}": number == 1 for number in range(VOLUMES)}


def volume(name: str, slices: tuple[str, ...]) -> FileKey:
    return FileKey((name,), slice_paths=tuple(f"{name}/{each}" for each in slices))


def test_a_row_of_the_whole_volume_counts_beside_those_of_its_slices(tmp_path: Path) -> None:
    keys = [volume("v0", ("0.dcm", "1.dcm")), volume("v1", ("0.dcm", "1.dcm"))]
    table = joined(tmp_path / "t.csv", "file,label\nv0,mass\nv0/1.dcm,cyst\nv1,mass\n", keys)
    assert [present(table, table.row_of(number)) for number in range(2)] == [{"mass", "cyst"}, {"mass"}]
    assert table.total_unmatched() == 0


def test_slices_called_like_other_volumes_take_no_rows_of_theirs(tmp_path: Path) -> None:
    keys = [volume(str(number), ("1.dcm", "2.dcm", "3.dcm")) for number in (1, 2)]
    table = joined(tmp_path / "t.csv", "file,label\n1,mass\n2,cyst\n3,edema\n", keys)
    assert [present(table, table.row_of(number)) for number in range(2)] == [{"mass"}, {"cyst"}]
    assert table.total_unmatched() == 1


def test_slices_whose_rows_may_be_others_are_refused(tmp_path: Path) -> None:
    keys = [volume("v0", ("0.dcm", "1.dcm")), volume("v1", ("0.dcm", "2.dcm"))]
    table = joined(tmp_path / "t.csv", "file,label\n0.dcm,mass\n1.dcm,cyst\n2.dcm,cyst\n", keys)
    for number in range(2):
        with pytest.raises(UnreadableImage, match="ambiguous_table_row"):
            table.row_of(number)


def test_two_volumes_of_one_series_keep_their_own_rows(tmp_path: Path) -> None:
    keys = [
        FileKey((f"v{n}",), (uid("s"),), slice_paths=(f"v{n}/0", f"v{n}/1"), slice_uids=(uid(n, 0), uid(n, 1)))
        for n in range(2)
    ]
    rows = "".join(f"{uid(n, z)},{'mass' if (n, z) == (1, 1) else ''}\n" for n in range(2) for z in range(2))
    table = joined(tmp_path / "t.csv", f"uid,label\n{uid('s')},cyst\n{rows}", keys)
    assert [present(table, table.row_of(number)) for number in range(2)] == [{"cyst"}, {"cyst", "mass"}]


def test_a_volume_one_of_whose_rows_contradicts_itself_is_refused(tmp_path: Path) -> None:
    rows = "patient_id,label\nv0,mass\nv0,cyst\nv0/1,mass\nv1,mass\n"  # files that are named by patient
    table = joined(tmp_path / "t.csv", rows, [volume(name, ("0.dcm", "1.dcm")) for name in ("v0", "v1")])
    with pytest.raises(UnreadableImage, match="contradict each other in columns 'label', 'patient_id'"):
        table.row_of(0)
    assert present(table, table.row_of(1)) == {"mass"}
    assert table.total_unmatched() == 0
