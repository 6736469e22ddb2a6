"""Fine-tuning as a run: the base is checked first, named in the key of the stage, and its cost is foreseen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError
from medphantom.flows.cli.main import main
from medphantom.flows.recipes.recipe import load_recipe
from medphantom.flows.runs import base_check
from medphantom.flows.runs.base_check import accept_base, check_base
from medphantom.flows.runs.calibration import calibrate
from medphantom.flows.runs.job import open_job
from medphantom.quality.assessment.assess import screen_copies
from medphantom.quality.config import AssessConfig, CopyConfig
from tests.flows.conftest import TINY_RECIPE
from tests.generators.stable_tiny import make_pipeline

TUNED = (
    TINY_RECIPE.replace("name: tiny", "name: tuned")
    .replace("seed: 3", "seed: 4")
    .replace("generator:\n", "generator:\n  init_from: runs/tiny/bundle\n  tuning: {method: lora, rank: 2}\n")
)

FEW_PLANTED = AssessConfig(copies=CopyConfig(kinds=("as it is",), controls=4))


@pytest.fixture
def tuned(copy: Path) -> Path:
    """A recipe beside the finished run that fine-tunes its bundle to other simulated patients."""
    (copy / "tuned.yaml").write_text(TUNED)
    return copy


def test_a_run_from_a_base_goes_through_to_its_report(
    tuned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_check, "AssessConfig", lambda: FEW_PLANTED)  # by default copies of eleven kinds
    assert main(["run", "tuned.yaml", "--no-prefect"]) == 0
    facts = json.loads((tuned / "runs/tuned/run.json").read_text())["stages"]["train"]["facts"]
    assert facts["base"]["verdict"] in {"screened", "inconclusive"}
    assert "images of the base's own" in capsys.readouterr().out
    bundle = json.loads((tuned / "runs/tuned/bundle/bundle.json").read_text())
    assert bundle["base"]["kind"] == "bundle"
    training = json.loads((tuned / "runs/tuned/bundle/training.json").read_text())
    assert training["round_trip"]["l1"] > 0
    assert "autoencoder" not in training
    assert (tuned / "runs/tuned/report.html").is_file()
    assert not (tuned / "runs/tuned/work/train/base-check").exists()


@pytest.mark.slow
def test_a_base_is_searched_once(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the search found is kept for a run that was interrupted later, and belongs to this seed."""
    cohort, config = Cohort.open(tuned / "runs/tiny/cohort"), load_recipe("tuned.yaml").recipe.generator
    preprocess = Preprocess.for_cohort(cohort, (32, 32))
    found = check_base(cohort, preprocess, config, work=tuned / "work")
    monkeypatch.setattr(base_check, "generate", lambda *_, **__: pytest.fail("drawn again"))
    assert check_base(cohort, preprocess, config, work=tuned / "work") == found
    with pytest.raises(pytest.fail.Exception):
        check_base(cohort, preprocess, config.model_copy(update={"seed": 5}), work=tuned / "work")


def test_another_base_under_the_same_path_is_noticed(tuned: Path) -> None:
    job = open_job("tuned.yaml")
    refs = {"ingest": open_job("tiny.yaml").outlook()[0]["ingest"]}
    before = job.key("train", refs)
    digest = tuned / "runs/tiny/bundle/digest.json"
    content = json.loads(digest.read_text())
    digest.write_text(json.dumps({**content, "digest": "0" * 64}))
    assert job.key("train", refs) != before


def test_costs_are_those_of_the_base(tuned: Path) -> None:
    measured = calibrate(load_recipe("tuned.yaml").recipe, 40)
    assert measured.train_s > 0
    assert measured.weight_bytes > 0


def test_a_base_that_draws_this_cohort_is_refused(tuned: Path) -> None:
    """What a base that memorised this cohort would draw: its training images."""
    cohort = Cohort.open(tuned / "runs/tiny/cohort")
    preprocess = Preprocess.for_cohort(cohort, (32, 32))
    schema = CohortSchema(kind="synthetic", spatial_dims=2, patients="per_image")
    with CohortWriter(tuned / "drawn", schema) as writer:
        for place, record in enumerate(cohort.records(cohort.rows("train"))):
            name = f"x{place}"
            writer.add(ImageRecord(image_id=name, patient=name, pixels=record.pixels, split="synthetic"))
    drawn = Cohort.open(tuned / "drawn")
    summary = screen_copies(cohort, drawn, preprocess, FEW_PLANTED, work=tuned / "work")
    assert summary is not None
    assert summary.verdict == "fail"
    with pytest.raises(InputError, match=r"base there draws images of this cohort: .*; use a base that never saw"):
        accept_base(summary, "there")
    with pytest.raises(InputError, match="no training or no holdout image"):
        accept_base(None, "there")


def test_what_cannot_be_learned_or_searched_is_reported_before_anything_is_drawn(
    tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_check, "generate", lambda *_, **__: pytest.fail("drawn"))
    cohort, config = Cohort.open(tuned / "runs/tiny/cohort"), load_recipe("tuned.yaml").recipe.generator
    preprocess = Preprocess.for_cohort(cohort, (32, 32))
    stable = config.model_copy(update={"init_from": str(make_pipeline(tuned / "stable"))})
    with pytest.raises(InputError, match="reads text only"):
        check_base(cohort, preprocess, stable, work=tuned / "work")
    with CohortWriter(tuned / "no holdout", cohort.schema) as writer:
        for record in cohort.records(cohort.rows("train")):
            writer.add(record)
    with pytest.raises(InputError, match="no training or no holdout image"):
        check_base(Cohort.open(tuned / "no holdout"), preprocess, config, work=tuned / "work")


def test_a_path_to_nothing_is_named(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tuned / "tuned.yaml").write_text(TUNED.replace("runs/tiny/bundle", "./nowhere"))
    assert main(["run", "tuned.yaml", "--no-prefect"]) == 2
    assert "nowhere does not exist; create the base first, or give a hub id" in capsys.readouterr().err
    assert not (tuned / "runs/tuned/cohort").exists()
