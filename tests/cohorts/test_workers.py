"""The worker map: ordered, bounded, and a job that kills its process costs only itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cohorts.workers import BATCHES_AHEAD, Batch, Crashed, Workers
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
