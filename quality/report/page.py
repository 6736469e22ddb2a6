"""Renders the report as an HTML page: prepares the scores for the templates and fills them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from medphantom.cohorts.records import SPLITS
from medphantom.learning.guarantee import Guarantee, rounded_up
from medphantom.quality.report.charts import Bar, Chart, Curve, line_chart, score_bar
from medphantom.quality.report.glossary import (
    GENERAL,
    RECONSTRUCTION,
    Term,
    is_ratio,
    is_reconstruction,
    network_title,
    term,
)
from medphantom.quality.report.pictures import Grids, PairPictures
from medphantom.quality.report.privacy_page import (
    control_rows,
    copy_chart,
    copy_estimates,
    disclosure_estimates,
    membership_estimates,
    roc_chart,
)
from medphantom.quality.report.study_page import signed, study_view
from medphantom.quality.report.verdict import plain_words
from medphantom.quality.results.augment_report import AugmentReport
from medphantom.quality.results.quality_report import QualityReport
from medphantom.quality.results.study_report import StudyReport
from medphantom.quality.stats.estimate import Estimate, Interval, number

TEMPLATES = Path(__file__).parent / "templates"
TRAINED_ON = {
    "real": "real images",
    "synthetic": "synthetic images only",
    "real_and_synthetic": "real and synthetic images",
    "metadata": "metadata only",
}
CURVES = {  # column of a training history: style and name of its line
    "loss": ("batches", "training batches"),
    "train_loss": ("train", "training patients, at the same fixed noise"),
    "val_loss": ("val", "validation patients"),
    "gap": ("gap", "validation minus training"),
    "membership": ("gap", "pairs in which the training image has the smaller error"),
}


@dataclass(frozen=True)
class Edition:
    """The content of one edition of the page besides the scores.

    Attributes:
        internal: whether the edition shows real patients.
        grids: pictures per label; ``None`` if no picture may be shown.
        pairs: nearest pairs, in the internal edition only.
        no_pictures: reason why there are no pictures.
        volumes: whether each picture shows slices of a volume.
    """

    internal: bool
    grids: Grids | None = None
    pairs: tuple[PairPictures, ...] = ()
    no_pictures: str = ""
    volumes: bool = False


@dataclass(frozen=True)
class ScoreRow:
    """One score as a row of a table.

    Attributes:
        term: glossary entry of the score.
        estimate: score shown in the row.
        bar: plot of the score.
        ceiling: score of the autoencoder alone.
        against_real: the score relative to the floor, in words.
        relative: number in ``against_real``, by which rows are sorted.
    """

    term: Term
    estimate: Estimate
    bar: Bar | None
    ceiling: float | None = None
    against_real: str = ""
    relative: float | None = None


@dataclass(frozen=True)
class ScoreGroup:
    """Scores of one feature network, or of none; they may be compared only with scores of the same network."""

    network: str | None
    rows: tuple[ScoreRow, ...]

    @property
    def has_ceiling(self) -> bool:
        """Whether any score of the group has a ceiling."""
        return any(row.ceiling is not None for row in self.rows)


@dataclass(frozen=True)
class SeedSpread:
    """One score by several feature networks that differ only in their training seed."""

    term: Term
    network: str
    label: str | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class ConfusionRow:
    """Predicted labels of the images prompted with one label, as counts with a shade from 0 to 9."""

    label: str
    total: int
    cells: tuple[tuple[int, int], ...]


def render_page(
    report: QualityReport,
    facts: Mapping[str, Any],
    edition: Edition,
    *,
    guarantee: Guarantee | None = None,
    study: StudyReport | None = None,
    answer: AugmentReport | None = None,
) -> str:
    """Render one self-contained HTML page.

    All values that come from data pass through Jinja's autoescaping. A Content Security Policy (level 3) allows only
    the styles and the script whose hashes it lists.

    Args:
        report: scores that this edition may show.
        facts: facts of the run as plain values, as this edition may show them.
        edition: edition to render, with its pictures.
        guarantee: formal guarantee of the generator, if there is one.
        study: utility study of the set, if one was done.
        answer: recommendation on the images of a rare label, if one was asked for.
    """
    scores = [e for e in report.estimates if not is_ratio(e.name) and not is_reconstruction(e.name)]
    return fill(
        "page.html.j2",
        report=report,
        facts=facts,
        edition=edition,
        guarantee=guarantee,
        words=plain_words(report),
        score_groups=score_groups(report, [e for e in scores if e.label is None]),
        ratio_groups=score_groups(report, [e for e in report.estimates if is_ratio(e.name)]),
        label_groups=score_groups(report, [e for e in scores if e.label is not None]),
        spreads=tuple(seed_spreads(report.details)),
        agreement=score_groups(report, report.agreement.per_label if report.agreement else ()),
        confusion=tuple(confusion_rows(report)),
        utility=utility_table(report),
        study=None if study is None else study_view(study),
        answer=answer,
        copy_scores=score_groups(report, copy_estimates(report)),
        copy_chart=copy_chart(report),
        membership_scores=score_groups(report, membership_estimates(report)),
        disclosure_scores=score_groups(report, disclosure_estimates(report)),
        roc_chart=roc_chart(report),
        control=control_rows(report, facts.get("control")),
        curves=tuple(curve_charts(facts["curves"])),
        recipe=tuple(flattened(facts["recipe"])),
        refused=refused_scores(every_estimate(report)),
        glossary=glossary(every_estimate(report)),
        splits=SPLITS,
    )


def render_study(
    found: Mapping[str, StudyReport],
    *,
    created: str,
    settings: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, Any]],
) -> str:
    """Render a page of utility studies; it shows no pictures.

    Args:
        found: study of each share of the training patients, by the share in words.
        created: time of the report, ISO 8601.
        settings: settings of the studies, without paths.
        facts: ``machine`` and ``versions`` of the run.
    """
    return fill(
        "study.html.j2",
        views=[(share, study_view(report)) for share, report in found.items()],
        created=created,
        settings=tuple(flattened(settings)),
        machine=facts["machine"],
        versions=facts["versions"],
    )


def fill(template: str, **values: Any) -> str:
    """Fill a template that extends ``shell.html.j2`` and return one self-contained page.

    Args:
        template: file name of the template.
        values: variables of the template besides style sheet and script.
    """
    styles, script = (TEMPLATES / "page.css").read_text("utf-8"), (TEMPLATES / "page.js").read_text("utf-8")
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            styles=Markup(styles),  # noqa: S704  (a file of this package, without data)
            script=Markup(script),  # noqa: S704  (a file of this package, without data)
            styles_hash=source_hash(styles),
            script_hash=source_hash(script),
        )
    )


def source_hash(text: str) -> str:
    """Hash source of an inline style or script in the notation of Content Security Policy level 3, section 2.3.1."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        at_most=at_most,
        interval=interval_text,
        duration=duration,
        methods=methods,
        network=network_title,
        sentence=sentence,
        signed=signed,
    )
    return environment


def term_of(estimate: Estimate) -> Term:
    """The glossary entry of a score."""
    return term(estimate.name, estimate.estimand)


def interval_text(interval: Interval | None) -> str:
    """An interval as text."""
    return "–" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def at_most(value: float) -> str:
    """An upper bound > 0 as text, rounded up."""
    return rounded_up(value, 3)


def sentence(text: str) -> str:
    """The text with a capital first letter and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith((".", "?", "!")) else ".")


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def every_estimate(report: QualityReport) -> Iterator[Estimate]:
    """All estimates of a report except the details."""
    yield from report.estimates
    yield from report.agreement.per_label if report.agreement else ()
    yield from copy_estimates(report)
    yield from membership_estimates(report)
    yield from disclosure_estimates(report)
    yield from (score.estimate for score in report.utility)


def against_real(estimate: Estimate) -> tuple[str, float | None]:
    """The score relative to its floor: a ratio if both are positive distances, else a difference."""
    if estimate.value is None or estimate.floor is None:
        return "–", None
    low = estimate.floor_interval[0] if estimate.floor_interval else estimate.floor
    if estimate.better == "lower" and low > 0:
        ratio = estimate.value / estimate.floor
        return f"{number(ratio)} × floor", ratio
    difference = estimate.value - estimate.floor
    return f"{'+' if difference >= 0 else '−'}{number(abs(difference))}", difference


def score_groups(report: QualityReport, estimates: Iterable[Estimate]) -> tuple[ScoreGroup, ...]:
    """Estimates with a value, grouped by feature network in order of appearance."""
    groups: dict[str | None, list[ScoreRow]] = {}
    for estimate in estimates:
        if estimate.value is not None:
            alone = ceiling(report, estimate)
            row = ScoreRow(term_of(estimate), estimate, score_bar(estimate, alone), alone, *against_real(estimate))
            groups.setdefault(estimate.network, []).append(row)
    return tuple(ScoreGroup(network, tuple(rows)) for network, rows in groups.items())


def methods(groups: Sequence[ScoreGroup]) -> list[tuple[str, str, str]]:
    """Unique methods as (score, labels and networks to which they apply, estimand and method)."""
    found: dict[tuple[str, str], list[str]] = {}
    for group in groups:
        for row in group.rows:
            how = " ".join(part for part in (row.estimate.estimand, row.estimate.method) if part)
            found.setdefault((row.term.title, how), []).append(
                ", ".join(part for part in (row.estimate.label, network_title(group.network or "")) if part)
            )
    return [(title, "; ".join(filter(None, dict.fromkeys(where))), how) for (title, how), where in found.items()]


def ceiling(report: QualityReport, estimate: Estimate) -> float | None:
    """The same score for the autoencoder's reconstructions of the test images, if it was measured."""
    wanted = (estimate.name + RECONSTRUCTION, estimate.network, estimate.label)
    return next((e.value for e in report.estimates if (e.name, e.network, e.label) == wanted), None)


def refused_scores(estimates: Iterable[Estimate]) -> tuple[tuple[str, str, str], ...]:
    """Refused scores as (score, labels and networks, reason), with each reason listed once."""
    found: dict[tuple[str, str], list[str]] = {}
    for estimate in estimates:
        if estimate.value is None:
            where = ", ".join(filter(None, (estimate.label, network_title(estimate.network or ""))))
            reason = estimate.refused or "no reason was recorded"
            found.setdefault((term_of(estimate).title, reason), []).append(where)
    return tuple((title, "; ".join(filter(None, dict.fromkeys(where))), why) for (title, why), where in found.items())


def seed_spreads(details: Sequence[Estimate]) -> Iterator[SeedSpread]:
    """All values of the scores that were computed with several feature networks of one kind."""
    values: dict[tuple[str, str, str | None], list[float]] = {}
    for estimate in details:
        if estimate.value is not None and estimate.network is not None and not is_reconstruction(estimate.name):
            kind = estimate.network.rsplit(", seed ", 1)[0]
            values.setdefault((estimate.name, kind, estimate.label), []).append(estimate.value)
    for (name, network, label), found in values.items():
        if len(found) > 1:
            yield SeedSpread(term(name), network, label, tuple(found))


def confusion_rows(report: QualityReport) -> Iterator[ConfusionRow]:
    """The rows of the confusion matrix, with shades."""
    if report.agreement:
        for label, counts in zip(report.agreement.labels, report.agreement.confusion, strict=False):
            total = sum(counts)
            yield ConfusionRow(
                label, total, tuple((count, min(9, round(9 * count / total)) if total else 0) for count in counts)
            )


def utility_table(report: QualityReport) -> tuple[tuple[str | None, tuple[ScoreRow, ...], tuple[str, ...]], ...]:
    """Utility per label as (label, rows, training set of each row)."""
    table: dict[str | None, list[tuple[ScoreRow, str]]] = {}
    for score in report.utility:
        if score.estimate.value is not None:
            row = ScoreRow(term_of(score.estimate), score.estimate, score_bar(score.estimate))
            table.setdefault(score.estimate.label, []).append((row, TRAINED_ON[score.arm.kind]))
    return tuple((label, tuple(r for r, _ in rows), tuple(t for _, t in rows)) for label, rows in table.items())


def curve_charts(
    rows: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, tuple[Chart, ...], tuple[Mapping[str, Any], ...]]]:
    """Charts of each training stage (losses, gap, membership), and up to 24 rows with a validation loss."""
    for place, stage in enumerate(dict.fromkeys(str(row["stage"]) for row in rows)):
        mine = [row for row in rows if str(row["stage"]) == stage]
        batches, train, val, gap, membership = (_curve(mine, column) for column in CURVES)
        charts = []
        if losses := [curve for curve in (batches, train, val) if curve]:
            best = [(val.steps[val.values.index(min(val.values))], "checkpoint kept")] if val else []
            charts.append(line_chart(f"loss-{place}", f"Loss of the {stage}", losses, y_title="loss", marks=best))
        if gap:
            charts.append(
                line_chart(f"gap-{place}", f"Gap of the {stage}", [gap], y_title="validation loss − training loss")
            )
        if membership:
            title = f"Membership signal of the {stage}"
            first = [(float(row["step"]), "memorisation detected") for row in mine if row.get("memorized")][:1]
            y_title = "share of pairs (0.5: no memorisation)"
            charts.append(line_chart(f"membership-{place}", title, [membership], y_title=y_title, marks=first))
        validated = [row for row in mine if row.get("val_loss") is not None]
        every = max(1, -(-len(validated) // 24))
        if charts:
            yield stage, tuple(charts), tuple(validated[::every])


def _curve(rows: Sequence[Mapping[str, Any]], column: str) -> Curve | None:
    points = [(float(row["step"]), float(row[column])) for row in rows if isinstance(row.get(column), int | float)]
    if len(points) < 2:
        return None
    return Curve(*CURVES[column], tuple(step for step, _ in points), tuple(value for _, value in points))


def flattened(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The fields of a nested recipe as rows of (dotted name, value)."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from flattened(item, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list | tuple) and value and not any(isinstance(item, Mapping) for item in value):
        yield prefix, ", ".join(str(item) for item in value)
    elif isinstance(value, list | tuple) and value:
        for place, item in enumerate(value):
            yield from flattened(item, f"{prefix}[{place}]")
    else:
        yield prefix, "–" if value in (None, "", [], {}, ()) else str(value)


def glossary(estimates: Iterable[Estimate], general: Mapping[str, Term] = GENERAL) -> tuple[Term, ...]:
    """Glossary entries of the given scores, followed by the general entries."""
    known = (estimate for estimate in estimates if not is_reconstruction(estimate.name))
    terms = {term_of(estimate).title: term_of(estimate) for estimate in known}
    return (*terms.values(), *general.values())
