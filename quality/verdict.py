"""The verdict in plain words: what the evidence supports, what the set may be used for, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quality.charts import number
from quality.estimate import Estimate
from quality.glossary import term
from quality.quality_report import QualityReport, UtilityScore

HEADLINES = {
    "fail": "Do not share: this set may repeat its patients",
    "screened": "No copy found, by a search that finds planted ones",
    "inconclusive": "Unknown whether this set repeats its patients",
}
MEANINGS = {
    "fail": "The copy search found synthetic images that are too like training patients.",
    "screened": (
        "The copy search found planted copies and nothing else like them. That is evidence for this search, not a "
        "guarantee: other attacks may still succeed."
    ),
    "inconclusive": "The copy search could not have caught a copy, so that it found none says nothing.",
}
USES = {
    "fail": ("Finding out why the generator repeats patients, by people who may see the real images.",),
    "screened": (
        "Developing and testing methods, software and teaching material.",
        "A proposal to share it: whether that is allowed remains the decision of your data steward.",
    ),
    "inconclusive": ("Work by people who may see the real images, under the same rules.",),
}
NOT_USES = {
    "fail": ("Sharing in any form, of the generator too.",),
    "screened": ("A claim of anonymity, or of any formal privacy guarantee.",),
    "inconclusive": ("Sharing in any form, before a search that finds planted copies has screened it.",),
}


@dataclass(frozen=True)
class PlainWords:
    """What a reader should take away.

    Attributes:
        headline: the verdict in one line.
        meaning: what it rests on.
        realism: sentences about likeness to real images.
        utility: sentences about use for training.
        uses: what the evidence supports.
        not_uses: what it does not.
    """

    headline: str
    meaning: str
    realism: tuple[str, ...]
    utility: tuple[str, ...]
    uses: tuple[str, ...]
    not_uses: tuple[str, ...]


def plain_words(report: QualityReport) -> PlainWords:
    """Say what the scores support, no more."""
    return PlainWords(
        headline=HEADLINES[report.verdict],
        meaning=MEANINGS[report.verdict],
        realism=tuple(_realism(report)) or ("Not measured.",),
        utility=tuple(_utility(report)) or ("Not measured: no label to train on.",),
        uses=USES[report.verdict],
        not_uses=(
            *NOT_USES[report.verdict],
            *_weak_labels(report),
            "Diagnosis, or a statement about any real patient.",
        ),
    )


def _realism(report: QualityReport) -> Iterator[str]:
    seen: set[str | None] = set()
    for estimate in report.estimates:
        described = term(estimate.name)
        usable = estimate.label is None and estimate.value is not None and estimate.floor and estimate.floor > 0
        if described.family == "distance" and usable and estimate.network not in seen and estimate.better == "lower":
            seen.add(estimate.network)
            ratio = number((estimate.value or 0.0) / (estimate.floor or 1.0))
            yield (
                f"{described.title} to test patients ({estimate.network or 'no network'}): {ratio} times that between "
                "real patients."
            )
    for estimate in report.agreement.per_label if report.agreement else ():
        if estimate.label is None and estimate.value is not None:
            agreement = _with_interval(estimate) + _beside(estimate)
            yield f"A classifier trained on real images recognises what was asked for: {agreement}."


def _utility(report: QualityReport) -> Iterator[str]:
    by_label: dict[str | None, dict[str, Estimate]] = {}
    for score in report.utility:
        if score.estimate.value is not None:
            by_label.setdefault(score.estimate.label, {})[score.trained_on] = score.estimate
    for label, found in list(by_label.items())[:3]:
        if "synthetic" not in found:
            continue
        others = [
            f"{what} {number(found[key].value)}"
            for key, what in (("real", "real images"), ("metadata", "metadata alone"))
            if key in found
        ]
        beside = f" ({'; '.join(others)})" if others else ""
        subject = f"{label}: a" if label else "A"
        reached = _with_interval(found["synthetic"])
        yield f"{subject} classifier trained on synthetic images alone reaches {reached} on real patients{beside}."
    if len(by_label) > 3:
        yield f"{len(by_label) - 3} more labels stand in the table."


def _weak_labels(report: QualityReport) -> Iterator[str]:
    weak = sorted({label for score in report.utility if (label := _no_better_than_metadata(report, score))})
    if weak:
        yield f"Training on {', '.join(weak)}: synthetic images teach no more than age, sex and other metadata do."


def _no_better_than_metadata(report: QualityReport, score: UtilityScore) -> str | None:
    if score.trained_on != "synthetic" or score.estimate.value is None or score.estimate.label is None:
        return None
    for other in report.utility:
        if other.trained_on == "metadata" and other.estimate.label == score.estimate.label:
            low = score.estimate.interval[0] if score.estimate.interval else score.estimate.value
            if other.estimate.value is not None and low <= other.estimate.value:
                return score.estimate.label
    return None


def _with_interval(estimate: Estimate) -> str:
    interval = estimate.interval
    shown = "" if interval is None else f" (95 % interval {number(interval[0])} to {number(interval[1])})"
    return f"{number(estimate.value)}{shown}"


def _beside(estimate: Estimate) -> str:
    return "" if estimate.floor is None else f"; {number(estimate.floor)} on real images"
