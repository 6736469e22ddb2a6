"""Resources of the machine that this process may use: cores, and memory within the limits of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # control groups of version 1 write a number near 2^63 for no limit
UNKNOWN_MEMORY = 4 * 2**30  # assumed if the amount cannot be determined


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes(proc: Path = Path("/proc"), cgroups: Path = CGROUPS) -> tuple[int, int]:
    """Return the total and the free memory that this process may use, in bytes; (0, 0) if unknown.

    The total is the smallest of the physical memory and the limits of all control groups above the process: a container
    limited to 4 GiB on a machine with 256 GiB has 4 GiB.

    Args:
        proc: Mount point of the proc file system.
        cgroups: Mount point of the control groups (version 1 or 2).
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
    """Return the default memory for decoding: half of the total, at most three quarters of the free memory."""
    total, available = memory_bytes()
    return min(total // 2, available * 3 // 4) or UNKNOWN_MEMORY // 2


def _groups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the folders of this process's control groups and their parents, with the limit and usage file names."""
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
    """Return the bytes of cached files that count as used but are reclaimed when memory is needed."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}
    value = found.get("total_inactive_file", found.get("inactive_file", "0"))
    return int(value) if value.isdigit() else 0
