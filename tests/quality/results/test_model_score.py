"""Scores of downstream models in the files that store them: of the utility check, and of a study."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from medphantom.quality.results.model_score import CheckedScore, Difference, ModelScore, TrainingArm
from medphantom.quality.stats.estimate import Estimate

REAL, MIXED = TrainingArm(kind="real"), TrainingArm(kind="real_and_synthetic", ratio=0.5)
OVERSAMPLED = TrainingArm(kind="oversampled")
EDEMA = Estimate(name="utility", estimand="AUROC", value=0.7, interval=(0.6, 0.8), n_real=40, label="edema")
GAIN = Estimate(name="utility_difference", estimand="AUROC less AUROC", value=0.02, interval=(0.01, 0.03))
checked = TypeAdapter(CheckedScore)


def of_check(kind: Any = "real", estimate: Estimate = EDEMA, **changes: Any) -> ModelScore:
    usual = {"arm": TrainingArm(kind=kind), "test": "test", "measure": "AUROC", "estimate": estimate}
    return ModelScore.model_validate({**usual, **changes})


def test_the_utility_check_stores_its_arm_and_the_estimate() -> None:
    stored = checked.dump_python(of_check(), mode="json")
    assert stored == {"trained_on": "real", "estimate": EDEMA.model_dump(mode="json")}
    assert checked.validate_python(stored) == of_check()
    accuracy = of_check(estimate=EDEMA.model_copy(update={"label": None}), measure="accuracy")
    assert checked.validate_python(checked.dump_python(accuracy, mode="json")) == accuracy
    assert checked.validate_json(checked.dump_json(accuracy)) == accuracy


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "oversampled"},
        {"arm": TrainingArm(kind="real", ratio=1.0)},
        {"test": "elsewhere"},
        {"group": "sex = F"},
        {"measure": "accuracy"},
        {"difference": GAIN, "p": 0.01},
        {"by_seed": (0.7,)},
    ],
)
def test_the_utility_check_has_no_score_of_which_it_would_store_a_part(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="has one of its arms and all test patients, and no difference"):
        checked.validate_python(of_check(**changes))


@pytest.mark.parametrize("stored", [{"trained_on": "real"}, {"trained_on": "real", "estimate": EDEMA, "more": 1}])
def test_other_fields_of_the_utility_check_are_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="has trained_on and estimate"):
        checked.validate_python(stored)


def test_a_study_stores_every_difference_of_a_score() -> None:
    alone = ModelScore(arm=MIXED, test="test", measure="AUROC", estimate=EDEMA, by_seed=(0.6, 0.8))
    free = (Difference(arm=OVERSAMPLED, difference=GAIN, p=0.3),)
    found = alone.against(Difference(arm=REAL, difference=GAIN, p=0.01), free)
    gain = GAIN.model_dump(mode="json")
    assert found.model_dump(mode="json") == {
        "arm": {"kind": "real_and_synthetic", "ratio": 0.5},
        "test": "test",
        "measure": "AUROC",
        "group": None,
        "estimate": EDEMA.model_dump(mode="json"),
        "by_seed": [0.6, 0.8],
        "difference": gain,
        "p": 0.01,
        "p_holm": None,
        "beside": [{"arm": {"kind": "oversampled", "ratio": None}, "difference": gain, "p": 0.3}],
    }
    assert ModelScore.model_validate(found.model_dump(mode="json")) == found
