"""Verbs on counterfactual pairs that exist: score them, rank interventions by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cohorts.errors import InputError
from cohorts.folders import write_json
from cohorts.progress import Progress
from flows.facts import machine, versions
from flows.progress import watcher
from flows.verbs import refuse_existing, resumable

if TYPE_CHECKING:
    from cohorts.records import Array
    from cohorts.store import Cohort
    from quality.config import AssessConfig
    from quality.counterfactual_report import CounterfactualReport
    from quality.ranking import RankConfig, Ranking


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
    if config.synthetic_range is not None:
        raise InputError("counterfactual pairs say themselves what their values stand for", "leave synthetic_range out")
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


def rank(
    classifier: Path | Callable[[Array], Any],
    pairs: Sequence[Cohort],
    output: str,
    config: RankConfig,
    *,
    real: Cohort | None = None,
    names: Sequence[str] = (),
    out: Path | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Rank interventions by how much a classifier changes its mind between factual and counterfactual images.

    Args:
        classifier: TorchScript or ONNX file, or images ``(N, C, *size)`` float32 → ``(N,)`` or ``(N, K)``.
        pairs: one cohort per intervention.
        output: name or index of the output.
        config: threshold, what the classifier takes.
        real: the cohort that the pairs edit, for the yardstick.
        names: of the outputs.
        out: JSON file to write.
        progress: told how far it is.

    Raises:
        InputError: a file, output or pairs that cannot be used, or ``out`` exists.
    """
    from quality.outside_classifier import OutsideClassifier, load_classifier
    from quality.ranking import rank_interventions

    if out is not None and out.exists():
        raise InputError(f"{out} exists already", "choose another --out, or remove it first")
    judge = (
        load_classifier(classifier, names)
        if isinstance(classifier, Path)
        else OutsideClassifier(classifier, tuple(names))
    )
    shown = progress or watcher().stage("rank")
    ranking = rank_interventions(judge, pairs, output, config, real=real, progress=shown)
    if out is not None:
        write_json(out, ranking.model_dump(mode="json"))
    return ranking
