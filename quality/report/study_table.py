"""The utility study as Markdown: the advice, followed by tables of every score with its interval."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape

from medphantom.quality.results.model_score import Measure, ModelScore, TrainingArm
from medphantom.quality.results.study_report import StudyReport
from medphantom.quality.stats.estimate import Estimate


def study_table(report: StudyReport) -> str:
    """The study as Markdown; label names come from data and are escaped."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: StudyReport) -> Iterator[str]:
    config = report.config
    model = f"classifier ({config.network}, {config.classifier.steps}"
    if config.task == "segmentation":
        model = f"segmenter (U-Net, {config.segmenter.steps}"
    synthetic = ", ".join(f"{total:,}" for total in report.synthetic_images)
    yield "# Utility study"
    yield ""
    yield (
        f"Training set: {report.real_images:,} real images of {report.real_patients:,} patients, and {synthetic} "
        f"synthetic images ({len(report.synthetic_images)} generator seeds). Downstream model: a {model} steps in "
        f"every arm), trained with {config.classifier_seeds} seeds. Test set: {report.test_images:,} images of "
        f"{report.test_patients:,} patients. The 95 % intervals account for patients and seeds."
    )
    yield ""
    yield "## Advice"
    yield ""
    yield from (f"- {_plain(advice.sentence)}" for advice in report.advice)
    yield from (f"- Note: {_plain(warning)}" for warning in report.warnings)
    for test in dict.fromkeys(score.test for score in report.scores):
        for measure in dict.fromkeys(score.measure for score in report.scores if score.test == test):
            some = [score for score in report.scores if (score.test, score.measure) == (test, measure)]
            yield from _measure(test, measure, some)
    if report.gaps:
        yield from (
            "",
            "## Subgroups",
            "",
            "| arm | subgroups | gap | change compared with real |",
            "|---|---|---|---|",
        )
        for gap in report.gaps:
            change = "" if gap.change is None else _cell(gap.change, sign=True)
            groups = f"{_plain(gap.better)} minus {_plain(gap.worse)}"
            yield f"| {gap.arm.words} | {groups} | {_cell(gap.gap)} | {change} |"


def _measure(test: str, measure: Measure, scores: Sequence[ModelScore]) -> Iterator[str]:
    labels = list(dict.fromkeys(score.estimate.label for score in scores))
    known = [
        label for label in labels if any(s.estimate.label == label and s.estimate.value is not None for s in scores)
    ]
    yield ""
    yield f"## {measure} on {_plain('real test patients' if test == 'test' else test)}"
    yield ""
    yield f"| arm | {' | '.join(_plain(label or 'mean') for label in known)} |"
    yield f"|---|{'---|' * len(known)}"
    cells = {(score.arm, score.estimate.label): score for score in scores}
    for arm in dict.fromkeys(score.arm for score in scores):
        yield f"| {arm.words} | {' | '.join(_of(cells, arm, label) for label in known)} |"
    refused = {s.estimate.label: s.estimate.refused for s in scores if s.estimate.value is None and s.estimate.label}
    if refused:
        yield ""
        yield from (f"- {_plain(label)}: {_plain(why or 'not scored')}" for label, why in refused.items())


def _of(cells: dict[tuple[TrainingArm, str | None], ModelScore], arm: TrainingArm, label: str | None) -> str:
    score = cells.get((arm, label))
    if score is None or score.estimate.value is None:
        return "–"
    text = _cell(score.estimate)
    if score.difference is not None and score.difference.value is not None:
        text += f"; {_cell(score.difference, sign=True)}"
        if score.p_holm is not None:
            text += f", p {score.p_holm:.2g}"
    return text


def _cell(estimate: Estimate, *, sign: bool = False) -> str:
    if estimate.value is None:
        return "–"
    form = "+.3f" if sign else ".3f"
    pair = estimate.interval or estimate.spread
    return f"{estimate.value:{form}}" + ("" if pair is None else f" [{pair[0]:{form}}, {pair[1]:{form}}]")


def _plain(text: str) -> str:
    """The text with all characters escaped that have a meaning in HTML or Markdown."""
    return re.sub(r"([\\`*_|<>])", r"\\\1", escape(" ".join(text.split()), quote=False))
