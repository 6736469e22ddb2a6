"""An assessment with a generator refuses patients whom it did not learn from, and images that it did not draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

import medphantom
from medphantom.cohorts.records import Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.thin import thin
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import InputError
from medphantom.flows.runs.provenance import check_provenance, not_its_patients
from medphantom.generators.bundle import GeneratorBundle
from medphantom.quality.results.quality_report import QualityReport

OTHER_COHORT = "the generator did not learn from the training images of"
OTHER_BUNDLE = "1 of 24 synthetic images were drawn by another generator than the bundle"
NAMELESS = "2 of 24 synthetic images do not say which generator drew them"


@dataclasses.dataclass(frozen=True)
class Made:
    """A finished run, and what does not belong to it."""

    real: Cohort
    synthetic: Cohort
    bundle: GeneratorBundle
    folder: Path
    wrong: dict[str, tuple[Cohort, Cohort]]


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    run, folder = finished / "runs" / "tiny", tmp_path_factory.mktemp("wrong")
    real, synthetic = Cohort.open(run / "cohort"), Cohort.open(run / "synthetic")
    other = Provenance("0" * 64, "{}", 1)
    return Made(
        real,
        synthetic,
        GeneratorBundle.load(run / "bundle"),
        run / "bundle",
        {
            OTHER_COHORT: (thin(real, folder / "fewer", 0.5, 0), synthetic),
            OTHER_BUNDLE: (real, _with(synthetic, folder / "others", {5: other})),
            NAMELESS: (real, _with(synthetic, folder / "nameless", {5: None, 7: None})),
        },
    )


def _with(cohort: Cohort, path: Path, provenance: dict[int, Provenance | None]) -> Cohort:
    """The same images, of which some say that they come from elsewhere."""
    with CohortWriter(path, cohort.schema) as writer:
        for row, record in enumerate(cohort.records()):
            writer.add(dataclasses.replace(record, provenance=provenance.get(row, record.provenance)))
    return Cohort.open(path)


def test_what_belongs_together_is_assessed(made: Made) -> None:
    check_provenance(made.real, made.synthetic, made.bundle)


@pytest.mark.parametrize("reason", [OTHER_COHORT, OTHER_BUNDLE, NAMELESS])
def test_every_face_refuses_what_does_not(
    made: Made, reason: str, one_line: Callable[..., str], tmp_path: Path
) -> None:
    real, synthetic = made.wrong[reason]
    out = tmp_path / "scores"
    with pytest.raises(InputError, match=reason):
        check_provenance(real, synthetic, made.bundle)
    line = one_line("assess", real.path, synthetic.path, "--bundle", made.folder, "--out", out)
    assert reason in line
    assert "leave" in line
    with pytest.raises(InputError, match=reason):
        medphantom.assess(real, synthetic, out, bundle=made.bundle)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("verdict", "then"), [("screened", "inconclusive"), ("inconclusive",) * 2, ("fail",) * 2])
def test_nobody_is_screened_by_patients_of_others(verdict: str, then: str) -> None:
    report = QualityReport.model_validate(
        {"real_digest": "a", "synthetic_digest": "b", "config_digest": "c", "seed": 0, "synthetic_count": 9,
         "verdict": verdict, "verdict_reasons": ("why",), "estimates": ()}
    )  # fmt: skip
    found = not_its_patients(report)
    assert found.verdict == then
    assert "did not learn from these training images" in found.verdict_reasons[-1]
    assert ("why" in found.verdict_reasons) == (verdict != "screened")
