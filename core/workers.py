"""An ordered, bounded map over worker processes that survives the death of a worker: codecs are C, files are hostile.

Results come in the order of the jobs, a fixed number of jobs is in flight, and a job whose process dies or hangs is
found out by running it alone, so that it costs itself and nothing else.
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
BYTES_AHEAD = 512 * 2**20  # of decoded images that wait or are being read; one larger job still runs, alone
MEMORY_PER_BYTE = 4  # a decoder, a LUT and the trip to the parent need several copies of an image
ADDRESSES_BESIDE = 4 * 2**30  # that threads and libraries reserve without using them


@dataclass(frozen=True, slots=True)
class Crashed:
    """Stands for the result of a job whose process died."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[Job]):
    """Jobs that travel together, since a trip to another process costs as much as reading a small file.

    Attributes:
        jobs: the jobs, in order.
        weight_bytes: memory that their results will need, by what the files declare.
        limit_bytes: memory that a process may take for them beyond what it has; 0: its share of all.
    """

    jobs: tuple[Job, ...]
    weight_bytes: int = 0
    limit_bytes: int = 0


class Workers:
    """Processes that run a function over batches of jobs; use as a context.

    Args:
        total: number of processes; 0 runs everything in this process, where a dying codec takes the run with it. So it
            is in a daemonic process, which may have no children.
        seconds_per_job: a job that takes longer is taken to hang; its process is ended.
        memory_bytes: memory for all processes together. Heavy batches wait for one another, so that what they declare
            fits, and no process may take more than its batch was granted.
        preload: modules that every process will need, imported once before the first of them starts.
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
        """Run a function over all jobs; batches come back in order, each with the results of its jobs in order.

        Args:
            function: a module-level function that returns errors rather than raising them.
            batches: read only as far ahead as :data:`BATCHES_AHEAD` and :data:`BYTES_AHEAD` allow.
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
        """Start fresh processes; whatever was in flight and did not finish is marked to run alone."""
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
    """Let new processes not import the main module again: nothing here needs it.

    It may be a script without ``if __name__ == "__main__":``, or import torch for ten seconds in every process.
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
    """Processes start from a server that has ``preload`` imported and no threads; elsewhere they start from nothing."""
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
    """Make a worker quiet, bounded, and mortal together with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # codecs print what they think of a file
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
    """Bound what a process may allocate from now on; unlike addresses, these bytes are nearly all used."""
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
        _set_alarm(seconds)  # not caught: it ends a process that hangs in a codec, where Python would not look
        results.append(function(job))
        _set_alarm(0)
    return results


def _set_alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)
