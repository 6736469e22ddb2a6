"""An ordered, bounded map over worker processes that survives crashes: codecs are C code, and files may be hostile.

Results are returned in the order of the jobs, and the number of jobs in flight is limited. A job whose process crashes
or hangs is identified by running it alone, so that no other job is lost.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, Generic, Self, TypeVar

from medphantom.core.errors import ResourceError
from medphantom.core.machine import usable_cores

__all__ = ["Batch", "Crashed", "Workers", "usable_cores"]

Job = TypeVar("Job")
Result = TypeVar("Result")

BATCHES_AHEAD = 3  # per worker
BYTES_AHEAD = 512 * 2**20  # of decoded images in flight; a single larger job still runs, alone
MEMORY_PER_BYTE = 4  # a decoder, a LUT and the trip to the parent need several copies of an image
ADDRESSES_BESIDE = 4 * 2**30  # address space that threads and libraries reserve without using it


@dataclass(frozen=True, slots=True)
class Crashed:
    """Result of a job whose process crashed."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[Job]):
    """Jobs that are sent together, since a round trip to another process costs as much as reading a small file.

    Attributes:
        jobs: Jobs of the batch, in order.
        weight_bytes: Memory that the results will need, as declared by the files.
        limit_bytes: Additional memory that a process may allocate for them; 0 means an equal share of the total.
    """

    jobs: tuple[Job, ...]
    weight_bytes: int = 0
    limit_bytes: int = 0


class Workers:
    """Processes that run a function over batches of jobs; use it as a context manager.

    Args:
        total: Number of processes. With 0, and always in a daemonic process, which may have no children, everything
            runs in this process, and a crashing codec ends the run.
        seconds_per_job: Time limit per job; a process that exceeds it is considered hung and is ended.
        memory_bytes: Memory for all processes together. Heavy batches wait until their declared sizes fit, and no
            process may allocate more than its batch was granted.
        preload: Modules that every process needs; they are imported once before the first process starts.
    """

    def __init__(self, total: int, *, seconds_per_job: int, memory_bytes: int, preload: Sequence[str] = ()) -> None:
        self._total = 0 if multiprocessing.current_process().daemon else total
        self._seconds = seconds_per_job
        self._memory = memory_bytes
        self._preload = tuple(preload)
        self._pool: ProcessPoolExecutor | None = None
        self._alone: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._total:
            try:
                self._pool = self._start(self._total)
                self._pool.submit(os.getpid).result()
            except BrokenProcessPool:
                self._pool = None
                raise ResourceError("worker processes cannot start", "choose workers=0") from None
            except OSError:  # their locks lie in shared memory
                self._pool = None
                what = "worker processes cannot start: shared memory (/dev/shm) is full or cannot be written"
                raise ResourceError(what, "free some of it, or choose workers=0") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for pool in (self._pool, self._alone):
            if pool is not None:
                pool.shutdown(wait=kind is None, cancel_futures=True)

    def map(
        self, function: Callable[[Job], Result], batches: Iterable[Batch[Job]]
    ) -> Iterator[tuple[Batch[Job], list[Result | Crashed]]]:
        """Run a function over all jobs and yield the batches in order, each with the results of its jobs in order.

        Args:
            function: Module-level function that returns errors instead of raising them.
            batches: Batches, read only as far ahead as :data:`BATCHES_AHEAD` and :data:`BYTES_AHEAD` allow.
        """
        if self._pool is None:
            for batch in batches:
                yield batch, [function(job) for job in batch.jobs]
            return
        waiting: deque[tuple[Batch[Job], Future[list[Result]] | None]] = deque()
        source = iter(batches)
        upcoming = next(source, None)
        while waiting or upcoming is not None:
            while upcoming is not None and self._has_room(waiting, upcoming):
                waiting.append((upcoming, self._submit(function, upcoming, waiting)))
                upcoming = next(source, None)
            batch, future = waiting.popleft()
            results: list[Result | Crashed] | None = None
            if future is not None:
                try:
                    results = list(future.result())
                except BrokenProcessPool:
                    self._restart(waiting)
            yield batch, results if results is not None else self._one_by_one(function, batch)

    def _has_room(self, waiting: Sequence[tuple[Batch[Job], Any]], upcoming: Batch[Job]) -> bool:
        weight = sum(batch.weight_bytes for batch, _ in waiting)
        room = min(BYTES_AHEAD, self._memory // MEMORY_PER_BYTE)
        return not waiting or (len(waiting) < BATCHES_AHEAD * self._total and weight + upcoming.weight_bytes <= room)

    def _submit(
        self,
        function: Callable[[Job], Result],
        batch: Batch[Job],
        waiting: deque[tuple[Batch[Job], Future[list[Result]] | None]],
    ) -> Future[list[Result]] | None:
        assert self._pool is not None  # noqa: S101 - map() returned before when there is no pool
        try:
            return self._pool.submit(_run, function, batch.jobs, self._seconds, self._limit_of(batch))
        except BrokenProcessPool:
            self._restart(waiting)
            return None

    def _restart(self, waiting: deque[tuple[Batch[Job], Future[list[Result]] | None]]) -> None:
        """Start new processes; unfinished batches that were in flight are marked to run job by job."""
        assert self._pool is not None  # noqa: S101 - only called with a pool
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._start(self._total)
        for place, (batch, future) in enumerate(waiting):
            if future is not None and (not future.done() or future.cancelled() or future.exception() is not None):
                waiting[place] = (batch, None)

    def _one_by_one(self, function: Callable[[Job], Result], batch: Batch[Job]) -> list[Result | Crashed]:
        results: list[Result | Crashed] = []
        for job in batch.jobs:
            if self._alone is None:
                self._alone = self._start(1)
            try:
                limit = self._limit_of(batch)
                results += self._alone.submit(_run, function, (job,), self._seconds, limit).result()
            except BrokenProcessPool:
                self._alone = None
                results.append(Crashed())
        return results

    def _limit_of(self, batch: Batch[Job]) -> int:
        return min(batch.limit_bytes or self._memory // max(1, self._total), self._memory)

    def _start(self, total: int) -> ProcessPoolExecutor:
        context = _context(self._preload)
        return ProcessPoolExecutor(total, mp_context=context, initializer=_prepare, initargs=(self._memory,))


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep new processes from importing the main module again, since the workers do not need it.

    It may be a script without ``if __name__ == "__main__":`` or take ten seconds in every process to import torch.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _ForkServerProcess(ForkServerProcess):
    def start(self) -> None:
        with _main_module_hidden():
            super().start()


class _SpawnProcess(SpawnProcess):
    def start(self) -> None:
        with _main_module_hidden():
            super().start()


def _context(preload: Sequence[str]) -> Any:
    """Return a context whose processes start from a server that has ``preload`` imported, or from scratch elsewhere."""
    context: Any
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = ForkServerContext()
        context.Process = _ForkServerProcess
        context.set_forkserver_preload(list(preload))
    else:
        context = SpawnContext()
        context.Process = _SpawnProcess
    return context


def _prepare(memory_bytes: int) -> None:
    """Silence a worker's output, limit its memory, and end it when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # codecs print warnings about files
    os.dup2(nowhere, 2)
    _limit_addresses(ADDRESSES_BESIDE + memory_bytes)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _limit_addresses(total_bytes: int) -> None:
    _limit("RLIMIT_AS", 0, total_bytes)


def _limit_memory(total_bytes: int) -> None:
    """Limit what a process may allocate from now on; unlike address space, this memory is nearly all used."""
    _limit("RLIMIT_DATA", 5, total_bytes)


def _limit(name: str, place_in_statm: int, more_bytes: int) -> None:
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123 - a kernel file, not a path of ours
            now = int(stream.read().split()[place_in_statm]) * resource.getpagesize()
        which = getattr(resource, name)
        _, hard = resource.getrlimit(which)
        wanted = now + more_bytes
        resource.setrlimit(which, (wanted if hard < 0 else min(wanted, hard), hard))
    except (ImportError, OSError, ValueError, AttributeError):
        return  # not Linux: the size check before decoding remains


def _run(function: Callable[[Job], Result], jobs: Sequence[Job], seconds: int, limit_bytes: int) -> list[Result]:
    results = []
    _limit_memory(limit_bytes)
    for job in jobs:
        _set_alarm(seconds)  # not caught: it ends a process that hangs in a codec, where Python cannot interrupt it
        results.append(function(job))
        _set_alarm(0)
    return results


def _set_alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)
