"""What the report's page shows of privacy: the numbers behind the copy search and the attacks, and their charts."""

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

STYLES = ("train", "val", "holdout", "control")  # of the curves, in their order


def copy_estimates(report: QualityReport) -> tuple[Estimate, ...]:
    """The numbers behind the copy search."""
    copies = report.copies
    return () if copies is None else (*copies.share_nearest_in_train, copies.flagged_share)


def membership_estimates(report: QualityReport) -> tuple[Estimate, ...]:
    """The numbers of the attacks on single patients."""
    attacked = report.membership
    if attacked is None:
        return ()
    found = [estimate for result in attacked.results for estimate in (result.auroc, *result.tpr)]
    return (*found, attacked.blind)


def disclosure_estimates(report: QualityReport) -> tuple[Estimate, ...]:
    """Gains in guessing what is recorded of patients."""
    return () if report.membership is None else report.membership.disclosure


@dataclass(frozen=True)
class ControlRow:
    """One attack on this generator, and on its control; ``None``: not tried."""

    attack: str
    own: Estimate | None
    control: Estimate
    seen: bool


def control_rows(report: QualityReport, control: Mapping[str, Any] | None) -> tuple[ControlRow, ...]:
    """The attacks that a control was tried with, beside the same on this generator.

    Args:
        report: of this generator.
        control: :class:`medphantom.quality.report.write.ControlFacts` as plain values.
    """
    results = report.membership.results if report.membership else ()
    own = {result.attack: result.auroc for result in results}
    return tuple(
        ControlRow(one["attack"], own.get(one["attack"]), Estimate.model_validate(one["auroc"]), one["flagged"])
        for one in (control["attacks"] if control else ())
    )


def copy_chart(report: QualityReport) -> Chart | None:
    """The histogram of similarities, where the counts were kept."""
    histogram = report.copies.histogram if report.copies else None
    return (
        histogram_chart("similarity", "How like real images the synthetic ones are", histogram) if histogram else None
    )


def roc_chart(report: QualityReport) -> Chart | None:
    """The ROC curves of the attacks, with the diagonal of guessing."""
    results = report.membership.results if report.membership else ()
    if not results:
        return None
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    series = [Series("batches", "guessing", f"{x(0)},{y(0)} {x(1)},{y(1)}")]
    for style, result in zip(STYLES, results, strict=False):
        series.append(Series(style, result.attack, " ".join(f"{x(a)},{y(f)}" for a, f in result.curve)))
    areas = "; ".join(f"{result.attack}: area {number(result.auroc.value)}" for result in results)
    marks = (0.0, 0.25, 0.5, 0.75, 1.0)
    return Chart(
        key="roc",
        title="Could somebody tell who was learned from?",
        description=f"{areas}; guessing: one half.",
        x_title="other patients taken for training patients",
        y_title="training patients found",
        x_ticks=tuple(Tick(x(t), f"{t:g}") for t in marks),
        y_ticks=tuple(Tick(y(t), f"{t:g}") for t in marks),
        series=tuple(series),
    )
