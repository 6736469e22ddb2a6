"""Rankings: a classifier of one finding is moved by that finding; files and functions agree; bad ones are one line."""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medphantom.cohorts.preprocess import network_images
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.records import Array
from medphantom.quality.config import ClassifierConfig
from medphantom.quality.counterfactual.ranking import (
    NO_COHORT,
    RankConfig,
    intervention_words,
    rank_interventions,
    sign_flip_p,
)
from medphantom.quality.networks.classifier import fit_classifier, predict
from medphantom.quality.networks.outside_classifier import ClassifierInput, OutsideClassifier, load_classifier
from medphantom.quality.stats.correction import holm
from tests.quality.edits import LABELS, PREPROCESS, SIDE, Edit, Patients, drawn, without, write_pairs, write_patients
from tests.quality.networks.onnx_file import write_linear

CONFIG = RankConfig(bootstrap=200, takes=ClassifierInput(low=-1.0, high=1.0))
SHAPE = (1, SIDE, SIDE)
WEIGHTS = np.random.default_rng(0).normal(0, 0.01, (SIDE * SIDE, 2)).astype(np.float32)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(WEIGHTS))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weights


def scripted(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Linear()), path)  # type: ignore[no-untyped-call]
    return path


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Patients:
    return write_patients(tmp_path_factory.mktemp("ranked") / "cohort", 240)


@pytest.fixture(scope="module")
def pairs(patients: Patients, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cohort]:
    """True removals of either finding, and a removal that does nothing."""
    folder = tmp_path_factory.mktemp("interventions")
    made = {}
    for label in LABELS:
        edits = without(patients, label, patients.rows_with(label))
        intervention = {"labels": {label: False}, "attributes": {}, "ranges": {}}
        made[label] = write_pairs(folder / label, patients, edits, intervention=intervention)
    rows = patients.cohort.rows("test")
    still = [Edit(row, drawn(patients.factors[row]), attributes={"sex": "F"}) for row in rows]
    intervention = {"labels": {}, "attributes": {"sex": "F"}, "ranges": {"age": [20.0, 80.0]}}
    made["nothing"] = write_pairs(folder / "nothing", patients, still, intervention=intervention)
    return made


@pytest.fixture(scope="module")
def of_pneumothorax(patients: Patients, tmp_path_factory: pytest.TempPathFactory) -> OutsideClassifier:
    """A classifier that learned one finding; the other was as frequent on either side."""
    cohort, rows = patients.cohort, patients.cohort.rows("train")
    images = network_images(cohort, rows, PREPROCESS)
    targets = cohort.labels(rows)[:, [LABELS.index("pneumothorax")]]
    config = ClassifierConfig(steps=150, device="cpu")
    network = fit_classifier(
        images, targets, exclusive=False, num_features=32, config=config, seed=0, work=tmp_path_factory.mktemp("own")
    )
    return OutsideClassifier(lambda images: predict(network, images, exclusive=False, device="cpu")[:, 0])


def test_a_classifier_of_one_finding_is_moved_by_that_finding(
    of_pneumothorax: OutsideClassifier, pairs: dict[str, Cohort], patients: Patients
) -> None:
    order = [pairs["nothing"], pairs["effusion"], pairs["pneumothorax"]]
    ranking = rank_interventions(of_pneumothorax, order, "0", CONFIG, real=patients.cohort)
    first, second, last = ranking.interventions
    assert [one.intervention for one in ranking.interventions] == [
        "pneumothorax absent", "effusion absent", "sex F, age 20 to 80",
    ]  # fmt: skip
    assert first.change.value is not None
    assert first.change.value < -0.5
    assert first.flipped.value is not None
    assert first.flipped.value > 0.7
    assert first.change.interval is not None
    assert first.change.interval[1] < 0
    assert first.change.floor == 0  # the factual images of this scene are the sources
    assert first.p is not None
    assert first.p_holm == pytest.approx(min(1, 3 * first.p))
    assert first.p_holm < 0.01
    assert abs(second.change.value or 0) < -first.change.value / 3
    assert (last.change.value, last.flipped.value, last.p, last.p_holm) == (0, 0, 1, 1)
    assert ranking.remarks == ()
    alone = rank_interventions(of_pneumothorax, order[:1], "0", CONFIG)
    assert alone.interventions[0].change.floor is None
    assert alone.remarks == (NO_COHORT,)


def test_files_and_functions_agree(pairs: dict[str, Cohort], tmp_path: Path) -> None:
    given = {
        "function": OutsideClassifier(lambda images: images.reshape(len(images), -1) @ WEIGHTS, ("a", "b")),
        "torchscript": load_classifier(scripted(tmp_path / "linear.pt"), ("a", "b")),
    }
    if importlib.util.find_spec("onnxruntime"):
        columns = {"a": WEIGHTS[:, 0], "b": WEIGHTS[:, 1]}
        given["onnx"] = load_classifier(write_linear(tmp_path / "linear.onnx", SHAPE, columns))
        fixed = write_linear(tmp_path / "fixed.onnx", SHAPE, columns, batch=7)
        given["onnx with batches of 7"] = load_classifier(fixed)
    changes = {}
    for name, classifier in given.items():
        for output in ("b", "1"):
            ranking = rank_interventions(classifier, [pairs["effusion"]], output, CONFIG)
            changes[name, output] = ranking.interventions[0].change.value
    assert len({round(value or 0, 5) for value in changes.values()}) == 1, changes
    assert abs(changes["function", "b"] or 0) > 1e-4
    first = rank_interventions(given["function"], [pairs["effusion"]], "a", CONFIG).interventions[0].change.value
    assert first != changes["function", "b"]


def test_images_reach_the_classifier_as_it_takes_them() -> None:
    image = np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16)
    takes = ClassifierInput(size=(32, 32), channels=3, low=0, high=255)
    found = takes.prepared(image)
    assert (found.shape, found.dtype) == ((1, 3, 32, 32), np.float32)
    assert (found.min(), found.max()) == (pytest.approx(0, abs=1), pytest.approx(255, abs=1))
    assert np.array_equal(found[:, 0], found[:, 2])
    assert np.allclose(ClassifierInput(low=-1, high=1).prepared(image), image, atol=1e-6)
    assert ClassifierInput(channels=1).prepared(np.ones((2, 3, 8, 8), np.float32)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("call", "output", "match"),
    [
        (lambda images: np.full(len(images), np.nan), "0", "NaN or infinity"),
        (lambda images: np.zeros((len(images), 2, 2)), "0", r"returned shape \(\d+, 2, 2\)"),
        (lambda images: np.zeros(3), "0", r"returned shape \(3,\)"),
        (lambda images: np.zeros(len(images)), "4", "has 1 outputs, but output 4 was requested"),
        (lambda images: np.zeros(len(images)), "efusion", "no output 'efusion'"),
        (lambda images: "yes", "0", "no array of numbers"),
    ],
)
def test_answers_that_are_none(pairs: dict[str, Cohort], call: Callable[[Array], Any], output: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        rank_interventions(OutsideClassifier(call), [pairs["effusion"]], output, CONFIG)


def test_files_that_are_no_classifier(tmp_path: Path, pairs: dict[str, Cohort]) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"weights": 1}))
    torch.save({"weights": torch.zeros(2)}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(InputError, match="is no TorchScript file"):
            load_classifier(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        load_classifier(tmp_path / "c.pt")
    (tmp_path / "d.onnx").write_bytes(b"nonsense")
    known = importlib.util.find_spec("onnxruntime") is not None
    with pytest.raises(InputError, match="is no ONNX model" if known else "needs the package onnxruntime"):
        load_classifier(tmp_path / "d.onnx")
    linear = load_classifier(scripted(tmp_path / "linear.pt"))
    other = RankConfig(takes=ClassifierInput(size=(24, 24)))
    with pytest.raises(InputError, match="cannot take images"):
        rank_interventions(linear, [pairs["effusion"]], "0", other)
    with pytest.raises(InputError, match="give each cohort once"):
        rank_interventions(linear, [pairs["effusion"]] * 2, "0", CONFIG)


def test_holm_and_sign_flips_are_those_of_the_books() -> None:
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    owners = np.arange(5).astype(str)
    assert sign_flip_p(np.ones(5), owners, 0) == 2 / 2**5
    assert sign_flip_p(np.array([1.0, -1, 1, -1, 0]), owners, 0) == 1
    many = np.arange(40).astype(str)
    assert sign_flip_p(np.ones(40), many, 0) == 1 / 10_000
    assert sign_flip_p(np.ones(40), np.repeat(owners, 8), 0) == 2 / 2**5  # eight images of each of five patients
    noise = np.random.default_rng(1)
    ps = [sign_flip_p(noise.normal(size=20), many[:20], seed) for seed in range(200)]
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(0.05, abs=0.045)


def test_pairs_without_a_recorded_request_go_by_their_digest(pairs: dict[str, Cohort]) -> None:
    silent = pairs["effusion"]
    kept = silent.schema
    silent.schema = kept.model_copy(update={"generation": {}})
    assert intervention_words(silent) == f"pairs {silent.digest[:12]}"
    silent.schema = kept
