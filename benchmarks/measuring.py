"""What every benchmark shares: a clock, the machine and versions that a figure belongs to, and a dated result file."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import resource
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "monai", "diffusers", "accelerate", "pydicom", "numpy", "zarr")


def machine() -> dict[str, Any]:
    """Processor, cores, load and accelerator: figures of another machine cannot be compared with these."""
    import torch

    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def versions() -> dict[str, str]:
    """Of the libraries that a figure depends on."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def now() -> float:
    """The clock, in seconds, after the accelerator has completed all requested work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = now()
    work()
    return now() - started


def rate(total: int, times: Sequence[float]) -> dict[str, float]:
    """Units a second from the times of several rounds of ``total`` units: median, and the range over the rounds."""
    rates = [total / value for value in times]
    return {"median": statistics.median(rates), "low": min(rates), "high": max(rates)}


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as fast ours is, round by round (the rounds alternate, so both meet the same load)."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


class PeakMemory:
    """Watches this process; afterwards ``peak_mib`` is what it took at most beyond what it had, mapped files aside."""

    def __enter__(self) -> Self:
        self._before = self._most = own_mib()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
        self.peak_mib = self._most - self._before

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._most = max(self._most, own_mib())


def own_mib() -> float:
    """Memory of this process that is not that of files."""
    resident, shared = (int(part) for part in Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * resource.getpagesize() / 2**20


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write ``results/<name>-<date>[-<accelerator>].json`` with machine and versions, and print it."""
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    content = {"benchmark": name, "date": today, "machine": machine(), "versions": versions(), **result}
    RESULTS.mkdir(exist_ok=True)
    card = content["machine"]["accelerator"]
    where = f"-{re.sub('[^a-z0-9]+', '-', card.lower())}" if card else ""
    path = RESULTS / f"{name}-{today}{where}.json"
    text = json.dumps(content, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"written to {path}")
    return path
