"""One odd string never ends a command with "unexpected": each of these did."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medphantom.flows.cli.main import main
from tests.generators.tiny import make_cohort

INGEST = ("--public-phrase", "x", "--workers", "0", "--folders", "ignore")
DEEP = "[" * 100_000


def pictures(folder: Path, total: int = 8) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(total):
        Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def described(folder: Path) -> str:
    return f"cohort: {{source: {folder}, public_phrase: x, options: {{folders: ignore, workers: 0}}}}\n"


@pytest.mark.parametrize(
    "text",
    [
        "plan: &a [*a]",
        "plan: &a {b: *a}",
        "plan: {seed: !!int abc}",
        f"plan: {{kind: match, seed: {'9' * 5000}}}",
        f"plan: {{kind: match, seed: 0x{'f' * 5000}}}",
        'sampler: {solver: "\\ud800"}',
        "plan: {seed: 2001-99-99}",
        f"plan: {DEEP[:3000]}",
    ],
)
def test_values_that_yaml_cannot_make(tmp_path: Path, one_line: Callable[..., str], text: str) -> None:
    (tmp_path / "r.yaml").write_text(described(pictures(tmp_path / "s")) + text + "\n")
    line = one_line("run", tmp_path / "r.yaml", "--out", tmp_path / "o", "--no-prefect", "--until", "ingest")
    assert "r.yaml" in line
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", ["~nosuch/x", "a" * 300, "x\\0y", "\\udcff"])
@pytest.mark.parametrize("field", ["cohort.source", "cohort.key_file", "cohort.options.table", "cohort.options.masks"])
def test_paths_of_a_recipe_that_cannot_be(tmp_path: Path, one_line: Callable[..., str], name: str, field: str) -> None:
    text = described(pictures(tmp_path / "s"))
    (tmp_path / "r.yaml").write_text(text.replace("public_phrase: x, ", "") if "key" in field else text)
    flags = ("--no-prefect", "--until", "ingest", "--set", f'{field}="{name}"')
    one_line("run", tmp_path / "r.yaml", "--out", tmp_path / "o", *flags)


@pytest.mark.parametrize("cell", ["a" * 300, "x\0y", "..", "~nosuch"])
def test_a_cell_that_is_no_path_refuses_its_image(tmp_path: Path, cell: str) -> None:
    source = pictures(tmp_path / "s")
    names = [f"{number}.png" for number in range(8)]
    rows = {"image": names, "patient": names, "finding": ["a", "b"] * 4, "mask": [cell, *[""] * 7]}
    pq.write_table(pa.table(rows), source / "t.parquet")
    flags = (*INGEST, "--table", "t.parquet", "--set", "cohort.options.mask_column=mask")
    flags += ("--set", "cohort.options.mask_required=false")
    assert main(["ingest", str(source), "--out", str(tmp_path / "c"), *flags]) in {0, 2}
    assert not list(tmp_path.glob(".*partial*"))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    source = pictures(tmp_path / "s")
    os.rename(source / "0.png", os.fsencode(source) + b"/\xff\xfe.png")  # noqa: PTH104 - bytes
    out = os.fsdecode(os.fsencode(tmp_path) + b"/c\xff")
    assert main(["ingest", str(source), "--out", out, *INGEST]) in {0, 2}


@pytest.mark.parametrize(
    "text", ["[[]]", DEEP, '{"digest": [[]], "format_version": 1}', '{"format_version": 1}', "1" * 5000]
)
@pytest.mark.parametrize("name", ["digest.json", "cohort.json"])
def test_our_json_with_odd_content(tmp_path: Path, one_line: Callable[..., str], name: str, text: str) -> None:
    make_cohort(tmp_path / "c", total=8)
    (tmp_path / "c" / name).write_text(text)
    assert name in one_line("verify", tmp_path / "c")


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [[]]},
        {"shape": None},
        {"data_type": []},
        {"codecs": 5},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 0, 0]}}},
        {"node_type": [[]]},
        {"fill_value": "x"},
    ],
)
def test_hostile_zarr_json(tmp_path: Path, one_line: Callable[..., str], changes: dict[str, object]) -> None:
    make_cohort(tmp_path / "c", total=8)
    file = next((tmp_path / "c").rglob("zarr.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    assert str(tmp_path / "c") in one_line("verify", tmp_path / "c")


@pytest.mark.parametrize("way", ["dropped", "other type", "empty name", "negative", "null"])
def test_hostile_columns_of_a_manifest(tmp_path: Path, one_line: Callable[..., str], way: str) -> None:
    make_cohort(tmp_path / "c", total=8)
    file = tmp_path / "c" / "manifest.parquet"
    table = pq.read_table(file)
    place = table.column_names.index("index")
    if way == "dropped":
        table = table.drop_columns(["index"])
    elif way == "empty name":
        table = table.rename_columns([name if name != "index" else "" for name in table.column_names])
    else:
        other = {"other type": pa.array([[1]] * 8), "negative": pa.array([-1] * 8), "null": pa.nulls(8, pa.int64())}
        table = table.set_column(place, "index", other[way])
    pq.write_table(table, file)
    for command in (("verify", tmp_path / "c"), ("export", tmp_path / "c", "--out", tmp_path / "e")):
        assert "manifest.parquet" in one_line(*command)
    assert not (tmp_path / "e").exists()


def test_an_empty_column_name_of_a_table(tmp_path: Path) -> None:
    source = pictures(tmp_path / "s")
    names = [f"{number}.png" for number in range(8)]
    pq.write_table(pa.table({"image": names, "": names, "finding": ["a", "b"] * 4}), source / "t.parquet")
    assert main(["ingest", str(source), "--out", str(tmp_path / "c"), *INGEST, "--table", "t.parquet"]) in {0, 2}


def test_a_path_that_is_too_long(one_line: Callable[..., str]) -> None:
    for verb in (["verify"], ["inspect"], ["ingest", "--out", "o"], ["lineage", "--patient", "p"]):
        one_line(*verb[:1], "a" * 300, *verb[1:])


def test_a_patient_id_that_is_not_utf8(tmp_path: Path) -> None:
    make_cohort(tmp_path / "c", total=8)
    assert main(["lineage", str(tmp_path / "c"), "--patient", "p\udcff"]) == 0


@pytest.mark.parametrize("text", ["[[]]", "{}", DEEP, '{"ingest": {"output": "../x"}}'])
def test_a_run_whose_record_is_damaged_is_not_verified(tmp_path: Path, one_line: Callable[..., str], text: str) -> None:
    (tmp_path / ".stages.json").write_text(text)
    assert ".stages.json" in one_line("verify", tmp_path)
