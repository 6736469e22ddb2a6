"""Counterfactual pairs as pictures: image, factual, counterfactual, and their difference in two colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medphantom.cohorts.pairs import PairRows, Role, pair_rows
from medphantom.cohorts.preprocess import Preprocess, network_images
from medphantom.cohorts.scale import stored_preprocess
from medphantom.cohorts.store import Cohort
from medphantom.core.records import Array
from medphantom.quality.data.pairs import attribute_by_name, labels_by_name, pairs_preprocess, source_rows
from medphantom.quality.report.pictures import DRAWN_SIDE, PAIR_SIDE, Picture, flatten, laid_out, png_uri, shrink
from medphantom.quality.stats.estimate import number

SHOWN = 24
DARKER, SAME, BRIGHTER = (33, 102, 172), (247, 247, 247), (178, 24, 43)  # ColorBrewer RdBu, safe for the colour-blind
LEGEND_SIZE = 12, 256
FAINTEST = 0.02


@dataclass(frozen=True)
class EditPictures:
    """Pictures of one pair and its source image.

    Attributes:
        title: name of the intervention in words.
        source: picture of the real source image.
        factual: result of the method without an intervention.
        counterfactual: result of the method with the intervention.
        difference: counterfactual minus factual image.
    """

    title: str
    source: Picture
    factual: Picture
    counterfactual: Picture
    difference: Picture


@dataclass(frozen=True)
class EditSheet:
    """The pairs of a page.

    Attributes:
        edits: pairs in stored order, evenly spaced among all.
        total: number of all pairs.
        legend: colour scale, from darker to brighter.
        limit: change in network values with full colour.
    """

    edits: tuple[EditPictures, ...]
    total: int
    legend: Picture
    limit: float


def evenly(total: int, shown: int) -> list[int]:
    """At most ``shown`` places among ``total``, evenly spaced."""
    return sorted({round(place) for place in np.linspace(0, total - 1, min(total, shown)).tolist()})


def draw_edits(real: Cohort, pairs: Cohort, shown: int = SHOWN) -> EditSheet:
    """Draw pairs that are evenly spaced in stored order.

    Args:
        real: cohort of the source images.
        pairs: pairs of kind ``counterfactual``.
        shown: largest number of pairs to draw.

    Raises:
        InputError: the pairs are not of that cohort.
    """
    found, preprocess = pair_rows(pairs), pairs_preprocess(pairs)
    places = evenly(len(found), shown)
    rows = [source_rows(real, pairs, found)[place] for place in places]

    def made(role: Role) -> Array:
        return network_images(pairs, [found.rows[role][p] for p in places], stored_preprocess(preprocess))

    source, factual, counterfactual = network_images(real, rows, preprocess), made("factual"), made("counterfactual")
    change = (counterfactual - factual).mean(axis=1, keepdims=True)
    limit = max(FAINTEST, float(np.quantile(np.abs(change), 0.999)))
    edits = []
    for order, place in enumerate(places):
        title = requested_change(pairs, found, place)
        picture = _Draw(preprocess, f"pair {place + 1}, {title}")
        edits.append(
            EditPictures(
                title,
                picture.of("Real image", flatten(source[order])),
                picture.of("Factual image", flatten(factual[order])),
                picture.of("Counterfactual image", flatten(counterfactual[order])),
                picture.of("Difference", diverging(laid_out(change[order])[0] / limit)),
            )
        )
    ramp = np.tile(np.linspace(-1, 1, LEGEND_SIZE[1]), (LEGEND_SIZE[0], 1))
    words = f"from {number(-limit)}, darker, over no change to {number(limit)}, brighter, in network values"
    legend = Picture(png_uri(diverging(ramp)), LEGEND_SIZE[1], LEGEND_SIZE[0], f"Colours {words}", words, sharp=False)
    return EditSheet(tuple(edits), len(found), legend, limit)


@dataclass(frozen=True)
class _Draw:
    preprocess: Preprocess
    title: str

    def of(self, what: str, pixels: Array) -> Picture:
        """A picture with its caption, scaled to fit the page."""
        longest = max(self.preprocess.size)
        scale = max(DRAWN_SIDE // longest, min(1.0, PAIR_SIDE / longest))
        size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
        words = f"{what}: {self.title}"
        return Picture(png_uri(shrink(pixels, scale)), *size, words, words, sharp=scale > 1)


def diverging(shares: Array) -> Array:
    """Signed shares -1…1 ``(H, W)`` as colours, uint8 ``(H, W, 3)``: blue below 0, white at it, red above."""
    clipped = np.clip(shares, -1, 1)[..., None].astype(np.float64)
    ends = np.where(clipped < 0, np.array(DARKER, dtype=np.float64), np.array(BRIGHTER, dtype=np.float64))
    colours: Array = np.rint(np.array(SAME) + np.abs(clipped) * (ends - np.array(SAME))).astype(np.uint8)
    return colours


def requested_change(pairs: Cohort, found: PairRows, place: int) -> str:
    """The intervention on one image in words."""
    before, after = ([found.rows[role][place]] for role in ("factual", "counterfactual"))
    parts = []
    labels = [labels_by_name(pairs, rows, pairs.schema.labels)[0] for rows in (before, after)]
    for name, was, requested in zip(pairs.schema.labels, *labels, strict=True):
        if was != requested:
            parts.append(f"{name} {('absent', 'present')[int(requested)] if requested >= 0 else 'unknown'}")
    for spec in pairs.schema.attributes:
        old, new = (attribute_by_name(pairs, rows, spec.name)[0] for rows in (before, after))
        if old != new and new is not None and spec.name != "role":
            shown = [number(value) if isinstance(value, float) else str(value) for value in (old, new)]
            parts.append(f"{spec.name} {shown[1]} instead of {shown[0]}")
    return ", ".join(parts) or "nothing"
