"""The environment of a run: versions and machine, without the names of host or user."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from pathlib import Path

from medphantom.core.machine import memory_bytes, usable_cores

__all__ = ["machine", "memory_bytes", "usable_cores", "versions"]

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
    """Return the version of Python and of each package that results may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int | float]:
    """Return the processor, cores and memory and, once torch is loaded, the accelerator."""
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
