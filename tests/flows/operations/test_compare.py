"""medphantom compare: what may share a row does, what may not does not, and the pictures are of the same request."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import medphantom as mp
from medphantom.flows.cli.main import main
from medphantom.quality.report.compare import Comparison, compare
from medphantom.quality.report.write import JSON_FILE, PublishedReport
from medphantom.quality.stats.estimate import Estimate
from tests.flows.conftest import TINY_RECIPE

MORE = ["cohort.simulate.patients=200", "plan.total=60", "assess.copies.kinds=[]", "assess.copies.controls=0"]


def run(folder: Path, name: str, *settings: str) -> None:
    given = [word for setting in (*MORE, *settings) for word in ("--set", setting)]
    assert main(["run", str(folder / "tiny.yaml"), "--out", str(folder / name), "--no-prefect", *given]) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one cohort, generator and plan: ``tiny``, and ``longer`` with more solver steps."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "tiny.yaml").write_text(TINY_RECIPE)
    run(folder, "tiny")
    shutil.copytree(folder / "tiny", folder / "longer")
    run(folder, "longer", "sampler.steps=4")
    return folder


def scored(report: PublishedReport, **changes: object) -> PublishedReport:
    """The same report with other facts about its quality."""
    return report.model_copy(update={"quality": report.quality.model_copy(update=changes)})


def test_runs_of_one_plan_stand_side_by_side_with_the_same_prompts_and_seeds(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(runs / "tiny"), str(runs / "longer"), "--out", str(out)]) == 0
    found = Comparison.load(out / "compare.json")
    assert [run.name for run in found.runs] == ["tiny", "longer"]
    reports = [PublishedReport.load(runs / name / JSON_FILE).quality for name in ("tiny", "longer")]
    row = found.find("kernel", network="filters")
    for estimate, report in zip(row.estimates, reports, strict=True):
        assert estimate == report.find("kernel", network="filters")
    assert all(score.network is None or score.network_digest for score in found.scores)
    assert found.find("label_agreement", part="agreement")
    page = (out / "compare.html").read_text()
    assert page.count("Synthetic image of tiny: ") == page.count("Synthetic image of longer: ")
    assert page.count("data:image/png;base64,") >= 24
    assert "that every run drew" in page
    assert "Internal: do not share." in page
    assert str(runs) not in page + (out / "compare.json").read_text()
    output = capsys.readouterr().out
    assert "kernel (filters)" in output
    assert "tiny" in output
    assert "longer" in output
    assert not out.with_name("out.work").exists()


@pytest.mark.slow
def test_without_a_prompt_in_common_every_generator_draws_those_of_the_first_run(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(runs / "tiny", runs / "other")
    run(runs, "other", "plan.seed=7")
    assert main(["compare", str(runs / "tiny"), str(runs / "other"), "--out", str(out)]) == 0
    page = (out / "compare.html").read_text()
    assert "drawn by every generator for this page" in page
    assert page.count("Synthetic image of tiny: ") == page.count("Synthetic image of other: ") == 12
    found = Comparison.load(out / "compare.json")
    assert found.find("kernel", network="filters").estimates.count(None) == 0
    assert mp.compare([runs / "tiny", runs / "other"], tmp_path / "no", draw=False) == found
    assert "data:image/png" not in (tmp_path / "no" / "compare.html").read_text()


def test_other_patients_and_other_networks_never_share_a_row(runs: Path) -> None:
    report = PublishedReport.load(runs / "tiny" / JSON_FILE)
    elsewhere = scored(report, real_digest="f" * 64)
    found = compare({"here": report, "elsewhere": elsewhere})
    assert all(sum(one is not None for one in score.estimates) == 1 for score in found.scores)
    assert any("different real cohorts" in warning for warning in found.warnings)
    networks = tuple(one.model_copy(update={"digest": "e" * 64}) for one in report.quality.networks)
    found = compare({"first": report, "second": scored(report, networks=networks)})
    for score in found.scores:
        assert sum(one is not None for one in score.estimates) == (1 if score.network else 2)
    assert any("not the same network" in warning for warning in found.warnings)


def distance(name: str, value: float, half: float, n: int) -> Estimate:
    return Estimate(
        name=name,
        estimand="a distance",
        value=value,
        interval=(value - half, value + half),
        better="lower",
        network="filters",
        n_synthetic=n,
        n_real=n,
    )


def test_intervals_that_do_not_touch_are_named_and_other_sizes_stand_apart(runs: Path) -> None:
    report = PublishedReport.load(runs / "tiny" / JSON_FILE)
    near = scored(report, estimates=(distance("frechet", 1.0, 0.2, 100), distance("kernel", 0.1, 0.02, 100)))
    far = scored(report, estimates=(distance("frechet", 2.0, 0.2, 100), distance("kernel", 0.11, 0.02, 200)))
    larger = scored(report, estimates=(distance("frechet", 0.8, 0.2, 200), distance("kernel", 0.3, 0.02, 200)))
    found = compare({"near": near, "far": far, "larger": larger})
    frechet = [score for score in found.scores if score.name == "frechet"]
    assert [[one is not None for one in score.estimates] for score in frechet] == [
        [True, True, False],
        [False, False, True],
    ]
    assert frechet[0].apart == ((0, 1),)
    kernel = found.find("kernel", network="filters")  # its expectation does not depend on the number of images
    assert None not in kernel.estimates
    assert kernel.apart == ((0, 2), (1, 2))
    assert any("different sample sizes" in warning for warning in found.warnings)


def test_what_cannot_be_compared_is_one_line(runs: Path, tmp_path: Path, one_line: Callable[..., str]) -> None:
    out = tmp_path / "out"
    assert "two or more" in one_line("compare", runs / "tiny", "--out", out)
    assert "named twice" in one_line("compare", runs / "tiny", runs / "tiny", "--out", out)
    assert "holds no report.json" in one_line("compare", runs / "tiny", tmp_path, "--out", out)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / JSON_FILE).write_text("{}")
    assert "not a report of this version" in one_line("compare", runs / "tiny", tmp_path / "damaged", "--out", out)
    assert not out.exists()
    out.mkdir()
    (out / "kept").write_text("mine")
    assert "exists already" in one_line("compare", runs / "tiny", runs / "longer", "--out", out)
    assert (out / "kept").read_text() == "mine"
