"""Images that nobody here made: each known fault moves the score that should see it, and n decides what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cohorts.records import Array
from flows.cli import main
from quality.estimate import Estimate
from quality.quality_report import QualityReport
from quality.report import PublishedReport

CLASSES = ("CXR", "Hand", "HeadCT")
QUICK = (
    "assess.networks=[filters,radiomics]",
    "assess.draws=10",
    "assess.utility.enabled=false",
    "assess.membership.enabled=false",
    "assess.copies.kinds=[as it is]",
    "assess.copies.core=[as it is]",
    "assess.copies.controls=20",
    "assess.copies.repeats=20",
    "assess.classifier.steps=2",
)


def read(path: Path) -> Array:
    return np.asarray(Image.open(path).convert("L"), dtype=np.float32)


def write(folder: Path, images: dict[str, list[Array]]) -> Path:
    """A folder of PNG files, one folder a class, as anyone would hand it over."""
    for label, some in images.items():
        (folder / label).mkdir(parents=True)
        for number, pixels in enumerate(some):
            whole = np.rint(pixels).clip(0, 255).astype(np.uint8)
            Image.fromarray(whole).save(folder / label / f"{number:04d}.png")
    return folder


class Trial:
    """A real cohort of some MedNIST images, and others that stand in for somebody's synthetic ones."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = folder
        files = {label: sorted((source / label).iterdir())[:300] for label in CLASSES}
        self.held_out = {label: [read(path) for path in paths[200:]] for label, paths in files.items()}
        write(folder / "real", {label: [read(path) for path in paths[:200]] for label, paths in files.items()})
        self.cohort = folder / "cohort"
        options = ["--set", "cohort.options.split={train: 0.2, val: 0.1, gate: 0.1, test: 0.6}"]
        command = ["ingest", str(folder / "real"), "--out", str(self.cohort), "--public-phrase", "foreign", *options]
        assert main(command) == 0

    def scored(self, name: str, images: dict[str, list[Array]]) -> QualityReport:
        theirs = write(self.folder / name, images)
        out = self.folder / f"{name}_report"
        command = ["assess", "--synthetic", str(theirs), "--real", str(self.cohort), "--out", str(out), "--size", "64"]
        assert main([*command, *(word for setting in QUICK for word in ("--set", setting))]) == 0
        assert not out.with_name(f"{out.name}.work").exists()
        return PublishedReport.load(out / "report.json").quality


def found(report: QualityReport, name: str, network: str | None = "filters", label: str | None = None) -> Estimate:
    estimate = report.find(name, network=network, label=label)
    assert estimate.value is not None, estimate.refused
    assert estimate.interval is not None, name
    return estimate


def above(one: Estimate, other: Estimate) -> bool:
    """Whether two intervals do not touch, the first being the higher one."""
    assert one.interval is not None
    assert other.interval is not None
    return one.interval[0] > other.interval[1]


@pytest.mark.real_data
def test_each_known_fault_moves_the_score_that_should_see_it(real_data: Path, tmp_path: Path) -> None:
    trial = Trial(real_data / "mednist_64", tmp_path)
    held_out, rng = trial.held_out, np.random.default_rng(0)
    honest = trial.scored("honest", held_out)
    for network in ("filters", "radiomics"):
        low, high = found(honest, "frechet_over_floor", network).interval or (0, 0)
        assert low < 1.15
        assert high > 0.9
        low, high = found(honest, "kernel", network).interval or (1, 0)
        assert low < 0 < high

    blurred = {label: [ndimage.gaussian_filter(one, 0.8) for one in some] for label, some in held_out.items()}
    noised = {label: [one + rng.normal(0, 12, one.shape) for one in some] for label, some in held_out.items()}
    for name, faulty in (("blurred", blurred), ("noised", noised)):
        report = trial.scored(name, faulty)
        for network in ("filters", "radiomics"):
            for score in ("frechet_over_floor", "frechet_infinite"):
                assert above(found(report, score, network), found(honest, score, network)), (name, score, network)
            low, _ = found(report, "kernel", network).interval or (0, 0)
            assert low > 0, (name, network)
        assert above(found(honest, "precision"), found(report, "precision")), name

    dropped = trial.scored("dropped", {"CXR": held_out["CXR"], "Hand": held_out["Hand"]})
    assert above(found(honest, "coverage"), found(dropped, "coverage"))
    assert found(dropped, "recall").value < 0.95 * found(honest, "recall").value
    assert (found(dropped, "kernel").interval or (0, 0))[0] > 0
    whole, left = (found(report, "frechet_random_halves_over_floor") for report in (honest, dropped))
    assert above(left, whole)
    assert not above(found(honest, "precision"), found(dropped, "precision"))  # what is there is fine
    assert any("no synthetic image of HeadCT" in warning for warning in dropped.warnings)
    assert [e for e in dropped.estimates if e.label == "HeadCT" and e.value is not None] == []

    repeated = trial.scored("repeated", {label: [some[n % 8] for n in range(100)] for label, some in held_out.items()})
    assert repeated.synthetic_count == 300
    for score in ("coverage", "recall"):
        assert above(found(honest, score), found(repeated, score))
    assert found(repeated, "vendi").value < found(honest, "vendi").value
    assert found(repeated, "ms_ssim", None).value > found(honest, "ms_ssim", None).value

    few = trial.scored("few", {label: some[:6] for label, some in held_out.items()})
    refused = {e.name: e.refused for e in few.estimates if e.network == "filters" and e.label is None}
    assert all(refused[name] for name in ("frechet", "kernel", "recall", "vendi"))
    assert few.verdict == "inconclusive"


def test_what_was_not_given_or_given_twice_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["assess", "--out", str(tmp_path / "out")]) == 2
    assert "no real images were given" in capsys.readouterr().err
    assert main(["assess", "a", "b", "--real", "c", "--out", str(tmp_path / "out")]) == 2
    assert "two real images were given" in capsys.readouterr().err
