"""An assessment with a generator refuses patients whom it did not learn from, and images of another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohorts.errors import InputError
from cohorts.folders import read_digest
from cohorts.store import Cohort
from cohorts.thin import thin
from flows.provenance import check_provenance
from generators.bundle import GeneratorBundle
from generators.facts import FACTS_FILE
from tests.generators.tiny import copied


def test_it_refuses_what_does_not_belong_together(finished: Path, tmp_path: Path) -> None:
    run = finished / "runs" / "tiny"
    real, made, bundle = (
        Cohort.open(run / "cohort"),
        Cohort.open(run / "synthetic"),
        GeneratorBundle.load(run / "bundle"),
    )
    assert (run / "bundle" / FACTS_FILE).is_file()
    assert read_digest(run / "bundle")["digest"] == bundle.digest
    check_provenance(real, made, bundle)
    fewer = thin(real, tmp_path / "fewer", 0.5, 0)
    with pytest.raises(InputError, match="did not learn from the training images of"):
        check_provenance(fewer, made, bundle)
    label = real.schema.labels[0]
    others = copied(real, tmp_path / "others", label)  # its rows name another bundle
    assert len(others)
    with pytest.raises(InputError, match="synthetic images were drawn by another generator than the bundle"):
        check_provenance(real, others, bundle)
