"""Geometry of the report's charts for the SVG templates: scales, ticks and points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from medphantom.quality.results.quality_report import SimilarityHistogram
from medphantom.quality.stats.estimate import Estimate, Interval, number

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 26, 40
BAR_WIDTH, BAR_HEIGHT, BAR_MARGIN = 200, 26, 8
LOG_RATIO = 30.0  # an axis whose values span more than this is logarithmic
POINTS = 240  # a curve of more points is thinned for drawing


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from values to pixels.

    Attributes:
        low: value drawn at ``start``.
        high: value drawn at ``end``.
        start: pixel position of ``low``.
        end: pixel position of ``high``.
        log: whether equal ratios, rather than equal differences, take equal lengths.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel position of a value, rounded to a tenth and clipped to the axis."""
        low, high, x = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        share = 0.5 if high == low else (x - low) / (high - low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Tick:
    """A tick on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Series:
    """One line or outline of a chart.

    Attributes:
        kind: line style: ``batches``, ``train``, ``val``, ``gap``, ``holdout`` or ``control``.
        name: name in the legend.
        points: SVG ``points`` of a polyline.
        band: SVG ``points`` of the polygon of intervals; empty if there is none.
    """

    kind: str
    name: str
    points: str
    band: str = ""


@dataclass(frozen=True)
class Chart:
    """One chart with two axes.

    Attributes:
        key: key that is unique on the page, from which ids derive.
        title: title of the chart.
        description: description of the chart for screen readers.
        x_title: title of the horizontal axis.
        y_title: title of the vertical axis.
        x_ticks: ticks of the horizontal axis.
        y_ticks: ticks of the vertical axis.
        series: lines in drawing order.
        marks: vertical lines with a caption.
        zero: pixel position of the horizontal zero line, if it lies within the axis.
    """

    key: str
    title: str
    description: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    marks: tuple[Tick, ...] = ()
    zero: float | None = None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Bar:
    """A score on its own axis, with its floor and ceiling.

    Attributes:
        value: pixel position of the score.
        interval: pixel positions of the interval's ends.
        spread: pixel positions of the range over draws or seeds, if there is no interval.
        floor: pixel position of the real-vs-real floor.
        floor_interval: pixel positions of the floor's range.
        ceiling: pixel position of the score of the autoencoder's reconstructions.
        description: description of the plot in words.
    """

    value: float
    interval: Interval | None
    spread: Interval | None
    floor: float | None
    floor_interval: Interval | None
    ceiling: float | None
    description: str
    width: int = BAR_WIDTH
    height: int = BAR_HEIGHT


def tick_text(value: float) -> str:
    """A round axis value as short text."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}").replace("-", "−")


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) between ``low`` and ``high``."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between ``low`` and ``high``, or powers of ten only for a wide range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 3 else (1,)
    return [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]


@dataclass(frozen=True)
class Curve:
    """A curve of one quantity.

    Attributes:
        kind: line style, as in :class:`Series`.
        name: name in the legend.
        steps: horizontal positions, such as training steps.
        values: value at each position.
        band: interval of each value; empty if there are none.
    """

    kind: str
    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...] = field(default=())
    band: tuple[Interval, ...] = ()


def line_chart(
    key: str,
    title: str,
    curves: Sequence[Curve],
    *,
    y_title: str,
    marks: Sequence[tuple[float, str]] = (),
    x_title: str = "step",
    whole: bool = True,
) -> Chart:
    """A chart of curves over training steps or another quantity, logarithmic for a wide range of values.

    Args:
        key: key that is unique on the page.
        title: title of the chart.
        curves: curves of one quantity.
        y_title: title of the vertical axis.
        marks: vertical lines with a caption.
        x_title: title of the horizontal axis.
        whole: whether the horizontal axis has whole numbers only.
    """
    values = [v for curve in curves for v in (*curve.values, *(end for pair in curve.band for end in pair))]
    steps = [s for curve in curves for s in curve.steps]
    log = min(values) > 0 and max(values) / min(values) > LOG_RATIO
    low, high = _room(min(values), max(values), log=log)
    x = Scale(min(steps), max(steps), LEFT, WIDTH - RIGHT)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP, log)
    series = []
    for curve in curves:
        points = " ".join(f"{x(s)},{y(v)}" for s, v in _thinned(curve))
        edge = [*zip(curve.steps, (high for _, high in curve.band), strict=False)]
        edge += reversed([*zip(curve.steps, (low for low, _ in curve.band), strict=False)])
        series.append(Series(curve.kind, curve.name, points, " ".join(f"{x(s)},{y(v)}" for s, v in edge)))
    ends = "; ".join(f"{curve.name} from {number(curve.values[0])} to {number(curve.values[-1])}" for curve in curves)
    return Chart(
        key=key,
        title=title,
        description=f"{ends}, over {x_title} {tick_text(min(steps))} to {tick_text(max(steps))}.",
        x_title=x_title,
        y_title=y_title + (" (log scale)" if log else ""),
        x_ticks=tuple(Tick(x(t), tick_text(t)) for t in ticks(min(steps), max(steps)) if not whole or t == round(t)),
        y_ticks=tuple(Tick(y(t), tick_text(t)) for t in (log_ticks(low, high) if log else ticks(low, high))),
        series=tuple(series),
        marks=tuple(Tick(x(step), text) for step, text in marks),
        zero=y(0) if low < 0 < high and not log else None,
    )


def histogram_chart(key: str, title: str, histogram: SimilarityHistogram) -> Chart:
    """Outlines of the similarity histograms, each normalised to its own total."""
    edges = histogram.edges
    named = [
        ("holdout", "nearest holdout patient (never trained on)", histogram.holdout),
        ("train", "nearest training image", histogram.train),
        ("control", "planted copies", histogram.control),
    ]
    shares = {kind: [count / sum(counts) for count in counts] for kind, _, counts in named if sum(counts)}
    peaks = [max(values) for kind, values in shares.items() if kind != "control"]
    highest = max(peaks or [max(shares["control"])])  # planted copies fill one bin and would dwarf the others
    x = Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    y = Scale(0, highest * 1.25, HEIGHT - BOTTOM, TOP)
    series, medians = [], []
    for kind, name, counts in named:
        if kind not in shares:
            continue
        corners = [f"{x(edges[0])},{y(0)}"]
        for place, share in enumerate(shares[kind]):
            corners += [f"{x(edges[place])},{y(share)}", f"{x(edges[place + 1])},{y(share)}"]
        corners.append(f"{x(edges[-1])},{y(0)}")
        beyond = " (higher than the chart)" if max(shares[kind]) > highest * 1.25 else ""
        series.append(Series(kind, name + beyond, " ".join(corners)))
        medians.append(f"{name}: {sum(counts):,} images, median near {number(_median(edges, counts))}")
    return Chart(
        key=key,
        title=title,
        description="; ".join(medians) + ".",
        x_title="similarity (normalised correlation)",
        y_title="share of images",
        x_ticks=tuple(Tick(x(t), tick_text(t)) for t in ticks(edges[0], edges[-1])),
        y_ticks=tuple(Tick(y(t), f"{100 * t:.3g} %") for t in ticks(0, highest * 1.25, 4)),
        series=tuple(series),
    )


def score_bar(
    estimate: Estimate,
    ceiling: float | None = None,
    *,
    floor_name: str = "real against real",
    axis: Interval | None = None,
) -> Bar | None:
    """The score on an axis that contains value, interval, floor and ceiling; ``None`` without a value.

    Args:
        estimate: score to be drawn.
        ceiling: score of the autoencoder alone.
        floor_name: name of the floor in the description.
        axis: ends of an axis shared by several scores; computed from the score by default.
    """
    if estimate.value is None:
        return None
    present = [estimate.value, 0.0]
    spread = None if estimate.interval else estimate.spread
    for pair in (estimate.interval, spread, estimate.floor_interval):
        present += list(pair or ())
    present += [v for v in (estimate.floor, ceiling) if v is not None]
    low, high = axis or (min(present), max(present))
    if estimate.better == "higher" and low >= 0 and high <= 1:
        high = 1.0  # a share or AUROC fills the axis at its best value
    scale = Scale(low, high, BAR_MARGIN, BAR_WIDTH - BAR_MARGIN)
    words = [f"value {number(estimate.value)}"]
    if estimate.interval:
        words.append(f"95 % interval {number(estimate.interval[0])} to {number(estimate.interval[1])}")
    if spread:
        words.append(f"range {number(spread[0])} to {number(spread[1])}")
    if estimate.floor is not None:
        words.append(f"{floor_name} {number(estimate.floor)}")
    if ceiling is not None:
        words.append(f"autoencoder alone {number(ceiling)}")
    words.append(f"axis {number(low)} to {number(high)}")

    def placed(interval: Interval | None) -> Interval | None:
        return None if interval is None else (scale(interval[0]), scale(interval[1]))

    return Bar(
        value=scale(estimate.value),
        interval=placed(estimate.interval),
        spread=placed(spread),
        floor=None if estimate.floor is None else scale(estimate.floor),
        floor_interval=placed(estimate.floor_interval),
        ceiling=None if ceiling is None else scale(ceiling),
        description=", ".join(words),
    )


def _room(low: float, high: float, *, log: bool) -> tuple[float, float]:
    if log:
        return low / 1.1, high * 1.1
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low <= high * 0.5 else low - margin), high + margin


def _thinned(curve: Curve) -> list[tuple[float, float]]:
    pairs = list(zip(curve.steps, curve.values, strict=True))
    if len(pairs) <= POINTS:
        return pairs
    places = sorted({round(k * (len(pairs) - 1) / (POINTS - 1)) for k in range(POINTS)})
    return [pairs[place] for place in places]


def _median(edges: Sequence[float], counts: Sequence[int]) -> float:
    half, below = sum(counts) / 2, 0
    for place, count in enumerate(counts):
        below += count
        if below >= half:
            return (edges[place] + edges[place + 1]) / 2
    return edges[-1]
