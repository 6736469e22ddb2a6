"""What the machine has for this process: cores, and memory within the limits of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # control groups of version 1 write a number near 2^63 for no limit
UNKNOWN_MEMORY = 4 * 2**30  # what is taken to be there where nothing says it


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes(proc: Path = Path("/proc"), cgroups: Path = CGROUPS) -> tuple[int, int]:
    """Memory that this process may use in all, and what of it is free now; (0, 0) where that is unknown.

    The smallest of physical memory and of what every control group above the process allows counts: a container of
    4 GiB on a machine of 256 GiB has 4.

    Args:
        proc: where the kernel tells about processes.
        cgroups: where control groups of version 1 or 2 are mounted.
    """
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    except (OSError, ValueError, IndexError):
        return 0, 0
    total, available = sizes.get("MemTotal", 0), sizes.get("MemAvailable", sizes.get("MemFree", 0))
    for folder, limit_name, used_name in _groups(proc, cgroups):
        limit = _number(folder / limit_name)
        if limit is None or limit >= UNLIMITED:
            continue
        total = min(total, limit)
        available = min(available, max(0, limit - (_number(folder / used_name) or 0) + _reclaimable(folder)))
    return total, available


def decoding_bytes() -> int:
    """Memory for decoding by default: half of what is there, or three quarters of what is free where that is less."""
    total, available = memory_bytes()
    return min(total // 2, available * 3 // 4) or UNKNOWN_MEMORY // 2


def _groups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders of the control groups of this process and of all above it, with the names of limit and use."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = (*line.split(":", 2), "", "")[:3]
        if not controllers:  # version 2
            names = ("memory.max", "memory.current")
            mounts = [cgroups, cgroups / "unified"]
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            mounts = [cgroups / "memory"]
        else:
            continue
        parts = [part for part in place.split("/") if part not in {"", ".."}]
        for mount in mounts:
            for depth in range(len(parts), -1, -1):  # in a container only the uppermost may be mounted
                yield mount.joinpath(*parts[:depth]), *names


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reclaimable(folder: Path) -> int:
    """Cached files that count as used and are given up when memory is needed."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}
    value = found.get("total_inactive_file", found.get("inactive_file", "0"))
    return int(value) if value.isdigit() else 0
