"""One mutation: a file is changed, the command that reads it runs as in a terminal, and everything is put back."""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medphantom.flows.cli.main import main
from tests.hostile.kinds import CANARY, KINDS, OUT, Kind
from tests.hostile.mutations import mutated, odd_string

MEMORY = 2**30
OUTWARD = ("/", "~", "..")  # beginnings of paths that lead out of the folder
BEYOND = 4 * MEMORY  # of address space; then the process is refused more, whatever the machine has
PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Outcome:
    """What became of one mutation.

    Attributes:
        number: with the seed, makes it again.
        kind: of file.
        command: that ran.
        status: of the command; ``None``: the process died or was stopped.
        seconds: processor time.
        mib: memory beyond what the process had.
        wrong: what must not be; empty: nothing.
    """

    number: int
    kind: str
    command: str
    status: int | None
    seconds: float
    mib: float
    wrong: str

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def kind_of(seed: int, number: int) -> tuple[Kind, random.Random]:
    """The kind of file that a mutation is of, and what decides the rest of it."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - made again from its seed
    return rng.choices(KINDS, [kind.weight for kind in KINDS])[0], rng


def try_out(root: Path, seed: int, number: int, seconds: float) -> Outcome:
    """Run one mutation in ``root``, the working directory."""
    kind, rng = kind_of(seed, number)
    before, kept = names(root), content(root, kind)
    (root / "out").mkdir(exist_ok=True)
    command = list(rng.choice(kind.commands))
    try:
        _change(root, kind, rng, command)
        started, used = _memory(), time.process_time()
        status, output = run(command)
        took, peak = time.process_time() - used, _peak() - started
        wrong = _wrong(root, status, output, command) or (
            f"took {took:.1f} s" if took > seconds else "took too much memory" if peak > MEMORY else ""
        )
    finally:
        put_back(root, before, kept)
    return Outcome(number, kind.name, " ".join(command)[:120], status, round(took, 3), round(peak / 2**20, 1), wrong)


def run(command: list[str]) -> tuple[int, str]:
    """Exit status and standard error of the command line."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict") for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(command)
        except BaseException as escaped:
            status = 1
            print(f"Traceback: {type(escaped).__name__}", file=err)
    err.flush()
    return status, err.buffer.getvalue().decode("utf-8", "replace")


def _wrong(root: Path, status: int, output: str, command: list[str]) -> str:
    """What must not be."""
    if status not in {0, 2} or "Traceback" in output:
        return f"exit {status}: {' '.join(output.split())[-160:]}"
    lines = [line for line in output.splitlines() if line.strip()]
    if status == 2 and not (lines and lines[-1].startswith("medphantom: ")):
        return "exit 2 without a line"
    if CANARY in output:
        return "the message quotes what it read"
    if status == 2 and command[0] != "run" and (root / OUT).exists():
        return "a result was left by what failed"
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            if ".partial-" in name or ".tmp" in name or ".replaced-" in name:
                return f"half of something was left in {os.path.relpath(folder, root)!r}"
    return ""


def _change(root: Path, kind: Kind, rng: random.Random, command: list[str]) -> None:
    if kind.name == "setting":
        for place, part in enumerate(command):
            if part.startswith("@"):
                changed = odd_string(rng).encode("utf-8", "surrogatepass") if rng.random() < 0.3 else b""
                name, equals, value = part[1:].partition("=")
                changed = changed or mutated(value.encode() or name.encode(), kind.form, rng)[:100_000]
                text = changed.replace(b"\0", b"").decode("utf-8", "surrogateescape")
                if text.startswith(OUTWARD) or (not equals and text.startswith("-")):
                    text = f"x{text}"  # nothing of this machine, which may hold gigabytes; and no option
                command[place] = f"{name}={text}" if equals else text
        return
    files = sorted(path for pattern in kind.files for path in root.glob(pattern) if path.is_file())
    file = rng.choice(files)
    if kind.form == "name":
        name = odd_string(rng).encode("utf-8", "surrogatepass" if rng.random() < 0.5 else "ignore")
        name = name.replace(b"/", b"").replace(b"\0", b"")[:240] + rng.choice((b"", file.suffix.encode()))
        target = file.parent / os.fsdecode(rng.choice((name, b"\xff\xfe" + name)))
        if name.strip(b".") and not os.path.lexists(target):
            file.rename(target)
        return
    file.write_bytes(mutated(file.read_bytes(), kind.form, rng))
    if kind.sign is not None and rng.random() < 0.8:
        with suppress(OSError, ValueError):  # the list of files may be what was changed
            kind.sign(root)


def names(root: Path) -> set[str]:
    """What lies in a folder."""
    return {path.name for path in root.iterdir()}


def content(root: Path, kind: Kind) -> dict[Path, dict[str, bytes]]:
    """Folders that a mutation may touch, with the content of their files."""
    places = {path.relative_to(root).parts[0] for pattern in kind.files for path in root.glob(pattern)}
    folders = [root / place for place in (*places, "run") if (root / place).is_dir()]
    kept = {folder: _files(folder) for folder in folders}
    kept[root] = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    return kept


def _files(folder: Path) -> dict[str, bytes]:
    return {os.path.relpath(path, folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_back(root: Path, before: set[str], kept: dict[Path, dict[str, bytes]]) -> None:
    """Make a folder what it was when :func:`names` and :func:`content` looked at it."""
    for name in names(root) - before:
        whole = root / name
        shutil.rmtree(whole) if whole.is_dir() and not whole.is_symlink() else whole.unlink()
    for folder, files in kept.items():
        if folder != root and folder.is_dir():
            for path in list(folder.rglob("*")):
                if path.is_file() and os.path.relpath(path, folder) not in files:
                    path.unlink()
        for name, data in files.items():
            file = folder / name
            if not file.is_file() or file.stat().st_size != len(data) or file.read_bytes() != data:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)


def limit() -> None:
    """Refuse this process more than so much address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * PAGE + BEYOND, resource.RLIM_INFINITY))


def _memory() -> int:
    """Bytes in use; from here on the peak is counted anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def _peak() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
