"""Fréchet distance, kernel distance, precision/recall/density/coverage with 95 % intervals: ours beside a bootstrap.

The peer is what one would write with torchmetrics, ``prdc`` and a percentile bootstrap of images: its scores once, and
once more for every resample. Resamples all take the same time, so a few are timed and multiplied (``--timed``).
Features are random with a common part, float32 as networks give them, on disk; each side runs in a process of its own,
so that its memory is its own. ``--large`` measures ours alone at 100,000 x 768, over halves as a report does, into a
result of its own. Run by hand::

    python -m benchmarks.fidelity_speed --images 10000 --features 2048
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prdc import compute_prdc
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from benchmarks.copy_search_speed import features
from benchmarks.measuring import PeakMemory, own_mib, write_result
from medphantom.core.records import Array
from medphantom.quality.fidelity.comparison import compare
from medphantom.quality.fidelity.frechet import frechet_interval
from medphantom.quality.fidelity.half_samples import manifold_intervals
from medphantom.quality.fidelity.kernel import kernel_distance, kernel_interval
from medphantom.quality.fidelity.score import FoldFeatures
from medphantom.quality.stats.influence import variance_of

RESAMPLES = 1000
NAMES = ("real", "synthetic")


def ours(folder: Path, _: int) -> dict[str, float]:
    """Seconds of each score with its interval."""
    real, fake = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES)
    rng, rows = np.random.default_rng(0), np.arange(len(real))

    def kernel() -> object:
        found = kernel_distance(fake, real)
        return kernel_interval(found.value, variance_of(found.first, found.second), found.quadratic)

    return {
        "frechet": _seconds(lambda: frechet_interval(fake, real, rows, rows, rng=rng)),
        "kernel": _seconds(kernel),
        "neighbourhoods": _seconds(lambda: manifold_intervals(real, fake, rows, rng=rng)),
    }


def peer(folder: Path, timed: int) -> dict[str, float]:
    """Seconds of each score and of the resamples behind its interval."""
    real, fake = (np.load(folder / f"{name}.npy") for name in NAMES)
    rng = np.random.default_rng(0)

    def frechet(real: Array, fake: Array) -> None:
        moments = []
        for part in (torch.from_numpy(real).double(), torch.from_numpy(fake).double()):
            moments += [part.mean(dim=0), torch.cov(part.T)]
        _compute_fid(*moments)

    def kernel(real: Array, fake: Array) -> None:
        poly_mmd(torch.from_numpy(real).double(), torch.from_numpy(fake).double())

    def neighbourhoods(real: Array, fake: Array) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            compute_prdc(real, fake, nearest_k=5)

    found = {}
    for name, score in (("frechet", frechet), ("kernel", kernel), ("neighbourhoods", neighbourhoods)):
        once = _seconds(lambda score=score: score(real, fake))
        again = [
            _seconds(
                lambda score=score: score(*(part[rng.integers(len(part), size=len(part))] for part in (real, fake)))
            )
            for _ in range(timed)
        ]
        found[name] = once + RESAMPLES * float(np.mean(again))
        found[f"{name}_once"] = once
    return found


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measured(who: str, folder: Path, timed: int) -> dict[str, Any]:
    """One side in this process."""
    with PeakMemory() as memory:
        found = {"ours": ours, "peer": peer}[who](folder, timed)
    return {"seconds": found, "peak_mib": memory.peak_mib}


def large(folder: Path) -> dict[str, Any]:
    """Everything that a report says of one network, by halves, at a size that does not fit many times."""
    real, fake = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES)
    before = own_mib()
    with PeakMemory() as memory:
        started = time.perf_counter()
        fold = FoldFeatures(real, fake, None, np.arange(len(real)) // 2)
        scores = compare([fold], draws=2, rng=np.random.default_rng(0))
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "own_mib": before + memory.peak_mib,
        "resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "scores": {s.name: None if s.synthetic is None else s.synthetic.value for s in scores},
    }


def apart(*arguments: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fidelity_speed", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def beside_the_peer(images: int, total_features: int, timed: int) -> dict[str, Any]:
    """Ours, the peer, and how much faster ours is."""
    result: dict[str, Any] = {"settings": {"images": images, "features": total_features, "timed": timed}}
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(NAMES):
            features(Path(folder) / f"{name}.npy", images, total_features, seed)
        for who in ("ours", "peer"):
            result[who] = apart("--measure", who, "--folder", folder, "--timed", str(timed))
            print(who, result[who], flush=True)
    scores = ("frechet", "kernel", "neighbourhoods")
    total = {who: sum(result[who]["seconds"][name] for name in scores) for who in ("ours", "peer")}
    times = {name: result["peer"]["seconds"][name] / result["ours"]["seconds"][name] for name in scores}
    result["times_faster"] = {**times, "together": total["peer"] / total["ours"]}
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="of the comparison, 0 for none")
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--timed", type=int, default=2, help="resamples of the peer that are timed")
    parser.add_argument("--large", type=int, default=100_000, help="images of the large trial, 0 for none")
    parser.add_argument("--measure", choices=("ours", "peer", "large"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure == "large":
        print(json.dumps(large(given.folder)))
        return
    if given.measure is not None:
        print(json.dumps(measured(given.measure, given.folder, given.timed)))
        return
    if given.images:
        write_result("fidelity_speed", beside_the_peer(given.images, given.features, given.timed))
    if given.large:
        with tempfile.TemporaryDirectory() as folder:
            for seed, name in enumerate(NAMES):
                features(Path(folder) / f"{name}.npy", given.large, 768, seed)
            found = apart("--measure", "large", "--folder", folder)
        write_result("fidelity_memory", {"settings": {"images": given.large, "features": 768}, "large": found})


if __name__ == "__main__":
    main()
