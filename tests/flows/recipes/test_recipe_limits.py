"""A recipe of more than any recipe needs is refused before its aliases stand for anything, and so is deep JSON."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from medphantom.cohorts.tables.file import read_table
from medphantom.core.errors import ArtifactError, InputError, RecipeError
from medphantom.core.folders import read_json
from medphantom.flows.recipes.recipe_file import parse_yaml, read_tree

LEVELS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]\n" for number in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LEVELS, "aliases repeat"),
        ("".join(f"k{number}: 1\n" for number in range(50_000)), "more than 20000 values"),
        ("a: &a [*a]\n", "stands for what it lies in"),
        ("[" * 100 + "]" * 100, "nested more than 40 deep"),
        ("a: " + "x" * 2**20, "more than 1 MiB"),
    ],
)
def test_a_recipe_that_never_ends_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=problem):
        read_tree(file)


def test_aliases_of_a_recipe_are_read() -> None:
    assert parse_yaml("a: &a {b: 1}\nc: *a\nd: [*a, *a]\n", "recipe") == {
        "a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]
    }  # fmt: skip


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 500 + "]" * 500, "[" + "0," * 4_000_001 + "0]"])
def test_json_of_ours_has_a_depth_and_a_size(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ArtifactError, match="cannot be read as JSON"):
        read_json(tmp_path / "a.json")


def test_a_table_of_one_endless_line_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("path,label\n" + "," * 5_000_000)
    with pytest.raises(InputError, match="a line of more than 4096 cells"):
        read_table(file)


def test_a_table_larger_than_memory_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    with file.open("wb") as stream:
        stream.write(b"path,label\n")
        stream.truncate(2**31)  # a hole: it takes no room on the disk
    with pytest.raises(InputError, match="larger than 256 MiB"):
        read_table(file)


def test_parquet_of_repeated_values_is_weighed_by_what_it_declares(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pl.DataFrame({"path": pl.repeat("a.png", 8_000_000, eager=True)}).write_parquet(file)
    assert file.stat().st_size < 2**20
    with pytest.raises(InputError, match="more rows than its bytes can encode"):
        read_table(file)
    wide = tmp_path / "wide.parquet"
    pl.DataFrame({f"c{number}": [1] for number in range(5000)}).write_parquet(wide)
    with pytest.raises(InputError, match="more than 4096 columns"):
        read_table(wide)
    long = tmp_path / "long.parquet"
    pl.DataFrame({"text": pl.repeat("x" * 2**20, 2100, eager=True)}).write_parquet(long)
    with pytest.raises(InputError, match=r"GiB of text|GiB before compression"):
        read_table(long)
