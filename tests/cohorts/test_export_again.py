"""Exports that are read again: what the cohort recorded of its patients, colours and values stays true."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
import tifffile

from medphantom import export
from medphantom.cohorts.export import export_cohort, stored_values
from medphantom.cohorts.exported import source_values
from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.ingest import IngestResult, ingest
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.private import LINKS_FILE
from medphantom.cohorts.records import ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.core.folders import read_json, write_json
from medphantom.core.records import Array
from medphantom.flows.cli.main import main
from tests.cohorts.files import structure, take_in, write_dicom, write_png

OTHER_KEY = IdentityKey.from_phrase("another key")


def exported_duplicates(folder: Path, total: int = 12) -> None:
    """Pictures in pairs that nearly repeat each other: ``00a.png`` and ``00b.png``, and so on."""
    for number in range(total):
        pixels = structure(number, (64, 64), high=250)
        write_png(folder / f"{number:02d}a.png", pixels)
        write_png(folder / f"{number:02d}b.png", pixels + (np.indices(pixels.shape).sum(axis=0) % 2).astype(np.uint8))


def split_of_pair(first: pl.DataFrame, links: pl.DataFrame) -> dict[str, set[str]]:
    """The splits of each pair; ``first`` has ``image_id`` of the export's files and ``pair``."""
    found: dict[str, set[str]] = defaultdict(set)
    pairs = dict(first.select("image_id", "pair").iter_rows())
    for path, split in links.select("path", "split").iter_rows():
        found[pairs[Path(path).stem]].add(split)
    return found


def test_patients_that_nobody_named_stay_unknown_after_an_export(tmp_path: Path) -> None:
    exported_duplicates(tmp_path / "s")
    first = take_in(tmp_path / "s", tmp_path / "c")
    out = export_cohort(first.cohort, tmp_path / "x")
    assert read_json(out / "export.json")["patients"] == "per_image"
    second = take_in(out, tmp_path / "c2")
    assert second.cohort.schema.patients == "per_image"
    assert sum("splits may share patients" in warning for warning in second.warnings) == 1
    assert any("the cohort behind this export" in warning for warning in second.warnings)
    assert dict(second.cohort.manifest["split"].value_counts().iter_rows()) == dict(
        first.cohort.manifest["split"].value_counts().iter_rows()
    )
    third = take_in(export_cohort(second.cohort, tmp_path / "x2"), tmp_path / "c3")
    assert third.cohort.schema.patients == "per_image"


def test_near_duplicates_of_unknown_patients_stay_together_when_an_export_is_divided_anew(tmp_path: Path) -> None:
    exported_duplicates(tmp_path / "s", 24)
    first = take_in(tmp_path / "s", tmp_path / "c")
    out = export_cohort(first.cohort, tmp_path / "x")
    links = pl.read_parquet(first.private_folder / LINKS_FILE).filter(pl.col("role") == "image")
    pairs = links.with_columns(pl.col("path").str.slice(0, 2).alias("pair"))
    options = IngestOptions(source_splits="ignore", workers=0, min_patients=1)
    second = ingest(out, tmp_path / "c2", options, OTHER_KEY)
    again = pl.read_parquet(second.private_folder / LINKS_FILE).filter(pl.col("role") == "image")
    found = split_of_pair(pairs, again.join(second.cohort.manifest.select("image_id", "split"), on="image_id"))
    assert len(found) == 24
    assert {len(splits) for splits in found.values()} == {1}
    assert len(set().union(*found.values())) > 1
    assert second.cohort.manifest.filter(pl.col("split") == "left_out").is_empty()


def test_known_patients_stay_known_and_an_export_that_does_not_say_so_is_not_believed(tmp_path: Path) -> None:
    for number in range(10):
        write_png(tmp_path / "s" / f"P{number // 2}" / f"{number}.png", structure(number))
    first = take_in(tmp_path / "s", tmp_path / "c", folders="patients")
    out = export_cohort(first.cohort, tmp_path / "x")
    second = take_in(out, tmp_path / "c2")
    assert second.cohort.schema.patients == "known"
    assert not any("share patients" in warning for warning in second.warnings)
    facts = read_json(out / "export.json")
    for written in (None, "all of them", 1):
        old = {**facts, "patients": written}
        if written is None:
            del old["patients"]  # of an older version
        write_json(out / "export.json", old)
        third = take_in(out, tmp_path / f"c3{written}")
        assert third.cohort.schema.patients == "per_image"
        assert any("does not say whether its patients are known" in warning for warning in third.warnings)


def test_a_table_of_the_users_own_may_name_the_patients_of_an_export(tmp_path: Path) -> None:
    for number in range(8):
        write_png(tmp_path / "s" / f"{number}.png", structure(number))
    out = export_cohort(take_in(tmp_path / "s", tmp_path / "c").cohort, tmp_path / "x")
    rows = pl.read_csv(out / "metadata.csv").select("file_name").with_row_index()
    own = rows.select("file_name", pl.format("MRN{}", pl.col("index") // 2).alias("patient_id"))
    own.write_csv(tmp_path / "own.csv")
    second = take_in(out, tmp_path / "c2", table=tmp_path / "own.csv")
    assert second.cohort.schema.patients == "known"
    assert second.cohort.manifest["patient"].n_unique() == 4


def write_colours_and_odd_values(folder: Path) -> None:
    """Colour of 8 and 16 bits, float32, float64 and uint32 beyond 16 bits, beside plain pictures."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    for number in range(4):
        write_png(folder / f"{number}.png", structure(number))
    rgb = np.stack([structure(seed, (24, 24)) for seed in (11, 12, 13)], axis=-1)
    tifffile.imwrite(folder / "rgb8.tif", rgb, photometric="rgb")
    tifffile.imwrite(folder / "f4.tif", rng.normal(size=(24, 24)).astype("f4"))
    tifffile.imwrite(folder / "f8.tif", rng.normal(size=(24, 24)) * 1e-9)
    tifffile.imwrite(folder / "u4.tif", rng.integers(0, 2**32, (24, 24), dtype="u4"))
    tifffile.imwrite(folder / "u2.tif", rng.integers(0, 2**16, (24, 24)).astype("u2"))


def by_id(cohort: Cohort, names: dict[str, str]) -> dict[str, Array]:
    """Pixels of each image under the id that ``names`` gives it."""
    return {names[record.image_id]: record.pixels for record in cohort.records()}


def first_ids(second: IngestResult) -> dict[str, str]:
    """Image of a cohort that was read from an export → image of the exported one, by the name of its file."""
    links = pl.read_parquet(second.private_folder / LINKS_FILE).filter(pl.col("role") == "image")
    return {image: Path(path).name.split(".")[0] for path, image in links.select("path", "image_id").iter_rows()}


def test_colour_comes_back_without_an_option_and_goes_where_one_says_so(tmp_path: Path) -> None:
    write_colours_and_odd_values(tmp_path / "s")
    first = take_in(tmp_path / "s", tmp_path / "c", color="keep")
    out = export_cohort(first.cohort, tmp_path / "x")
    second = take_in(out, tmp_path / "c2")
    assert sorted(second.cohort.manifest["channels"]) == [1] * 8 + [3]
    found = by_id(second.cohort, first_ids(second))
    for record in first.cohort.records():
        if record.channels == 3:
            assert np.array_equal(found[record.image_id], record.pixels)
    grey = take_in(out, tmp_path / "c3", color="grey")
    assert set(grey.cohort.manifest["channels"]) == {1}
    assert set(take_in(tmp_path / "s", tmp_path / "c4").cohort.manifest["channels"]) == {1}  # no export of ours


def test_what_png_rounds_is_reported_by_export_and_by_ingestion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    write_colours_and_odd_values(tmp_path / "s")
    first = take_in(tmp_path / "s", tmp_path / "c", color="keep")
    assert main(["export", str(tmp_path / "c"), "--out", str(tmp_path / "x")]) == 0
    reported = (
        "3 of 9 exported images were rounded, by up to 0.00076 % of an image's range; --format nifti keeps the values"
    )
    assert "".join(capsys.readouterr()).count(f"warning: {reported}") == 1
    second = take_in(tmp_path / "x", tmp_path / "c2")
    assert sum(reported in warning for warning in second.warnings) == 1
    found = by_id(second.cohort, first_ids(second))
    changed = 0
    for record in first.cohort.records():
        span = float(record.pixels.max()) - float(record.pixels.min())
        error = np.abs(found[record.image_id].astype(float) - record.pixels).max() / span
        changed += error > 0
        assert error <= 1 / 65535
    assert changed == 3
    export(tmp_path / "c", tmp_path / "x2")
    assert sum(reported in str(warning.message) for warning in recwarn.list) == 1
    facts = read_json(tmp_path / "x" / "export.json")
    del facts["largest_rounding"]  # of an older version
    write_json(tmp_path / "x" / "export.json", facts)
    older = take_in(tmp_path / "x", tmp_path / "c3")
    assert any("3 of 9 exported images were rounded; --format" in warning for warning in older.warnings)


def test_nifti_keeps_what_png_rounds_and_nothing_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_colours_and_odd_values(tmp_path / "s")
    first = take_in(tmp_path / "s", tmp_path / "c")
    assert main(["export", str(tmp_path / "c"), "--out", str(tmp_path / "x"), "--format", "nifti"]) == 0
    assert "rounded" not in "".join(capsys.readouterr())
    second = take_in(tmp_path / "x", tmp_path / "c2")
    assert not any("rounded" in warning for warning in second.warnings)
    found = by_id(second.cohort, first_ids(second))
    for record in first.cohort.records():
        assert np.array_equal(found[record.image_id], record.pixels)


@pytest.mark.parametrize("form", ["png", "nifti"])
def test_modality_spacing_and_window_come_back(tmp_path: Path, form: Literal["png", "nifti"]) -> None:
    for number in range(6):
        pixels = structure(number, dtype="uint16", high=999)
        header: dict[str, object] = {"PatientID": f"P{number}", "Modality": "DX", "PixelSpacing": [0.3, 0.1 + number]}
        if number:
            header |= {"WindowCenter": 300.5, "WindowWidth": 100 + number}
        else:
            del header["PixelSpacing"]
        write_dicom(tmp_path / "s" / f"{number}.dcm", pixels, **header)
    first = take_in(tmp_path / "s", tmp_path / "c")
    assert first.cohort.manifest["spacing_mm"].null_count() < 6
    out = export_cohort(first.cohort, tmp_path / "x", format=form)
    second = take_in(out, tmp_path / "c2")
    names = first_ids(second)
    found = {names[record.image_id]: record for record in second.cohort.records()}
    for record in first.cohort.records():
        again = found[record.image_id]
        assert (again.modality, again.spacing_mm, again.voi) == (record.modality, record.spacing_mm, record.voi)
        assert np.array_equal(again.pixels, record.pixels)
    assert {record.modality for record in found.values()} == {"DX"}
    assert sum(record.voi is not None for record in found.values()) == 5

    table = pl.read_csv(out / "metadata.csv", infer_schema=False)
    spoilt = table.with_columns(spacing_mm=pl.lit("0.3 nan"), voi_width=pl.lit("wide"), modality=pl.lit("dx;"))
    spoilt.write_csv(out / "metadata.csv")
    third = take_in(out, tmp_path / "c3").cohort.manifest
    assert third.select("spacing_mm", "voi_width", "modality").null_count().row(0) == (6, 6, 6)
    table.drop("spacing_mm", "voi_center", "voi_width").write_csv(out / "metadata.csv")  # of an older version
    assert len(take_in(out, tmp_path / "c4").cohort) == 6


def write_fractional(path: Path, number: int, photometric: str = "MONOCHROME2") -> None:
    """A DICOM file whose rescale gives float64: steps of 0.1 far from 0."""
    pixels = structure(number, dtype="uint16", high=999)
    scale: dict[str, object] = {"RescaleSlope": "0.1", "RescaleIntercept": "1000000"}
    write_dicom(path, pixels, PatientID=f"P{number}", PhotometricInterpretation=photometric, **scale)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_nifti_keeps_the_values_of_a_fractional_rescale(tmp_path: Path, photometric: str) -> None:
    write_fractional(tmp_path / "s" / "0.dcm", 0, photometric)
    first = take_in(tmp_path / "s", tmp_path / "c").cohort
    assert first.pixels([0])[0].dtype == np.float64
    again = take_in(export_cohort(first, tmp_path / "x", format="nifti"), tmp_path / "c2").cohort
    assert np.array_equal(again.pixels([0])[0], first.pixels([0])[0])
    (record,) = again.records()
    assert record.inverted == (photometric == "MONOCHROME1")


def test_png_rounds_no_further_than_it_says(tmp_path: Path) -> None:
    write_fractional(tmp_path / "s" / "0.dcm", 0)
    first = take_in(tmp_path / "s", tmp_path / "c").cohort
    out = export_cohort(first, tmp_path / "x")
    again = take_in(out, tmp_path / "c2").cohort
    source = first.pixels([0])[0]
    error = np.abs(again.pixels([0])[0] - source).max() / (source.max() - source.min())
    assert 0 < error <= read_json(out / "export.json")["largest_rounding"] * 1.01


def test_two_values_that_png_holds_come_back_as_they_were(tmp_path: Path) -> None:
    pixels = np.where(structure(0) > 128, 0.1, 0.0)
    stored = stored_values(ImageRecord("i", "p", pixels, split="train"))
    assert stored.exact
    found = source_values(stored.array, stored.slope, stored.intercept, exact=True)
    assert np.array_equal(found, pixels)
    single = source_values(stored.array, stored.slope, stored.intercept, exact=False)
    assert single.dtype == np.float32
