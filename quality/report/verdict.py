"""The verdict in plain language: what the evidence supports, and what the set may and may not be used for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from medphantom.quality.report.glossary import network_title
from medphantom.quality.results.quality_report import QualityReport
from medphantom.quality.stats.estimate import Estimate, number

HEADLINES = {
    "fail": "Do not share: this set may reveal training patients",
    "screened": "No copies found by a search that detects planted copies",
    "inconclusive": "It is not known whether this set contains copies of training patients",
}
MEANINGS = {
    "fail": "The copy search found that single images, or the set as a whole, are too similar to training patients.",
    "membership": (
        "The copy search found no image too similar to a training patient, but a membership inference attack on the "
        "synthetic images succeeded: anyone who has an image of a patient may infer that the patient was in the "
        "training set."
    ),
    "screened": (
        "The copy search detected planted copies of every core kind and no copy in the set. This is evidence for this "
        "search and the kinds of copies that it covers, not a guarantee: other attacks may still succeed."
    ),
    "incomplete": (
        "The copy search detected planted copies of every core kind and no copy in the set, but the screening is "
        "incomplete: the reasons below list what is missing."
    ),
    "inconclusive": (
        "The copy search is not sensitive enough to rule out copies, so a negative result is weak evidence."
    ),
}
USES = {
    "fail": ("Investigation of why the generator reproduces patients, by people with access to the real images.",),
    "screened": (
        "Development and testing of methods and software, and teaching.",
        "A request to share the set; your data steward decides whether sharing is allowed.",
    ),
    "inconclusive": ("Work by people with access to the real images, under the same rules.",),
}
NOT_USES = {
    "fail": ("Sharing in any form, including the generator.",),
    "screened": ("Claims of anonymity or of a formal privacy guarantee.",),
    "inconclusive": ("Sharing in any form before the set has been screened by a search that detects planted copies.",),
}
REFUSED = "Not known: there are too few images or patients for a score (see the reasons under Warnings)."
NOT_MEASURED = "Not measured."


@dataclass(frozen=True)
class PlainWords:
    """The verdict and its consequences for a reader.

    Attributes:
        headline: verdict in one line.
        meaning: evidence on which the verdict is based.
        realism: sentences about similarity to real images.
        utility: sentences about the use of the set for training.
        uses: uses that the evidence supports.
        not_uses: uses that the evidence does not support.
    """

    headline: str
    meaning: str
    realism: tuple[str, ...]
    utility: tuple[str, ...]
    uses: tuple[str, ...]
    not_uses: tuple[str, ...]


def plain_words(report: QualityReport) -> PlainWords:
    """Summarise the scores without claiming more than they support."""
    return PlainWords(
        headline=HEADLINES[report.verdict],
        meaning=MEANINGS[_cause(report)],
        realism=tuple(_realism(report)) or (REFUSED if report.estimates else NOT_MEASURED,),
        utility=tuple(_utility(report)) or (REFUSED if report.utility else NOT_MEASURED,),
        uses=USES[report.verdict],
        not_uses=(
            *NOT_USES[report.verdict],
            *_weak_labels(report),
            "Diagnosis, or statements about individual real patients.",
        ),
    )


def _cause(report: QualityReport) -> str:
    """Key of :data:`MEANINGS`: ``membership`` if only an attack fails the set, ``incomplete`` if only the copy search
    has screened it, else the verdict.
    """
    attacked = report.membership is not None and bool(report.membership.reasons)
    searched = None if report.copies is None else report.copies.verdict
    if report.verdict == "fail" and attacked and searched != "fail":
        return "membership"
    return "incomplete" if report.verdict == "inconclusive" and searched == "screened" else report.verdict


def _realism(report: QualityReport) -> Iterator[str]:
    known = {(e.name, e.network): e for e in report.estimates if e.label is None and e.value is not None}
    for (name, network), distance in known.items():
        if name != "frechet" or not distance.value or not distance.floor:
            continue
        where = f" ({network_title(network)})" if network else ""
        over = known.get(("frechet_over_floor", network))
        ratio = number(distance.value / distance.floor) if over is None else _with_interval(over)
        alone = known.get(("frechet_reconstruction_over_floor", network))
        beside = f"; the autoencoder alone reaches {number(alone.value)} times" if alone else ""
        yield f"Synthetic images are {ratio} times as far from test patients as other real patients are{beside}{where}."
    yield from _precision_and_recall(known)
    for estimate in report.agreement.per_label if report.agreement else ():
        if estimate.label is None and estimate.value is not None:
            agreement = _with_interval(estimate) + _beside(estimate)
            measure = "share" if report.agreement and report.agreement.confusion else "mean AUROC"
            yield f"A classifier trained on real images recognises the prompted labels: {measure} {agreement}."


def _precision_and_recall(known: Mapping[tuple[str, str | None], Estimate]) -> Iterator[str]:
    """Precision and recall by the last network that has both."""
    networks = [network for name, network in known if name == "precision" and ("recall", network) in known]
    if networks:
        precision, recall = known["precision", networks[-1]], known["recall", networks[-1]]
        real = ""
        if precision.floor is not None and recall.floor is not None:
            real = f"real against real {number(precision.floor)} and {number(recall.floor)}; "
        yield (
            f"Precision is {number(precision.value)} (synthetic images within the real distribution) and recall is "
            f"{number(recall.value)} (real images within the synthetic distribution) "
            f"({real}{network_title(networks[-1] or '')})."
        )


def _utility(report: QualityReport) -> Iterator[str]:
    by_label: dict[str | None, dict[str, Estimate]] = {}
    for score in report.utility:
        if score.estimate.value is not None:
            by_label.setdefault(score.estimate.label, {})[score.arm.kind] = score.estimate
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
        reached = ("AUROC " if label else "accuracy ") + _with_interval(found["synthetic"])
        yield f"{subject} classifier trained on synthetic images alone reaches {reached} on real test patients{beside}."
    if len(by_label) > 3:
        yield f"The table below lists the other {len(by_label) - 3} labels."


def _weak_labels(report: QualityReport) -> Iterator[str]:
    scores = {(score.arm.kind, score.estimate.label): score.estimate for score in report.utility}
    weak = []
    for (trained_on, label), estimate in scores.items():
        metadata = scores.get(("metadata", label))
        if trained_on == "synthetic" and estimate.value is not None and metadata and metadata.value is not None:
            low = estimate.interval[0] if estimate.interval else estimate.value
            if low <= metadata.value:
                weak.append(label or "any label")
    if weak:
        yield (
            f"Training for {', '.join(weak)}: the synthetic images were not shown to support better predictions than "
            "metadata alone."
        )


def _with_interval(estimate: Estimate) -> str:
    name, pair = ("95 % interval", estimate.interval) if estimate.interval else ("range", estimate.spread)
    shown = "" if pair is None or pair[0] == pair[1] else f" ({name} {number(pair[0])} to {number(pair[1])})"
    return f"{number(estimate.value)}{shown}"


def _beside(estimate: Estimate) -> str:
    return "" if estimate.floor is None else f"; {number(estimate.floor)} on real images"
