"""Prepares a utility study for its page: advice, one table per test set, curves over the mixing ratio, subgroups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medphantom.quality.report.charts import Bar, Chart, Curve, line_chart, score_bar
from medphantom.quality.results.model_score import ARM_WORDS, MEASURES, MIXING, ModelScore
from medphantom.quality.results.study_report import Recommendation, StudyReport
from medphantom.quality.stats.estimate import Estimate, number

MOST_CHARTS = 6
STYLES = dict(zip(MIXING, ("train", "val", "gap"), strict=True))
RECOMMENDATION_WORDS: dict[Recommendation, str] = {
    "add": "yes",
    "instead": "not needed",
    "no gain": "not shown",
    "harm": "no",
    "refused": "not known",
}


@dataclass(frozen=True)
class StudyRow:
    """One training arm and one label.

    Attributes:
        arm: training arm in words.
        estimate: score of the arm.
        bar: plot of the score.
        difference: difference to the arm *real*.
        p: corrected p value of the difference.
        beside: differences to arms that need no generator, with their names.
    """

    arm: str
    estimate: Estimate
    bar: Bar | None
    difference: Estimate | None
    p: float | None
    beside: tuple[tuple[str, Estimate], ...]


@dataclass(frozen=True)
class StudyTable:
    """One measure on one test set.

    Attributes:
        title: title of the table.
        main: whether the advice is based on this table.
        labels: rows by label; ``None`` stands for the mean over labels, or for accuracy.
    """

    title: str
    main: bool
    labels: tuple[tuple[str | None, tuple[StudyRow, ...]], ...]


@dataclass(frozen=True)
class StudyView:
    """The values that the template needs.

    Attributes:
        report: report of the study.
        advice: recommendation, its short answer for the reader, and its sentence.
        charts: gain over the mixing ratio, for the mean over labels and for the first labels.
        tables: tables of scores, starting with those on which the advice is based.
        refused: refused labels with the reason.
        synthetic: digests of the synthetic sets.
    """

    report: StudyReport
    advice: tuple[tuple[str, str, str], ...]
    charts: tuple[Chart, ...]
    tables: tuple[StudyTable, ...]
    refused: tuple[tuple[str, str], ...]
    synthetic: list[tuple[str, str]]


def study_view(report: StudyReport) -> StudyView:
    """Prepare a study for its template."""
    refused = {
        score.estimate.label: score.estimate.refused or "not scored"
        for score in report.scores
        if score.estimate.value is None and score.estimate.label is not None
    }
    return StudyView(
        report=report,
        advice=tuple(
            (one.recommendation.replace(" ", "-"), RECOMMENDATION_WORDS[one.recommendation], one.sentence)
            for one in report.advice
            if one.recommendation != "refused"
        ),
        charts=tuple(_charts(report)),
        tables=tuple(_tables(report)),
        refused=tuple(refused.items()),
        synthetic=[(f"synthetic set {place + 1}", digest) for place, digest in enumerate(report.synthetic_digests)],
    )


def _tables(report: StudyReport) -> Iterator[StudyTable]:
    main = ("test", MEASURES[report.config.task])
    keys = dict.fromkeys((score.test, score.measure) for score in report.scores)
    for test, measure in sorted(keys, key=lambda key: key != main):
        rows: dict[str | None, list[StudyRow]] = {}
        for score in report.scores:
            if (score.test, score.measure) == (test, measure) and score.estimate.value is not None:
                rows.setdefault(score.estimate.label, []).append(_row(score))
        if rows:
            where = {"test": "real test patients", "synthetic": "synthetic images (trained on real images)"}.get(
                test, test
            )
            labels = tuple((label, tuple(some)) for label, some in rows.items())
            yield StudyTable(f"{measure} on {where}", (test, measure) == main, labels)


def _row(score: ModelScore) -> StudyRow:
    beside = tuple((ARM_WORDS[one.arm.kind], one.difference) for one in score.beside)
    estimate = score.estimate
    return StudyRow(score.arm.words, estimate, score_bar(estimate), score.difference, score.p_holm, beside)


def _charts(report: StudyReport) -> Iterator[Chart]:
    """Gain over the arm *real* against the mixing ratio, if several ratios were tested."""
    measure = MEASURES[report.config.task]
    chosen = [score for score in report.scores if (score.test, score.measure, score.group) == ("test", measure, None)]
    for place, label in enumerate((None, *[one.label for one in report.advice if one.label is not None])):
        curves = []
        for arm in MIXING:
            mine = [score for score in chosen if score.arm.kind == arm and score.estimate.label == label]
            curve = _curve(STYLES[arm], ARM_WORDS[arm], mine)
            if curve is not None:
                curves.append(curve)
        if curves and place <= MOST_CHARTS:
            title = f"Effect of the mixing ratio: {label or 'mean over labels'}"
            yield line_chart(
                f"study-{place}",
                title,
                curves,
                y_title=f"{measure} minus that of real images alone",
                x_title="synthetic images per real one",
                whole=False,
            )


def _curve(kind: str, name: str, scores: Sequence[ModelScore]) -> Curve | None:
    points = sorted(
        (score.arm.ratio, score.difference.value, score.difference.interval or (score.difference.value,) * 2)
        for score in scores
        if score.arm.ratio is not None and score.difference is not None and score.difference.value is not None
    )
    if len(points) < 2:
        return None
    ratios, values, intervals = zip(*points, strict=True)
    return Curve(kind, name, ratios, values, band=tuple(intervals))


def signed(estimate: Estimate | None) -> str:
    """A difference with its sign and interval."""
    if estimate is None or estimate.value is None:
        return "–"
    text = _signed(estimate.value)
    return text + ("" if estimate.interval is None else f" [{', '.join(map(_signed, estimate.interval))}]")


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + number(value)
