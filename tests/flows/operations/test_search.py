"""Settings are chosen on val, all trials are written down, and an interruption costs nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import medphantom
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import RecipeError, UnsupportedClaim
from medphantom.flows.cli.main import main
from medphantom.flows.operations import search as searching
from medphantom.flows.operations.search import (
    Trainings,
    TrialEvaluator,
    combinations,
    trial_distances,
    trial_of,
    tries_of,
)
from medphantom.flows.recipes.settings import SearchPart, read_part
from medphantom.generators.bundle import GeneratorBundle
from tests.generators.tiny import SIDE, make_cohort, tiny_config

TRIES = ["sampler.steps=[1,8]", "generator.denoiser_fit.steps=[1,60]"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("search") / "cohort", total=1040)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    generator = tiny_config().model_dump(mode="json", exclude_defaults=True)
    tree = {
        "preprocess": {"size": [SIDE, SIDE]},
        "generator": generator,
        "sampler": {"guidance": 1.5, "device": "cpu"},
        "plan": {"kind": "match", "total": 136},
    }
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.mark.slow
def test_the_best_of_all_combinations_is_published(cohort: Cohort, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    command = ["search", str(cohort.path), "--out", str(out), "--recipe", str(recipe)]
    assert main([*command, *(word for tried in TRIES for word in ("--try", tried))]) == 0
    result = json.loads((out / "search.json").read_text())
    by_setting = {tuple(trial["settings"]): trial["distance"] for trial in result["trials"]}
    assert len(by_setting) == 4
    assert tuple(result["best"]["settings"]) == min(by_setting, key=lambda s: by_setting[s])
    drawn_in, learned_in = result["best"]["settings"]
    assert learned_in == "generator.denoiser_fit.steps=60"  # how many calls draw best differs between processors
    assert drawn_in == f"sampler.steps={result['best']['steps']}"
    assert 0 < result["floor"] < result["trials"][0]["distance"]
    assert result["real_images"] == len(cohort.rows("val"))
    bundle = GeneratorBundle.load(out / "bundle")
    assert bundle.training["recipe"]["denoiser_fit"]["steps"] == 60
    assert not out.with_name("found.work").exists()
    assert main([*command, "--try", TRIES[0]]) == 2  # it exists


def test_trials_measured_before_an_interruption_are_not_measured_again(
    cohort: Cohort, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = read_part(SearchPart, recipe, ["generator.denoiser_fit.steps=1"])
    trials = [trial_of(part, changed) for changed in combinations({"sampler.steps": [2, 8]})]
    preprocess = part.preprocess.for_cohort(cohort)
    trainings, evaluator = Trainings(cohort, preprocess, tmp_path), TrialEvaluator(cohort, preprocess, part.plan)
    train, calls = searching.train_generator, []
    monkeypatch.setattr(searching, "train_generator", lambda *a, **k: calls.append(0) or train(*a, **k))
    measure, seen = evaluator.distance, []

    def interrupted(bundle: GeneratorBundle, sampler: object, progress: object) -> float:
        if seen:
            raise KeyboardInterrupt
        seen.append(measure(bundle, sampler, progress))
        return seen[0]

    monkeypatch.setattr(evaluator, "distance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trial_distances(trials, trainings, evaluator)
    monkeypatch.setattr(evaluator, "distance", measure)
    found = trial_distances(trials, trainings, evaluator)
    assert found[0] == seen[0]
    assert found[1] != found[0]
    assert len(calls) == 1  # both are ways to sample one training


def test_the_evaluator_sees_the_split_that_it_is_given(cohort: Cohort, recipe: Path) -> None:
    part = read_part(SearchPart, recipe, [])
    evaluator = TrialEvaluator(cohort, part.preprocess.for_cohort(cohort), part.plan, "val")
    assert len(evaluator.real) == len(cohort.rows("val"))
    assert evaluator._refusal(100) == "100 images cannot support a covariance of 64 features (≥ 128)"
    assert evaluator._refusal(128) is None
    other = TrialEvaluator(cohort, part.preprocess.for_cohort(cohort), part.plan, "test")
    assert not np.array_equal(evaluator.real, other.real)


@pytest.mark.parametrize(
    ("tried", "message"),
    [
        ("sampler.drift=0.1", r"--try sampler.drift=0.1: expected field.field=\[value, …\]"),
        ("sampler.drift", "expected field"),
        ("sampler.drift=[]", "expected field"),
        ("plan.total=[1,2]", "only fields of generator and sampler are searched"),
    ],
)
def test_what_cannot_be_tried_is_refused(tried: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        combinations(tries_of([tried]))


def test_a_combination_that_breaks_a_rule_is_refused_before_anything_is_trained(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"sampler\.steps"):
        [trial_of(read_part(SearchPart, recipe, []), changed) for changed in combinations({"sampler.steps": [5, 0]})]


def test_too_few_images_to_choose_by(recipe: Path, tmp_path: Path) -> None:
    part, small = read_part(SearchPart, recipe, []), make_cohort(tmp_path / "c", total=32)
    preprocess = part.preprocess.for_cohort(small)
    with pytest.raises(UnsupportedClaim, match="the val split is too small to choose by: 4 images are too few"):
        TrialEvaluator(small, preprocess, part.plan)


def test_few_real_images_are_compared_by_the_distance_without_bias(recipe: Path, tmp_path: Path) -> None:
    part, few = read_part(SearchPart, recipe, []), make_cohort(tmp_path / "c", total=320)
    evaluator = TrialEvaluator(few, part.preprocess.for_cohort(few), part.plan)
    assert (evaluator.measure, len(evaluator.real)) == ("kernel", 40)
    assert evaluator.floor(40) < evaluator._between(evaluator.real + 0.5) / 10
    assert evaluator.floor(20) is None


@pytest.mark.slow
def test_a_notebook_searches_too(tmp_path: Path) -> None:
    cohort, settings = make_cohort(tmp_path / "c", total=320), tiny_config().model_dump(mode="json")
    settings["denoiser_fit"]["steps"] = 3
    tries = {"generator.denoiser_fit.steps": [1, 2], "sampler.steps": [2, 5]}
    shared = {"steps": 9, "guidance": 1.0}
    result = medphantom.search(
        cohort, tries, tmp_path / "found", images=40, size=SIDE, generator=settings, sampler=shared
    )
    assert len({trial["distance"] for trial in result["trials"]}) == 4  # what is tried wins over what all share
    assert result["best"]["steps"] in {2, 5}
    steps = GeneratorBundle.load(tmp_path / "found" / "bundle").training["recipe"]["denoiser_fit"]["steps"]
    assert f"generator.denoiser_fit.steps={steps}" in result["best"]["settings"]
