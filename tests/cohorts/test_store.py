"""A cohort on disk: what was written comes back, order does not matter, damage is noticed, failure leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medphantom.cohorts.manifest import cohort_digest, row_hash
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord, Provenance, Voi
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import ArtifactError, CohortError, InputError
from medphantom.core.folders import read_json, unchanged, write_digest, write_json
from tests.cohorts.files import names_in, structure

SCHEMA = CohortSchema(
    labels=("x", "y"),
    attributes=(AttributeSpec(name="age", kind="continuous"), AttributeSpec(name="view", kind="categorical")),
)


def records(total: int = 9) -> list[ImageRecord]:
    """Records that use every field, of several shapes and types."""
    made = []
    for number in range(total):
        shape, dtype = [((32, 32), "uint8"), ((20, 24), "int16"), ((16, 16, 3), "uint8")][number % 3]
        made.append(
            ImageRecord(
                image_id=f"image{number}",
                patient=f"patient{number // 2}",
                pixels=structure(number, shape, dtype),
                split=("train", "val", "holdout", "test")[number % 4],
                study=None if number % 2 else f"study{number}",
                channels=3 if number % 3 == 2 else 1,
                inverted=number % 3 == 1,
                spacing_mm=(0.5, 0.25) if number % 2 else None,
                modality="CT",
                labels={"x": [True, False, None][number % 3]},
                attributes={"age": float(number), "view": "AP"} if number else {},
                text="a report" if number == 4 else None,
                mask=(structure(number, shape[:2]) > 99).astype(np.uint8) if number < 3 else None,
                voi=Voi(40.0, 400.0) if number % 2 else None,
                near_duplicate_of="image0" if number == 5 else None,
                provenance=Provenance("digest", "{}", number) if number == 6 else None,
            )
        )
    return made


def write(path: Path, made: Iterable[ImageRecord], schema: CohortSchema = SCHEMA) -> Cohort:
    with CohortWriter(path, schema) as writer:
        for record in made:
            writer.add(record)
    return Cohort.open(path)


def test_every_field_comes_back(tmp_path: Path) -> None:
    cohort = write(tmp_path / "c", records())
    cohort.verify()
    for original, copy in zip(records(), cohort.records(), strict=True):
        for name in ("image_id", "patient", "split", "study", "channels", "inverted", "spacing_mm", "modality", "text"):
            assert getattr(copy, name) == getattr(original, name)
        assert np.array_equal(copy.pixels, original.pixels)
        assert copy.pixels.dtype == original.pixels.dtype
        assert copy.labels == {"x": original.labels["x"], "y": None}
        assert copy.attributes == {"age": original.attributes.get("age"), "view": original.attributes.get("view")}
        assert (copy.mask is None) == (original.mask is None)
        assert copy.mask is None or np.array_equal(copy.mask, original.mask)
        assert (copy.voi, copy.near_duplicate_of) == (original.voi, original.near_duplicate_of)
        assert copy.provenance == original.provenance


@settings(max_examples=25, deadline=None)
@given(
    pixels=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    )
)
def test_any_pixels_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    copy = write(folder, [ImageRecord("i", "p", pixels, "train")], CohortSchema()).pixels([0])[0]
    assert copy.dtype == pixels.dtype
    assert copy.tobytes() == pixels.tobytes()


def test_rows_are_read_in_the_requested_order(tmp_path: Path) -> None:
    cohort = write(tmp_path / "c", records())
    order = [7, 0, 7, 3, 8, 1]
    assert all(np.array_equal(a, records()[n].pixels) for a, n in zip(cohort.pixels(order), order, strict=True))
    assert [record.image_id for record in cohort.records(order, batch_size=2)] == [f"image{n}" for n in order]
    assert cohort.patients(order) == [records()[n].patient for n in order]
    assert cohort.rows("val") == [1, 5]
    assert cohort.labels([0, 1, 2]).tolist() == [[1, -1], [0, -1], [-1, -1]]


def test_the_digest_is_of_content_and_not_of_order(tmp_path: Path) -> None:
    made = records()
    same = {
        write(tmp_path / str(n), [made[i] for i in np.random.default_rng(n).permutation(9)]).digest for n in (1, 2, 3)
    }
    assert len(same) == 1
    assert write(tmp_path / "fewer", made[:-1]).digest not in same
    changed = [*made]
    pixels = made[0].pixels.copy()
    pixels[0, 0] ^= 1
    changed[0] = ImageRecord("image0", made[0].patient, pixels, "train", study="study0", modality="CT")
    assert write(tmp_path / "pixel", changed).digest not in same


@pytest.mark.parametrize(("field", "value"), [("split", "test"), ("inverted", True), ("labels", {"x": False})])
def test_the_digest_sees_every_statement(tmp_path: Path, field: str, value: object) -> None:
    from dataclasses import replace

    one = records()[0]
    before = write(tmp_path / "a", [one]).digest
    assert write(tmp_path / "b", [replace(one, **{field: value})]).digest != before  # type: ignore[arg-type]


def chunks(cohort: Cohort) -> list[Path]:
    return [path for path in sorted(cohort.path.rglob("arrays.zarr/*/c/**/*")) if path.is_file()]


def flip_chunk(cohort: Cohort) -> None:
    chunk = max(chunks(cohort), key=lambda path: path.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 255
    chunk.write_bytes(bytes(data))


def cut_chunk(cohort: Cohort) -> None:
    chunk = chunks(cohort)[0]
    chunk.write_bytes(chunk.read_bytes()[:-7])


def drop_chunk(cohort: Cohort) -> None:
    chunks(cohort)[0].unlink()


def drop_group(cohort: Cohort) -> None:
    next((cohort.path / "arrays.zarr").rglob("zarr.json")).unlink()


def change_cell(cohort: Cohort) -> None:
    table = pq.read_table(cohort.path / "manifest.parquet")
    cells = table["split"].to_pylist()
    cells[0] = "test"
    pq.write_table(
        table.set_column(table.column_names.index("split"), "split", [cells]), cohort.path / "manifest.parquet"
    )


def change_schema(cohort: Cohort) -> None:
    facts = read_json(cohort.path / "cohort.json")
    write_json(cohort.path / "cohort.json", {**facts, "exclusive": True})


@pytest.mark.parametrize("damage", [flip_chunk, cut_chunk, drop_chunk, drop_group, change_cell, change_schema])
def test_damage_is_noticed_in_one_line(tmp_path: Path, damage: Callable[[Cohort], None]) -> None:
    damage(write(tmp_path / "c", records()))
    with pytest.raises(CohortError, match=r"altered|missing") as raised:
        Cohort.open(tmp_path / "c").verify()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digest.json", "never published"),
        ("cohort.json", "is missing"),
        ("manifest.parquet", "is missing"),
    ],
)
def test_a_folder_without_its_parts_is_no_cohort(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path / "c", records())
    (tmp_path / "c" / name).unlink()
    with pytest.raises(CohortError, match=message):
        Cohort.open(tmp_path / "c")


def test_other_versions_and_shortened_manifests_are_refused(tmp_path: Path) -> None:
    cohort = write(tmp_path / "c", records())
    facts = read_json(cohort.path / "digest.json")
    write_json(cohort.path / "digest.json", {**facts, "format_version": 2})
    with pytest.raises(CohortError, match="format version 2, expected 1"):
        Cohort.open(tmp_path / "c")
    write_json(cohort.path / "digest.json", facts)
    table = pq.read_table(cohort.path / "manifest.parquet")
    pq.write_table(table.slice(0, 5), cohort.path / "manifest.parquet")
    with pytest.raises(CohortError, match="lists 5 images, expected 9"):
        Cohort.open(tmp_path / "c")


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Iterator[ImageRecord]:
        yield from records()
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        write(tmp_path / "c", fail())
    assert names_in(tmp_path) == []


def test_the_folder_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    with CohortWriter(tmp_path / "c", SCHEMA) as writer:
        writer.add(records()[0])
        assert not (tmp_path / "c").exists()
    assert (tmp_path / "c" / "digest.json").is_file()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (ImageRecord("image0", "p", structure(1), "train"), "was added twice"),
        (ImageRecord("i", "p", structure(1), "train", labels={"z": True}), "unknown label or attribute 'z'"),
        (ImageRecord("i", "p", structure(1), "train", attributes={"h": 1.0}), "unknown label or attribute 'h'"),
        (ImageRecord("i", "p", structure(1, (8, 8, 8)), "train"), "3 spatial axes, expected 2"),
    ],
)
def test_records_that_do_not_fit_are_refused(tmp_path: Path, bad: ImageRecord, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write(tmp_path / "c", [records()[0], bad])
    assert not (tmp_path / "c").exists()


def test_ranges_come_from_training_patients_only(tmp_path: Path) -> None:
    made = [
        ImageRecord(f"i{n}", f"p{n}", structure(n), split, attributes={"age": age, "view": view})
        for n, (split, age, view) in enumerate([("train", 30, "PA"), ("train", 50, "AP"), ("test", 99, "LL")])
    ]
    age, view = write(tmp_path / "c", made).schema.attributes
    assert (age.low, age.high) == (30, 50)
    assert view.categories == ("AP", "LL", "PA")


def test_what_is_known_late_may_be_added_late_but_columns_may_not_change(tmp_path: Path) -> None:
    with CohortWriter(tmp_path / "c", SCHEMA) as writer:
        writer.add(records()[0])
        writer.describe(mask_values={0: "background"}, patients="per_image")
        with pytest.raises(InputError, match="labels cannot change"):
            writer.describe(labels=("other",))
    cohort = Cohort.open(tmp_path / "c")
    cohort.verify()
    assert cohort.schema.mask_values == {0: "background"}
    assert cohort.schema.patients == "per_image"


def test_many_rows_of_many_shapes(tmp_path: Path) -> None:
    made = [ImageRecord(f"i{n}", "p", structure(n, (8 + n % 5, 9)), "train") for n in range(1500)]
    cohort = write(tmp_path / "c", made, CohortSchema())
    picked = [0, 511, 512, 1023, 1024, 1499]
    assert all(np.array_equal(a, made[n].pixels) for a, n in zip(cohort.pixels(picked), picked, strict=True))


def test_what_is_read_of_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    with unchanged(file):
        assert file.read_bytes() == b"first"
    for disturb in (lambda: file.write_bytes(b"another"), file.unlink):
        file.write_bytes(b"first")
        with pytest.raises(ArtifactError, match="changed while it was read"), unchanged(file):
            disturb()


def test_a_cohort_of_version_1_opens_with_its_holdout_verifies_and_is_written_on_as_version_2(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with CohortWriter(path, SCHEMA) as writer:
        for record in records():
            writer.add(record)
    new = Cohort.open(path)
    held = new.rows("holdout")
    old = new.schema.model_copy(update={"format_version": 1})
    table = pq.read_table(path / "manifest.parquet")
    splits = pa.array(["gate" if name == "holdout" else name for name in table["split"].to_pylist()])
    place = table.schema.get_field_index("split")
    pq.write_table(table.set_column(place, table.schema.field("split"), splits), path / "manifest.parquet")
    write_json(path / "cohort.json", old.model_dump(mode="json"))
    rows = pl.read_parquet(path / "manifest.parquet").iter_rows(named=True)
    write_digest(path, cohort_digest(old, [row_hash(row) for row in rows]), total_images=len(new))

    opened = Cohort.open(path)
    assert opened.schema.format_version == 1
    assert opened.digest != new.digest
    assert opened.rows("holdout") == held != []
    assert "gate" not in set(opened.manifest["split"])
    opened.verify()
    with CohortWriter(tmp_path / "again", opened.schema) as writer:
        for record in opened.records():
            writer.add(record)
    again = Cohort.open(tmp_path / "again")
    again.verify()
    assert (again.schema.format_version, again.digest) == (2, new.digest)

    pq.write_table(table, path / "manifest.parquet")  # the new name under the old version: not what was published
    with pytest.raises(CohortError, match="split names that no cohort of version 1 has"):
        len(Cohort.open(path).manifest)


def test_a_split_or_row_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    cohort = write(tmp_path / "cohort", records())
    with pytest.raises(InputError, match="there is no split 'trian'; one of train, val, holdout, test, left_out"):
        cohort.rows("trian")
    for read in (cohort.pixels, cohort.masks, cohort.patients, cohort.labels):
        for row in (-1, len(cohort), 10**6):
            with pytest.raises(InputError, match=rf"there is no row {row}; .* has rows 0 to {len(cohort) - 1}"):
                read([0, row])
    assert cohort.pixels([]) == []
