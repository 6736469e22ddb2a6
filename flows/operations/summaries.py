"""What the console says at the end: counts, scores, and the page to open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.records import LABEL_PREFIX
from medphantom.cohorts.store import Cohort

if TYPE_CHECKING:
    import polars as pl

    from medphantom.cohorts.ingest import IngestResult
    from medphantom.quality.report.compare import Comparison
    from medphantom.quality.results.quality_report import QualityReport
    from medphantom.quality.stats.estimate import Estimate

MOST_ROWS = 60


def frame_text(frame: pl.DataFrame) -> str:
    """A data frame as plain aligned text."""
    cells = [list(frame.columns), *[[_cell(value) for value in row] for row in frame.head(MOST_ROWS).iter_rows()]]
    widths = [max(len(row[column]) for row in cells) for column in range(frame.width)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    if len(frame) > MOST_ROWS:
        lines.append(f"… and {len(frame) - MOST_ROWS} more")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def cohort_summary(cohort: Cohort) -> str:
    """One line per split: images, patients, and how many show each label."""
    import polars as pl

    columns = [pl.len().alias("images"), pl.col("patient").n_unique().alias("patients")]
    columns += [pl.col(LABEL_PREFIX + name).sum().cast(pl.Int64).alias(name) for name in cohort.schema.labels[:12]]
    order = {name: place for place, name in enumerate(("train", "val", "holdout", "test", "synthetic"))}
    counts = cohort.manifest.group_by("split").agg(columns)
    return frame_text(counts.sort(pl.col("split").replace_strict(order, default=len(order))))


def rejection_summary(result: IngestResult) -> str:
    """What became of the files."""
    text = f"{result.accepted} images from {result.accepted_files} of {result.total_files} files"
    if result.rejected:
        reasons = ", ".join(f"{count} {reason.value}" for reason, count in sorted(result.rejected.items()))
        text += f"; rejected: {reasons} (listed in {result.private_folder})"
    return text


def score_summary(report: QualityReport) -> str:
    """The verdict and the headline scores, each with interval and floor."""
    lines = [f"privacy gate: {report.verdict}"]
    lines += [f"  {reason}" for reason in report.verdict_reasons]
    return "\n".join([*lines, *[estimate_line(estimate) for estimate in report.estimates if estimate.label is None]])


def estimate_line(estimate: Estimate, floor_name: str = "real against real") -> str:
    """One score with interval and floor, or why it was refused."""
    name = estimate.name + (f" ({estimate.network})" if estimate.network else "")
    name += f" [{estimate.label}]" if estimate.label else ""
    if estimate.value is None:
        return f"{name:<44} refused: {estimate.refused}"
    interval = f" [{estimate.interval[0]:.4g}, {estimate.interval[1]:.4g}]" if estimate.interval else ""
    floor = f", {floor_name} {estimate.floor:.4g}" if estimate.floor is not None else ""
    return f"{name:<44} {estimate.value:.4g}{interval}{floor}"


def comparison_summary(found: Comparison) -> str:
    """Scores of all labels, one line each and one column a run, and which differ by more than their intervals."""
    names = [run.name for run in found.runs]
    rows = [["", *names, "different"], ["privacy gate", *(run.verdict for run in found.runs), ""]]
    for score in found.scores:
        if score.label is None:
            what = score.name + (f" ({score.network})" if score.network else "")
            pairs = "; ".join(f"{names[first]}, {names[second]}" for first, second in score.apart)
            rows.append([what, *(_with_interval(estimate) for estimate in score.estimates), pairs])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"note: {warning}" for warning in found.warnings)])


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "–"
    interval = f" [{estimate.interval[0]:.3g}, {estimate.interval[1]:.3g}]" if estimate.interval else ""
    return f"{estimate.value:.3g}{interval}"


def run_summary(folder: Path) -> str:
    """Scores of a run and the page to open."""
    from medphantom.flows.runs.artifact import QUALITY_FILE
    from medphantom.quality.results.quality_report import QualityReport

    report = QualityReport.load(folder / QUALITY_FILE)
    page = (folder / "report.html").resolve()
    return (
        f"{score_summary(report)}\n"
        f"report to open: {page}\n"
        f"to share: {page.with_name('report.public.html')}, which shows no real image"
    )
