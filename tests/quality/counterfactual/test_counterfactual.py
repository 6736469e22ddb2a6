"""Scores of counterfactuals: the truth reaches its floors, and known faults are seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.store import Cohort
from medphantom.core.errors import CohortError, InputError, UnsupportedClaim
from medphantom.phantoms.factors import with_factor
from medphantom.quality.config import AssessConfig, ClassifierConfig, UtilityConfig
from medphantom.quality.counterfactual.readings import operating_point
from medphantom.quality.counterfactual.scores import assess_counterfactuals, change_share, own_is_nearest
from medphantom.quality.networks.regressor import fit_regressor, r_squared
from medphantom.quality.results.counterfactual_report import CounterfactualReport
from tests.quality.edits import Edit, Patients, drawn, without, write_pairs, write_patients

CONFIG = AssessConfig.quick(
    classifier=ClassifierConfig(steps=150, device="cpu"), utility=UtilityConfig(enabled=False, bootstrap=150)
)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Patients:
    return write_patients(tmp_path_factory.mktemp("edited") / "cohort")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that every reader is fitted once."""
    return tmp_path_factory.mktemp("readers")


def scored(patients: Patients, edits: list[Edit], path: Path, work: Path) -> CounterfactualReport:
    return assess_counterfactuals(patients.cohort, write_pairs(path, patients, edits), CONFIG, work)


def value(report: CounterfactualReport, name: str, label: str | None = None) -> float:
    found = report.estimate(name, label).value
    assert found is not None, report.estimate(name, label).refused
    return found


def test_the_truth_reaches_its_floors(patients: Patients, tmp_path: Path, work: Path) -> None:
    rows = patients.rows_with("pneumothorax")
    report = scored(patients, without(patients, "pneumothorax", rows), tmp_path / "pairs", work)
    found = report.estimate("effectiveness", "pneumothorax, absent")
    assert found.floor is not None
    assert found.floor > 0.85
    assert value(report, "effectiveness", "pneumothorax, absent") > found.floor - 0.1
    assert value(report, "effectiveness_before", "pneumothorax, absent") > 0.85
    assert found.n_synthetic == len(rows)
    assert found.interval is not None
    assert found.interval[0] <= value(report, "effectiveness", "pneumothorax, absent") <= found.interval[1]
    assert value(report, "composition") == 0  # the factual images are the sources
    assert value(report, "identity_kept") > 0.9
    assert report.estimate("identity_kept").method.endswith(f"chance: 1 of {len(rows)}, {1 / len(rows):.3g}")
    assert value(report, "unrelated_kept", "effusion") > 0.8
    assert value(report, "region_of_change") > 0.3  # three times as much as an even change
    assert 0 < value(report, "minimality") < 0.3
    assert {reading.name for reading in report.readers} == {"effusion", "pneumothorax", "sex = F", "sex = M"}
    assert CounterfactualReport.model_validate_json(report.model_dump_json()) == report


def test_a_method_that_returns_its_input_changes_nothing_and_is_seen_to(
    patients: Patients, tmp_path: Path, work: Path
) -> None:
    rows = patients.rows_with("pneumothorax")
    edits = [Edit(row, drawn(patients.factors[row]), {"pneumothorax": False}) for row in rows]
    report = scored(patients, edits, tmp_path / "pairs", work)
    assert value(report, "minimality") == 0
    assert value(report, "reversibility") == 0
    assert value(report, "identity_kept") == 1
    assert value(report, "unrelated_kept") == 1
    label = "pneumothorax, absent"
    assert value(report, "effectiveness", label) == pytest.approx(1 - value(report, "effectiveness_before", label))
    assert value(report, "effectiveness", label) < 0.2
    assert report.estimate("region_of_change").refused == "nothing changed in any image"


def test_pairs_of_other_patients_lose_the_identity(patients: Patients, tmp_path: Path, work: Path) -> None:
    rows = patients.rows_with("effusion")
    edits = without(patients, "effusion", rows)
    shuffled = [replace(edit, pixels=edits[place - 1].pixels) for place, edit in enumerate(edits)]
    honest = scored(patients, edits, tmp_path / "honest", work)
    report = scored(patients, shuffled, tmp_path / "shuffled", work)
    assert value(honest, "identity_kept") > 0.9
    assert value(report, "identity_kept") < 0.1
    assert value(report, "minimality") > 2 * value(honest, "minimality")
    assert value(report, "minimality_features") == pytest.approx(1, abs=0.2)  # as far apart as real patients are
    assert value(honest, "minimality_features") < 0.8
    assert value(report, "unrelated_kept", "pneumothorax") < value(honest, "unrelated_kept", "pneumothorax") - 0.2


def test_a_range_gives_r_squared_and_one_value_does_not(patients: Patients, tmp_path: Path, work: Path) -> None:
    rows, rng = patients.cohort.rows("test"), np.random.default_rng(0)
    requested = rng.uniform(0.1, 0.8, len(rows)).tolist()

    def edits(values: list[float], *, done: bool = True) -> list[Edit]:
        return [
            Edit(
                row,
                drawn(with_factor(patients.factors[row], "anatomy.adiposity", a) if done else patients.factors[row]),
                attributes={"adiposity": a},
            )
            for row, a in zip(rows, values, strict=True)
        ]

    true = scored(patients, edits(requested), tmp_path / "true", work)
    r2 = true.estimate("effectiveness_r2", "adiposity")
    assert r2.floor is not None
    assert value(true, "effectiveness_r2", "adiposity") > 0.5
    assert r2.interval is not None
    assert (
        value(true, "effectiveness_error", "adiposity") < value(true, "effectiveness_error_before", "adiposity") / 1.5
    )
    none = scored(patients, edits(requested, done=False), tmp_path / "none", work)
    assert value(none, "effectiveness_r2", "adiposity") < 0
    one = scored(patients, edits([0.5] * len(rows)), tmp_path / "one", work)
    assert "request a range, as in --set adiposity=LOW:HIGH" in str(
        one.estimate("effectiveness_r2", "adiposity").refused
    )
    assert value(one, "effectiveness_error", "adiposity") < 0.2
    assert value(one, "unrelated_kept") > 0.8


def test_few_pairs_support_nothing(patients: Patients, tmp_path: Path, work: Path) -> None:
    rows = patients.rows_with("effusion")
    for total, name in ((4, "composition"), (9, "identity_kept")):
        report = scored(patients, without(patients, "effusion", rows[:total]), tmp_path / str(total), work)
        assert report.estimate(name).value is None
        assert f"{total} images" in str(report.estimate(name).refused)
        assert report.estimate("effectiveness", "effusion, absent").value is None


def test_readers_score_no_patients_of_their_training(patients: Patients, tmp_path: Path, work: Path) -> None:
    rows = patients.rows_with("effusion", split="train")[:12]
    report = scored(patients, without(patients, "effusion", rows), tmp_path / "pairs", work)
    assert "--split test" in str(report.estimate("effectiveness", "effusion, absent").refused)
    assert report.estimate("unrelated_kept").value is None
    assert report.estimate("composition").value is not None
    assert any("12 of 12 pairs are of patients in train or val" in warning for warning in report.warnings)


def test_pairs_without_the_way_back_have_no_reversibility(patients: Patients, tmp_path: Path, work: Path) -> None:
    edits = without(patients, "effusion", patients.rows_with("effusion")[:12])
    pairs = write_pairs(tmp_path / "pairs", patients, edits, roles=("factual", "counterfactual"))
    report = assess_counterfactuals(patients.cohort, pairs, CONFIG, work)
    assert "no reversed images" in str(report.estimate("reversibility").refused)
    assert report.estimate("composition").floor is None
    assert report.estimate("identity_kept").value is not None


def test_what_is_no_pair_is_refused(patients: Patients, tmp_path: Path, work: Path) -> None:
    edits = without(patients, "effusion", patients.rows_with("effusion")[:3])
    real = patients.cohort

    def refused(error: type[Exception], match: str, first: Cohort, second: Cohort) -> None:
        with pytest.raises(error, match=match):
            assess_counterfactuals(first, second, CONFIG, work)

    pairs = write_pairs(tmp_path / "pairs", patients, edits)
    refused(InputError, "no real cohort", pairs, pairs)
    refused(InputError, "contains no counterfactual pairs", real, real)
    refused(InputError, "was not made from", write_patients(tmp_path / "others", 12, 9).cohort, pairs)
    refused(InputError, "what its generator saw", real, write_pairs(tmp_path / "mute", patients, edits, preprocess=0))
    half = write_pairs(tmp_path / "half", patients, edits, roles=("factual",))
    refused(CohortError, "lacks one half", real, half)


def test_operating_points_balance_both_sides() -> None:
    states = np.array([0] * 90 + [1] * 10 + [-1])
    probabilities = np.concatenate([np.linspace(0, 0.2, 90), np.linspace(0.3, 0.4, 10), [0.25]])
    point = operating_point(states, probabilities)
    assert 0.2 < point < 0.3
    assert operating_point(np.array([0, 1]), np.array([0.5, 0.5])) <= 0.5


def test_where_change_lies_and_whose_image_it_is() -> None:
    before = np.zeros((2, 1, 10, 10), np.float32)
    after = before.copy()
    after[0, 0, 0] = 0.5  # one tenth of the pixels
    after[1] = 0.5
    assert change_share(before, after).tolist() == pytest.approx([1, 0.1])
    assert np.isnan(change_share(before, before)).all()
    source = np.random.default_rng(0).normal(size=(5, 1, 8, 8))
    assert own_is_nearest(source, 3 * source + 1).all()
    assert not own_is_nearest(source, np.roll(source, 1, axis=0)).any()


def test_a_regressor_needs_values_that_differ(tmp_path: Path) -> None:
    images = np.zeros((30, 1, 16, 16), np.float32)
    for values, match in ((np.ones((30, 1)), "differ"), (np.full((30, 1), np.nan), "≥ 20 images")):
        with pytest.raises(UnsupportedClaim, match=match):
            fit_regressor(images, values, num_features=8, config=CONFIG.classifier, seed=0, work=tmp_path)
    wanted = np.array([1.0, 2, 3, 4])
    assert r_squared(wanted, wanted) == 1
    assert r_squared(wanted, np.full(4, 2.5)) == 0
    assert r_squared(np.ones(4), wanted) is None
