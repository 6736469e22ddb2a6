"""Slices of volumes as grey 16-bit PNG files, one folder a volume, so that 2-D networks can be tried on them.

python -m benchmarks.slices $MEDPHANTOM_REAL_DATA/brain_mr_dicom slices/brain_mr
medphantom ingest slices/brain_mr --out runs/brain_mr/cohort --folders patients --public-phrase "brain mr"

Every second slice of the middle half of each NIfTI volume is taken, or all DICOM slices. The example data has a single
DICOM study, whose series are cut into blocks of neighbouring files that stand for patients: what is fitted to some of
them has seen the neighbours of the others, which favours it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from PIL import Image

BLOCK = 8


def slices(source: Path) -> Iterator[tuple[str, Any]]:
    """Yield the name of a volume and one of its slices."""
    for file in sorted(source.rglob("*.nii*")):
        volume = np.asarray(nibabel.load(file).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
        depth = volume.shape[2]
        for place in range(depth // 4, 3 * depth // 4, 2):
            yield file.name.split(".")[0], volume[:, :, place].T
    for place, file in enumerate(sorted(source.rglob("*.dcm"))):
        dataset = pydicom.dcmread(file)
        yield f"{dataset.SeriesNumber}_{place // BLOCK}", dataset.pixel_array.astype(np.float32)


def main() -> None:
    """Write them, each between the .1st and the 99.9th percentile of its values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    total = 0
    for number, (volume, pixels) in enumerate(slices(options.source)):
        low, high = np.percentile(pixels, (0.1, 99.9))
        if high <= low:
            continue
        place = options.out / f"volume_{volume}"
        place.mkdir(parents=True, exist_ok=True)
        scaled = ((pixels - low) / (high - low)).clip(0, 1) * 65535
        Image.fromarray(scaled.astype(np.uint16)).save(place / f"{number:05d}.png")
        total += 1
    print(f"{total} slices in {options.out}")


if __name__ == "__main__":
    main()
