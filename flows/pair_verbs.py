"""Verbs on counterfactual pairs that exist: score them, rank interventions by them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cohorts.progress import Progress
from flows.facts import machine, versions
from flows.progress import watcher
from flows.verbs import refuse_existing, resumable

if TYPE_CHECKING:
    from cohorts.store import Cohort
    from quality.config import AssessConfig
    from quality.counterfactual_report import CounterfactualReport


def assess_pairs(
    real: Cohort, pairs: Cohort, config: AssessConfig, out: Path, *, progress: Progress | None = None
) -> CounterfactualReport:
    """Score counterfactual pairs and write ``report.html`` (internal) and ``report.json`` into ``out``.

    Args:
        real: the cohort whose images were edited.
        pairs: of kind ``counterfactual``.
        config: how they are scored.
        out: folder for the reports.
        progress: told how far the fits of the classifiers are.

    Raises:
        InputError: not a real cohort and its pairs, or ``out`` exists.
    """
    from quality.counterfactual import assess_counterfactuals
    from quality.counterfactual_page import write_counterfactual_report
    from quality.report import RunFacts

    refuse_existing(out)
    shown = progress or watcher().stage("assess")

    def run(work: Path) -> CounterfactualReport:
        report = assess_counterfactuals(real, pairs, config, work, shown)
        facts = RunFacts(
            name=out.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe={"assess": config.model_dump(mode="json")},
            versions=versions(),
            machine=machine(),
        )
        write_counterfactual_report(report, real=real, pairs=pairs, facts=facts, out=out)
        return report

    return resumable(out, run)
