"""The overfitted control model: made beside the run, quoted in its report, refused where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError, RecipeError
from medphantom.flows.cli.main import main
from medphantom.flows.recipes.plans import MatchPlan
from medphantom.flows.runs.control import PURPOSE, control_facts, make_control, memorised
from medphantom.flows.runs.job import open_job
from medphantom.generators.facts import read_facts
from medphantom.quality.report.write import PublishedReport
from tests.flows.conftest import TINY_RECIPE

OneLine = Callable[..., str]


@pytest.mark.slow
def test_a_control_model_stands_beside_its_run_and_in_its_report(tmp_path: Path) -> None:
    recipe, run = tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny"
    recipe.write_text(TINY_RECIPE.replace("patients: 60", "patients: 120"))
    assert main(["run", str(recipe), "--out", str(run), "--no-prefect"]) == 0
    before = PublishedReport.load(run / "report.json")
    assert before.facts.control is None
    command = ["control", str(recipe), "--out", str(run), "--patients", "30", "--looks", "3", "--no-prefect"]
    assert main(command) == 0
    model = run.with_name("tiny_control")
    few, many = (Cohort.open(folder / "cohort") for folder in (model, run))
    learned = set(few.patients(few.rows("train")))
    assert 20 <= len(learned) < 45
    assert learned < set(many.patients(many.rows("train")))
    bundle, _ = read_facts(model / "bundle")
    assert bundle.intended_use == PURPOSE
    after = PublishedReport.load(run / "report.json")
    assert after.quality == before.quality  # nothing of the run itself was made again
    assert after.facts.control is not None
    assert after.facts.control == control_facts(run)
    assert after.facts.control.training_images == len(few.rows("train"))
    assert {attack.attack for attack in after.facts.control.attacks} >= {"loss", "proximal initialization"}
    public = (run / "report.public.html").read_text("utf-8")
    assert f"overfitted to {len(few.rows('train'))} training images" in public
    assert "not tested" in public  # the run's own weights were not attacked
    assert not open_job(recipe, [], run).outlook()[1]


def test_a_control_model_without_noise_takes_the_same_steps(copy: Path) -> None:
    recipe = copy / "private.yaml"
    recipe.write_text((copy / "tiny.yaml").read_text() + "\n")
    settings = ["generator.init_from=base", "generator.privacy={epsilon: 3}"]
    model = make_control(open_job(recipe, settings, copy / "runs" / "private"), "noiseless").recipe.generator
    assert model.privacy is not None
    assert model.privacy.epsilon is None
    own = open_job(recipe, settings).recipe.generator
    assert own.privacy is not None
    assert model.privacy == own.privacy.model_copy(update={"epsilon": None})
    assert model.denoiser_fit.steps == own.denoiser_fit.steps


def test_memorised_looks_often_and_keeps_the_last_weights(copy: Path) -> None:
    job = open_job(copy / "tiny.yaml", [], copy / "runs" / "tiny")
    settings = memorised(job.recipe, 100, 200, patients=20, looks=50)
    assert "generator.denoiser_fit.validate_every=0" in settings
    assert "generator.denoiser_fit.steps=500" in settings  # 40 images, 4 at a time, 50 times each


def test_memorised_draws_what_its_few_patients_have(copy: Path) -> None:
    plan = "plan={kind: counts, counts: {effusion: 30, pneumothorax: 12}, seed: 7}"
    job = open_job(copy / "tiny.yaml", [plan], copy / "runs" / "tiny")
    settings = memorised(job.recipe, 100, 200, patients=20, looks=50)
    model = open_job(copy / "tiny.yaml", [plan, *settings]).recipe.plan
    assert model == MatchPlan(total=42, seed=7)


@pytest.mark.parametrize("patients", [5, 101])
def test_too_few_or_too_many_patients_are_refused(copy: Path, patients: int) -> None:
    job = open_job(copy / "tiny.yaml", [], copy / "runs" / "tiny")
    with pytest.raises(InputError, match=f"cannot memorise {patients} of 200 training patients"):
        memorised(job.recipe, 200, 300, patients=patients, looks=1)
    with pytest.raises(InputError, match="cannot memorise 20 of 38 training patients; it takes a run with 40 or more"):
        memorised(job.recipe, 38, 60, patients=20, looks=1)


def test_what_has_no_control_model_is_refused_in_one_line(copy: Path, one_line: OneLine) -> None:
    assert "asks for no noise" in one_line("control", copy / "tiny.yaml", "--kind", "noiseless")
    assert "has no cohort yet" in one_line("control", copy / "tiny.yaml", "--out", copy / "runs" / "other")
    with pytest.raises(RecipeError):
        make_control(open_job(copy / "tiny.yaml", [], copy / "runs" / "other"), "memorised")
    assert not (copy / "runs" / "other_control").exists()
