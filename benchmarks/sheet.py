"""A contact sheet of counterfactuals beside the truth."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from medphantom.core.records import Array
from medphantom.quality.report.pair_pictures import diverging
from medphantom.quality.report.pictures import flatten

FULL_COLOUR = 0.5  # change in network values that takes the full colour


def contact_sheet(rows: Sequence[tuple[str, list[Array]]], side: int = 128) -> Image.Image:
    """Source, factual, counterfactual, truth and the difference of counterfactual and factual, one pair per line."""
    columns = ("source", "factual", "counterfactual", "truth", "difference")
    left, top = 150, 16
    sheet = Image.new("RGB", (left + len(columns) * side, top + len(rows) * side), "white")
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(columns):
        draw.text((left + place * side + 4, 2), name, fill="black")
    for line, (title, images) in enumerate(rows):
        draw.text((4, top + line * side + side // 2), title, fill="black")
        change = (images[2] - images[1]).mean(axis=0)
        pictures = [flatten(image) for image in images] + [diverging(change / FULL_COLOUR)]
        for place, pixels in enumerate(pictures):
            tile = Image.fromarray(pixels).convert("RGB").resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + place * side, top + line * side))
    return sheet
