"""Who can read what the verbs write, under every umask, and what becomes of what a killed one leaves behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medphantom.cohorts.store import Cohort
from medphantom.core.access import private_files, users_umask
from medphantom.core.folders import publishing, write_json
from tests.flows.conftest import TINY_RECIPE

SHARED = {"report.public.html", "report.json"}
SECONDS = 240.0


def medphantom(folder: Path, *arguments: str, umask: int, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "medphantom.flows.cli.main", *arguments],
        cwd=folder, umask=umask, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


def modes(root: Path) -> Iterator[tuple[str, str, int]]:
    """Relative path, kind and permission bits of everything in a folder, and of the folder, or of a file."""
    if root.is_file():
        yield root.name, "file", stat.S_IMODE(root.stat().st_mode)
    for folder, _, names in os.walk(root):
        yield os.path.relpath(folder, root.parent), "folder", stat.S_IMODE(Path(folder).stat().st_mode)
        for name in names:
            file = Path(folder) / name
            yield os.path.relpath(file, root.parent), "file", stat.S_IMODE(file.stat().st_mode)


def require_private(*roots: Path, but: AbstractSet[str] = frozenset(), umask: int = 0o77) -> int:
    seen = 0
    for root in roots:
        for path, kind, mode in modes(root):
            shared = not but.isdisjoint(Path(path).parts)
            base = 0o777 if kind == "folder" else 0o666
            assert mode == (base & ~umask if shared else base & ~0o77), f"{path} has mode {mode:o}"
            seen += 1
    return seen


def several(folder: Path, *commands: list[str], umask: int) -> None:
    """Several commands in one process, which starts once."""
    code = (
        "import json, sys\nfrom medphantom.flows.cli.main import main\n"
        "for arguments in json.loads(sys.argv[1]):\n    assert main(arguments) == 0, arguments"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        cwd=folder, umask=umask, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_the_verbs_write_is_their_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    source, key, tiny = (
        tmp_path / "runs" / "tiny" / "phantoms",
        ["--key-file", "keys/id.key"],
        ["--recipe", "tiny.yaml"],
    )
    several(tmp_path, ["run", "tiny.yaml", "--out", "runs/tiny", "--until", "ingest"], umask=0)
    assert require_private(tmp_path / "runs", but={"phantoms"}, umask=0) > 20
    several(
        tmp_path,
        ["run", "tiny.yaml", "--out", "runs/tiny", "--no-prefect"],
        ["ingest", str(source), "--out", "cohort", *key],
        ["train", "cohort", "--out", "bundle", *tiny],
        ["generate", "bundle", "--out", "synthetic", "--count", "effusion=6", "--set", "sampler.steps=2"],
        ["inspect", "cohort"],
        ["lineage", ".", "--patient", "nobody", *key],
        ["assess", "--real", "runs/tiny/cohort", "--synthetic", "runs/tiny/synthetic", "--out", "scores", *tiny],
        ["export", "cohort", "--out", "kept"],
        umask=0,
    )
    require_private(tmp_path / "runs", tmp_path / "scores", but=SHARED | {"phantoms"}, umask=0)
    names = ("cohort", "cohort.private", "bundle", "synthetic", "keys", "kept")
    assert require_private(*(tmp_path / name for name in names)) > 60
    assert stat.S_IMODE((tmp_path / "cohort.sheet.png").stat().st_mode) == 0o600


def test_a_run_is_its_owners_alone(finished: Path) -> None:
    found = [one for one in modes(finished / "runs" / "tiny") if not (SHARED | {"phantoms"}) & set(Path(one[0]).parts)]
    assert len(found) > 60
    assert {(kind, mode) for _, kind, mode in found} == {("folder", 0o700), ("file", 0o600)}


@pytest.mark.parametrize("umask", [0o000, *(pytest.param(umask, marks=pytest.mark.slow) for umask in (0o022, 0o077))])
def test_what_is_made_to_be_shared_is_as_the_umask_says(copy: Path, umask: int) -> None:
    several(
        copy,
        ["export", "runs/tiny/synthetic", "--out", "given/away"],
        ["phantom", "--patients", "4", "--size", "64", "--out", "simulated/patients"],
        ["ingest", "simulated/patients", "--out", "cohort", "--public-phrase", "x"],
        ["schema", "--out", "schema.json"],
        ["init", "recipe.yaml", "--source", "simulated/patients"],
        umask=umask,
    )
    given = [found for name in ("given", "simulated", "schema.json", "recipe.yaml") for found in modes(copy / name)]
    assert len(given) > 20
    for path, kind, mode in given:
        assert mode == (0o777 if kind == "folder" else 0o666) & ~umask, path
    require_private(copy / "cohort", copy / "cohort.private")
    real = set(Cohort.open(copy / "runs" / "tiny" / "cohort").manifest["patient"].to_list())
    tables = "".join(file.read_text() for file in (copy / "given").rglob("*.csv"))
    assert tables
    assert not any(pseudonym in tables for pseudonym in real)


def many_images(folder: Path, total: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(total):
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"p{number:05d}.png")


def partial_folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and path.name.startswith(".cohort")]


def test_a_killed_verb_leaves_what_only_its_owner_reads_and_any_verb_removes_it(tmp_path: Path) -> None:
    many_images(tmp_path / "source", 1500)
    arguments = ["ingest", "source", "--out", "cohort", "--public-phrase", "x", "--set", "cohort.options.workers=1"]
    killed = subprocess.Popen(
        [sys.executable, "-m", "medphantom.flows.cli.main", *arguments],
        cwd=tmp_path,
        umask=0,
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + SECONDS
    while len(partial_folders(tmp_path)) < 2 or not list(tmp_path.glob(".cohort.*/cohort/manifest.parquet")):
        assert killed.poll() is None, "the ingestion ended before it was killed"
        assert time.monotonic() < until
        time.sleep(0.02)
    killed.send_signal(signal.SIGSTOP)
    medphantom(tmp_path, "verify", "beside", umask=0, status=2)
    assert len(partial_folders(tmp_path)) == 2, "a live verb's folders were taken away"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert require_private(*partial_folders(tmp_path)) > 4
    medphantom(tmp_path, "verify", "beside", umask=0, status=2)
    assert partial_folders(tmp_path) == []


def test_what_is_in_a_work_folder_and_of_older_versions_goes_too_and_others_things_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    work = tmp_path / "runs" / "a" / "work" / "ingest" / "made"
    old = [
        work / f".cohort.partial-{dead.pid}",
        tmp_path / "runs" / f".cohort.private.partial-{dead.pid}",
        tmp_path / "runs" / f".cohort.replaced-{dead.pid}",
    ]
    kept = [
        tmp_path / "runs" / ".mine.partial-download",
        tmp_path / "runs" / f".cohort.partial-{os.getpid()}",
        tmp_path / "runs" / ".medphantom",
    ]
    for folder in (*old, *kept):
        folder.mkdir(parents=True)
        (folder / "patient.png").write_bytes(b"pixels")
    medphantom(tmp_path, "verify", "runs/a", umask=0o22, status=2)
    assert not any(folder.exists() for folder in old)
    assert all((folder / "patient.png").exists() for folder in kept)


def test_a_live_one_is_left_alone_whatever_its_process_is_called(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom medphantom.core.folders import publishing\n"
        "with publishing(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'file').write_text('x')\n    print('there', flush=True)\n    time.sleep(600)"
    )
    live = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "live")], stdout=subprocess.PIPE, umask=0)
    try:
        assert live.stdout is not None
        live.stdout.readline()
        with publishing(tmp_path / "other"):
            pass
        left = list(tmp_path.glob(".live.*/live/file"))
        assert len(left) == 1
    finally:
        live.kill()
        live.wait()
        live.stdout.close()  # type: ignore[union-attr]
    assert require_private(left[0].parents[1]) == 4
    write_json(tmp_path / "another.json", {})  # a temporary file, not a folder: does not look
    assert left[0].exists()
    with publishing(tmp_path / "third"):
        pass
    assert not left[0].exists()


def test_a_notebook_keeps_its_own_umask_and_its_results_are_private_all_the_same(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with publishing(tmp_path / "deep" / "one") as folder:
            (folder / "file").write_text("x")
            with publishing(tmp_path / "given", shared=True) as shared:
                (shared / "file").write_text("x")
                assert users_umask() == 0o002
        assert require_private(tmp_path / "deep") == 3
        assert [mode for _, _, mode in modes(tmp_path / "given")] == [0o775, 0o664]
        with pytest.raises(KeyError), private_files():
            raise KeyError
        assert os.umask(0o002) == 0o002
    finally:
        os.umask(before)


def test_folders_of_older_versions_are_tightened_or_reported_in_one_line(copy: Path) -> None:
    open_place = Path("/tmp") / f"medphantom-test-{os.getpid()}"  # noqa: S108 - pytest's own folders are closed already
    open_place.mkdir()
    try:
        run, moved = copy / "runs" / "tiny", open_place / "tiny"
        subprocess.run(["cp", "-r", run, moved], check=True)
        subprocess.run(["chmod", "-R", "a+rX", open_place], check=True)
        read = medphantom(open_place, "inspect", "tiny/cohort", umask=0o22)
        lines = read.stderr.splitlines()
        assert len(lines) == 1
        assert "tiny/cohort contains patient data and can be read by other users" in lines[0]
        assert "chmod -R go= tiny/cohort" in lines[0]
        recipe = str(copy / "tiny.yaml")
        again = medphantom(open_place, "run", recipe, "--out", "tiny", "--until", "ingest", umask=0o22)
        assert [line for line in again.stderr.splitlines() if "tiny could be read by other users" in line]
        assert stat.S_IMODE(moved.stat().st_mode) == 0o700
        assert medphantom(open_place, "inspect", "tiny/cohort", umask=0o22).stderr == ""
    finally:
        subprocess.run(["rm", "-rf", open_place], check=True)
