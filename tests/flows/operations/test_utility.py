"""The utility study as a command: generators of several seeds on fractions of the patients, resumable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import medphantom as mp
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.thin import thin
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.flows.cli.main import main
from medphantom.quality.results.model_score import TrainingArm
from medphantom.quality.results.study_report import StudyReport
from tests.generators.tiny import SIDE, make_cohort, quick_generator


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("utility") / "cohort", total=320)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    classifier = {"steps": 10, "batch_size": 16, "learning_rate": 0.005, "device": "cpu"}
    study = {
        "arms": ["real", "synthetic", "real_and_synthetic"],
        "classifier": classifier,
        "classifier_seeds": 2,
        "ratios": [1.0],
        "bootstrap": 100,
        "least_train": 4,
        "least_test": 5,
    }
    tree = {
        "preprocess": {"size": [SIDE, SIDE]},
        "generator": quick_generator(),
        "sampler": {"steps": 2, "device": "cpu"},
        "study": study,
    }
    file.write_text(yaml.safe_dump(tree))
    return file


def test_a_thinned_cohort_has_fewer_training_patients_and_the_same_others(cohort: Cohort, tmp_path: Path) -> None:
    half = thin(cohort, tmp_path / "half", 0.5, 0)
    tenth = thin(cohort, tmp_path / "tenth", 0.1, 0)

    def owners(some: Cohort, split: str) -> set[str]:
        return set(some.patients(some.rows(split)))

    whole = owners(cohort, "train")
    assert len(owners(half, "train")) == round(0.5 * len(whole))
    assert owners(tenth, "train") < owners(half, "train") < whole
    for split in ("val", "holdout", "test"):
        digests = [some.manifest["digest"][some.rows(split)].to_list() for some in (cohort, half)]
        assert digests[0] == digests[1]
    with pytest.raises(InputError, match="leaves none"):
        thin(cohort, tmp_path / "none", 0.0, 0)


@pytest.mark.slow
def test_study_of_two_fractions_is_published_and_what_was_done_is_not_done_again(
    cohort: Cohort, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    command = ["utility", str(cohort.path), "--out", str(out), "--recipe", str(recipe)]
    command += ["--fraction", "0.3", "--fraction", "1"]
    import medphantom.flows.operations.utility as module

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_publish", stopped)
        assert main(command) == 130
    assert not out.exists()

    def again(*_: object, **__: object) -> None:
        raise AssertionError("what was trained before was trained again")

    with monkeypatch.context() as patch:
        for name in (
            "medphantom.generators.train.train_generator",
            "medphantom.generators.generate.generate",
            "medphantom.learning.fit._Run._one_step",
        ):
            patch.setattr(name, again)
        assert main(command) == 0
    assert not out.with_name("study.work").exists()
    output = capsys.readouterr().out
    assert "of the training patients" in output
    assert "study.md" in output
    reports = {share: StudyReport.load(out / f"fraction_{share}" / "study.json") for share in ("0.3", "1")}
    assert reports["0.3"].real_patients < reports["1"].real_patients
    assert reports["0.3"].test_images == reports["1"].test_images
    for report in reports.values():
        assert len(report.synthetic_images) == 2
        assert len(set(report.synthetic_digests)) == 2
        assert min(report.synthetic_images) >= report.real_images
        mixed = report.find(TrainingArm(kind="real_and_synthetic", ratio=1.0), None)
        assert len(mixed.by_seed) == 4
        assert mixed.difference is not None
    table = (out / "fraction_1" / "study.md").read_text()
    assert "## Advice" in table
    assert "| real + synthetic (1 x) |" in table
    facts = json.loads((out / "study_run.json").read_text())
    assert facts["fractions"] == [0.3, 1.0]
    assert facts["settings"]["study"]["classifier_seeds"] == 2
    assert str(tmp_path) not in (out / "study_run.json").read_text()
    assert main(command) == 2  # it exists


def test_a_study_that_no_count_supports_ends_before_anything_is_trained(
    cohort: Cohort, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    command = ["utility", str(cohort.path), "--out", str(out), "--recipe", str(recipe)]
    assert main([*command, "--set", "study.least_test=5000"]) == 2
    assert "no label has enough patients" in capsys.readouterr().err
    assert not out.with_name("study.work").exists()
    assert main([*command, "--fraction", "1", "--fraction", "1"]) == 2
    with pytest.raises(UnsupportedClaim, match="no label has enough patients"):
        mp.utility(cohort, out, size=SIDE, study={"least_test": 5000})


def test_two_external_cohorts_of_one_name_are_refused(
    cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["utility", str(cohort.path), "--out", str(tmp_path / "out")]
    assert main([*command, "--external", str(tmp_path / "a" / "cohort"), "--external", str(cohort.path)]) == 2
    assert "have the same name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_segmenters_learn_from_images_that_were_drawn_for_masks(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, out = make_cohort(tmp_path / "cohort", total=160), tmp_path / "study"
    settings = [
        "generator.conditioning.mask={}",
        "study.task=segmentation",
        "study.segmenter={steps: 4, batch_size: 4, device: cpu}",
        "study.arms=[real, real_and_synthetic]",
        "study.ratios=[0.5]",
    ]
    command = ["utility", str(cohort.path), "--out", str(out), "--recipe", str(recipe), "--generators", "1"]
    assert main([*command, *(word for setting in settings for word in ("--set", setting))]) == 0
    assert "Dice" in capsys.readouterr().out
    report = StudyReport.load(out / "fraction_1" / "study.json")
    assert {score.measure for score in report.scores} == {"Dice"}
    assert (
        report.find(TrainingArm(kind="real_and_synthetic", ratio=0.5), "disc", measure="Dice").estimate.value
        is not None
    )
    page = (out / "study.html").read_text()
    assert "Dice on real test patients" in page
    assert "A segmenter (U-Net, 4 optimiser steps in every arm)" in page
