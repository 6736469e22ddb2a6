"""medphantom augment: a plan, images, the gate before the study, and an answer that may be no."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import medphantom as mp
from medphantom.cohorts.store import Cohort
from medphantom.flows.cli.main import main
from medphantom.flows.operations.augment import ANSWER_FILE, ARMS, BUNDLE_FOLDER, IMAGES_FOLDER, propose
from medphantom.generators.bundle import GeneratorBundle
from medphantom.quality.config import ClassifierConfig, StudyConfig
from medphantom.quality.report.write import PublishedReport
from medphantom.quality.results.augment_report import AugmentPlan, AugmentReport
from medphantom.quality.results.model_score import TrainingArm
from medphantom.quality.results.study_report import StudyReport
from tests.generators.tiny import SIDE, make_cohort, quick_generator

QUICK_STUDY = {
    "classifier": {"steps": 20, "batch_size": 16, "learning_rate": 0.005, "device": "cpu"},
    "classifier_seeds": 2,
    "bootstrap": 100,
    "least_train": 5,
    "least_test": 5,
}
QUICK_SCORES = {
    "networks": ["filters"],
    "draws": 5,
    "membership": {"enabled": False},
    "classifier": {"steps": 10},
    "copies": {"kinds": ["as it is"], "core": ["as it is"], "controls": 60, "repeats": 20, "significance": 0.001},
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("augment") / "cohort", total=480)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    tree = {
        "preprocess": {"size": [SIDE, SIDE]},
        "generator": quick_generator(),
        "sampler": {"steps": 2, "device": "cpu"},
        "assess": QUICK_SCORES,
        "study": QUICK_STUDY,
    }
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture(scope="module")
def answered(cohort: Cohort, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "bright"
    command = ["augment", str(cohort.path), "--label", "bright", "--to", "200", "--out", str(out)]
    assert main([*command, "--recipe", str(recipe), "--share", "1", "--share", "0.5"]) == 0
    return out


def test_the_plan_says_how_many_are_missing_and_what_it_takes(cohort: Cohort) -> None:
    study = StudyConfig(classifier=ClassifierConfig(steps=20), classifier_seeds=3)
    plan = propose(cohort, "bright", 200, study, shares=(1.0, 0.25), generators=2)
    shown = [row for row in cohort.rows("train") if cohort.labels([row])[0, 0] == 1]
    assert plan.images == len(shown)
    assert plan.planned == 200 - len(shown)
    assert plan.patients == len(shown)
    assert plan.shares == (0.25, 1.0)
    assert [round(ratio * plan.training_images, 9) for ratio in plan.ratios] == [plan.planned / 4, plan.planned]
    assert plan.classifiers == 3 * (3 + 2 * 2 * 2)  # real, oversampled, classical; two mixing arms, shares, generators
    assert str(plan.planned) in plan.lines()[0]


def test_the_answer_comes_with_images_report_table_and_generator(answered: Path, cohort: Cohort) -> None:
    found = AugmentReport.load(answered / ANSWER_FILE)
    images = Cohort.open(answered / IMAGES_FOLDER)
    assert len(images) == found.plan.planned
    assert set(images.labels()[:, 0].tolist()) == {1}
    assert found.synthetic_digest == images.digest
    assert found.real_digest == cohort.digest
    assert (answered / BUNDLE_FOLDER / "bundle.json").is_file()
    assert not answered.with_name("bright.work").exists()
    study = StudyReport.load(answered / "study.json")
    assert tuple(dict.fromkeys(score.arm.kind for score in study.scores if score.arm.kind != "metadata")) == ARMS
    assert study.config.primary == ("bright",)
    assert [advice.label for advice in study.advice] == [None, "bright"]
    assert found.decision in {"use", "use inside", "instead", "no", "harm"}
    assert study.advice[1].sentence in found.sentence
    for share in found.plan.ratios:
        score = study.find(TrainingArm(kind="real_and_synthetic", ratio=share), "bright")
        assert {one.arm.kind for one in score.beside} == {"classical", "oversampled"}
        for one in score.beside:
            other = study.find(one.arm, "bright").estimate.value
            assert score.estimate.value is not None
            assert other is not None
            assert one.difference.value == pytest.approx(score.estimate.value - other)


def test_both_editions_say_the_answer_and_name_no_place(answered: Path, tmp_path: Path) -> None:
    found = AugmentReport.load(answered / ANSWER_FILE)
    for name in ("report.html", "report.public.html"):
        page = (answered / name).read_text()
        assert found.headline in page
        assert "real + classical augmentation" in page
        assert "Difference to arms without a generator" in page
    public = (answered / "report.public.html").read_text() + (answered / "report.json").read_text()
    assert str(answered.parent) not in public
    published = PublishedReport.load(answered / "report.json")
    assert published.use is not None
    assert published.use.answer == found
    digests = {
        "ingest": found.real_digest,
        "train": GeneratorBundle.load(answered / BUNDLE_FOLDER).digest,
        "generate": found.synthetic_digest,
    }
    assert published.facts.digests == digests
    assert published.quality.utility == ()  # the study says it


@pytest.mark.slow
def test_given_generators_are_used_and_another_cohort_s_is_warned_of(
    answered: Path, cohort: Cohort, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(answered / BUNDLE_FOLDER)
    out = tmp_path / "again"
    command = ["--label", "dark", "--to", "200", "--out", str(out), "--recipe", str(recipe), "--bundle", bundle]
    assert main(["augment", str(cohort.path), *command, "--share", "1", "--set", "study.classifier.steps=4"]) == 0
    output = capsys.readouterr()
    assert "did not learn from exactly these" not in output.err + output.out
    assert not (out / BUNDLE_FOLDER).exists()
    assert AugmentReport.load(out / ANSWER_FILE).plan.generators == 1
    other = make_cohort(tmp_path / "other", total=480, seed=5)
    settings = {"assess": QUICK_SCORES, "study": QUICK_STUDY, "sampler": {"steps": 2, "device": "cpu"}}
    with mp.watching():
        found = mp.augment(other, "dark", 200, tmp_path / "3", bundles=[bundle], shares=[1.0], **settings)
    output = capsys.readouterr()
    assert "did not learn from exactly these" in output.err + output.out
    assert found == AugmentReport.load(tmp_path / "3" / ANSWER_FILE)
    quality = PublishedReport.load(tmp_path / "3" / "report.json").quality
    assert quality.verdict in {"inconclusive", "fail"}
    assert "the generator did not learn from these training images" in quality.verdict_reasons[-1]


def test_images_that_may_repeat_patients_are_not_handed_over_and_nothing_is_trained_on_them(
    answered: Path, cohort: Cohort, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that hands out its training images, in place of one that draws."""
    import medphantom.flows.operations.augment as module
    from tests.generators.tiny import copied

    monkeypatch.setattr(
        module, "drawn_by", lambda maker, *_, **__: copied(cohort, tmp_path / "copies", "bright", maker.digest)
    )
    out = tmp_path / "unsafe"
    command = ["--label", "bright", "--to", "200", "--out", str(out), "--recipe", str(recipe)]
    assert main(["augment", str(cohort.path), *command, "--bundle", str(answered / BUNDLE_FOLDER)]) == 0
    found = AugmentReport.load(out / ANSWER_FILE)
    assert found.decision == "unsafe"
    assert not found.study
    assert not (out / IMAGES_FOLDER).exists()
    assert not (out / "study.json").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        (["--label", "green"], "has no label 'green'; it has bright, dark"),
        (["--to", "10"], "show 'bright' already"),
        (["--share", "2"], "make no study"),
        (["--set", "study.least_test=500"], "the effect of synthetic images on 'bright' cannot be measured"),
        (["--bundle", "nowhere"], "nowhere"),
        (["--bundle", "b", "--size", "32"], "are mutually exclusive"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_work(
    cohort: Cohort, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[list[str], str]
) -> None:
    change, output = wrong
    out = tmp_path / "out"
    command = ["augment", str(cohort.path), "--label", "bright", "--to", "200", "--out", str(out)]
    assert main([*command, "--recipe", str(recipe), *change]) == 2
    assert output in capsys.readouterr().err
    assert not out.exists()
    assert not out.with_name("out.work").exists()


def test_plan_only_stops_there_and_refuses_what_would_be_refused(
    cohort: Cohort, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["augment", str(cohort.path), "--label", "bright", "--to", "200", "--out", str(out), "--plan-only"]
    assert main([*command, "--set", "study.least_test=500"]) == 2
    assert "the effect of synthetic images on 'bright' cannot be measured" in capsys.readouterr().err
    assert main([*command, "--recipe", str(recipe)]) == 0
    assert "synthetic images increase this to 200" in capsys.readouterr().out
    assert not out.with_name("out.work").exists()
    assert isinstance(propose(cohort, "bright", 200, StudyConfig()), AugmentPlan)
