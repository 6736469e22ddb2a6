"""Pound on the command line with changed files, and count what becomes of them.

``python -m tests.hostile.pound --mutations 50000 --seed 1 --processes 2 --write`` writes a dated file to
``benchmarks/results``; ``--first`` begins at another number, so that a long run can be done in pieces; ``--only
NUMBER`` makes one mutation again and says all about it.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile.examples import make_examples
from tests.hostile.kinds import KINDS
from tests.hostile.trial import Outcome, content, kind_of, limit, names, put_back, run, try_out

WALL_SECONDS = 20.0  # after which a mutation is taken to hang, on however busy a machine
LOADING_SECONDS = 100.0  # more, until a worker has loaded its libraries
READY = b"\n"
SECONDS = 2.0
PER_PROCESS = 1500
LOADING = {"manifest", "plan", "report", "DICOM", "checkpoint", "tokenizer", "weights of a MONAI base"}
"""Kinds whose commands load libraries, between them all."""


@dataclass
class _Worker:
    """A forked process that tries mutations one after the other."""

    pid: int
    pipe: int
    numbers: Sequence[int]
    done: int = 0
    began: float = 0.0
    rest: bytes = b""


def pound(
    numbers: Sequence[int], seed: int, processes: int = 1, *, seconds: float = SECONDS, folder: Path
) -> Iterator[Outcome]:
    """Outcomes of these mutations, as they come.

    Args:
        numbers: which mutations of the seed.
        seed: what they derive from.
        processes: that work beside each other.
        seconds: processor time that one may take.
        folder: to work in.
    """
    examples = folder / "examples"
    child = os.fork()  # what it loads and starts would not survive a fork of ours
    if child == 0:
        _quietly(lambda: _made(examples))
    assert os.waitpid(child, 0)[1] == 0, "the examples cannot be made"
    parts = [list(numbers[place::processes]) for place in range(processes)]
    workers = [_start(part, seed, seconds, examples, folder / str(place)) for place, part in enumerate(parts)]
    places = {worker.pipe: place for place, worker in enumerate(workers)}
    while places:
        ready, _, _ = select.select(list(places), [], [], 0.5)
        for pipe, place in list(places.items()):
            worker = workers[place]
            if pipe in ready and (data := os.read(pipe, 2**16)):
                *lines, worker.rest = (worker.rest + data).split(b"\n")
                worker.began = time.monotonic()
                for line in filter(None, lines):
                    worker.done += 1
                    yield Outcome(**json.loads(line))
                continue
            hangs = time.monotonic() - worker.began > WALL_SECONDS
            if pipe not in ready and not hangs:
                continue
            os.kill(worker.pid, signal.SIGKILL)
            _, status = os.waitpid(worker.pid, 0)
            os.close(pipe)
            del places[pipe]
            if worker.done < len(worker.numbers) and (hangs or status != 0):
                number = worker.numbers[worker.done]
                wrong = "hangs" if hangs else f"the process died of {os.waitstatus_to_exitcode(status)}"
                yield Outcome(number, kind_of(seed, number)[0].name, "", None, WALL_SECONDS if hangs else 0, 0, wrong)
                worker.done += 1
            if worker.done < len(worker.numbers):
                rest = worker.numbers[worker.done :]
                workers[place] = _start(rest, seed, seconds, examples, folder / str(place))
                places[workers[place].pipe] = place


def _made(examples: Path) -> None:
    examples.mkdir(parents=True)
    os.chdir(examples)
    make_examples(examples)
    problems = []
    for kind in KINDS:
        for command in kind.commands:
            shutil.rmtree(examples / "out", ignore_errors=True)
            (examples / "out").mkdir()
            before, kept = names(examples), content(examples, kind)
            status, output = run([part.removeprefix("@").replace("=@", "=") for part in command])
            if status != kind.status:
                problems.append(f"{kind.name}: {' '.join(command)} ends in {status}: {output}")
            put_back(examples, before, kept)
    shutil.rmtree(examples / "out")
    if problems:
        raise SystemExit("\n".join(problems))


def _quietly(work: Any) -> None:
    """Do the work of a forked process, and end it."""
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.__stderr__, flush=True)
        os._exit(1)
    os._exit(0)


def _start(numbers: Sequence[int], seed: int, seconds: float, examples: Path, root: Path) -> _Worker:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(examples, root)
    given = numbers[:PER_PROCESS]
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:

        def work() -> None:
            os.environ["HOME"] = str(root)
            os.chdir(root)
            for kind in KINDS:  # what is loaded at first use is not charged to a mutation
                if kind.name in LOADING:
                    before, kept = names(root), content(root, kind)
                    run(list(kind.commands[0]))
                    put_back(root, before, kept)
            limit()
            os.write(writing, READY)
            for number in given:
                os.write(writing, json.dumps(try_out(root, seed, number, seconds).facts()).encode() + b"\n")

        _quietly(work)
    os.close(writing)
    return _Worker(pid, reading, numbers, began=time.monotonic() + LOADING_SECONDS)


def counts(found: Sequence[Outcome]) -> dict[str, Any]:
    """The table of a run."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        kinds[one.kind]["mutations"] += 1
        kinds[one.kind][f"exit {one.status}" if one.status is not None else "died"] += 1
        kinds[one.kind]["wrong"] += bool(one.wrong)
    return {
        "mutations": len(found),
        "exit": dict(Counter(str(one.status) for one in found)),
        "wrong": sum(bool(one.wrong) for one in found),
        "kinds": {name: dict(kinds[name]) for name in sorted(kinds)},
        "slowest": [one.facts() for one in sorted(found, key=lambda one: -one.seconds)[:5]],
        "largest": [one.facts() for one in sorted(found, key=lambda one: -one.mib)[:5]],
        "failures": [one.facts() for one in found if one.wrong][:200],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", type=int, help="make this mutation again")
    parser.add_argument("--kind", help="only mutations of this kind of file")
    parser.add_argument("--write", action="store_true", help="write a dated file to benchmarks/results")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.mutations) if options.only is None else [options.only]
    chosen = [n for n in numbers if options.kind in {None, kind_of(options.seed, n)[0].name}]
    found: list[Outcome] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        for one in pound(chosen, options.seed, options.processes, folder=Path(folder)):
            found.append(one)
            if one.wrong or options.only is not None:
                print(
                    f"seed {options.seed}, mutation {one.number}, {one.kind}: {one.wrong}   [{one.command}]", flush=True
                )
            if len(found) % 1000 == 0:
                print(f"{len(found)} after {time.monotonic() - began:.0f} s", flush=True)
    done = {"seed": options.seed, "first": options.first, "seconds": round(time.monotonic() - began, 1)}
    table = {**done, **counts(found)}
    for name, row in table["kinds"].items():
        print(f"{name:36s} {' '.join(f'{key}: {value}' for key, value in row.items())}")
    print(json.dumps({key: table[key] for key in ("mutations", "exit", "wrong", "seconds")}))
    print("slowest:", table["slowest"][0] if found else "", "\nlargest:", table["largest"][0] if found else "")
    if options.write:
        from benchmarks.measuring import write_result

        write_result(f"hostile_files_{options.first}", table)
    return int(table["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
