"""Warnings before a number is cited: labels prompted at another prevalence than patients have are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.quality.assessment.cautions import cautions
from medphantom.quality.data.evaluation_data import EvaluationData
from tests.quality.scenes import SIDE, write_real


def prompted(path: Path, bright: float, *, declared: bool = True) -> Cohort:
    """Forty images of which a share was prompted as bright; rings are not in the prompts."""
    rng = np.random.default_rng(0)
    schema = CohortSchema(kind="synthetic", labels=("bright", "rings"))
    with CohortWriter(path, schema) as writer:
        for number in range(40):
            labels = {"bright": number < 40 * bright if declared else None, "rings": None}
            name = f"s{number:05d}"
            pixels = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
            facts = Provenance("0" * 64, "{}", number)
            writer.add(ImageRecord(name, name, pixels, "synthetic", labels=labels, provenance=facts))
    return Cohort.open(path)


def test_labels_in_other_shares_than_patients_have_are_named(tmp_path: Path) -> None:
    real = write_real(tmp_path / "real", 90, 1, exclusive=False)  # four in ten are bright

    def of_prevalence(name: str, bright: float, *, declared: bool = True) -> list[str]:
        data = EvaluationData(real, prompted(tmp_path / name, bright, declared=declared), Preprocess(size=(SIDE, SIDE)))
        return [caution for caution in cautions(data, ()) if "different prevalence" in caution]

    assert of_prevalence("all", 1.0) == [
        "bright: prompted at a different prevalence than in real patients; use the per-label distances"
    ]
    assert of_prevalence("same", 0.4) == []
    assert of_prevalence("silent", 0.4, declared=False) == []
