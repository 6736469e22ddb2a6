"""The report of counterfactual pairs: an internal page with pictures of patients, and the scores as JSON.

There is no public edition, because every picture shows a patient.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from medphantom.cohorts.store import Cohort
from medphantom.core.errors import ArtifactError, InputError
from medphantom.core.folders import read_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.quality.report.charts import score_bar
from medphantom.quality.report.glossary import COUNTERFACTUAL_FLOOR, GENERAL
from medphantom.quality.report.page import (
    ScoreGroup,
    ScoreRow,
    against_real,
    fill,
    flattened,
    glossary,
    refused_scores,
    term_of,
)
from medphantom.quality.report.pair_pictures import draw_edits
from medphantom.quality.report.write import INTERNAL_PAGE, JSON_FILE, RunFacts, public_facts, write_together
from medphantom.quality.results.counterfactual_report import CounterfactualReport
from medphantom.quality.stats.estimate import Estimate


class PublishedCounterfactuals(Frozen):
    """The content of ``report.json`` of counterfactual pairs, without pixels, ids or paths.

    Attributes:
        kind: always ``counterfactual``, which distinguishes it from the report of a synthetic set.
        facts: facts of the run, without paths.
        quality: all scores of the pairs.
    """

    format_version: Literal[1] = 1
    kind: Literal["counterfactual"] = "counterfactual"
    facts: RunFacts
    quality: CounterfactualReport

    @classmethod
    def load(cls, path: Path) -> PublishedCounterfactuals:
        """Read ``report.json``.

        Raises:
            ArtifactError: the file is missing, damaged, of another kind or format version.
        """
        problem = "is not a report of counterfactuals of this version; create the report again"
        return parse_model(cls, read_json(path), path, ArtifactError, problem)


def write_counterfactual_report(
    report: CounterfactualReport, *, real: Cohort, pairs: Cohort, facts: RunFacts, out: Path
) -> None:
    """Write ``report.html`` (internal) and ``report.json`` into ``out``, either both or neither.

    Args:
        report: scores of the pairs.
        real: cohort with the source images.
        pairs: pairs that were scored.
        facts: facts of the run.
        out: output folder; older reports in it are replaced.

    Raises:
        InputError: the cohorts are not the ones that were scored.
        ResourceError: the disk is full or the folder cannot be written.
    """
    for cohort, digest in ((real, report.real_digest), (pairs, report.pairs_digest)):
        if cohort.digest != digest:
            raise InputError(f"the cohort at {cohort.path} is not the one that was scored", "assess it again")
    published = PublishedCounterfactuals(facts=public_facts(facts), quality=report)
    content = published.model_dump(mode="json")
    files = {
        INTERNAL_PAGE: _page(report, facts.model_dump(mode="json"), real, pairs),
        JSON_FILE: json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n",
    }
    write_together(out, files)


def _page(report: CounterfactualReport, facts: dict[str, Any], real: Cohort, pairs: Cohort) -> str:
    overall = [estimate for estimate in report.estimates if estimate.label is None]
    labelled = [estimate for estimate in report.estimates if estimate.label is not None]
    return fill(
        "counterfactual.html.j2",
        report=report,
        facts=facts,
        sheet=draw_edits(real, pairs),
        volumes=real.schema.spatial_dims == 3,
        score_groups=_groups(overall),
        label_groups=_groups(labelled),
        refused=refused_scores(report.estimates),
        made=tuple(flattened(report.generation)),
        settings=tuple(flattened(facts["recipe"])),
        glossary=glossary(report.estimates, {"floor": COUNTERFACTUAL_FLOOR, "interval": GENERAL["interval"]}),
    )


def _groups(estimates: Iterable[Estimate]) -> tuple[ScoreGroup, ...]:
    """One group of all scores that have a value, in their order."""
    rows = tuple(
        ScoreRow(term_of(score), score, score_bar(score, floor_name="floor"), None, *against_real(score))
        for score in estimates
        if score.value is not None
    )
    return (ScoreGroup(None, rows),) if rows else ()
