"""The verdict in plain words: what the evidence supports, what the set may be used for, and what not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from medphantom.quality.report.glossary import network_title
from medphantom.quality.results.quality_report import QualityReport
from medphantom.quality.stats.estimate import Estimate, number

HEADLINES = {
    "fail": "Do not share: this set may give its patients away",
    "screened": "No copy found, by a search that finds planted ones",
    "inconclusive": "Unknown whether this set repeats its patients",
}
MEANINGS = {
    "fail": "The copy search found single images, or the set as a whole, too like the training patients.",
    "told": (
        "The copy search found no image too like a training patient, but from the synthetic images training patients "
        "are told from others: who has a patient's image may learn that this patient was among them."
    ),
    "screened": (
        "The copy search found planted copies of every core kind and nothing else like them. That is evidence for this "
        "search and the kinds of copies that it covers, not a guarantee: other attacks may still succeed."
    ),
    "not all done": (
        "The copy search found planted copies of every core kind and nothing else like them, but screening a set takes "
        "more than that, and not all of it was done: the reasons say what is lacking."
    ),
    "inconclusive": "The copy search cannot be relied on to catch a copy, so that it found none says little.",
}
USES = {
    "fail": ("Finding out why the generator repeats patients, by people who may see the real images.",),
    "screened": (
        "Developing and testing methods, software and teaching data.",
        "A proposal to share it: whether that is allowed remains the decision of your data steward.",
    ),
    "inconclusive": ("Work by people who may see the real images, under the same rules.",),
}
NOT_USES = {
    "fail": ("Sharing in any form, of the generator too.",),
    "screened": ("A claim of anonymity, or of any formal privacy guarantee.",),
    "inconclusive": ("Sharing in any form, before a search that finds planted copies has screened it.",),
}
REFUSED = "Not known: too few images or patients to support a score (the reasons stand under the warnings)."
NOT_MEASURED = "Not measured."


@dataclass(frozen=True)
class PlainWords:
    """What a reader should take away.

    Attributes:
        headline: the verdict in one line.
        meaning: what it rests on.
        realism: sentences about similarity to real images.
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
        meaning=MEANINGS[_cause(report)],
        realism=tuple(_realism(report)) or (REFUSED if report.estimates else NOT_MEASURED,),
        utility=tuple(_utility(report)) or (REFUSED if report.utility else NOT_MEASURED,),
        uses=USES[report.verdict],
        not_uses=(
            *NOT_USES[report.verdict],
            *_weak_labels(report),
            "Diagnosis, or a statement about any real patient.",
        ),
    )


def _cause(report: QualityReport) -> str:
    """The verdict; ``told`` where membership alone fails the set, ``not all done`` where the copy search screens it."""
    attacked = report.membership is not None and bool(report.membership.reasons)
    searched = None if report.copies is None else report.copies.verdict
    if report.verdict == "fail" and attacked and searched != "fail":
        return "told"
    return "not all done" if report.verdict == "inconclusive" and searched == "screened" else report.verdict


def _realism(report: QualityReport) -> Iterator[str]:
    known = {(e.name, e.network): e for e in report.estimates if e.label is None and e.value is not None}
    for (name, network), distance in known.items():
        if name != "frechet" or not distance.value or not distance.floor:
            continue
        where = f" ({network_title(network)})" if network else ""
        over = known.get(("frechet_over_floor", network))
        ratio = number(distance.value / distance.floor) if over is None else _with_interval(over)
        alone = known.get(("frechet_reconstruction_over_floor", network))
        beside = f"; the autoencoder alone stands at {number(alone.value)} times" if alone else ""
        yield f"Synthetic images are {ratio} times as far from test patients as other real patients are{beside}{where}."
    yield from _crowd(known)
    for estimate in report.agreement.per_label if report.agreement else ():
        if estimate.label is None and estimate.value is not None:
            agreement = _with_interval(estimate) + _beside(estimate)
            measure = "share" if report.agreement and report.agreement.confusion else "mean AUROC"
            yield f"A classifier trained on real images sees what was asked for: {measure} {agreement}."


def _crowd(known: Mapping[tuple[str, str | None], Estimate]) -> Iterator[str]:
    """How much of either crowd lies within the other, by the last network that tells."""
    networks = [network for name, network in known if name == "precision" and ("recall", network) in known]
    if networks:
        inside, reached = known["precision", networks[-1]], known["recall", networks[-1]]
        real = ""
        if inside.floor is not None and reached.floor is not None:
            real = f"real against real {number(inside.floor)} and {number(reached.floor)}; "
        yield (
            f"A share of {number(inside.value)} of the synthetic images lies among the real ones, and "
            f"{number(reached.value)} of the real ones among the synthetic ({real}{network_title(networks[-1] or '')})."
        )


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
        reached = ("AUROC " if label else "accuracy ") + _with_interval(found["synthetic"])
        yield f"{subject} classifier trained on synthetic images alone reaches {reached} on real test patients{beside}."
    if len(by_label) > 3:
        yield f"The other {len(by_label) - 3} labels stand in the table."


def _weak_labels(report: QualityReport) -> Iterator[str]:
    scores = {(score.trained_on, score.estimate.label): score.estimate for score in report.utility}
    weak = []
    for (trained_on, label), estimate in scores.items():
        metadata = scores.get(("metadata", label))
        if trained_on == "synthetic" and estimate.value is not None and metadata and metadata.value is not None:
            low = estimate.interval[0] if estimate.interval else estimate.value
            if low <= metadata.value:
                weak.append(label or "any label")
    if weak:
        yield f"Training on {', '.join(weak)}: that it teaches more than the metadata alone do is not shown."


def _with_interval(estimate: Estimate) -> str:
    name, pair = ("95 % interval", estimate.interval) if estimate.interval else ("range", estimate.spread)
    shown = "" if pair is None or pair[0] == pair[1] else f" ({name} {number(pair[0])} to {number(pair[1])})"
    return f"{number(estimate.value)}{shown}"


def _beside(estimate: Estimate) -> str:
    return "" if estimate.floor is None else f"; {number(estimate.floor)} on real images"
