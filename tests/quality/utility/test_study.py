from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medphantom.cohorts.identity import SplitFractions
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import ArtifactError, InputError, UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.config import ClassicalAugmentation, ClassifierConfig, StudyConfig
from medphantom.quality.results.model_score import TrainingArm
from medphantom.quality.results.study_report import StudyReport
from medphantom.quality.utility.downstream import _ClassicalLearner, new_downstream_model
from medphantom.quality.utility.study import run_study
from tests.quality.scenes import KINDS, images, write_real, write_synthetic

PREPROCESS = Preprocess(size=(32, 32))
CONFIG = StudyConfig(
    arms=("real", "synthetic", "real_and_synthetic", "pretrained", "classical", "oversampled"),
    classifier=ClassifierConfig(steps=30, batch_size=16, learning_rate=5e-3, device="cpu"),
    classifier_seeds=2,
    ratios=(1.0, 8.0, 50.0),
    bootstrap=100,
    least_train=2,
    least_test=20,
)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    scarce = SplitFractions(train=0.08, val=0.06, holdout=0.06, test=0.8)
    return write_real(tmp_path_factory.mktemp("real") / "cohort", 160, 3, fractions=scarce)


def drawn(path: Path, total: int, seed: int, *, wrong: bool = False) -> Cohort:
    some, kinds = images(total, np.random.default_rng(seed))
    return write_synthetic(path, some, (kinds + 1) % 3 if wrong else kinds)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def report(real: Cohort, tmp_path_factory: pytest.TempPathFactory, work: Path) -> StudyReport:
    folder = tmp_path_factory.mktemp("synthetic")
    sets = [drawn(folder / str(seed), 420, seed) for seed in (11, 12)]
    outside = write_real(folder / "outside", 60, 9)
    return run_study(real, sets, PREPROCESS, CONFIG, work=work, external={"elsewhere": outside})


def test_every_arm_is_trained_and_compared_on_the_same_patients(report: StudyReport) -> None:
    assert {name: one.rule for name, one in report.readings.items()} == {
        "real": "window", "synthetic 1": "stored", "synthetic 2": "stored", "elsewhere": "window",
    }  # fmt: skip
    arm = list(dict.fromkeys(score.arm for score in report.scores))
    words = [one.words for one in arm]
    assert words == [
        "real", "synthetic alone", "real + synthetic (1 x)", "real + synthetic (8 x)", "synthetic, then real (1 x)",
        "synthetic, then real (8 x)", "real + classical augmentation", "real, rare labels oversampled",
        "age, sex and other attributes alone",
    ]  # fmt: skip
    assert any("mixing ratio 50" in warning for warning in report.warnings)
    for one in arm:
        for label in (None, *KINDS):
            score = report.find(one, label)
            found = score.estimate
            assert found.value is not None, found.refused
            assert found.interval is None or found.interval[0] <= found.value <= found.interval[1]
            trainings = (
                1
                if one.kind == "metadata"
                else 4
                if one.kind in {"synthetic", "real_and_synthetic", "pretrained"}
                else 2
            )
            assert len(score.by_seed) == trainings
            assert found.value == pytest.approx(np.mean(score.by_seed))
            assert (score.difference is None) == (one.kind == "real")
    assert len({round(score.estimate.value or 0, 6) for score in report.scores}) > 30


def test_images_as_good_as_real_ones_help_a_scarce_set_and_more_help_more(report: StudyReport) -> None:
    real = report.find(TrainingArm(kind="real"), None).estimate
    mixed = report.find(TrainingArm(kind="real_and_synthetic", ratio=8.0), None)
    assert real.value is not None
    assert mixed.difference is not None
    assert mixed.difference.value is not None
    assert mixed.difference.value > 0
    metadata = report.find(TrainingArm(kind="metadata"), None).estimate
    assert metadata.value is not None
    assert metadata.value < real.value
    advice = report.advice[0]
    assert advice.label is None
    assert advice.recommendation in {"add", "no gain"}
    assert "AUROC" in advice.sentence
    assert {one.label for one in report.advice} == {None, *KINDS}


def test_trained_on_real_tested_on_synthetic_and_elsewhere(report: StudyReport) -> None:
    for label in KINDS:
        assert (report.find(TrainingArm(kind="real"), label, test="synthetic").estimate.value or 0) > 0.7
        elsewhere = report.find(TrainingArm(kind="synthetic"), label, test="elsewhere").estimate
        assert (elsewhere.value or 0) > 0.7
        for measure in ("average precision", "balanced accuracy", "calibration error"):
            found = report.find(TrainingArm(kind="real"), label, measure=measure).estimate
            assert found.value is not None
            assert 0 <= found.value <= 1


def test_p_values_are_one_family_over_labels_arms_and_ratios(report: StudyReport) -> None:
    cells = [s for s in report.scores if s.p is not None and s.test == "test"]
    assert len({s.arm.kind for s in cells}) > 1
    assert None in {s.estimate.label for s in cells}  # the first line is corrected too
    smallest = min(cells, key=lambda score: score.p or 0)
    assert smallest.p_holm == pytest.approx(min(1, len(cells) * (smallest.p or 0)))
    assert all((s.p_holm or 0) >= (s.p or 0) for s in cells)


def test_groups_stand_beside_each_other(report: StudyReport) -> None:
    attributes = {gap.attribute for gap in report.gaps}
    assert "view" in attributes
    for gap in report.gaps:
        assert (gap.change is None) == (gap.arm.kind == "real")
        assert gap.gap.value is not None
        if gap.arm.kind == "real":
            assert gap.gap.value >= 0


def test_mislabelled_images_harm_and_the_answer_is_no(real: Cohort, tmp_path: Path, work: Path) -> None:
    wrong = drawn(tmp_path / "wrong", 300, 13, wrong=True)
    config = CONFIG.model_copy(update={"arms": ("real", "real_and_synthetic"), "ratios": (8.0,)})
    found = run_study(real, [wrong], PREPROCESS, config, work=work)
    assert found.advice[0].recommendation in {"harm", "no gain"}
    assert (found.find(TrainingArm(kind="real_and_synthetic", ratio=8.0), None).difference.value or 0) < -0.1
    assert any("one generator seed" in warning for warning in found.warnings)
    assert (found.find(TrainingArm(kind="real"), "rings", test="synthetic").estimate.value or 1) < 0.5


def test_an_interrupted_study_goes_on_where_it_was_and_says_the_same(
    real: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = drawn(tmp_path / "some", 120, 14)
    config = CONFIG.model_copy(update={"arms": ("real", "synthetic"), "classifier_seeds": 2})
    seen: list[str] = []

    def stop(done: int, total: int, what: str) -> None:
        seen.append(what)
        if done > 0.6 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(real, [cohort], PREPROCESS, config, work=tmp_path / "work", progress=stop)
    done = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert len(done) >= 2
    again = run_study(real, [cohort], PREPROCESS, config, work=tmp_path / "work")
    assert set(done) <= {path.name for path in (tmp_path / "work").iterdir()}
    fresh = run_study(real, [cohort], PREPROCESS, config, work=tmp_path / "fresh")
    assert again == fresh
    again.save(tmp_path / "study.json")
    assert StudyReport.load(tmp_path / "study.json") == again
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ArtifactError, match="study again"):
        StudyReport.load(tmp_path / "study.json")


@pytest.mark.parametrize("network", ["resnet18", "densenet121"])
def test_standard_networks_read_images_of_one_channel(network: Any) -> None:
    some = images(2, np.random.default_rng(0))[0]
    model = new_downstream_model(network, some, len(KINDS), 0)
    assert model(torch.from_numpy(some)).shape == (2, len(KINDS))
    again = new_downstream_model(network, some, len(KINDS), 0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet18", "densenet121"])
def test_standard_networks_learn_too(real: Cohort, tmp_path: Path, network: str) -> None:
    cohort = drawn(tmp_path / "some", 60, 15)
    fit = ClassifierConfig(steps=12, batch_size=16, learning_rate=3e-3, device="cpu", ema_decay=None)
    changes = {"arms": ("real", "synthetic"), "network": network, "classifier": fit, "classifier_seeds": 1}
    config = CONFIG.model_copy(update=changes)
    found = run_study(real, [cohort], PREPROCESS, config, work=tmp_path / "work")
    assert (found.find(TrainingArm(kind="real"), None).estimate.value or 0) > 0.55


def test_what_no_count_supports_is_refused(real: Cohort, tmp_path: Path) -> None:
    cohort = drawn(tmp_path / "some", 60, 16)
    with pytest.raises(InputError, match="needs synthetic images"):
        run_study(real, [], PREPROCESS, CONFIG, work=tmp_path)
    many = CONFIG.model_copy(update={"least_test": 3000})
    with pytest.raises(UnsupportedClaim, match=r"no label has enough patients .* test patients have it \(≥ 3000\)"):
        run_study(real, [cohort], PREPROCESS, many, work=tmp_path)
    with pytest.raises(ValueError, match="include 'real'"):
        StudyConfig(arms=("synthetic", "classical"))


def test_classical_augmentation_moves_images_and_keeps_what_they_show() -> None:
    some = torch.from_numpy(images(8, np.random.default_rng(0))[0])
    still = ClassicalAugmentation(turn_degrees=0, scale=0, shift=0, gamma=0, noise=0)
    plain = ClassifierConfig(shift_fraction=0, intensity=0)

    def varied(how: ClassicalAugmentation, seed: int = 0) -> Array:
        learner = _ClassicalLearner(new_downstream_model("small", some.numpy(), 3, 0), True, plain, how)
        return learner._augmented(some, torch.Generator().manual_seed(seed)).numpy()

    assert np.abs(varied(still) - some.numpy()).max() < 2e-3
    turned = varied(still.model_copy(update={"turn_degrees": 180.0}))
    assert np.abs(turned - some.numpy()).mean() > 0.1
    mirrored = varied(still.model_copy(update={"mirror": True}))
    flipped = [np.abs(mirrored[i] - some.numpy()[i, :, :, ::-1]).max() < 2e-3 for i in range(8)]
    same = [np.abs(mirrored[i] - some.numpy()[i]).max() < 2e-3 for i in range(8)]
    assert all(a or b for a, b in zip(flipped, same, strict=True))
    assert 0 < sum(flipped) < 8
    volume = torch.zeros((2, 1, 12, 12, 12))
    learner = _ClassicalLearner(
        new_downstream_model("small", volume.numpy(), 3, 0), True, plain, ClassicalAugmentation()
    )
    assert learner._augmented(volume, torch.Generator().manual_seed(0)).shape == volume.shape


def test_a_cohort_on_another_scale_is_no_test_of_a_classifier(real: Cohort, tmp_path: Path) -> None:
    outside = write_real(tmp_path / "outside", 30, 9)
    with CohortWriter(tmp_path / "hu", outside.schema) as writer:
        for record in outside.records():
            writer.add(dataclasses.replace(record, pixels=record.pixels.astype(np.int16) * 8 - 1000))
    other, made = Cohort.open(tmp_path / "hu"), drawn(tmp_path / "made", 30, 1)
    reason = (
        r"images of elsewhere hold values of about .* \(int16\), and the real ones are read from 0…255; ingest both"
    )
    with pytest.raises(InputError, match=reason):
        run_study(real, [made], PREPROCESS, CONFIG, work=tmp_path / "work", external={"elsewhere": other})
    with pytest.raises(InputError, match="the synthetic images hold values of about"):
        run_study(real, [other], PREPROCESS, CONFIG, work=tmp_path / "work")
