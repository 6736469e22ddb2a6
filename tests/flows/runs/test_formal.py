"""What a formal guarantee bounds stands on the report in words and numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.flows.runs.formal import formal_facts
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.facts import Privacy
from medphantom.generators.privacy import statement
from medphantom.generators.privacy_config import PrivacyConfig
from medphantom.learning.accounting import DPParameters, guarantee_of
from medphantom.quality.report.write import RunFacts, write_report
from medphantom.quality.results.quality_report import QualityReport

PARAMETERS = DPParameters(noise_multiplier=1.2, sample_rate=0.15, delta=1e-4, clip_norm=1.0, draws=2, total_units=900)
STEPS = 120


def private() -> Privacy:
    """Return the privacy statement of a fit with these parameters."""
    config = GeneratorConfig(init_from="base", privacy=PrivacyConfig(epsilon=9))
    return statement(config, guarantee_of(PARAMETERS, STEPS))


def page_of(run: Path, privacy: Privacy, out: Path) -> str:
    """The public page of a finished run, were its generator private."""
    write_report(
        QualityReport.load(run / "work" / "quality.json"),
        real=Cohort.open(run / "cohort"),
        synthetic=Cohort.open(run / "synthetic"),
        preprocess=Preprocess(size=(32, 32)),
        facts=RunFacts(name="run", created="", **formal_facts(privacy)),
        out=out,
    )
    return (out / "report.public.html").read_text("utf-8")


def test_the_page_says_what_the_best_attack_could_reach(finished: Path, tmp_path: Path) -> None:
    privacy = private()
    assert privacy.guarantee is not None
    page = page_of(finished / "runs" / "tiny", privacy, tmp_path / "out")
    section = re.search(r'<section id="guarantee".*?</section>', page, re.DOTALL)
    assert section is not None
    rows = re.findall(r"<tr><th[^>]*>([\d.]+)</th><td>([^<]+)</td>.*?>([\d.]+)</td>.*?>([\d.]+)</td></tr>", section[0])
    epsilons, pairs, found = ([float(row[place]) for row in rows] for place in (0, 2, 3))
    assert len(rows) == 5
    for rising in (epsilons, pairs, found):
        assert rising == sorted(rising)
    (own,) = [row for row in rows if row[1] == "this generator"]
    assert float(own[2]) / 100 == pytest.approx(privacy.guarantee.attack_auroc, rel=0.01)
    assert float(own[3]) / 100 == pytest.approx(privacy.guarantee.attack_tpr, rel=0.01)
    assert "Outside the guarantee" in section[0]
    assert "Assumptions" in section[0]
    assert privacy.formal in section[0]


def test_without_noise_the_page_promises_nothing(finished: Path, tmp_path: Path) -> None:
    outside = Privacy(outside=("counts of labels",))
    page = page_of(finished / "runs" / "tiny", outside, tmp_path / "noiseless")
    assert "There is no formal guarantee." in page
    assert "Counts of labels" in page
    assert 'id="guarantee"' not in page_of(finished / "runs" / "tiny", Privacy(), tmp_path / "none")
