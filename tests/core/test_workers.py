"""The worker map: ordered, bounded, and a job that kills its process costs only itself."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medphantom.core.workers import BATCHES_AHEAD, Batch, Crashed, Workers
from tests.cohorts.deadly import greedy, output_is_silenced, square, square_or_die


def workers(total: int, seconds: int = 60) -> Workers:
    return Workers(total, seconds_per_job=seconds, memory_bytes=2**32)


def batches(total: int, size: int = 3, weight: int = 0) -> list[Batch[int]]:
    return [Batch(tuple(range(start, min(start + size, total))), weight) for start in range(0, total, size)]


@pytest.mark.parametrize("total", [0, 1, 3])
def test_results_come_in_order(total: int) -> None:
    with workers(total) as pool:
        found = [value for _, results in pool.map(square, batches(40)) for value in results]
    assert found == [n * n for n in range(40)]


def test_a_job_that_dies_or_hangs_costs_only_itself() -> None:
    with workers(2, seconds=1) as pool:
        found = [value for _, results in pool.map(square_or_die, batches(40)) for value in results]
    assert [n for n, value in enumerate(found) if value == Crashed()] == [13, 17, 23]
    assert all(value == n * n for n, value in enumerate(found) if value != Crashed())


def test_jobs_are_taken_only_a_little_ahead() -> None:
    taken = 0

    def counted() -> Iterator[Batch[int]]:
        nonlocal taken
        for batch in batches(300):
            taken += 1
            yield batch

    with workers(2) as pool:
        for done, _ in enumerate(pool.map(square, counted()), 1):
            assert taken <= done + 2 * BATCHES_AHEAD + 1


def test_heavy_jobs_wait_for_one_another() -> None:
    taken = 0

    def counted() -> Iterator[Batch[int]]:
        nonlocal taken
        for batch in batches(30, weight=2**30):
            taken += 1
            yield batch

    with workers(2) as pool:
        for done, _ in enumerate(pool.map(square, counted()), 1):
            assert taken <= done + 2


def test_codecs_cannot_write_to_the_terminal() -> None:
    with workers(1) as pool:
        assert [results for _, results in pool.map(output_is_silenced, [Batch((1, 2))])] == [[True, True]]


def test_memory_of_a_job_is_bounded() -> None:
    with workers(1) as pool:
        ((_, results),) = pool.map(greedy, [Batch((64, 8192))])
    assert results == [f"got {64 * 2**20}", "MemoryError"]


SCRIPT = """
print("imported", flush=True)
from medphantom.core.workers import Batch, Workers
from tests.cohorts.deadly import square
with Workers(2, seconds_per_job=60, memory_bytes=2**32) as pool:
    print([results for _, results in pool.map(square, [Batch((2, 3))])])
"""


def test_a_script_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)  # without `if __name__ == "__main__":`
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(tmp_path / "script.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout == "imported\n[[4, 9]]\n"


def ask_from_a_daemon(results: multiprocessing.Queue[list[int]]) -> None:
    with workers(2) as pool:
        results.put([value for _, found in pool.map(square, [Batch((2, 3))]) for value in found])


def test_a_process_that_may_have_no_children_works_alone() -> None:
    results: multiprocessing.Queue[list[int]] = multiprocessing.get_context("fork").Queue()
    process = multiprocessing.get_context("fork").Process(target=ask_from_a_daemon, args=(results,), daemon=True)
    process.start()
    assert results.get(timeout=60) == [4, 9]
    process.join()
