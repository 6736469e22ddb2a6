"""Search of synthetic features among real ones, beside a blockwise ``cdist``, in one run: time and memory.

Ours finds the most similar training and holdout image of each query by cosine, the most similar of every subset, and
reads the training features from a memory map. The peer takes ``torch.cdist`` block by block, and its smallest
distance. Both use the same threads; each measurement runs in a process of its own, so that its memory is its own. Run
by hand::

    python -m benchmarks.copy_search_speed --queries 10000 --real 100000 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import PeakMemory, write_result
from medphantom.core.records import Array
from medphantom.quality.privacy.dcr_share import draw_subsets
from medphantom.quality.privacy.neighbours import FeatureMatcher

HOLDOUT_SHARE = 10  # training images per holdout image
BLOCK = 256
WHO = ("ours", "peer")


def features(path: Path, total: int, width: int, seed: int) -> None:
    """Write random features, block by block, with a common part as real ones have."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((32, width)).astype(np.float32)
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(total, width))
    for start in range(0, total, 8192):
        rows = min(8192, total - start)
        own = rng.standard_normal((rows, width)).astype(np.float32)
        table[start : start + rows] = own + rng.standard_normal((rows, 32)).astype(np.float32) @ mixing
    table.flush()


def ours(folder: Path) -> Array:
    """The most similar training image of each query."""
    train, holdout, queries = (
        np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("train", "holdout", "queries")
    )
    names = [[f"{side}{number}" for number in range(len(part))] for side, part in (("t", train), ("g", holdout))]
    subsets = draw_subsets(names[0], names[1], 100, np.random.default_rng(0))
    return FeatureMatcher(train, holdout[subsets.holdout], subsets).find(queries).train


def peer(folder: Path) -> Array:
    """The nearest training image of each query by blockwise ``cdist``, features standardised and held in memory."""
    train, holdout, queries = (
        torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("train", "holdout", "queries")
    )
    both = torch.cat([train, holdout])
    center, scale = both.mean(dim=0), both.std(dim=0)
    train, queries = ((part - center) / scale for part in (train, queries))
    train, queries = (torch.nn.functional.normalize(part, dim=1) for part in (train, queries))
    found = [torch.cdist(part, train).min(dim=1).indices for part in queries.split(BLOCK)]
    return torch.cat(found).numpy()


def measured(who: str, folder: Path) -> dict[str, Any]:
    """One measurement in this process; peak memory beyond what the libraries take, without pages of mapped files."""
    with PeakMemory() as memory:
        start, cpu = time.perf_counter(), time.process_time()
        found = (ours if who == "ours" else peer)(folder)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mib": memory.peak_mib,
        "checksum": int(found.sum()),
    }


def apart(who: str, folder: Path) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.copy_search_speed", "--measure", who, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--real", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=WHO, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure is not None:
        print(json.dumps(measured(given.measure, given.folder)))
        return
    rounds: list[dict[str, Any]] = []
    quarter: dict[str, Any] = {}
    for total, times in ((given.real, given.rounds), (given.real // 4, 1)):
        with tempfile.TemporaryDirectory() as folder:
            sizes = {"train": total, "holdout": total // HOLDOUT_SHARE, "queries": given.queries}
            for seed, (name, rows) in enumerate(sizes.items()):
                features(Path(folder) / f"{name}.npy", rows, given.width, seed)
            for _ in range(times):
                one = {who: apart(who, Path(folder)) for who in WHO}
                if total == given.real:
                    rounds.append(one)
                    print({who: round(result["seconds"], 1) for who, result in one.items()}, flush=True)
                else:
                    quarter = one
    ratios = [one["ours"]["seconds"] / one["peer"]["seconds"] for one in rounds]
    cpu = [one["ours"]["cpu_seconds"] / one["peer"]["cpu_seconds"] for one in rounds]
    result = {
        "settings": {
            "queries": given.queries,
            "real": given.real,
            "width": given.width,
            "threads": torch.get_num_threads(),
        },
        "ratio": {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)},
        "cpu_ratio": {"median": median(cpu), "lowest": min(cpu), "highest": max(cpu)},
        "same_nearest": all(one["ours"]["checksum"] == one["peer"]["checksum"] for one in rounds),
        "peak_mib": {who: max(one[who]["peak_mib"] for one in rounds) for who in WHO},
        "peak_mib_of_a_quarter": {who: quarter[who]["peak_mib"] for who in WHO},
        "rounds": rounds,
    }
    print(write_result("copy_search_speed", result))


if __name__ == "__main__":
    main()
