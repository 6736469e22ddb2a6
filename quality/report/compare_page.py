"""The comparison as a page: scores on one axis per row, and images of every run for the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medphantom.quality.report.charts import Bar, score_bar
from medphantom.quality.report.compare import ComparedEstimates, Comparison, Part
from medphantom.quality.report.glossary import GENERAL, Term, term
from medphantom.quality.report.page import TRAINED_ON, fill, glossary
from medphantom.quality.report.pictures import Picture
from medphantom.quality.stats.estimate import Estimate

PART_TITLES: dict[Part, str] = {
    "fidelity": "Similarity to real images",
    "agreement": "Agreement with the prompts",
    "utility": "Utility for training",
    "membership": "Membership inference",
}


@dataclass(frozen=True)
class PictureRow:
    """One prompt and seed, with the image of every run.

    Attributes:
        title: prompt of the images in words.
        pictures: picture of each run; ``None`` if it has none.
    """

    title: str
    pictures: tuple[Picture | None, ...]


@dataclass(frozen=True)
class CompareRow:
    """A score with plots on one axis.

    Attributes:
        term: glossary entry of the score.
        score: score of the row.
        better: direction in which the score improves.
        floor: real-vs-real floor; ``None`` if there is none or if it differs between runs.
        cells: name, estimate, plot and significantly different runs, for each run.
    """

    term: Term
    score: ComparedEstimates
    better: str
    floor: float | None
    cells: tuple[tuple[str, Estimate | None, Bar | None, str], ...]


def render_comparison(found: Comparison, rows: Sequence[PictureRow], *, created: str, drawn: str) -> str:
    """Render one self-contained internal HTML page; synthetic images that were not screened count as real images.

    Args:
        found: comparison to be shown.
        rows: pictures for the same prompts and seeds.
        created: time of the comparison, ISO 8601.
        drawn: origin of the pictures, in words.
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


def _rows(found: Comparison, scores: Sequence[ComparedEstimates]) -> Iterator[CompareRow]:
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


def _term(score: ComparedEstimates, estimate: Estimate) -> Term:
    if score.part == "utility":
        return Term(f"Trained on {TRAINED_ON[score.name]}", estimate.estimand)
    if score.part == "membership":
        return Term(f"Attack: {score.name}", estimate.estimand)
    return term(score.name, estimate.estimand)


def _axis(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Ends of an axis that contains every value, interval and floor of a row."""
    ends = [0.0]
    for one in estimates:
        ends += [value for value in (one.value, one.floor) if value is not None]
        for pair in (one.interval or one.spread, one.floor_interval):
            ends += list(pair or ())
    return min(ends), max(ends)
