"""The measurement against true counterfactuals, on a tiny run whose every image can be drawn again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import counterfactual_truth as measurement
from benchmarks import measuring
from benchmarks.counterfactual_truth import Bench, Case
from benchmarks.simulated_truth import Oracle, Simulation, masked_l1, nearest_draw, with_finding, without
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.flows.cli.main import main
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.counterfactual import Counterfactuals
from medphantom.quality.config import ClassifierConfig
from medphantom.quality.stats.means import Means
from tests.flows.conftest import TINY_RECIPE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    recipe = TINY_RECIPE.replace("patients: 60", "patients: 100, factors: [anatomy.adiposity]").replace(
        "seed: 3", "seed: 6"
    )
    (folder / "tiny.yaml").write_text(recipe.replace("total: 24", "total: 4"))
    assert main(["run", str(folder / "tiny.yaml"), "--out", str(folder / "run"), "--no-prefect"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def bench(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bundle, cohort = GeneratorBundle.load(run / "bundle"), Cohort.open(run / "cohort")
    simulation = Simulation.of_run(run, cohort, bundle.facts.preprocess)
    oracle = Oracle(
        simulation, patients=240, seed=7, config=ClassifierConfig(steps=40), work=tmp_path_factory.mktemp("oracle")
    )
    return Bench(bundle, cohort, simulation, oracle, limit=20, draws=4, seed=0, means=Means(50, 0))


def case_of(bench: Bench, *, true: bool) -> tuple[Case, np.ndarray]:
    """Every test image, cleared of a large heart: as it would be, or not at all."""
    rows = bench.cohort.rows("test")
    before = bench.simulation.of(bench.cohort, rows)
    after = [without(image, "cardiomegaly") for image in before]
    source, truth = bench.simulation.all_seen(before), bench.simulation.all_seen(after)
    made = truth if true else source
    found = Counterfactuals(source, made, source, source, source, (), ())
    regions = np.stack([bench.simulation.region(a, b) for a, b in zip(before, after, strict=True)])[:, None]
    return Case(bench, rows, found, truth, "cardiomegaly absent"), regions


def test_the_truth_has_no_error_and_doing_nothing_has_that_of_nothing(bench: Bench) -> None:
    case, _ = case_of(bench, true=True)
    everywhere = np.ones((len(case.rows), 1, 32, 32), dtype=bool)
    found = {estimate.name: estimate for estimate in case.errors("error", everywhere)}
    assert found["error"].value == 0
    nothing, floor = found["error_of_nothing"].value, found["error"].floor
    assert nothing is not None
    assert nothing > 0
    assert floor is not None
    assert floor > 0  # the autoencoder of eight steps
    effect = next(case.effects("cardiomegaly", present=False))
    assert effect.value == effect.floor
    still, _ = case_of(bench, true=False)
    found = {estimate.name: estimate for estimate in still.errors("error", everywhere)}
    assert found["error"].value == found["error_of_nothing"].value == nothing
    effects = {estimate.name: estimate.value for estimate in still.effects("cardiomegaly", present=False)}
    assert effects["effectiveness"] == effects["effectiveness_of_nothing"]


def test_a_region_holds_what_the_finding_changes(bench: Bench) -> None:
    case, regions = case_of(bench, true=True)
    present = [image.labels["cardiomegaly"] for image in bench.simulation.of(bench.cohort, case.rows)]
    assert regions.reshape(len(regions), -1).any(axis=1).tolist() == present
    assert sum(present) >= 3
    inside, outside = (masked_l1(case.found.source, case.truth, mask)[present] for mask in (regions, ~regions))
    assert (inside > 5 * outside).all()  # outside, percentiles of the whole image shift a little
    image = bench.simulation.of(bench.cohort, case.rows)[0]
    for finding in bench.oracle.draws("nodule", 3):
        assert with_finding(image, "nodule", finding).labels["nodule"]
        assert with_finding(image, "nodule", finding).anatomy == image.anatomy


def test_an_addition_is_measured_where_its_nearest_draw_is(bench: Bench) -> None:
    rows = bench.cohort.rows("test")
    image = without(bench.simulation.of(bench.cohort, rows)[0], "pacemaker")
    others = [with_finding(image, "pacemaker", finding) for finding in bench.oracle.draws("pacemaker", 4)]
    draws, nothing = bench.simulation.all_seen(others), bench.simulation.seen(image)
    regions = np.stack([bench.simulation.region(image, other) for other in others])[:, None]
    assert [nearest_draw(draw, draws, regions)[0] for draw in draws] == [0] * 4
    assert nearest_draw(nothing, draws, regions)[0] > 0.05  # metal beside none, at its blurred border too
    half = nearest_draw((nothing + draws[0]) / 2, draws, regions)[0]
    assert 0 < half < nearest_draw(nothing, draws, regions)[0]


def test_masked_differences_are_means_over_the_mask() -> None:
    images = np.zeros((2, 1, 4, 4), np.float32)
    truth = images.copy()
    truth[0, 0, 0] = 0.5
    mask = np.zeros((2, 1, 4, 4), dtype=bool)
    mask[0, 0, :2] = True
    found = masked_l1(images, truth, mask)
    assert found[0] == 0.25
    assert np.isnan(found[1])


def test_it_writes_a_dated_result_and_a_contact_sheet(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "RESULTS", tmp_path / "results")
    options = ["--guidance", "1", "2", "--steps", "2", "--limit", "12", "--draws", "3", "--findings", "effusion"]
    oracle = ["--oracle-patients", "240", "--oracle-steps", "120", "--work", str(tmp_path / "oracle")]
    measurement.main([str(run), *options, *oracle, "--sheet", str(tmp_path / "sheet.png")])
    (file,) = (tmp_path / "results").iterdir()
    text = file.read_text("utf-8")
    result = json.loads(text)
    assert [setting["config"]["guidance"] for setting in result["settings"]] == [1, 2]
    assert str(run) not in text
    assert set(result["oracle"]["effusion"]) == {"auroc", "sensitivity", "specificity"}
    assert set(result["oracle"]["adiposity"]) == {"r2"}
    for setting in result["settings"]:
        named = {(estimate["name"], estimate["label"]) for estimate in setting["estimates"]}
        assert named >= {
            ("error_inside", "effusion absent"),
            ("error_outside_of_nothing", "effusion absent"),
            ("effectiveness", "effusion present"),
            ("nearest_addition", "effusion present"),
            ("plausible_place", "effusion present"),
            ("r2", "adiposity"),
            ("error", "adiposity"),
        }
    r2 = [e for s in result["settings"] for e in s["estimates"] if e["name"] == "r2"]
    assert all(estimate["floor"] > estimate["value"] for estimate in r2)  # a generator of eight steps knows nothing
    lines = 2 * 3 * measurement.SHEET_ROWS
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (150 + 5 * 128, 16 + lines * 128)


def test_a_run_that_does_not_know_its_truth_is_refused(run: Path, tmp_path: Path) -> None:
    cohort, preprocess = Cohort.open(run / "cohort"), GeneratorBundle.load(run / "bundle").facts.preprocess
    with pytest.raises(InputError, match="holds no simulated patients"):
        Simulation.of_run(tmp_path, cohort, preprocess)
    (tmp_path / "phantoms").mkdir()
    options = json.loads((run / "phantoms" / "phantom.json").read_text())
    (tmp_path / "phantoms" / "phantom.json").write_text(json.dumps({**options, "size": 96}))
    (tmp_path / "phantoms" / "factors.jsonl").write_bytes((run / "phantoms" / "factors.jsonl").read_bytes())
    with pytest.raises(InputError, match="draws other images"):
        Simulation.of_run(tmp_path, cohort, preprocess)
    with pytest.raises(InputError, match="choose another"):
        Oracle(
            Simulation.of_run(run, cohort, preprocess), patients=10, seed=6, config=ClassifierConfig(), work=tmp_path
        )
