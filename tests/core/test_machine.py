"""Memory is what the kernel says, within what every control group above the process allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from medphantom.core.machine import decoding_bytes, memory_bytes

GIB = 2**30


@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_limit_of_all_control_groups_counts(tmp_path: Path, version: int) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemAvailable: {48 * 2**20} kB\n")
    first = "0::" if version == 2 else "4:memory:"
    (proc / "self" / "cgroup").write_text(f"{first}/outer/inner\n")
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    inner = (cgroups if version == 2 else cgroups / "memory") / "outer" / "inner"
    inner.mkdir(parents=True)
    assert memory_bytes(proc, cgroups) == (64 * GIB, 48 * GIB)
    (inner / names[0]).write_text("max\n" if version == 2 else "9223372036854771712\n")
    assert memory_bytes(proc, cgroups) == (64 * GIB, 48 * GIB)
    (inner.parent / names[0]).write_text(f"{4 * GIB}\n")
    (inner.parent / names[1]).write_text(f"{3 * GIB}\n")
    (inner.parent / "memory.stat").write_text(f"inactive_file {GIB}\n")
    assert memory_bytes(proc, cgroups) == (4 * GIB, 2 * GIB)


def test_this_machine_has_memory_to_decode_with() -> None:
    total, available = memory_bytes()
    assert 0 < available <= total
    assert 0 < decoding_bytes() <= total // 2
