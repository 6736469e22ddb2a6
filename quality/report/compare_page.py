"""The comparison as a page: scores on one axis per row, and the same prompts and seeds drawn by every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medphantom.quality.report.charts import Bar, score_bar
from medphantom.quality.report.compare import ComparedScore, Comparison, Part
from medphantom.quality.report.glossary import GENERAL, Term, term
from medphantom.quality.report.page import TRAINED_ON, fill, glossary
from medphantom.quality.report.pictures import Picture
from medphantom.quality.stats.estimate import Estimate

PART_TITLES: dict[Part, str] = {
    "fidelity": "Like real images?",
    "agreement": "Shows what was asked for?",
    "utility": "Does it help to train on it?",
    "membership": "Could somebody tell who was learned from?",
}


@dataclass(frozen=True)
class PictureRow:
    """One prompt and seed, drawn by every run.

    Attributes:
        title: what was asked for.
        pictures: by run; ``None`` where it has none.
    """

    title: str
    pictures: tuple[Picture | None, ...]


@dataclass(frozen=True)
class CompareRow:
    """A score with drawings on one axis.

    Attributes:
        term: its entry in the glossary.
        score: the row.
        better: which way it is better.
        floor: what real images reach; ``None``: none, or not the same for all.
        cells: by run: name, estimate, drawing, and the runs that differ from it by more than their intervals.
    """

    term: Term
    score: ComparedScore
    better: str
    floor: float | None
    cells: tuple[tuple[str, Estimate | None, Bar | None, str], ...]


def render_comparison(found: Comparison, rows: Sequence[PictureRow], *, created: str, drawn: str) -> str:
    """One self-contained HTML page, internal: synthetic images that nobody screened together count as real ones.

    Args:
        found: the scores.
        rows: pictures.
        created: when it was made, ISO 8601.
        drawn: where the pictures come from, in words.
    """
    groups = []
    for part, title in PART_TITLES.items():
        for network in dict.fromkeys((s.network, s.network_digest) for s in found.scores if s.part == part):
            some = [s for s in found.scores if s.part == part and (s.network, s.network_digest) == network]
            groups.append((part, title, network[0], tuple(_rows(found, some))))
    known = [e for score in found.scores if score.part in {"fidelity", "agreement"} for e in score.estimates if e]
    return fill(
        "compare.html.j2",
        comparison=found,
        groups=tuple(groups),
        pictures=tuple(rows),
        created=created,
        drawn=drawn,
        glossary=glossary(known, {"floor": GENERAL["floor"], "interval": GENERAL["interval"]}),
    )


def _rows(found: Comparison, scores: Sequence[ComparedScore]) -> Iterator[CompareRow]:
    for score in scores:
        known = [estimate for estimate in score.estimates if estimate is not None]
        axis = _axis(known)
        floors = {estimate.floor for estimate in known}
        names = [run.name for run in found.runs]
        apart = {*score.apart, *((second, first) for first, second in score.apart)}
        yield CompareRow(
            term=_term(score, known[0]),
            score=score,
            better=known[0].better,
            floor=floors.pop() if len(floors) == 1 else None,
            cells=tuple(
                (
                    name,
                    estimate,
                    None if estimate is None else score_bar(estimate, axis=axis),
                    ", ".join(names[other] for mine, other in sorted(apart) if mine == place),
                )
                for place, (name, estimate) in enumerate(zip(names, score.estimates, strict=True))
            ),
        )


def _term(score: ComparedScore, estimate: Estimate) -> Term:
    if score.part == "utility":
        return Term(f"Trained on {TRAINED_ON[score.name]}", estimate.estimand)
    if score.part == "membership":
        return Term(f"Attack: {score.name}", estimate.estimand)
    return term(score.name, estimate.estimand)


def _axis(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Holds every value, interval and floor of a row."""
    ends = [0.0]
    for one in estimates:
        ends += [value for value in (one.value, one.floor) if value is not None]
        for pair in (one.interval or one.spread, one.floor_interval):
            ends += list(pair or ())
    return min(ends), max(ends)
