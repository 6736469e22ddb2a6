"""The picture of the README: simulated patients beside synthetic images, by finding.

Both sides are chosen by order, not by looks: the first images of the ``test`` split, and of the synthetic set, that
show a finding::

    python -m benchmarks.demo_picture runs/demo docs/images/demo.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medphantom.cohorts.preprocess import network_images
from medphantom.cohorts.store import Cohort
from medphantom.generators.facts import read_facts
from medphantom.quality.report.pictures import flatten

SIDE, EACH, LEFT, TOP, GAP = 128, 4, 130, 28, 16


def first_of(cohort: Cohort, rows: list[int], label: int | None) -> list[int]:
    """The first rows that show a label, or none of them."""
    states = cohort.labels(rows) == 1
    shown = ~states.any(axis=1) if label is None else states[:, label]
    return [row for row, wanted in zip(rows, shown, strict=True) if wanted][:EACH]


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run on simulated patients")
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    real, synthetic = Cohort.open(options.run / "cohort"), Cohort.open(options.run / "synthetic")
    preprocess = read_facts(options.run / "bundle")[0].preprocess
    sides = [(real, real.rows("test")), (synthetic, synthetic.rows())]
    lines = [("no finding", None), *((label, place) for place, label in enumerate(real.schema.labels))]
    width = LEFT + 2 * EACH * SIDE + GAP
    sheet = Image.new("RGB", (width, TOP + len(lines) * SIDE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for number, title in enumerate(("simulated patients", "synthetic images")):
        draw.text((LEFT + number * (EACH * SIDE + GAP) + 4, 5), title, fill="black", font=font)
    for line, (title, label) in enumerate(lines):
        draw.text((4, TOP + line * SIDE + SIDE // 2 - 8), title, fill="black", font=font)
        for number, (cohort, rows) in enumerate(sides):
            chosen = first_of(cohort, rows, label)
            images = network_images(cohort, chosen, preprocess) if chosen else np.zeros((0, 1, 1, 1), np.float32)
            for place, image in enumerate(images):
                tile = Image.fromarray(flatten(image)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                sheet.paste(tile, (LEFT + number * (EACH * SIDE + GAP) + place * SIDE, TOP + line * SIDE))
    sheet.convert("L").save(options.picture, optimize=True)


if __name__ == "__main__":
    main()
