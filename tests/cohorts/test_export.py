"""Export: files that other tools load, values that come back, names that cannot leave their folder."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medphantom.cohorts.export import export_cohort, folder_names, stored_values
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord, Provenance, Voi
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.tables.join import FileKey
from medphantom.cohorts.tables.table import Table
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError
from medphantom.core.folders import read_json, write_json
from medphantom.core.records import Array
from tests.cohorts.files import names_in, structure, take_in


def make(path: Path, records: list[ImageRecord], **schema: object) -> Cohort:
    with CohortWriter(path, CohortSchema.model_validate(schema)) as writer:
        for record in records:
            writer.add(record)
    return Cohort.open(path)


def record(seed: int, pixels: Array | None = None, **fields: object) -> ImageRecord:
    values = structure(seed) if pixels is None else pixels
    given: dict[str, object] = {"split": "train", "patient": f"p{seed}", **fields}
    return ImageRecord(image_id=f"id{seed}", pixels=values, **given)  # type: ignore[arg-type]


def test_a_class_becomes_a_folder_and_comes_back(tmp_path: Path) -> None:
    records = [record(n, labels={"a": n % 2 == 0, "b": n % 2 == 1}, attributes={"age": n}) for n in range(8)]
    spec = AttributeSpec(name="age", kind="continuous", unit="years")
    cohort = make(tmp_path / "c", records, labels=("a", "b"), exclusive=True, attributes=(spec,))
    out = export_cohort(cohort, tmp_path / "out")
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == sorted(
        f"{'ab'[n % 2]}/id{n}.png" for n in range(8)
    )
    assert np.array_equal(np.asarray(Image.open(out / "a" / "id2.png")), structure(2))
    back = take_in(out, tmp_path / "back").cohort
    same = {r.pixels.tobytes(): (r.labels, r.attributes) for r in back.records()}
    assert same == {r.pixels.tobytes(): (r.labels, r.attributes) for r in cohort.records()}
    assert back.schema.exclusive
    assert back.manifest["patient"].n_unique() == 8


def test_findings_masks_missing_labels_and_text_come_back(tmp_path: Path) -> None:
    mask = (structure(9) > 128).astype(np.uint8) * 2
    records = [
        record(0, labels={"x": True, "y": None}, attributes={"view": "AP"}, mask=mask, text='a, "b"\nc'),
        record(1, labels={"x": False, "y": True}, attributes={"view": None}, mask=mask.T),
    ]
    spec = AttributeSpec(name="view", kind="categorical")
    cohort = make(tmp_path / "c", records, labels=("x", "y"), attributes=(spec,), mask_values={0: "none", 2: "lesion"})
    out = export_cohort(cohort, tmp_path / "out")
    assert read_json(out / "export.json")["mask_values"] == {"0": "none", "2": "lesion"}
    back = take_in(out, tmp_path / "back", text_column="text").cohort
    found = {r.pixels.tobytes(): r for r in back.records()}
    for original in cohort.records():
        copy = found[original.pixels.tobytes()]
        assert (copy.labels, copy.text) == (original.labels, original.text)
        assert copy.attributes == original.attributes
        assert copy.mask is not None
        assert original.mask is not None
        assert np.array_equal(copy.mask, original.mask)


FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "  =1",
    "＝1+1",
    "'quoted'",
    "'=1",
    "''",
    "-",
    "fine = fine",
    "-1.5",
    "+4e5",
    "",
]


def test_a_spreadsheet_runs_no_text_of_an_export_and_each_comes_back(tmp_path: Path) -> None:
    spec = AttributeSpec(name="=view", kind="categorical"), AttributeSpec(name="score", kind="continuous")
    records = [
        record(n, labels={"x": n % 2 == 0}, text=text, attributes={"=view": text or None, "score": -1.5 - n})
        for n, text in enumerate(FORMULAS)
    ]
    cohort = make(tmp_path / "c", records, labels=("x",), attributes=spec)
    out = export_cohort(cohort, tmp_path / "out", layout="table")
    with (out / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        cells = list(csv.reader(stream))
    columns = cells[0]
    for row in cells:
        for cell in row:
            runs = cell.strip()[:1] in set("=+-@＝") or cell[:1] in {"\t", "\r"}
            assert not runs or re.fullmatch(r"[+-]?[0-9.]+(e[0-9]+)?", cell), cell
    assert [row[columns.index("attr:score")] for row in cells[1:]] == [str(-1.5 - n) for n in range(len(FORMULAS))]
    assert read_json(out / "export.json")["formula_guard"] == "'"

    back = Table.read(out / "metadata.csv", IngestOptions(text_column="text"))
    assert back.bind([FileKey((row[columns.index("file_name")],)) for row in cells[1:]]) == 1
    read = [back.content(back.row_of(n)) for n in range(len(FORMULAS))]
    assert [content.text or "" for content in read] == [read_alone(text) for text in FORMULAS]


def read_alone(text: str) -> str:
    """What reading makes of a text anywhere: spaces around it go, and words for *missing* state nothing."""
    return "" if text == "-" else text.strip()


def test_a_strangers_apostrophe_stays(tmp_path: Path) -> None:
    records = [record(n, text="'=1" if n else "'tis") for n in range(2)]
    out = export_cohort(make(tmp_path / "c", records), tmp_path / "out", layout="table")
    options, texts = IngestOptions(text_column="text"), {"'tis", "'=1"}

    def read(file: Path) -> set[str | None]:
        table = Table.read(file, options)
        table.bind([FileKey((f"images/id{n}.png",)) for n in range(2)])
        return {table.content(table.row_of(n)).text for n in range(2)}

    assert read(out / "metadata.csv") == texts
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_bytes((out / "metadata.csv").read_bytes())
    assert read(elsewhere) == {"''tis", "''=1"}
    facts = read_json(out / "export.json")
    del facts["formula_guard"]  # of an older version
    write_json(out / "export.json", facts)
    assert read(out / "metadata.csv") == {"''tis", "''=1"}


def test_folders_are_no_formula_and_no_option() -> None:
    names = folder_names(["-rf", "+1", "=x", "@y", "a-b"])
    assert names["a-b"] == "a-b"
    assert not {name[0] for name in names.values()} & set("-+=@")


def test_synthetic_images_say_how_they_were_made(tmp_path: Path) -> None:
    made = Provenance(bundle_digest="b" * 64, prompt_json='{"labels":{"x":true}}', seed=2**62 + 1)
    cohort = make(tmp_path / "c", [record(0, split="synthetic", provenance=made)], kind="synthetic", labels=("x",))
    row = pl.read_csv(export_cohort(cohort, tmp_path / "out") / "metadata.csv").row(0, named=True)
    assert (row["prompt"], row["seed"], row["bundle_digest"]) == (made.prompt_json, made.seed, made.bundle_digest)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32"])
@pytest.mark.parametrize("inverted", [False, True])
def test_png_values_come_back_through_the_recorded_mapping(tmp_path: Path, dtype: str, inverted: bool) -> None:
    low = -900 if np.dtype(dtype).kind == "i" else 0
    pixels = structure(1, dtype="int32", high=255 if dtype == "uint8" else 4000).astype(dtype) + np.dtype(dtype).type(
        low
    )
    cohort = make(tmp_path / "c", [record(0, pixels, inverted=inverted)])
    out = export_cohort(cohort, tmp_path / "out")
    row = pl.read_csv(out / "metadata.csv").row(0, named=True)
    stored = np.asarray(Image.open(out / row["file_name"])).astype(float)
    values = row["value_slope"] * stored + row["value_intercept"]
    assert row["exact"] == np.array_equal(values, pixels)
    assert row["exact"] or dtype == "float32"
    assert np.abs(values - pixels).max() <= 4000 / 65535
    assert (np.corrcoef(stored.ravel(), pixels.ravel())[0, 1] < 0) == inverted  # bright values are large


def test_display_values_go_through_the_window(tmp_path: Path) -> None:
    pixels = np.arange(-1024, 3072, dtype=np.int16).reshape(64, 64)
    shown = stored_values(record(0, pixels, voi=Voi(40, 401)), "display")
    assert shown.array.dtype == np.uint8
    # PS3.3 C.11.2.1.2.1: black up to 40 - 0.5 - 200, white from 40 - 0.5 + 200
    assert np.all(shown.array[pixels <= -161] == 0)
    assert np.all(shown.array[pixels >= 240] == 255)
    inside = (pixels > -160) & (pixels < 239)
    assert np.abs(shown.slope * shown.array[inside] + shown.intercept - pixels[inside]).max() <= 400 / 255
    assert not shown.exact


def test_volumes_keep_values_and_place(tmp_path: Path) -> None:
    affine = np.array([[0, 0.1, 0.7, -10], [0, 0.8, 0, 20], [2.5, 0, 0, 30], [0, 0, 0, 1.0]])
    volume = structure(1, (6, 24, 20), "int16", 2000) - 1000
    mask = (volume > 0).astype(np.uint8)
    given = record(0, volume, affine=tuple(affine.ravel()), spacing_mm=(2.5, 0.806, 0.7), mask=mask)
    cohort = make(tmp_path / "c", [given], spatial_dims=3, mask_values={0: "background", 1: "1"})
    with pytest.raises(InputError, match="PNG cannot hold volumes; export with --format nifti"):
        export_cohort(cohort, tmp_path / "out")
    out = export_cohort(cohort, tmp_path / "out", format="nifti")
    image = nib.load(out / "images" / "id0.nii.gz")
    assert np.array_equal(image.get_fdata(), volume.T)
    assert np.allclose(image.affine @ [3, 4, 5, 1], affine @ [5, 4, 3, 1])
    (back,) = take_in(out, tmp_path / "back").cohort.records()
    assert np.array_equal(back.pixels, volume)
    assert back.affine == pytest.approx(given.affine)
    assert back.mask is not None
    assert np.array_equal(back.mask, mask)


def test_images_fit_into_nifti_too(tmp_path: Path) -> None:
    cohort = make(tmp_path / "c", [record(0, spacing_mm=(0.3, 0.4))])
    (back,) = take_in(export_cohort(cohort, tmp_path / "o", format="nifti"), tmp_path / "b").cohort.records()
    assert np.array_equal(back.pixels, structure(0))
    assert back.spacing_mm == pytest.approx((0.3, 0.4))


HOSTILE = [
    "../../etc",
    "..",
    "/abs/olute",
    "a/b",
    "a\\b",
    "con",
    "NUL.txt",
    "images",
    "metadata.csv",
    " . ",
    "x" * 80,
    "ä€",
]


HUGE = 2**62 + 1


@pytest.mark.parametrize(
    ("dtype", "low", "held"),
    [
        ("float16", 0, "float32"),
        ("int64", -300, "int16"),
        ("int64", -(2**40), "float64"),
        ("int64", -HUGE, "int64"),
        ("uint64", 0, "int16"),
        ("uint64", 2**40, "float64"),
        ("uint64", 3 * HUGE, "uint64"),
        ("int8", -128, "int8"),
    ],
)
@pytest.mark.parametrize("inverted", [False, True])
def test_every_dtype_of_a_cohort_fits_into_nifti(
    tmp_path: Path, dtype: str, low: int, held: str, inverted: bool
) -> None:
    pixels = structure(3, (8, 24, 20)).astype(dtype) + np.dtype(dtype).type(low)
    cohort = make(tmp_path / "c", [record(0, pixels, inverted=inverted)], spatial_dims=3)
    out = export_cohort(cohort, tmp_path / "out", format="nifti")
    image = nib.load(out / "images" / "id0.nii.gz")
    stored = np.asarray(image.dataobj).T
    row = pl.read_csv(out / "metadata.csv").row(0, named=True)
    if not inverted:
        assert image.get_data_dtype() == held
        assert np.array_equal(stored, pixels)
    assert row["exact"] == (not inverted or low < HUGE)
    turned = [int(row["value_intercept"]) - int(value) if inverted else value for value in stored.flat]
    if row["exact"]:
        assert turned == pixels.flatten().tolist()
    else:  # 2**64 - 1 is no double: the table says so
        assert [2**64 - 1 - int(value) for value in stored.flat] == pixels.flatten().tolist()
    if not inverted:
        assert np.array_equal(take_in(out, tmp_path / "back", spatial_dims=3).cohort.pixels([0])[0], pixels)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("inverted", [False, True])
def test_whole_numbers_beyond_a_double_keep_their_differences_in_a_png(
    tmp_path: Path, dtype: str, inverted: bool
) -> None:
    low = 3 * HUGE if dtype == "uint64" else -HUGE
    pixels = structure(3).astype(dtype) + np.dtype(dtype).type(low)
    stored = stored_values(record(0, pixels, inverted=inverted))
    assert not stored.exact
    found = stored.array.astype(int) * (-1 if inverted else 1)
    assert np.array_equal(found - found.min(), structure(3))


def test_an_axis_that_nifti_1_cannot_count_goes_into_nifti_2(tmp_path: Path) -> None:
    pixels = structure(3, (8, 40000))
    out = export_cohort(make(tmp_path / "c", [record(0, pixels)]), tmp_path / "out", format="nifti")
    assert np.array_equal(np.asarray(nib.load(out / "images" / "id0.nii.gz").dataobj)[..., 0].T, pixels)
    assert np.array_equal(take_in(out, tmp_path / "back", min_side=8).cohort.pixels([0])[0], pixels)


def test_label_names_cannot_leave_their_folder(tmp_path: Path) -> None:
    records = [record(n, labels={name: name == label for name in HOSTILE}) for n, label in enumerate(HOSTILE)]
    cohort = make(tmp_path / "c", records, labels=tuple(HOSTILE), exclusive=True)
    out = export_cohort(cohort, tmp_path / "deep" / "out")
    assert len(list(out.glob("*/*.png"))) == len(HOSTILE)
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == sorted(f"id{n}.png" for n in range(len(HOSTILE)))
    assert set(pl.read_csv(out / "metadata.csv").columns) >= {f"label:{name}" for name in HOSTILE}


@given(st.lists(st.text(min_size=1, max_size=90), unique=True, max_size=12))
def test_folder_names_are_plain_and_distinct(labels: list[str]) -> None:
    names = folder_names(labels)
    assert len({name.lower() for name in names.values()}) == len(labels)
    for name in names.values():
        assert Path(name).name == name
        assert name not in {"", ".", ".."}
        assert not set(name) & set('/\\:*?"<>|\0\n')


def test_layouts_rows_and_formats_that_do_not_fit_stop_in_one_line(tmp_path: Path) -> None:
    findings = make(tmp_path / "c", [record(0, labels={"x": True, "y": True})], labels=("x", "y"))
    with pytest.raises(InputError, match="are not mutually exclusive; export with --layout table"):
        export_cohort(findings, tmp_path / "out", layout="labels")
    with pytest.raises(InputError, match="no image to export"):
        export_cohort(findings, tmp_path / "out", rows=[])
    rgb = np.stack([structure(1), structure(2), structure(3)], axis=-1)
    colour = make(tmp_path / "d", [record(0, rgb, channels=3)])
    with pytest.raises(InputError, match="grey images only"):
        export_cohort(colour, tmp_path / "out", format="nifti")
    assert not (tmp_path / "out").exists()
    out = export_cohort(colour, tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(out / "images" / "id0.png")), rgb)
    with pytest.raises(InputError, match="exists already"):
        export_cohort(colour, tmp_path / "out")


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path) -> None:
    cohort = make(tmp_path / "c", [record(n) for n in range(100)])
    [path for path in cohort.path.rglob("arrays.zarr/*/c/**/*") if path.is_file()][-1].unlink()
    with pytest.raises(Exception, match="altered or is missing"):
        export_cohort(cohort, tmp_path / "out")
    assert names_in(tmp_path) == ["c"]
