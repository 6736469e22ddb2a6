r"""Do the quick tests find what all tests find? Changes a line of each of thirty files, drawn by a seed.

A change is tried on the tests of its folder that ``make test`` runs. Where none of them fails, the slow ones follow: a
change that only those detect is what the quick tests have lost. By hand, on Linux, from the root of the project::

    python -m benchmarks.mutation_sample --seed 18 --processes 2 --rows rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from benchmarks.measuring import write_result
from benchmarks.mutants import Mutant, mutants
from benchmarks.mutation import copy_project

FILES: dict[str, tuple[str, ...]] = {
    "core/access.py": ("tests/flows/cli/test_permissions.py", "tests/core"),
    "flows/operations/assess.py": ("tests/flows/operations/test_foreign.py", "tests/flows/cli"),
    "flows/operations/augment.py": ("tests/flows/operations/test_augment.py", "tests/flows/cli"),
    "flows/operations/foreign.py": ("tests/flows/operations/test_foreign.py",),
    "flows/operations/search.py": ("tests/flows/operations/test_search.py", "tests/flows/cli"),
    "flows/operations/utility.py": ("tests/flows/operations/test_utility.py", "tests/flows/cli"),
    "flows/orchestration/api_password.py": ("tests/flows/orchestration",),
    "flows/orchestration/serve_flow.py": ("tests/flows/orchestration", "tests/flows/process"),
    "flows/orchestration/served.py": ("tests/flows/orchestration",),
    "flows/process/ending.py": ("tests/flows/process", "tests/flows/cli/test_bad_input.py"),
    "flows/runs/base_check.py": ("tests/flows/operations/test_base.py",),
    "flows/runs/control.py": ("tests/flows/runs/test_control_run.py",),
    "generators/attacks.py": ("tests/generators/test_attacks.py",),
    "generators/control.py": ("tests/generators/test_control.py",),
    "generators/generate.py": ("tests/generators/test_generate.py", "tests/generators/test_conditioned.py"),
    "learning/accounting.py": ("tests/learning", "tests/generators/test_private.py"),
    "quality/assessment/assess.py": ("tests/quality/assessment",),
    "quality/assessment/privacy_part.py": ("tests/quality/assessment", "tests/quality/privacy"),
    "quality/conditions/masks.py": ("tests/quality/conditions",),
    "quality/counterfactual/scores.py": ("tests/quality/counterfactual",),
    "quality/data/evaluation_data.py": ("tests/quality/assessment",),
    "quality/fidelity/frechet_scores.py": ("tests/quality/fidelity", "tests/quality/assessment"),
    "quality/fidelity/kernel.py": ("tests/quality/fidelity", "tests/quality/assessment"),
    "quality/fidelity/manifold.py": ("tests/quality/fidelity", "tests/quality/assessment"),
    "quality/networks/radiomics.py": ("tests/quality/networks", "tests/flows/operations/test_foreign.py"),
    "quality/privacy/matching.py": ("tests/quality/privacy", "tests/quality/assessment"),
    "quality/privacy/registration.py": ("tests/quality/privacy", "tests/quality/assessment"),
    "quality/privacy/search.py": ("tests/quality/privacy", "tests/quality/assessment"),
    "quality/utility/downstream.py": ("tests/quality/utility",),
    "quality/utility/study.py": ("tests/quality/utility",),
}
"""Source → tests that reach it, of which some are slow."""
LIMIT_S = 900.0
LONGEST = "tests/quality/assessment/test_mednist.py::test_all_scores_of_held_out_images_at_full_size"


def drawn(file: str, source: bytes, seed: int) -> Mutant:
    """The change of this file."""
    every = list(mutants(source))
    return every[random.Random(f"{seed} {file}").randrange(len(every))]  # noqa: S311 - a sample, no secret


def detected(folder: Path, tests: Sequence[str], marks: str) -> bool:
    """Whether a test of these fails; one that takes too long has failed."""
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", marks, "--deselect", LONGEST]
    environment = {**os.environ, "PYTHONPATH": os.fspath(folder), "OMP_NUM_THREADS": "1"}
    environment["MEDPHANTOM_TEST_CACHE"] = os.fspath(folder.parent / "made")
    command = [sys.executable, "-B", "-m", "pytest", *options, *tests]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode not in {0, 5}  # 5: none was chosen


def trial(folder: Path, file: str, seed: int) -> dict[str, Any]:
    """What becomes of the change of a file, in a copy of the project."""
    target, started = folder / file, time.monotonic()
    source = target.read_bytes()
    mutant = drawn(file, source, seed)
    target.write_bytes(mutant.applied(source))
    try:
        quick = detected(folder, FILES[file], "not slow and not gpu")
        slow = None if quick else detected(folder, FILES[file], "slow")
    finally:
        target.write_bytes(source)
    row = {
        "file": file,
        "line": mutant.line,
        "before": " ".join(mutant.before.split()),
        "after": " ".join(mutant.after.split()),
        "by": "quick tests" if quick else "slow tests only" if slow else "none",
        "seconds": round(time.monotonic() - started),
    }
    print(f"{file}:{row['line']}: {row['before']} → {row['after']}: {row['by']}, {row['seconds']} s", flush=True)
    return row


def main() -> None:
    """All files, a line each, into a result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--rows", type=Path, required=True, help="keep finished rows in this file, and go on with the others"
    )
    given = parser.parse_args()
    finished = [json.loads(row) for row in given.rows.read_text().splitlines()] if given.rows.is_file() else []
    done = {row["file"]: row for row in finished}
    with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
        copies: SimpleQueue[Path] = SimpleQueue()
        for place in range(given.processes):
            folder = Path(temporary) / str(place) / "copy"
            folder.mkdir(parents=True)
            copy_project(folder)
            copies.put(folder)

        def one(file: str) -> Any:
            if file in done:
                return done[file]
            folder = copies.get()
            try:
                row = trial(folder, file, given.seed)
            finally:
                copies.put(folder)
            with given.rows.open("a") as kept:
                kept.write(f"{json.dumps(row)}\n")
            return row

        with ThreadPoolExecutor(given.processes) as pool:
            rows = list(pool.map(one, FILES))
    counts = {kind: sum(row["by"] == kind for row in rows) for kind in ("quick tests", "slow tests only", "none")}
    settings = {"seed": given.seed, "processes": given.processes}
    write_result("mutation_sample", {"arguments": settings, "detected_by": counts, "changes": rows})


if __name__ == "__main__":
    main()
