"""DICOM files a second of ingestion, beside plain loops over the same files: pydicom with its modality LUT, and MONAI.

Ingestion reads, checks, de-identifies, looks for duplicates and writes a cohort; the loops only read. Processor time is
also compared with that of a loop that keeps what it read: the same digest and the same compression, and no check. A
round of each follows the other. The slices are those of a folder of series, repeated under UIDs of their own. Run by
hand, on a quiet machine::

    python -m benchmarks.dicom_ingest --source $MEDPHANTOM_REAL_DATA/brain_mr_dicom --copies 12 --rounds 5
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import zarr
from monai.transforms import LoadImage
from pydicom.pixels import apply_modality_lut
from zarr.codecs import BloscCodec

from benchmarks.measuring import paired_ratio, rate, seconds, write_result
from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.ingest import ingest
from medphantom.cohorts.options import IngestOptions
from medphantom.core.workers import usable_cores

KEY = IdentityKey.from_phrase("benchmark")


def replicate(source: Path, target: Path, copies: int) -> list[list[Path]]:
    """Copy all DICOM files ``copies`` times, each copy under new series and instance UIDs; the files of each series."""
    series: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*.dcm")):
        ds = pydicom.dcmread(path)
        original_series, original_instance = ds.SeriesInstanceUID, ds.SOPInstanceUID
        for copy in range(copies):
            ds.SeriesInstanceUID = f"{original_series[:56]}.{copy}"
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{original_instance[:56]}.{copy}"
            ds.PatientID = f"copy {copy}"
            place = target / str(copy) / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            ds.save_as(place)
            series.setdefault(ds.SeriesInstanceUID, []).append(place)
    return list(series.values())


def plain_pydicom(files: list[Path]) -> None:
    """Read every file and apply its modality LUT."""
    for path in files:
        ds = pydicom.dcmread(path)
        apply_modality_lut(ds.pixel_array, ds)


def keeping_pydicom(files: list[Path], out: Path) -> None:
    """The same, and keep the stored values of every file: its SHA-256, and compressed arrays of Zarr, a chunk a MiB."""
    shutil.rmtree(out, ignore_errors=True)
    stacks: dict[tuple[tuple[int, ...], str], list[np.ndarray[Any, Any]]] = {}
    for path in files:
        ds = pydicom.dcmread(path)
        pixels = ds.pixel_array
        apply_modality_lut(pixels, ds)
        hashlib.sha256(pixels.tobytes()).hexdigest()
        stacks.setdefault((pixels.shape, pixels.dtype.str), []).append(pixels)
    for number, stack in enumerate(stacks.values()):
        whole = np.stack(stack)
        array = zarr.create_array(
            out / str(number),
            shape=whole.shape,
            chunks=(max(1, 2**20 // whole[0].nbytes), *whole.shape[1:]),
            dtype=whole.dtype,
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
            config={"write_empty_chunks": True},
        )
        array[:] = whole


def monai_slices(files: list[Path]) -> None:
    """MONAI's loader on every file."""
    load = LoadImage(reader="PydicomReader", image_only=True)
    for path in files:
        load(path)


def monai_series(series: list[list[Path]]) -> None:
    """MONAI's loader on the folder of every series, whose slices it sorts and stacks."""
    load = LoadImage(reader="PydicomReader", image_only=True)
    for files in series:
        load(files[0].parent)


def ours(source: Path, out: Path, dims: int, workers: int) -> None:
    """Ingest the folder; repeated pixels are kept, since the copies share them."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(f"{out}.private", ignore_errors=True)
    options = IngestOptions.model_validate({"spatial_dims": dims, "duplicates": "keep", "workers": workers})
    ingest(source, out, options, KEY)


def processor_seconds(work: Callable[[], None]) -> float:
    """Processor time of one call that starts no other process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def processor_ratios(tree: Path, out: Path, files: list[Path], rounds: int) -> dict[str, dict[str, Any]]:
    """Processor time of ingestion in one process over that of both pydicom loops, by rounds; a first round warms."""
    found: dict[str, dict[str, list[float]]] = {
        "over_reading": {"images": [], "volumes": [], "keeping_loop": []},
        "over_keeping": {"images": [], "volumes": []},
    }
    for number in range(rounds + 1):
        reading = processor_seconds(lambda: plain_pydicom(files))
        keeping = processor_seconds(lambda: keeping_pydicom(files, out.with_name("kept")))
        taken = {
            name: processor_seconds(functools.partial(ours, tree, out, dims, 0))
            for dims, name in ((2, "images"), (3, "volumes"))
        }
        if number:
            found["over_reading"]["keeping_loop"].append(keeping / reading)
            for name, value in taken.items():
                found["over_reading"][name].append(value / reading)
                found["over_keeping"][name].append(value / keeping)
    return {
        beside: {
            name: {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
            for name, ratios in each.items()
        }
        for beside, each in found.items()
    }


def measure(source: Path, copies: int, rounds: int) -> dict[str, Any]:
    """Alternate rounds of each way of reading; the first round of all warms the file cache and is left out."""
    with tempfile.TemporaryDirectory() as folder:
        tree, out = Path(folder, "tree"), Path(folder, "cohort")
        series = replicate(source, tree, copies)
        files = [path for group in series for path in group]
        cores = usable_cores()
        ways: dict[str, Callable[[], None]] = {
            "ours_images": lambda: ours(tree, out, 2, cores),
            "ours_images_one_worker": lambda: ours(tree, out, 2, 1),
            "ours_volumes": lambda: ours(tree, out, 3, cores),
            "pydicom_loop": lambda: plain_pydicom(files),
            "monai_loop_images": lambda: monai_slices(files),
            "monai_loop_volumes": lambda: monai_series(series),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                taken = seconds(way)
                print(f"round {number}: {name} {len(files) / taken:.0f} files/s")
                if number:
                    times[name].append(taken)
        processor = processor_ratios(tree, out, files, rounds)
    pairs = {
        "images_to_pydicom": ("ours_images", "pydicom_loop"),
        "images_to_monai": ("ours_images", "monai_loop_images"),
        "images_one_worker_to_monai": ("ours_images_one_worker", "monai_loop_images"),
        "volumes_to_monai": ("ours_volumes", "monai_loop_volumes"),
    }
    return {
        "setting": {"files": len(files), "series": len(series), "rounds": rounds, "workers": cores},
        "files_per_s": {name: rate(len(files), values) for name, values in times.items()},
        "times_as_fast": {name: paired_ratio(times[a], times[b]) for name, (a, b) in pairs.items()},
        "processor_time": processor,
    }


def main() -> None:
    """Measure and write the result file."""
    warnings.filterwarnings("ignore", "NvImgCodecPydicomReader", UserWarning)  # MONAI on every reader that it makes
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of DICOM series")
    parser.add_argument("--copies", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    write_result("dicom_ingest", measure(arguments.source, arguments.copies, arguments.rounds))


if __name__ == "__main__":
    main()
