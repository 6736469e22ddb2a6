"""Images from elsewhere: each known fault moves the score that should see it, and n decides what is reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medphantom.cohorts.export import export_cohort
from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.preprocess import Preprocess, Window
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.scale import reading_of
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError
from medphantom.core.records import Array
from medphantom.flows.cli.main import main
from medphantom.flows.operations.foreign import open_synthetic
from medphantom.quality.report.write import PublishedReport
from medphantom.quality.results.quality_report import QualityReport
from medphantom.quality.stats.estimate import Estimate
from tests.cohorts.files import structure
from tests.quality.scenes import write_real

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
        options = ["--set", "cohort.options.split={train: 0.2, val: 0.1, holdout: 0.1, test: 0.6}"]
        command = ["ingest", str(folder / "real"), "--out", str(self.cohort), "--public-phrase", "foreign", *options]
        command += ["--folders", "classes"]
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


@pytest.mark.slow
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


def assessed(real: Cohort, theirs: Path, out: Path, *more: str) -> int:
    settings = [setting.replace(",radiomics", "") for setting in QUICK]
    command = ["assess", "--synthetic", str(theirs), "--real", str(real.path), "--out", str(out), "--size", "32"]
    return main([*command, *(word for setting in settings for word in ("--set", setting)), *more])


def test_the_same_pictures_in_16_bits_score_alike_and_every_copy_is_flagged(tmp_path: Path) -> None:
    real = write_real(tmp_path / "real", 200, 0)
    copies = real.pixels(real.rows("train")[:55])
    reports = []
    for name, factor, dtype in (("eight", 1, np.uint8), ("sixteen", 257, np.uint16)):
        (tmp_path / name / "images").mkdir(parents=True)
        for number, pixels in enumerate(copies):
            file = tmp_path / name / "images" / f"{number:03d}.png"
            Image.fromarray((pixels.astype(np.uint16) * factor).astype(dtype)).save(file)
        assert assessed(real, tmp_path / name, tmp_path / f"{name}_report") == 0
        reports.append(PublishedReport.load(tmp_path / f"{name}_report" / "report.json").quality)
    eight, sixteen = reports
    for report in reports:
        assert report.copies is not None
        assert report.copies.total_flagged == 55
        assert report.verdict == "fail"
    assert found(sixteen, "kernel").value == found(eight, "kernel").value
    assert eight.readings["synthetic"].rule == "window"
    assert sixteen.readings["synthetic"].rule == "full range"
    assert sixteen.readings["synthetic"].intensity == Window(low=0, high=65535)
    assert sixteen.readings["real"].intensity == Window(low=0, high=255)
    assert any("(uint16, 0…65535)" in warning for warning in sixteen.warnings)
    assert not any("uint8" in warning for warning in eight.warnings)


def test_8_bits_meet_hounsfield_units_only_when_said_what_they_stand_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eight = write_real(tmp_path / "eight", 120, 0)
    with CohortWriter(tmp_path / "ct", eight.schema) as writer:
        for record in eight.records():
            hu = np.rint(record.pixels * (2000 / 255) - 1000).astype(np.int16)
            writer.add(dataclasses.replace(record, pixels=hu, modality="CT"))
    real, theirs = Cohort.open(tmp_path / "ct"), tmp_path / "theirs"
    theirs.mkdir()
    for number, pixels in enumerate(eight.pixels(eight.rows("train")[:55])):
        Image.fromarray(pixels).save(theirs / f"{number:03d}.png")
    assert assessed(real, theirs, tmp_path / "refused") == 2
    output = capsys.readouterr().err
    assert "the synthetic images have 8 bits, 0…255, and the real ones are read from -1000…1000" in output
    assert "--synthetic-range LOW HIGH" in output
    assert not (tmp_path / "refused").exists()
    assert assessed(real, theirs, tmp_path / "report", "--synthetic-range", "-1000", "1000") == 0
    report = PublishedReport.load(tmp_path / "report" / "report.json").quality
    assert report.readings["synthetic"].rule == "stated"
    assert report.copies is not None
    assert report.copies.total_flagged == 55
    assert assessed(real, theirs, tmp_path / "turned", "--synthetic-range", "1000", "-1000") == 2
    assert "synthetic_range must be two finite numbers, low < high" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["real", "synthetic"])
@pytest.mark.parametrize(
    ("dtype", "low", "high", "inverted"),
    [
        ("int16", -1000, 600, False),
        ("int16", -1000, 600, True),
        ("uint8", 0, 255, False),
        ("uint16", 0, 4095, True),
        ("float32", -3.5, 2.5, False),
    ],
)
def test_our_own_export_gives_its_source_values_back(
    tmp_path: Path, kind: str, dtype: str, low: float, high: float, *, inverted: bool
) -> None:
    made = [low + structure(seed, (32, 32), "float64", 1) * (high - low) for seed in range(4)]
    with CohortWriter(tmp_path / "made", CohortSchema.model_validate({"kind": kind})) as writer:
        for number, values in enumerate(made):
            pixels = values.astype(dtype) if dtype == "float32" else np.rint(values).astype(dtype)
            writer.add(ImageRecord(f"i{number}", f"p{number}", pixels, "train", inverted=inverted, modality="CT"))
    cohort = Cohort.open(tmp_path / "made")
    export_cohort(cohort, tmp_path / "export")
    again = open_synthetic(tmp_path / "export", tmp_path / "work", IngestOptions(workers=0))
    assert again.schema.kind == kind
    assert all(again.manifest["inverted"].to_list()) == inverted
    sources = sorted(cohort.pixels(cohort.rows()), key=lambda pixels: float(pixels.mean()))
    back = sorted(again.pixels(again.rows()), key=lambda pixels: float(pixels.mean()))
    for source, pixels in zip(sources, back, strict=True):
        assert pixels.dtype == source.dtype
        assert pixels == pytest.approx(source, abs=1e-4 if dtype == "float32" else 0)
    if dtype == "int16" and not inverted:
        preprocess = Preprocess(size=(32, 32), intensity=Window(low=-1000, high=600), stored_dtype="int16")
        assert reading_of(again, preprocess, reference=cohort).intensity == preprocess.intensity


def test_a_picture_that_an_export_does_not_list_is_one_line(tmp_path: Path) -> None:
    with CohortWriter(tmp_path / "made", CohortSchema()) as writer:
        for number in range(3):
            pixels = structure(number, (32, 32), "int16", 800)
            writer.add(ImageRecord(f"i{number}", f"p{number}", pixels, "train", modality="CT"))
    export_cohort(Cohort.open(tmp_path / "made"), tmp_path / "export")
    Image.fromarray(structure(9)).save(tmp_path / "export" / "images" / "other.png")
    options = IngestOptions(workers=0, table="none")
    with pytest.raises(InputError, match=r"1 of 4 images of an export are not listed in its metadata\.csv") as caught:
        open_synthetic(tmp_path / "export", tmp_path / "work", options)
    assert "\n" not in str(caught.value)
