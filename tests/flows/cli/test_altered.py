"""What was altered after it was published is used, joined and shared by no verb; a refusal leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

import medphantom as mp
from medphantom.core.errors import InputError, ResourceError


def alter_rows(cohort: Path, **columns: object) -> None:
    """Other values in the manifest, in the same columns and types."""
    file = cohort / "manifest.parquet"
    columns_before = pq.read_schema(file)
    rows = pl.read_parquet(file)
    changed = rows.with_columns(pl.lit(value).cast(rows.schema[name]).alias(name) for name, value in columns.items())
    pq.write_table(changed.to_arrow().cast(columns_before), file)


def alter_schema(cohort: Path, old: str, new: str) -> None:
    file = cohort / "cohort.json"
    before = file.read_text()
    assert old in before
    file.write_text(before.replace(old, new))


@pytest.mark.parametrize(
    "alter",
    [
        lambda place: alter_rows(place, **{"label:effusion": True}),
        lambda place: alter_rows(place, seed=1),
        lambda place: alter_rows(place, bundle_digest="0" * 64),
        lambda place: alter_schema(place, '"steps": 2', '"steps": 50'),
        lambda place: alter_schema(place, '"synthetic"', '"real"'),
    ],
)
def test_an_altered_synthetic_cohort_is_refused(
    copy: Path, alter: Callable[[Path], None], one_line: Callable[..., str]
) -> None:
    synthetic = Path("runs/tiny/synthetic")
    alter(synthetic)
    for arguments in (
        ("verify", synthetic),
        ("merge", synthetic, "--out", "out"),
        ("export", synthetic, "--out", "out"),
        ("inspect", synthetic, "--out", "out.png"),
        ("assess", "runs/tiny/cohort", synthetic, "--out", "out"),
    ):
        assert "was altered" in one_line(*arguments), arguments
    assert not list(copy.glob("out*"))


def test_the_name_of_the_key_of_a_cohort_cannot_be_changed(copy: Path, one_line: Callable[..., str]) -> None:
    file = Path("runs/tiny/cohort/cohort.json")
    content = json.loads(file.read_text())
    assert content["origin"]
    for origin in (None, {**content["origin"], "secret": "0" * 64}, {**content["origin"], "names": "forged"}):
        file.write_text(json.dumps({**content, "origin": origin}))
        for arguments in (
            ("verify", "runs/tiny/cohort"),
            ("train", "runs/tiny/cohort", "--out", "out", "--recipe", "tiny.yaml"),
        ):
            assert "the origin in" in one_line(*arguments)
    assert not list(copy.glob("out*"))


@pytest.mark.parametrize("changed", [{"split": "train"}, {"patient": "somebody"}, {"label:effusion": True}])
def test_an_altered_real_cohort_is_refused(
    copy: Path, changed: dict[str, object], one_line: Callable[..., str]
) -> None:
    alter_rows(Path("runs/tiny/cohort"), **changed)
    for arguments in (
        ("verify", "runs/tiny/cohort"),
        ("train", "runs/tiny/cohort", "--out", "out", "--recipe", "tiny.yaml"),
        ("generate", "runs/tiny/bundle", "--out", "out", "--match", "3", "--cohort", "runs/tiny/cohort"),
        ("assess", "runs/tiny/cohort", "runs/tiny/synthetic", "--out", "out"),
    ):
        assert "was altered" in one_line(*arguments), arguments
    assert not list(copy.glob("out*"))


def test_a_batch_that_cannot_fit_is_refused_without_trying_it(copy: Path, one_line: Callable[..., str]) -> None:
    batch = "generator.denoiser_fit.batch_size=1000000000"
    line = one_line("train", "runs/tiny/cohort", "--out", "out", "--recipe", "tiny.yaml", "--set", batch)
    assert "GB of memory, the machine has" in line
    assert "lower preprocess.size or a batch_size" in line
    large = {"denoiser_fit": {"batch_size": 1_000_000_000, "steps": 1}}
    with pytest.raises(ResourceError, match="GB of memory, the machine has"):
        mp.train("runs/tiny/cohort", "out", size=32, generator=large)
    assert not list(copy.glob("out*"))


def test_a_refusal_leaves_no_work_behind_and_an_interruption_does(copy: Path) -> None:
    with pytest.raises(InputError, match=r"preprocess\.size \(33, 33\) is not divisible"):
        mp.train("runs/tiny/cohort", "out", size=33, recipe="tiny.yaml")
    assert not list(copy.glob("out*"))
    begun = copy / "out.work" / "denoiser-0" / "checkpoints" / "step-000000001"
    begun.mkdir(parents=True)
    with pytest.raises(InputError, match=r"preprocess\.size \(33, 33\) is not divisible"):
        mp.train("runs/tiny/cohort", "out", size=33, recipe="tiny.yaml")
    assert begun.is_dir()
    assert json.loads((copy / "runs" / "tiny" / "run.json").read_text())
