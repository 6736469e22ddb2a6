"""Exports that are read again: what the cohort said of its patients, colours and values stays true."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl

from cohorts.export import export_cohort
from cohorts.folders import read_json, write_json
from cohorts.identity import IdentityKey
from cohorts.ingest import ingest
from cohorts.options import IngestOptions
from cohorts.private import LINKS_FILE
from tests.cohorts.files import structure, take_in, write_png

OTHER_KEY = IdentityKey.from_phrase("another key")


def twins(folder: Path, total: int = 12) -> None:
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
    twins(tmp_path / "s")
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
    twins(tmp_path / "s", 24)
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
    for said in (None, "all of them", 1):
        old = {**facts, "patients": said}
        if said is None:
            del old["patients"]  # of an older version
        write_json(out / "export.json", old)
        third = take_in(out, tmp_path / f"c3{said}")
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
