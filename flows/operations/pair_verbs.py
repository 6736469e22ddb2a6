"""Verbs on counterfactual pairs that exist: score them, rank interventions by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.core.errors import InputError
from medphantom.core.folders import write_json
from medphantom.core.progress import Progress
from medphantom.flows.operations.verbs import refuse_existing, resumable
from medphantom.flows.process.facts import machine, versions
from medphantom.flows.process.progress import watcher

if TYPE_CHECKING:
    from medphantom.cohorts.store import Cohort
    from medphantom.core.records import Array
    from medphantom.quality.config import AssessConfig
    from medphantom.quality.counterfactual.ranking import RankConfig, Ranking
    from medphantom.quality.results.counterfactual_report import CounterfactualReport


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
    from medphantom.quality.counterfactual.scores import assess_counterfactuals
    from medphantom.quality.report.counterfactual_page import write_counterfactual_report
    from medphantom.quality.report.write import RunFacts

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
    from medphantom.quality.counterfactual.ranking import rank_interventions
    from medphantom.quality.networks.outside_classifier import OutsideClassifier, load_classifier

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
