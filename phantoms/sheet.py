"""The contact sheet of the documentation: ``python -m medphantom.phantoms.sheet docs/images/phantoms.png``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from medphantom.core.records import Array
from medphantom.phantoms.factors import FINDINGS, ImageFactors, with_factor
from medphantom.phantoms.population import simulate
from medphantom.phantoms.render import finding_mask, render

COLUMNS, SIDE, CAPTION, GREYS = 8, 160, 13, 64
SEED = 77
WINDOW_HU = (-1050.0, 450.0)

Tile = tuple[str, Array]


def healthy(image: ImageFactors) -> ImageFactors:
    """Return the same image without findings."""
    for name in FINDINGS:
        image = with_factor(image, f"{name}.severity", 0.0)
    return image


def grey(pixels: Array) -> Array:
    """Return an 8-bit view of a radiograph or of a slice in HU."""
    if pixels.dtype == np.uint16:
        return np.asarray(pixels >> 8, dtype=np.uint8)
    low, high = WINDOW_HU
    return np.asarray(np.clip((pixels.astype(np.float32) - low) / (high - low), 0, 1) * 255, dtype=np.uint8)


def tiles() -> list[Tile]:
    """Return captions and pictures, row by row."""
    found: list[Tile] = []
    for patient in simulate(COLUMNS, SEED + 1):
        image = patient.images[0]
        found.append((f"{image.sex} {image.age:.0f} {image.pose.view} {image.scanner.site}", grey(render(image, SIDE))))
    base = healthy(next(simulate(1, SEED, start=12)).images[0])
    found.append(("healthy", grey(render(base, SIDE))))
    found += [(f"{name} 0.6", grey(render(with_factor(base, f"{name}.severity", 0.6), SIDE))) for name in FINDINGS]
    ill = with_factor(base, "effusion.severity", 0.6)
    outlined = grey(render(ill, SIDE)) // 2 + 120 * finding_mask(ill, "effusion", SIDE).astype(np.uint8)
    found.append(("its effusion mask", outlined))
    for level in (0.1, 0.3, 0.5, 0.8):
        changed = with_factor(base, "effusion.severity", level)
        found.append((f"effusion {level}", grey(render(changed, SIDE))))
    for path, value in (("age", 22.0), ("age", 88.0), ("pose.inspiration", 0.05), ("pose.inspiration", 1.0)):
        found.append((f"{path.split('.')[-1]} {value:g}", grey(render(with_factor(base, path, value), SIDE))))
    return found + _volume_tiles()


def _volume_tiles() -> list[Tile]:
    """Return slices of volumes: one patient from head to foot, then one slice with each of three findings."""
    base = healthy(next(simulate(1, SEED, spatial_dims=3, start=3)).images[0])
    volume = render(base, SIDE)
    total = len(volume)
    found = [(f"CT slice {level}", grey(volume[level])) for level in (int(0.72 * total), int(0.5 * total))]
    found.append(("CT from the front", grey(_square(volume[::-1, SIDE // 2]))))
    found.append(("CT from the side", grey(_square(volume[::-1, :, int(0.36 * SIDE)]))))
    for name in ("effusion", "pneumothorax", "consolidation", "cardiomegaly"):
        changed = with_factor(with_factor(base, f"{name}.severity", 0.6), "consolidation.zone", "middle")
        found.append((f"CT {name} 0.6", grey(render(changed, SIDE)[int(0.5 * total)])))
    return found


def _square(plane: Array) -> Array:
    missing = plane.shape[1] - plane.shape[0]
    return np.pad(plane, ((missing // 2, missing - missing // 2), (0, 0)), constant_values=-1024)


def contact_sheet() -> Image.Image:
    """Return all tiles with captions, in few grey levels so that the file stays small."""
    chosen = tiles()
    rows = -(-len(chosen) // COLUMNS)
    sheet = Image.new("L", (COLUMNS * SIDE, rows * (SIDE + CAPTION)))
    draw = ImageDraw.Draw(sheet)
    for place, (caption, picture) in enumerate(chosen):
        x, y = place % COLUMNS * SIDE, place // COLUMNS * (SIDE + CAPTION)
        draw.text((x + 2, y), caption, fill=220)
        sheet.paste(Image.fromarray(picture // (256 // GREYS) * (256 // GREYS)), (x, y + CAPTION))
    return sheet


def main() -> None:
    """Write the sheet to the path given on the command line."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/phantoms.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet().save(out, optimize=True)


if __name__ == "__main__":
    main()
