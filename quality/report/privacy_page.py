"""The privacy section of the report: scores of the copy search and the attacks, and their charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medphantom.quality.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Scale,
    Series,
    Tick,
    histogram_chart,
)
from medphantom.quality.results.quality_report import QualityReport
from medphantom.quality.stats.estimate import Estimate, number

STYLES = ("train", "val", "holdout", "control")  # line styles of the curves, in order


def copy_estimates(report: QualityReport) -> tuple[Estimate, ...]:
    """Scores of the copy search."""
    copies = report.copies
    return () if copies is None else (*copies.share_nearest_in_train, copies.flagged_share)


def membership_estimates(report: QualityReport) -> tuple[Estimate, ...]:
    """Scores of the membership inference attacks."""
    attacked = report.membership
    if attacked is None:
        return ()
    found = [estimate for result in attacked.results for estimate in (result.auroc, *result.tpr)]
    return (*found, attacked.blind)


def disclosure_estimates(report: QualityReport) -> tuple[Estimate, ...]:
    """Gains in attribute inference."""
    return () if report.membership is None else report.membership.disclosure


@dataclass(frozen=True)
class ControlRow:
    """One attack on this generator and on its control model; ``own`` is ``None`` if it was not tested here."""

    attack: str
    own: Estimate | None
    control: Estimate
    seen: bool


def control_rows(report: QualityReport, control: Mapping[str, Any] | None) -> tuple[ControlRow, ...]:
    """Attacks on the control model, with the results of the same attacks on this generator.

    Args:
        report: report of this generator.
        control: :class:`medphantom.quality.report.write.ControlFacts` as plain values.
    """
    results = report.membership.results if report.membership else ()
    own = {result.attack: result.auroc for result in results}
    return tuple(
        ControlRow(one["attack"], own.get(one["attack"]), Estimate.model_validate(one["auroc"]), one["flagged"])
        for one in (control["attacks"] if control else ())
    )


def copy_chart(report: QualityReport) -> Chart | None:
    """Histogram of the similarities, if their counts were kept."""
    histogram = report.copies.histogram if report.copies else None
    return (
        histogram_chart("similarity", "Similarity of synthetic images to real images", histogram) if histogram else None
    )


def roc_chart(report: QualityReport) -> Chart | None:
    """ROC curves of the attacks, with the diagonal of random guessing."""
    results = report.membership.results if report.membership else ()
    if not results:
        return None
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    series = [Series("batches", "random guessing", f"{x(0)},{y(0)} {x(1)},{y(1)}")]
    for style, result in zip(STYLES, results, strict=False):
        series.append(Series(style, result.attack, " ".join(f"{x(a)},{y(f)}" for a, f in result.curve)))
    areas = "; ".join(f"{result.attack}: AUROC {number(result.auroc.value)}" for result in results)
    marks = (0.0, 0.25, 0.5, 0.75, 1.0)
    return Chart(
        key="roc",
        title="ROC curves of the membership inference attacks",
        description=f"{areas}; random guessing: 0.5.",
        x_title="false-positive rate (other patients)",
        y_title="true-positive rate (training patients)",
        x_ticks=tuple(Tick(x(t), f"{t:g}") for t in marks),
        y_ticks=tuple(Tick(y(t), f"{t:g}") for t in marks),
        series=tuple(series),
    )
