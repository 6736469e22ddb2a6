"""Overview and contact sheet: counts that add up, warnings that are due, pictures that show what a network sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from medphantom.cohorts.overview import contact_sheet, overview, source_view
from medphantom.cohorts.preprocess import Preprocess, Window
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord, Voi
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from tests.cohorts.files import structure


def cohort_of(path: Path, near: bool = False) -> Cohort:
    specs = (AttributeSpec(name="age", kind="continuous"), AttributeSpec(name="view", kind="categorical"))
    schema = CohortSchema(labels=("sick", "rare"), attributes=specs)
    with CohortWriter(path, schema) as writer:
        for number in range(20):
            writer.add(
                ImageRecord(
                    image_id=f"i{number}",
                    patient=f"p{number // 2}",
                    pixels=structure(number),
                    split=("train", "val", "holdout", "test")[number // 2 % 4],
                    labels={"sick": None if number == 0 else number % 2 == 1, "rare": number == 5},
                    attributes={"age": None if number == 1 else number, "view": "AP" if number < 8 else "PA"},
                    near_duplicate_of="i0" if near and number in {1, 2} else None,
                )
            )
    return Cohort.open(path)


def test_counts_add_up(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c")
    found = overview(cohort)
    assert found.splits.rows() == [("train", 6, 3), ("val", 6, 3), ("holdout", 4, 2), ("test", 4, 2)]
    totals = found.labels.group_by("label").agg(pl.col("present", "absent", "not_observed").sum()).sort("label")
    assert totals.rows() == [("rare", 1, 19, 0), ("sick", 10, 9, 1)]
    train = found.labels.row(by_predicate=(pl.col("label") == "sick") & (pl.col("split") == "train"), named=True)
    assert (train["present"], train["patients_present"]) == (3, 3)
    rare = found.labels.row(by_predicate=(pl.col("label") == "rare") & (pl.col("split") == "holdout"), named=True)
    assert (rare["present"], rare["patients_present"]) == (1, 1)  # of two patients in holdout
    age = found.attributes.filter(pl.col("attribute") == "age")
    assert age.select(pl.col("stated", "not_observed").sum()).row(0) == (19, 1)
    assert (age["lowest"].min(), age["highest"].max()) == (0.0, 19.0)
    views = found.categories.group_by("category").agg(pl.col("images").sum()).sort("category")
    assert views.rows() == [("AP", 8), ("PA", 12)]
    assert found.shapes.rows() == [("32x32_uint8", 20)]


def test_warnings_are_given_when_due(tmp_path: Path) -> None:
    assert overview(cohort_of(tmp_path / "c")).warnings == (
        "label 'rare' is too rare to split: no patient with it in train, val, test (1 in all)",
    )
    near = overview(cohort_of(tmp_path / "d", near=True)).warnings
    assert near[-1] == "2 images nearly repeat an earlier one, 1 of them across patients, 1 across splits"


def test_the_sheet_shows_the_source_beside_what_the_network_sees(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c")
    preprocess = Preprocess(size=(32, 32), intensity=Window(low=0, high=255))
    sheet = np.asarray(contact_sheet(cohort, [3], preprocess, columns=1, side=32))
    source, network = sheet[4:36, 4:36], sheet[4:36, 36:68]
    assert np.array_equal(source[..., 0], structure(3))
    assert np.array_equal(network[..., 0], structure(3))
    dark = Preprocess(size=(32, 32), intensity=Window(low=255, high=510))
    assert np.asarray(contact_sheet(cohort, [3], dark, columns=1, side=32))[4:36, 36:68].max() == 0
    assert contact_sheet(cohort, range(20), columns=6, side=32).size == (6 * 36 + 4, 4 * 48 + 4)


def test_source_view_is_bright_where_the_patient_is(tmp_path: Path) -> None:
    pixels = structure(1, dtype="uint16", high=4095)
    plain = source_view(ImageRecord("i", "p", pixels, "train", voi=Voi(2048, 4096)))
    turned = source_view(ImageRecord("i", "p", 4095 - pixels, "train", voi=Voi(2048, 4096), inverted=True))
    assert np.abs(plain.astype(int) - turned).max() <= 1
    assert np.corrcoef(plain[..., 0].ravel(), pixels.ravel())[0, 1] > 0.99
    volume = np.stack([structure(n) for n in range(5)])
    mask = np.zeros(volume.shape, np.uint8)
    mask[2, 8:20, 8:20] = 1
    view = source_view(ImageRecord("i", "p", volume, "train", mask=mask))
    assert np.array_equal(view[10:18, 10:18, 0], structure(2)[10:18, 10:18])  # inside of the outline
    assert tuple(view[8, 12]) == (255, 160, 0)
