r"""Do the tests hold what is promised about privacy? Changes each line of the code that keeps it, one at a time.

A change that no test notices is a promise that no test holds, or one that cannot matter; the latter are listed with the
reason in ``benchmarks/equivalent_mutants.json``. By hand, on Linux, from the root of the project::

    python -m benchmarks.mutation                                     # every file of FILES
    python -m benchmarks.mutation cohorts/identity.py --lines 90-110

Works on a copy. Every change is tested by a process of its own, forked from one that has loaded the libraries already,
by the tests that reach the line, the quickest first. Ends with status 1 where a change survives that is not listed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benchmarks.mutants import Mutant, mutants

ROOT = Path(__file__).parent.parent
EQUIVALENT = Path(__file__).parent / "equivalent_mutants.json"
FILES: dict[str, tuple[str, ...]] = {
    "cohorts/identity.py": ("tests/cohorts/test_golden_identity.py", "tests/cohorts/test_identity.py"),
    "cohorts/ingestion/sharers.py": ("tests/cohorts/ingestion/test_limits.py",),
    "cohorts/ingestion/splits.py": ("tests/cohorts/ingestion/test_limits.py",),
    "cohorts/ingestion/repeats.py": (
        "tests/cohorts/ingestion/test_limits.py",
        "tests/cohorts/ingestion/test_repeats.py",
    ),
    "conditioning/training_rows.py": ("tests/conditioning/test_limits.py", "tests/conditioning/test_plan.py"),
    "conditioning/tokens.py": ("tests/conditioning/test_limits.py", "tests/conditioning/test_tokens.py"),
    "core/randomness.py": (
        "tests/learning/test_golden_numbers.py",
        "tests/conditioning/test_plan.py::test_plans_need_no_torch",
    ),
    "learning/noise.py": ("tests/learning/test_golden_numbers.py", "tests/learning/test_noise.py"),
    "learning/ledger.py": ("tests/learning/test_ledger_file.py",),
    "learning/audit.py": ("tests/learning/test_audit.py",),
    "learning/memorization.py": ("tests/learning/test_memorization_limits.py", "tests/learning/test_memorization.py"),
    "quality/privacy/controls.py": ("tests/quality/privacy/test_gate.py",),
    "quality/privacy/gate.py": ("tests/quality/privacy/test_gate.py",),
    "quality/privacy/contrast.py": ("tests/quality/privacy/test_contrast.py",),
    "quality/privacy/dcr_share.py": ("tests/quality/privacy/test_dcr_share.py",),
}
"""Source → its tests."""
OURS = {"medphantom", "tests", "conftest"}
UNLOADED = {"prefect", "torch._inductor"}  # start threads or take long, and are not needed
SLOWEST = 20.0  # seconds that a change may take, at least


class _Tests:
    """Which tests reach which line of a file, and how long they take; then only those, the quickest first."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.lines: dict[int, set[str]] = defaultdict(set)
        self.shared: set[int] = set()
        self.seconds: dict[str, float] = {}
        self.wanted: dict[str, float] | None = None
        self.failed = ""
        self._now: set[int] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        del item
        yield from self._watched(self.shared.update)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        def note(lines: set[int]) -> None:
            for line in lines:
                self.lines[line].add(item.nodeid)

        started = time.perf_counter()
        try:
            yield from self._watched(note)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - started

    def _watched(self, note: Callable[[set[int]], None]) -> Iterator[Any]:
        if self.wanted is not None:
            return (yield)
        self._now = set()
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            note(self._now)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        del event, arg
        if frame.f_code.co_filename != self.target:
            return None
        self._now.add(frame.f_lineno)
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        del event, arg
        self._now.add(frame.f_lineno)
        return self._step

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.wanted is not None:
            wanted = self.wanted
            items[:] = sorted((i for i in items if i.nodeid in wanted), key=lambda i: wanted[i.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def _pytest(files: Sequence[str], plugin: _Tests) -> int:
    options = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins are loaded already
    return int(pytest.main([*options, *files], plugins=[plugin]))


def _in_a_child(work: Callable[[], Any], log: Path, limit_s: float) -> Any:
    """What a fork of this process returns; ``None`` when it takes too long.

    Raises:
        RuntimeError: it died.
    """
    answer = log.with_suffix(".json")
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        try:
            answer.write_text(json.dumps(work()), encoding="utf-8")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(0)
    ends = time.monotonic() + limit_s
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what it started
    if not answer.exists():
        raise RuntimeError(f"a process of tests died:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
    return json.loads(answer.read_text(encoding="utf-8"))


def _learn(target: Path, tests: Sequence[str]) -> dict[str, Any]:
    plugin = _Tests(os.fspath(target))
    status = _pytest(tests, plugin)
    return {
        "status": status,
        "failed": plugin.failed,
        "lines": {line: sorted(names) for line, names in plugin.lines.items()},
        "shared": sorted(plugin.shared),
        "seconds": plugin.seconds,
        "modules": sorted(sys.modules),
    }


def _try(tests: Sequence[str], wanted: dict[str, float]) -> dict[str, Any]:
    plugin = _Tests("")
    plugin.wanted = wanted
    return {"status": _pytest(tests, plugin), "failed": plugin.failed}


def _load(modules: Sequence[str]) -> None:
    """Libraries, so that forks need not."""
    for name in modules:
        top = name.split(".", maxsplit=1)[0]
        if top in OURS or any(name == n or name.startswith(f"{n}.") for n in UNLOADED) or top.startswith("test_"):
            continue
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)


def copy_project(folder: Path) -> None:
    """Copy the files that git knows, and the new ones."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)  # links of rooms stay links


def tested(folder: Path, file: str, chosen: Callable[[Mutant], bool]) -> Iterator[dict[str, Any]]:
    """What became of each change of a file.

    Args:
        folder: copy of the project; the process works there.
        file: path of the source in it.
        chosen: which changes to try.

    Raises:
        RuntimeError: its tests fail without any change.
    """
    target, log = folder / "medphantom" / file, folder.parent / "log.txt"  # as it is imported: by the link
    source, tests = target.read_bytes(), FILES[file]
    learned = _in_a_child(lambda: _learn(target, tests), log, 900)
    if learned is None or learned["status"] != 0:
        raise RuntimeError(f"the tests of {file} fail without any change; see {log}")
    _load(learned["modules"])
    found = _in_a_child(lambda: _try(tests, learned["seconds"]), log, 900)
    if found is None or found["status"] != 0:
        raise RuntimeError(f"the tests of {file} fail in a fork without any change; see {log}")
    inside = _function_lines(source)
    for mutant in filter(chosen, mutants(source)):
        known = {name for line in _lines(mutant) for name in learned["lines"].get(str(line), ())}
        everywhere = not known or mutant.line not in inside or set(_lines(mutant)) & set(learned["shared"])
        wanted = {name: took for name, took in learned["seconds"].items() if everywhere or name in known}
        target.write_bytes(mutant.applied(source))
        _forget(target)
        started = time.monotonic()
        found = _in_a_child(lambda w=wanted: _try(tests, w), log, max(SLOWEST, 3 * sum(wanted.values())))
        target.write_bytes(source)
        killed = found is None or found["status"] != 0
        yield {
            "file": file,
            "line": mutant.line,
            "before": " ".join(mutant.before.split()),
            "after": " ".join(mutant.after.split()),
            "killed": killed,
            "by": ("time" if found is None else found["failed"] or "collection") if killed else None,
            "tests": len(wanted),
            "seconds": round(time.monotonic() - started, 1),
        }
    _forget(target)


def _lines(mutant: Mutant) -> range:
    return range(mutant.line, mutant.line + mutant.before.count("\n") + 1)


def _function_lines(source: bytes) -> set[int]:
    import ast

    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return {line for f in functions for line in range(f.body[0].lineno, (f.end_lineno or f.lineno) + 1)}


def _forget(target: Path) -> None:
    """A compiled file is known by size and second of its source, which two changes may share."""
    for compiled in (target.parent / "__pycache__").glob(f"{target.stem}.*.pyc"):
        compiled.unlink()


def equivalents() -> dict[tuple[str, str, str, str], str]:
    """(file, code of the line, before, after) → why that change cannot matter."""
    listed = json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.exists() else []
    return {(one["file"], one["code"], one["before"], one["after"]): one["because"] for one in listed}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=list(FILES))
    parser.add_argument("--lines", default="1-99999", help="first and last line, e.g. 90-110")
    parser.add_argument("--decisions", action="store_true", help="comparisons and conditions only")
    parser.add_argument("--survivors", type=Path, help="a result file: only what survived there")
    parser.add_argument("--out", type=Path, help="JSON Lines to append to")
    given = parser.parse_args(arguments)
    first, last = (int(part) for part in given.lines.split("-"))
    reasons, unlisted = equivalents(), 0
    again: set[tuple[str, str, str, str]] | None = None
    if given.survivors:
        rows = [json.loads(line) for line in given.survivors.read_text(encoding="utf-8").splitlines()]
        again = {(r["file"], r["code"], r["before"], r["after"]) for r in rows if not r["killed"]}
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
        folder = Path(temporary).resolve() / "copy"
        folder.mkdir()
        copy_project(folder)
        os.chdir(folder)
        sys.path.insert(0, os.fspath(folder))
        os.environ["PYTHONPATH"] = os.fspath(folder)
        for file in given.files:
            code = (folder / file).read_text(encoding="utf-8").splitlines()

            def chosen(one: Mutant, file: str = file, code: list[str] = code) -> bool:
                key = (file, code[one.line - 1].strip(), " ".join(one.before.split()), " ".join(one.after.split()))
                counts = one.decides or not given.decisions
                return counts and first <= one.line <= last and (again is None or key in again)

            for row in tested(folder, file, chosen):
                row["code"] = code[row["line"] - 1].strip()
                because = reasons.get((file, row["code"], row["before"], row["after"]))
                if not row["killed"]:
                    row["because"] = because
                    unlisted += because is None
                    print(
                        f"{file}:{row['line']}: {row['before']} → {row['after']}: {because or 'SURVIVED'}", flush=True
                    )
                if given.out:
                    with given.out.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(f"{file}: done", flush=True)
    return 1 if unlisted else 0


if __name__ == "__main__":
    sys.exit(main())
