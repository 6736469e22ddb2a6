"""Everything that needs a CUDA device, in parts of nine minutes at most, each kept before the next: ``make gpu``.

A bare machine with CUDA and no network needs the wheels beforehand (CONTRIBUTING.md). Parts that were done are not done
again, so that the same command continues where a machine was taken away::

    python -m benchmarks.gpu --out runs/gpu                 # all that is left
    python -m benchmarks.gpu --out runs/gpu --part tests    # one of them
    python -m benchmarks.gpu --out runs/gpu --dry-run       # which there are, and which are left
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measuring import RESULTS, machine, versions

SECONDS = 540
ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
TRAINING = (PYTHON, "-m", "benchmarks.training_speed")
SIMULATED = "cohort.simulate={patients: 1500, format: png, size: %d, seed: 7}"


def recipe(size: int, *settings: str) -> list[str]:
    """The whole job of the demonstration at another size, from nothing but the shipped autoencoder and denoiser."""
    changed = [SIMULATED % size, f"preprocess.size=[{size},{size}]", "generator.denoiser_fit.steps=2000",
               "generator.denoiser_fit.batch_size=128", *settings]  # fmt: skip
    given = [part for setting in changed for part in ("--set", setting)]
    place = f"{{out}}/recipe_{size}"
    return [PYTHON, "-m", "medphantom", "run", "examples/demo.yaml", "--no-prefect", "--out", place, *given]


PARTS: dict[str, list[str]] = {
    "tests": [PYTHON, "-m", "pytest", "-q", "-m", "gpu", "tests/generators", "tests/learning/test_golden_numbers.py"],
    "training_64": [*TRAINING, "--size", "64", "--batch-size", "64", "--name", "_64"],
    "training_128": [*TRAINING, "--size", "128", "--batch-size", "128", "--name", "_128"],
    "private_steps": [PYTHON, "-m", "benchmarks.private_step_speed", "--batch-size", "64", "--rounds", "1"],
    "recipe_128": recipe(128),
    "recipe_256": recipe(256),
    "sampling": [
        PYTHON, "-m", "benchmarks.sampling_speed", "--bundle", "{out}/recipe_128/bundle",
        "--cohort", "{out}/recipe_128/cohort", "--images", "64", "--rounds", "2", "--repeats", "2",
    ],
    "stable_lora": [PYTHON, "-m", "benchmarks.stable_size", "--method", "lora"],
    "stable_full": [PYTHON, "-m", "benchmarks.stable_size", "--method", "full"],
}  # fmt: skip
"""Commands by part; ``{out}`` is the folder of the results."""


def done(out: Path, part: str) -> bool:
    """Whether a part ended well before."""
    file = out / f"{part}.json"
    return file.is_file() and json.loads(file.read_text("utf-8"))["status"] == 0


def run(part: str, out: Path) -> int:
    """Run one part, and keep its output, its result files, and how it ended; return its status."""
    command = [argument.replace("{out}", str(out)) for argument in PARTS[part]]
    before = {file: file.stat().st_mtime_ns for file in RESULTS.glob("*.json")}
    began = time.monotonic()
    with (out / f"{part}.log").open("w", encoding="utf-8") as log:
        try:
            status = subprocess.run(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, timeout=SECONDS, check=False,
                env={**os.environ, "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"},
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            status = 124
    made = [file for file in RESULTS.glob("*.json") if before.get(file) != file.stat().st_mtime_ns]
    for file in made:
        shutil.copy(file, out)
    facts = {
        "part": part,
        "status": status,
        "seconds": round(time.monotonic() - began, 1),
        "command": command,
        "results": sorted(file.name for file in made),
        "machine": machine(),
        "versions": versions(),
    }
    (out / f"{part}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return status


def main() -> None:
    """Run what is left, and end with the number of parts that failed."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--dry-run", action="store_true", help="only name the parts")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = options.part or [part for part in PARTS if not done(options.out, part)]
    for part in PARTS:
        print(f"{part}: {'done' if done(options.out, part) else 'left'}: {' '.join(PARTS[part][1:])}")
    if options.dry_run:
        return
    if not torch.cuda.is_available():
        sys.exit("this machine has no CUDA device; --dry-run names the parts")
    failed = []
    for part in wanted:
        status = run(part, options.out)
        print(
            f"{part}: {'ended well' if status == 0 else f'status {status}'}, see {options.out / part}.log", flush=True
        )
        failed += [part] if status else []
    sys.exit(f"{len(failed)} of {len(wanted)} parts failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
