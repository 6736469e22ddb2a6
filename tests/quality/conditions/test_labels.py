from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medphantom.core.records import Array
from medphantom.quality.conditions.agreement import agreement
from medphantom.quality.config import UtilityConfig
from medphantom.quality.data.targets import LabelPredictions, held_out_score, positives, targets_of
from medphantom.quality.stats.intervals import proportion_interval
from medphantom.quality.utility.check import Arm, Counts, score_arm
from medphantom.quality.utility.metadata import metadata_predictions, metadata_table
from tests.quality.scenes import write_real

LABELS = ("a", "b", "c")
CONFIG = UtilityConfig(bootstrap=100)


def one_hot(classes: Array) -> Array:
    return np.eye(3, dtype=np.int8)[classes]


def own(total: int) -> Array:
    return np.arange(total).astype(str)


def test_exclusive_agreement_is_a_count_with_wilsons_interval_and_a_confusion_table() -> None:
    requested = np.repeat([0, 1, 2], [10, 20, 30])
    seen = requested.copy()
    seen[[0, 1, 10]] = [1, 2, 0]
    real = LabelPredictions(one_hot(np.array([0, 1, 2, 2])), one_hot(np.array([0, 1, 2, 1])).astype(float), own(4))
    found = agreement(
        LABELS,
        exclusive=True,
        requested=LabelPredictions(one_hot(requested), one_hot(seen).astype(float), own(60)),
        real=real,
    )
    overall = found.per_label[0]
    assert overall.value == 57 / 60
    assert overall.interval == pytest.approx(proportion_interval(57, 60))
    assert overall.floor == 3 / 4
    assert [e.value for e in found.per_label[1:]] == [8 / 10, 19 / 20, 1]
    assert found.confusion == ((8, 1, 1), (1, 19, 0), (0, 0, 30))


def test_multilabel_agreement_compares_prompts_with_what_is_seen_and_leaves_unlabelled_prompts_out() -> None:
    rng = np.random.default_rng(0)
    requested = rng.integers(0, 2, (200, 3)).astype(np.int8)
    seen = np.clip(0.5 + 0.4 * (requested - 0.5) + rng.normal(0, 0.2, requested.shape), 0, 1)
    requested[:150, 1] = -1
    requested[:, 2] = 1  # never prompted as absent
    seen[:, 1][:150] = rng.random(150)  # must not matter
    real = LabelPredictions(rng.integers(0, 2, (80, 3)), rng.random((80, 3)), own(80))
    found = agreement(
        LABELS, exclusive=False, requested=LabelPredictions(requested, seen, own(200)), real=real
    ).per_label
    assert found[1].value == pytest.approx(0.92, abs=0.05)
    assert found[1].interval is not None
    assert found[1].interval[0] < found[1].value < found[1].interval[1]
    assert found[1].floor == pytest.approx(0.5, abs=0.15)
    assert (found[2].n_synthetic, found[2].value is not None) == (50, True)
    assert found[3].value is None
    assert "and 0 without it" in str(found[3].refused)
    assert found[0].value == pytest.approx((found[1].value + found[2].value) / 2)


def test_rare_labels_are_refused_by_patients_not_images() -> None:
    values = np.zeros((300, 2), dtype=np.int8)
    values[:100, 0], values[:100, 1] = 1, 1
    patients = np.concatenate([np.arange(100), np.arange(100, 300)]).astype(str)
    few = np.concatenate([np.arange(100) % 5, np.arange(100, 300)]).astype(str)
    assert positives(values, patients).tolist() == [100, 100]
    assert positives(values, few).tolist() == [5, 5]
    predictions = values + np.random.default_rng(0).normal(0, 0.5, values.shape)
    counts = Counts(train=np.array([100, 19]), test=positives(values, patients), unit="patients")
    scores = score_arm(
        Arm("synthetic", 200, LabelPredictions(values, predictions, patients)), ("often", "rare"), counts,
        exclusive=False, config=CONFIG, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert scores[0].estimate.value == pytest.approx(0.92, abs=0.05)
    assert scores[1].estimate.value is None
    assert "19 training patients have it (≥ 20)" in str(scores[1].estimate.refused)
    nothing = score_arm(
        Arm("synthetic", 0, None), ("often", "rare"), counts, exclusive=True, config=CONFIG,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert [score.estimate.value for score in nothing] == [None, None, None]


def test_metadata_that_tell_a_label_are_found_out_and_others_are_not(tmp_path: Path) -> None:
    cohort = write_real(tmp_path / "real", 150, 0, exclusive=False)  # age was drawn from "bright", "rings" from nothing
    rows = {"train": cohort.rows("train"), "test": cohort.rows("test")}
    targets = targets_of(cohort, rows)
    tables = {split: metadata_table(cohort, numbers) for split, numbers in rows.items()}
    assert tables["train"].shape[1] == 4  # age, age missing, AP, PA
    predictions = metadata_predictions(tables["train"], targets.values["train"], tables["test"], exclusive=False)
    assert predictions is not None
    predicted = LabelPredictions(targets.values["test"], predictions, own(len(predictions)))
    assert predicted.observed(0).auroc()[0] == pytest.approx(1, abs=0.01)
    assert predicted.observed(1).auroc()[0] == pytest.approx(0.5, abs=0.2)
    assert (
        metadata_predictions(np.zeros((3, 0)), targets.values["train"][:3], np.zeros((2, 0)), exclusive=False) is None
    )


def test_exclusive_metadata_predict_the_class() -> None:
    classes = np.arange(90) % 3
    predictions = metadata_predictions(
        classes[:, None] + 0.01, one_hot(classes), classes[:6, None] + 0.0, exclusive=True
    )
    assert predictions is not None
    assert predictions.argmax(axis=1).tolist() == [0, 1, 2, 0, 1, 2]
    assert predictions.sum(axis=1) == pytest.approx(1)


def test_without_labels_attributes_are_learned_instead(tmp_path: Path) -> None:
    cohort = write_real(tmp_path / "real", 30, 0)
    assert len(cohort.manifest) == len(cohort)  # read before the schema is another one
    bare = cohort.schema.model_copy(update={"labels": (), "exclusive": False})
    cohort.schema = bare
    targets = targets_of(cohort, {"test": cohort.rows("test")})
    assert targets.source == "attributes"
    assert targets.names == ("age in the upper half of its range", "view = AP", "view = PA")
    cohort.schema = bare.model_copy(update={"attributes": ()})
    assert targets_of(cohort, {"test": cohort.rows("test")}).source == "none"


def test_held_out_score_is_accuracy_or_mean_auroc() -> None:
    values = one_hot(np.array([0, 1, 2, 2]))
    predictions = one_hot(np.array([0, 1, 2, 0])).astype(float)
    assert held_out_score(predictions, values, exclusive=True) == 0.75
    assert held_out_score(predictions, values, exclusive=False) == pytest.approx((5 / 6 + 1 + 0.75) / 3)
    assert held_out_score(predictions, np.full_like(values, -1), exclusive=False) is None
