"""What a run ran with: versions and machine, without host or user name."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "medphantom",
    "torch",
    "monai",
    "diffusers",
    "accelerate",
    "torchmetrics",
    "transformers",
    "numpy",
    "scipy",
    "scikit-learn",
    "zarr",
    "polars",
    "pydicom",
    "prefect",
)


def versions() -> dict[str, str]:
    """Version of Python and of each package that results may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> tuple[int, int]:
    """Memory of the machine and what is available of it now; (0, 0) where that is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)


def machine() -> dict[str, str | int | float]:
    """Processor, cores, memory and, once torch is loaded, the accelerator."""
    total, _ = memory_bytes()
    facts: dict[str, str | int | float] = {
        "system": platform.system(),
        "cpu": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(total / 2**30, 1),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpu"] = str(torch.cuda.get_device_name(0))
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
